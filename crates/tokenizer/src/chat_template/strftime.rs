//! `strftime_now`: the date for a prompt, in UTC.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A time in the format of C's `strftime`, in UTC and English. What is unknown stays as it is.
pub(super) fn format(format: &str, time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let date = Date::of_day(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let (day_name, month_name) = (DAYS[date.weekday], MONTHS[date.month - 1]);

    let mut text = String::with_capacity(format.len() * 2);
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        text.push_str(&rest[..start]);
        let directive = &rest[start + 1..];
        // `%-d` is glibc's `%d` without padding.
        let (plain, directive) = match directive.strip_prefix('-') {
            Some(directive) => (true, directive),
            None => (false, directive),
        };
        let Some(letter) = directive.chars().next() else {
            text.push_str(&rest[start..]);
            return text;
        };
        let mut number = |value: u64, width: usize| {
            let width = if plain { 1 } else { width };
            let _ = write!(text, "{value:0width$}");
        };
        match letter {
            'Y' => number(date.year, 4),
            'y' => number(date.year % 100, 2),
            'm' => number(date.month as u64, 2),
            'd' => number(date.day, 2),
            'j' => number(date.day_of_year, 3),
            'H' => number(hour, 2),
            'I' => number(hour12, 2),
            'M' => number(minute, 2),
            'S' => number(second, 2),
            'A' => text.push_str(day_name),
            'a' => text.push_str(&day_name[..3]),
            'B' => text.push_str(month_name),
            'b' | 'h' => text.push_str(&month_name[..3]),
            'p' => text.push_str(if hour < 12 { "AM" } else { "PM" }),
            'F' => text.push_str(&self::format("%Y-%m-%d", time)),
            'T' => text.push_str(&self::format("%H:%M:%S", time)),
            'Z' => text.push_str("UTC"),
            'z' => text.push_str("+0000"),
            '%' => text.push('%'),
            other => text.extend(['%', other]),
        }
        rest = &directive[letter.len_utf8()..];
    }
    text + rest
}

struct Date {
    year: u64,
    /// From 1.
    month: usize,
    /// From 1.
    day: u64,
    /// From 1.
    day_of_year: u64,
    /// From Sunday, 0.
    weekday: usize,
}

impl Date {
    /// The Gregorian date of a day, counted from 1 January 1970.
    fn of_day(mut day: u64) -> Self {
        let weekday = ((day + 4) % 7) as usize;
        let leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut year = 1970;
        while day >= 365 + u64::from(leap(year)) {
            day -= 365 + u64::from(leap(year));
            year += 1;
        }
        let day_of_year = day + 1;
        let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 1;
        for length in lengths {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        Self { year, month, day: day + 1, day_of_year, weekday }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, directives: &str, expected: &str) {
        assert_eq!(format(directives, UNIX_EPOCH + Duration::from_secs(seconds)), expected);
    }

    #[test]
    fn known_times() {
        check(0, "%A %d %B %Y %H:%M:%S", "Thursday 01 January 1970 00:00:00");
        check(1_709_211_599, "%d %b %Y, %a %j %I:%M %p", "29 Feb 2024, Thu 060 12:59 PM");
        check(951_782_400, "%F %T %-d %-m %y", "2000-02-29 00:00:00 29 2 00");
        check(1_735_689_599, "%F %j", "2024-12-31 366");
        check(1_735_689_600, "%F", "2025-01-01");
        check(0, "100%% %q é% ", "100% %q é% ");
        check(0, "%", "%");
    }
}
