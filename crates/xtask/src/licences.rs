//! Licences, sources and known faults of what we link, by cargo-deny.
//!
//! Licences, bans and sources need no network and must hold. The list of known faults lies in a git repository: where
//! that cannot be reached and no copy is cached, the check says plainly that it did not happen.

use crate::{deps, steps};
use anyhow::bail;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);
/// Fetching the list takes seconds; a machine without network may hang instead of failing.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Checks `deny.toml`'s rules.
///
/// # Errors
/// If one does not hold.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    steps::run(deny(root).args(["check", "licenses", "bans", "sources"]), LIMIT)?;
    let online = steps::output(deny(root).args(["check", "advisories"]), FETCH_LIMIT);
    let (status, text) = match online {
        Ok((status, text)) if status.success() || found_fault(&text) => (status, text),
        // The cached copy, if an earlier run could fetch one.
        _ => steps::output(deny(root).args(["--offline", "check", "advisories"]), LIMIT)?,
    };
    if status.success() || found_fault(&text) {
        println!("{}", text.trim_end());
    }
    if found_fault(&text) {
        bail!("a dependency has a known fault; update it, or say in deny.toml why it does not concern us");
    }
    if !status.success() {
        println!("advisories NOT checked: their database cannot be reached and no copy is cached");
    }
    Ok(())
}

/// Told apart from not having the list at all, which is no success either.
fn found_fault(text: &str) -> bool {
    text.contains("advisories FAILED")
}

fn deny(root: &Path) -> Command {
    let mut command = Command::new(deps::cargo_deny(root));
    command.current_dir(root);
    command
}
