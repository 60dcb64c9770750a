//! Versions, lints and metadata come from one place, the workspace's manifest.

use crate::Problem;
use toml::{Table, Value};

/// What is wrong with a member's Cargo.toml.
pub fn check(file: &str, manifest: &Table) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut expect_workspace = |value: Option<&Value>, what: &str| {
        let inherits = value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true);
        if !inherits {
            problems.push(Problem::new(
                file,
                0,
                format!("{what} comes from the workspace: `workspace = true`"),
            ));
        }
    };
    expect_workspace(manifest.get("lints"), "lints");
    let package = manifest.get("package");
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        expect_workspace(package.and_then(|package| package.get(key)), &format!("package.{key}"));
    }
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (name, value) in manifest.get(kind).and_then(Value::as_table).into_iter().flatten() {
            expect_workspace(Some(value), &format!("the version of {name}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = 'x'\nversion.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\
        [lints]\nworkspace = true\n[dependencies]\na.workspace = true\nb = { workspace = true, features = ['c'] }\n";

    fn count(manifest: &str) -> usize {
        check("Cargo.toml", &manifest.parse().expect("valid TOML")).len()
    }

    #[test]
    fn all_comes_from_the_workspace() {
        assert_eq!(count(GOOD), 0);
        assert_eq!(count(&GOOD.replace("a.workspace = true", "a = '1'")), 1);
        assert_eq!(count(&GOOD.replace("a.workspace = true", "a = { version = '1' }")), 1);
        assert_eq!(count(&GOOD.replace("[lints]\nworkspace = true", "")), 1);
        assert_eq!(count(&GOOD.replace("edition.workspace = true", "edition = '2024'")), 1);
        assert_eq!(count(&format!("{GOOD}[dev-dependencies]\nd = '1'")), 1);
    }
}
