//! Measurements, one scenario each: a name, the question it answers, and a function that prints its figures.

use crate::{deps, steps};
use anyhow::bail;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

struct Scenario {
    name: &'static str,
    question: &'static str,
    run: fn(&Path, &[String]) -> anyhow::Result<()>,
}

const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "kernels",
        question: "how far is each CPU kernel from the machine's peak?",
        run: kernels,
    },
    Scenario {
        name: "http",
        question: "what does the HTTP side cost a token, beside a server that does nothing else?",
        run: http,
    },
    Scenario {
        name: "serving",
        question: "how does Baton serve beside llama.cpp's server, disaggregated beside aggregated?",
        run: serving,
    },
];

/// A full build without link-time optimisation on two cores.
const BUILD_MAX: Duration = Duration::from_secs(45 * 60);
const RUN_MAX: Duration = Duration::from_secs(60 * 60);

/// Runs one scenario with options of its own, or all of them.
///
/// # Errors
/// If there is no such scenario, or one fails.
pub(crate) fn run(root: &Path, name: Option<&str>, options: &[String]) -> anyhow::Result<()> {
    let wanted: Vec<_> =
        SCENARIOS.iter().filter(|scenario| name.is_none_or(|name| name == scenario.name)).collect();
    if wanted.is_empty() {
        let names = SCENARIOS.map(|scenario| scenario.name).join(", ");
        bail!("there is no scenario {}; there are {names}", name.unwrap_or_default());
    }
    for scenario in wanted {
        println!("=== {}: {}", scenario.name, scenario.question);
        (scenario.run)(root, options)?;
    }
    Ok(())
}

/// Both servers of the example get the same clients.
fn http(root: &Path, options: &[String]) -> anyhow::Result<()> {
    let mut bench = Command::new("cargo");
    bench.args(["run", "--release", "--package", "baton-frontend", "--example", "sse_floor", "--"]);
    steps::run(bench.args(options).current_dir(root), BUILD_MAX + RUN_MAX)
}

fn kernels(root: &Path, options: &[String]) -> anyhow::Result<()> {
    let mut bench = Command::new("cargo");
    let floors = ["--floors".to_owned()];
    let options = if options.is_empty() { &floors } else { options };
    bench
        .args(["bench", "--package", "baton-kernels", "--bench", "kernels", "--"])
        .args(options)
        .current_dir(root);
    steps::run(&mut bench, BUILD_MAX + RUN_MAX)
}

/// Both servers get the same model and threads; `benches/serving` measures them in turns.
fn serving(root: &Path, options: &[String]) -> anyhow::Result<()> {
    deps::install(root)?;
    let venv = root.join("target/bench-venv");
    deps::install_python(root, &venv, &["benches/requirements.txt"])?;
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "baton", "--package", "serving-bench"]).current_dir(root);
    steps::run(&mut build, BUILD_MAX)?;
    let built = root.join("target/release");
    let mut bench = Command::new(built.join("serving-bench"));
    bench.arg("--baton").arg(built.join("baton")).arg("--model").arg(deps::model(root));
    bench.arg("--peer-python").arg(venv.join("bin/python"));
    bench.arg("--peer-script").arg(root.join("benches/peers/llama_server.py"));
    steps::run(bench.args(options).current_dir(root), RUN_MAX)
}
