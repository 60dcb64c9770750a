//! Asks pip where a package is, so that the machine's own index, mirror, proxy and certificates are respected. pip only
//! answers; it downloads and installs nothing.

use crate::{HubError, HubOptions};
use serde::Deserialize;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::process::Command;

/// Where a package's file is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PackageFile {
    /// `https:` or `file:`.
    pub(crate) url: String,
    /// Its sum as the index tells it, in hexadecimal.
    pub(crate) sha256: Option<String>,
}

/// Asks the first of [`HubOptions::python`] that has pip. `requirement` names a package and its version.
///
/// # Errors
/// [`HubError::Pip`] if no Python has pip or pip finds no such package.
pub(crate) async fn locate(requirement: &str, options: &HubOptions) -> Result<PackageFile, HubError> {
    let directory =
        tempfile::tempdir().map_err(HubError::at(Path::new("the directory for temporary files")))?;
    let report = directory.path().join("report.json");
    let mut reasons = Vec::new();
    for python in &options.python {
        match ask(python, requirement, &report, options).await {
            Ok(()) => {
                let text = std::fs::read_to_string(&report).map_err(HubError::at(&report))?;
                return parse_report(&text);
            }
            Err(reason) => reasons.push(reason),
        }
    }
    Err(HubError::Pip { reason: reasons.join("; ") })
}

async fn ask(python: &str, requirement: &str, report: &Path, options: &HubOptions) -> Result<(), String> {
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report"])
        .arg(report)
        .arg(requirement)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(options.limits.pip, command.output()).await {
        Err(_) => return Err(format!("{python} -m pip did not answer within {:?}", options.limits.pip)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("{python} is not installed"));
        }
        Ok(Err(error)) => return Err(format!("{python} does not start: {error}")),
        Ok(Ok(output)) => output,
    };
    if output.status.success() { Ok(()) } else { Err(explain(python, &output)) }
}

fn explain(python: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("No module named pip") {
        return format!(
            "{python} has no pip (install it with `{python} -m ensurepip` or the system's python3-pip)"
        );
    }
    if text.contains("no such option: --report") || text.contains("no such option: --dry-run") {
        return format!("{python} has a pip older than 22.2 (`{python} -m pip install --upgrade pip`)");
    }
    let last = text.lines().rev().find(|line| line.contains("ERROR")).or(text.lines().last());
    format!("{python} -m pip failed: {}", last.unwrap_or("it gave no reason").trim())
}

/// The part of pip's installation report (<https://pip.pypa.io/en/stable/reference/installation-report/>) that matters.
#[derive(Deserialize)]
struct Report {
    install: Vec<Installed>,
}

#[derive(Deserialize)]
struct Installed {
    download_info: DownloadInfo,
}

#[derive(Deserialize)]
struct DownloadInfo {
    url: String,
    archive_info: Option<ArchiveInfo>,
}

#[derive(Deserialize)]
struct ArchiveInfo {
    #[serde(default)]
    hashes: std::collections::BTreeMap<String, String>,
}

fn parse_report(text: &str) -> Result<PackageFile, HubError> {
    let report: Report = serde_json::from_str(text)
        .map_err(|error| HubError::Pip { reason: format!("its report cannot be read: {error}") })?;
    let Some(package) = report.install.into_iter().next() else {
        return Err(HubError::Pip { reason: "its report names no package".to_owned() });
    };
    let info = package.download_info;
    let sha256 = info.archive_info.and_then(|mut archive| archive.hashes.remove("sha256"));
    Ok(PackageFile { url: info.url, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_where_the_file_is() {
        let report = r#"{"version": "1", "install": [{"download_info": {"url": "https://localhost/a.whl",
            "archive_info": {"hash": "sha256=00ff", "hashes": {"sha256": "00ff"}}}, "metadata": {}}]}"#;
        let file = PackageFile { url: "https://localhost/a.whl".to_owned(), sha256: Some("00ff".to_owned()) };
        assert_eq!(parse_report(report).expect("parses"), file);
        let local = r#"{"install": [{"download_info": {"url": "file:///a.whl"}}]}"#;
        assert_eq!(parse_report(local).expect("parses").sha256, None);
        assert!(parse_report(r#"{"install": []}"#).is_err());
    }

    #[tokio::test]
    async fn no_python_is_said_plainly() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut options = HubOptions::below(directory.path());
        options.python = vec!["no-such-python".to_owned()];
        let error = locate("x==1", &options).await.expect_err("no such program");
        assert_eq!(error.to_string(), "pip could not be asked: no-such-python is not installed");
    }
}
