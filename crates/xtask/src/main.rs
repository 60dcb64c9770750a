//! The project's tasks: `cargo xtask test` is what CI runs and what a change must pass.

mod bench;
mod deps;
mod licences;
mod steps;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use steps::{Step, Summary};

/// Tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check everything: format, lints, licences, Rust tests, API tests. Give names of steps to run only those.
    Test {
        /// Of test-deps, fmt, build, clippy, licences, tests, api.
        steps: Vec<String>,
    },
    /// Put the Python environment and the demo model under target/, where the tests look for them.
    TestDeps,
    /// Measure, each figure beside a peer or a floor. Minutes, on a machine that does nothing else.
    Bench {
        /// Which scenario: kernels, http or serving. Default: all.
        scenario: Option<String>,
        /// Passed on to it, e.g. `cargo xtask bench serving -- --rounds 3`.
        #[arg(last = true)]
        options: Vec<String>,
    },
}

fn main() -> ExitCode {
    let root = root();
    let outcome = match Arguments::parse().task {
        Task::Test { steps } => return test(&root, &steps),
        Task::TestDeps => deps::install(&root),
        Task::Bench { scenario, options } => bench::run(&root, scenario.as_deref(), &options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Each step has a time limit of several times what it takes on two cores with nothing built.
fn test(root: &Path, wanted: &[String]) -> ExitCode {
    let environment = deps::environment(root);
    let cargo = |name, limit_minutes, arguments: &[&str]| {
        Step::command(name, limit_minutes, "cargo", arguments).environment(&environment)
    };
    let api = Step::command("api", 20, deps::python(root), &["-m", "pytest", "tests/api"])
        .environment(&environment)
        .after(&["test-deps", "build"]);
    // The binary and the tests are built with the same features, so that nothing is built twice.
    let build = cargo("build", 45, &["build", "--workspace", "--bins", "--tests"]);
    let steps = [
        Step::function("test-deps", deps::install),
        cargo("fmt", 2, &["fmt", "--all", "--check"]),
        build,
        cargo("clippy", 30, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        Step::function("licences", licences::check).after(&["test-deps"]),
        cargo("tests", 30, &["test", "--workspace"]).after(&["test-deps", "build"]),
        api,
    ];
    let mut summary = Summary::default();
    for step in steps {
        if wanted.is_empty() || wanted.iter().any(|name| name == step.name()) {
            summary.run(step, root);
        }
    }
    summary.report()
}

/// The repository's root.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}
