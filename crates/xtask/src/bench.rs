//! Measurements, one scenario each: a name, what it answers, and a function that prints its figures.

use anyhow::bail;
use std::path::Path;

struct Scenario {
    name: &'static str,
    question: &'static str,
    run: fn(&Path) -> anyhow::Result<()>,
}

const SCENARIOS: [Scenario; 0] = [];

/// Runs one scenario, or lists them.
///
/// # Errors
/// If there is no such scenario, or it fails.
pub(crate) fn run(root: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let Some(name) = name else {
        for scenario in &SCENARIOS {
            println!("{:<16} {}", scenario.name, scenario.question);
        }
        return Ok(());
    };
    match SCENARIOS.iter().find(|scenario| scenario.name == name) {
        Some(scenario) => (scenario.run)(root),
        None => bail!("there is no scenario {name}; `cargo xtask bench` lists them"),
    }
}
