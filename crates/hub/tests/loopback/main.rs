//! The hub client against a server on loopback.

mod demo;
mod download;
mod repository;
mod server;

use baton_hub::HubOptions;
use std::path::Path;
use std::time::Duration;

/// Options that keep everything in `directory`, wait little, and know no Python.
fn options(directory: &Path, endpoint: &str) -> HubOptions {
    let mut options = HubOptions::below(directory);
    options.endpoint = Some(endpoint.to_owned());
    options.python = vec!["no-such-python".to_owned()];
    options.limits.connect = Duration::from_secs(2);
    options.limits.idle = Duration::from_secs(2);
    options.limits.back_off = Duration::from_millis(5);
    options
}

/// Bytes that differ from place to place, so that a wrongly joined file has another sum.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 + index / 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("lists").flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
