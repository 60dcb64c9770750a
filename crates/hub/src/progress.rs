//! Shows a person how far a download is: a bar on a terminal, a line now and then elsewhere.

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Told how far a download is. One download at a time: `begin`, `at` often, `end`.
pub trait Progress: Send + Sync {
    /// A download of `total` bytes (`None`: unknown) starts; `label` says of what.
    fn begin(&self, label: &str, total: Option<u64>);
    /// So many bytes are there, those of earlier runs included.
    fn at(&self, bytes: u64);
    /// It is over, well or badly.
    fn end(&self);
    /// Something a person may want to know.
    fn note(&self, text: &str);
}

/// Progress on standard error, in the form that suits what is at its other end.
pub fn on_stderr() -> Box<dyn Progress> {
    if stderr().is_terminal() { Box::new(Bar::default()) } else { Box::new(Lines::default()) }
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _label: &str, _total: Option<u64>) {}
    fn at(&self, _bytes: u64) {}
    fn end(&self) {}
    fn note(&self, _text: &str) {}
}

/// A bar that moves.
#[derive(Debug, Default)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Progress for Bar {
    fn begin(&self, label: &str, total: Option<u64>) {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(bar_style()),
            None => ProgressBar::new_spinner(),
        };
        bar.set_message(label.to_owned());
        if let Ok(mut current) = self.0.lock() {
            *current = Some(bar);
        }
    }

    fn at(&self, bytes: u64) {
        if let Ok(current) = self.0.lock()
            && let Some(bar) = current.as_ref()
        {
            bar.set_position(bytes);
        }
    }

    fn end(&self) {
        if let Ok(mut current) = self.0.lock()
            && let Some(bar) = current.take()
        {
            bar.abandon();
        }
    }

    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// How often a line is written: a log of a slow download stays short.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A line every few seconds.
#[derive(Debug, Default)]
struct Lines(Mutex<Option<LinesState>>);

#[derive(Debug)]
struct LinesState {
    label: String,
    total: Option<u64>,
    bytes: u64,
    started: Instant,
    last_line: Instant,
}

impl LinesState {
    fn text(&self) -> String {
        let done = HumanBytes(self.bytes);
        match self.total {
            Some(total) if total > 0 => {
                format!("{}: {done} of {} ({} %)", self.label, HumanBytes(total), self.bytes * 100 / total)
            }
            _ => format!("{}: {done}", self.label),
        }
    }
}

impl Progress for Lines {
    fn begin(&self, label: &str, total: Option<u64>) {
        let now = Instant::now();
        let state = LinesState { label: label.to_owned(), total, bytes: 0, started: now, last_line: now };
        match total {
            Some(total) => eprintln!("{label}: {}", HumanBytes(total)),
            None => eprintln!("{label}"),
        }
        if let Ok(mut current) = self.0.lock() {
            *current = Some(state);
        }
    }

    fn at(&self, bytes: u64) {
        if let Ok(mut current) = self.0.lock()
            && let Some(state) = current.as_mut()
        {
            state.bytes = bytes;
            if state.last_line.elapsed() >= LINE_EVERY {
                state.last_line = Instant::now();
                eprintln!("{}", state.text());
            }
        }
    }

    fn end(&self) {
        if let Ok(mut current) = self.0.lock()
            && let Some(state) = current.take()
        {
            eprintln!("{}, {:.1} s", state.text(), state.started.elapsed().as_secs_f32());
        }
    }

    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}
