//! Rules on every text file: nothing that is true of one machine only.

use crate::{Problem, tree::File};

/// Places of one machine, and hosts that packages come from: clients know their registry, and a mirror may stand in for
/// it. In two parts, so that this file keeps its own rule.
const PLACES: [(&str, &str); 9] = [
    ("/wo", "rk/"),
    ("/tmp", "/m/"),
    ("/ro", "ot/"),
    ("pythonhosted", ".org"),
    ("pypi", ".org"),
    ("crates", ".io"),
    ("registry.npmjs", ".org"),
    ("deb.debian", ".org"),
    ("proxy.golang", ".org"),
];

/// Written by Cargo, with the registry's address.
const EXEMPT: [&str; 1] = ["Cargo.lock"];

/// Places named in a file.
pub fn check(file: &File) -> Vec<Problem> {
    if EXEMPT.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for (first, second) in PLACES {
            let place = format!("{first}{second}");
            if line.match_indices(&place).any(|(at, _)| stands_alone(line, at)) {
                let text = format!("names {place}, which is no part of the project");
                problems.push(Problem::new(&file.path, number + 1, text));
            }
        }
    }
    problems
}

/// Not the tail of a longer name: `docs/work/` is a place of ours, `my-crates.io` is no host we know.
fn stands_alone(line: &str, at: usize) -> bool {
    !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn check(text: &str, lines: &[usize]) {
        testing::check(&super::check(&File { path: "docs/a.md".to_owned(), text: text.to_owned() }), lines);
    }

    #[test]
    fn places_of_one_machine() {
        check(&format!("a\nsee {}{}main", "/wo", "rk/"), &[2]);
        check(&format!("https://files.{}{}/x", "pythonhosted", ".org"), &[1]);
        check(&format!("docs{}{}x", "/wo", "rk/"), &[]);
        check("network/ rework/ crates/io", &[]);
    }
}
