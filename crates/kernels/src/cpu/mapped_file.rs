//! Read-only files in memory: weights are read where they lie.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file that nobody changes while it is open (a model file).
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// What the system says about opening or mapping it.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: sound as long as the file is not cut short or rewritten meanwhile. Model files are replaced by
        // renaming, never written in place; a person who truncates one gets a bus error, not wrong memory.
        Ok(Self(unsafe { Mmap::map(&file)? }))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
