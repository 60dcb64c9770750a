//! What a model's name means.

use crate::HubError;
use std::path::{Path, PathBuf};

/// A model, as a user names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ModelName {
    /// A file or directory that exists.
    Path(PathBuf),
    /// The demo model.
    Demo,
    /// Something in a hub repository.
    Repository(RepositoryName),
}

/// A repository on the hub, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepositoryName {
    /// `org/name`.
    pub(crate) id: String,
    /// Branch, tag or commit.
    pub(crate) revision: String,
    /// One GGUF file, by its name or by a part of it such as `Q4_K_M`.
    pub(crate) file: Option<String>,
}

impl ModelName {
    pub(crate) fn parse(name: &str) -> Result<Self, HubError> {
        if matches!(name, "" | "demo" | "smollm2") && !Path::new(name).exists() {
            return Ok(Self::Demo);
        }
        let path = Path::new(name);
        if path.exists() {
            return Ok(Self::Path(path.to_owned()));
        }
        if looks_like_a_path(name) {
            return Err(HubError::NoSuchPath { path: path.to_owned() });
        }
        RepositoryName::parse(name).map(Self::Repository)
    }
}

impl RepositoryName {
    fn parse(name: &str) -> Result<Self, HubError> {
        let bad = |reason| HubError::BadName { name: name.to_owned(), reason };
        let (rest, file) = match name.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (name, None),
        };
        let (id, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let Some((org, repository)) = id.split_once('/') else {
            return Err(bad("it is no path that exists, and a repository has the form org/name"));
        };
        if !is_plain(org) || !is_plain(repository) {
            return Err(bad("org and name are letters, digits, `-`, `_` and `.`"));
        }
        if !revision.split('/').all(is_plain) {
            return Err(bad("the revision is a branch, a tag or a commit"));
        }
        if file.is_some_and(|file| !file.split('/').all(is_plain)) {
            return Err(bad("after `:` comes a file of the repository"));
        }
        Ok(Self { id: id.to_owned(), revision: revision.to_owned(), file: file.map(str::to_owned) })
    }
}

/// A name that is safe as one component of a path: names from users and from servers become file names.
pub(crate) fn is_plain(component: &str) -> bool {
    !component.is_empty()
        && component != "."
        && component != ".."
        && component.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+= ".contains(c))
}

fn looks_like_a_path(name: &str) -> bool {
    let rooted = name.starts_with(['/', '.', '~', '\\']);
    let is_file = (name.ends_with(".gguf") || name.ends_with(".safetensors")) && !name.contains(':');
    rooted || is_file || name.matches('/').count() > 1 && !name.contains([':', '@'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &str) {
        let got = match ModelName::parse(name) {
            Ok(ModelName::Path(path)) => format!("path {}", path.display()),
            Ok(ModelName::Demo) => "demo".to_owned(),
            Ok(ModelName::Repository(r)) => format!("{} at {} file {:?}", r.id, r.revision, r.file),
            Err(error) => error.to_string().split([';', ':']).next().unwrap_or_default().to_owned(),
        };
        assert_eq!(got, expected, "for `{name}`");
    }

    #[test]
    fn names() {
        check("", "demo");
        check("demo", "demo");
        check("smollm2", "demo");
        check("Cargo.toml", "path Cargo.toml");
        check("org/name", "org/name at main file None");
        check("org/name@v1.0", "org/name at v1.0 file None");
        check("org/name@refs/pr/1:a/b.gguf", "org/name at refs/pr/1 file Some(\"a/b.gguf\")");
        check("org/name:Q4_K_M", "org/name at main file Some(\"Q4_K_M\")");
        check("./nothing", "there is no model at ./nothing");
        check("nothing.gguf", "there is no model at nothing.gguf");
        check("a/b/c", "there is no model at a/b/c");
        check("nothing", "`nothing` names no model");
        check("org/..", "`org/..` names no model");
        check("org/name:../../x.gguf", "`org/name");
        check("org/name@../x", "`org/name@../x` names no model");
    }
}
