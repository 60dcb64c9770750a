//! Puts a file in place whole: written beside its destination as `.part`, hashed on the way, flushed, renamed. One
//! process at a time, by a lock file that stays (removing it would let two processes hold "the" lock).

use crate::HubError;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The right to write one file. Given back on drop, and by the system if the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// How often a taken lock is tried again: soon enough for a person, rare enough to cost nothing.
const LOCK_POLL: Duration = Duration::from_millis(100);

impl Lock {
    /// Waits for the lock at `path`, which guards `destination`.
    pub(crate) async fn acquire(
        path: &Path,
        destination: &Path,
        wait_max: Duration,
    ) -> Result<Self, HubError> {
        create_parent(path)?;
        let file = File::options().create(true).append(true).open(path).map_err(HubError::at(path))?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(HubError::io(path, 0, source)),
                Err(TryLockError::WouldBlock) if started.elapsed() >= wait_max => {
                    return Err(HubError::Busy { path: destination.to_owned(), waited: wait_max });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
            }
        }
    }
}

/// The lock file that guards `destination` where nothing else is agreed.
pub(crate) fn lock_path(destination: &Path) -> PathBuf {
    with_suffix(destination, ".lock")
}

/// A file that is not whole yet. It outlives the process, with the validator of the answer it came from.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Sha256,
    validator: Option<String>,
}

impl Part {
    /// Opens what an earlier run left of `destination`, or starts anew. The caller holds the lock. Reads what is there.
    pub(crate) fn open(destination: &Path) -> Result<Self, HubError> {
        create_parent(destination)?;
        let path = with_suffix(destination, ".part");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(HubError::at(&path))?;
        let mut hasher = Sha256::new();
        let len = hash_into(&mut file, &mut hasher).map_err(HubError::at(&path))?;
        let validator = std::fs::read_to_string(with_suffix(&path, ".etag")).ok();
        Ok(Self { path, file, len, hasher, validator })
    }

    /// Bytes that are there.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The strong entity tag of the answer these bytes are from.
    pub(crate) fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// Throws away what is there; what comes now is from the answer with this entity tag.
    pub(crate) fn restart(&mut self, validator: Option<String>) -> Result<(), HubError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(HubError::at(&self.path))?;
        (self.len, self.hasher) = (0, Sha256::new());
        let note = with_suffix(&self.path, ".etag");
        match &validator {
            Some(validator) => std::fs::write(&note, validator).map_err(HubError::at(&note))?,
            None => remove(&note)?,
        }
        self.validator = validator;
        Ok(())
    }

    /// Adds bytes at the end. `total` is the whole file's size as far as it is known, for the message of a full disk.
    pub(crate) fn append(&mut self, bytes: &[u8], total: Option<u64>) -> Result<(), HubError> {
        let needed = total.unwrap_or(self.len + bytes.len() as u64);
        self.file.write_all(bytes).map_err(|source| HubError::io(&self.path, needed, source))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Asserts the SHA-256 sum, in hexadecimal. A file that fails is thrown away; it is empty afterwards.
    pub(crate) fn check(&mut self, what: &str, expected: &str) -> Result<(), HubError> {
        let got = hex(&self.hasher.clone().finalize());
        if got.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        self.restart(None)?;
        Err(HubError::HashMismatch { what: what.to_owned(), expected: expected.to_owned(), got })
    }

    /// Removes the staging file.
    pub(crate) fn discard(self) -> Result<(), HubError> {
        remove(&with_suffix(&self.path, ".etag"))?;
        remove(&self.path)
    }

    /// Gives the file its name, after its bytes and before the name's are on disk.
    pub(crate) fn publish(self, destination: &Path) -> Result<(), HubError> {
        self.file.sync_all().map_err(|source| HubError::io(&self.path, self.len, source))?;
        std::fs::rename(&self.path, destination).map_err(HubError::at(destination))?;
        remove(&with_suffix(&self.path, ".etag"))?;
        sync_directory(destination)
    }
}

/// Removes a file that may be absent.
pub(crate) fn remove(path: &Path) -> Result<(), HubError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(HubError::io(path, 0, source)),
        _ => Ok(()),
    }
}

/// Makes the directory that `path` is in.
pub(crate) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(HubError::at(parent))
}

/// A rename is durable once its directory is.
fn sync_directory(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(HubError::at(parent))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Leaves the file's position at its end.
fn hash_into(file: &mut File, hasher: &mut Sha256) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(len);
        }
        hasher.update(&buffer[..count]);
        len += count as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "abc", from FIPS 180-2.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_part_is_continued_by_the_next_process_and_published_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let destination = directory.path().join("sub/model.gguf");
        let mut part = Part::open(&destination).expect("opens");
        part.restart(Some("\"v1\"".to_owned())).expect("restarts");
        part.append(b"ab", Some(3)).expect("writes");
        drop(part);
        assert!(!destination.exists(), "a partial file has no final name");

        let mut part = Part::open(&destination).expect("opens");
        assert_eq!((part.len(), part.validator()), (2, Some("\"v1\"")));
        part.append(b"c", Some(3)).expect("writes");
        part.check("abc", ABC).expect("the sum of all three bytes");
        part.publish(&destination).expect("publishes");
        assert_eq!(std::fs::read(&destination).expect("reads"), b"abc");
        assert_eq!(std::fs::read_dir(destination.parent().expect("has one")).expect("lists").count(), 1);
    }

    #[test]
    fn a_wrong_sum_leaves_nothing_to_continue_from() {
        let directory = tempfile::tempdir().expect("a directory");
        let destination = directory.path().join("model.gguf");
        let mut part = Part::open(&destination).expect("opens");
        part.append(b"abd", None).expect("writes");
        let error = part.check("abd", ABC).expect_err("another sum");
        assert!(matches!(error, HubError::HashMismatch { .. }), "{error}");
        assert_eq!(part.len(), 0);
    }

    #[tokio::test]
    async fn a_lock_is_held_by_one_and_waited_for_no_longer_than_allowed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, destination) = (directory.path().join("x.lock"), directory.path().join("x"));
        let held = Lock::acquire(&path, &destination, Duration::ZERO).await.expect("free");
        let error = Lock::acquire(&path, &destination, Duration::from_millis(150)).await.expect_err("held");
        assert!(matches!(error, HubError::Busy { .. }), "{error}");
        drop(held);
        Lock::acquire(&path, &destination, Duration::ZERO).await.expect("free again");
    }
}
