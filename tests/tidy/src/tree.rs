//! Reads the repository's own files: what was built, fetched or handed in lies in directories of fixed names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directories that hold nothing of ours; in a second work tree `.git` is a file.
const FOREIGN: [&str; 8] =
    ["target", "shared", ".git", ".gpu", ".venv", "venv", "__pycache__", ".pytest_cache"];

/// A text file of ours.
#[derive(Clone, Debug)]
pub struct File {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// All text files below `root`, by path. A file that is not UTF-8 is no text.
///
/// # Errors
/// If a directory cannot be listed or a file cannot be read.
pub fn files(root: &Path) -> io::Result<Vec<File>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name();
            if FOREIGN.iter().any(|foreign| name == *foreign) {
                continue;
            }
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                found.extend(read(root, &path)?);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

fn read(root: &Path, path: &Path) -> io::Result<Option<File>> {
    let Ok(text) = String::from_utf8(fs::read(path)?) else { return Ok(None) };
    let relative = path.strip_prefix(root).unwrap_or(path);
    Ok(Some(File { path: relative.to_string_lossy().replace('\\', "/"), text }))
}
