//! Turns the name of a model into a path on this machine, fetching what is missing.
//!
//! [`resolve`] takes a path, the demo model's name or a hub repository's name. Whatever it fetches is staged beside its
//! destination, checked by SHA-256 where the sum is known, and renamed into place whole: a file under its final name is
//! complete, also after a power cut. A download that was cut goes on where it stopped, in this process or the next.
//!
//! The naming of repositories, the layout of the shared cache, the token file and the default endpoint are those of the
//! `hf-hub` crate, so models that other programs fetched are found here and the other way round. The bytes are moved by
//! [`download`]: `hf-hub` 0.5 checks no hash and sets no time-out, and 1.0 brings a second TLS stack and a storage client.
//!
//! Nothing here reads the environment; [`HubOptions::from_env`] is given a function that does.

pub mod demo;
pub mod download;
mod error;
mod name;
mod options;
mod pip;
pub mod progress;
mod repository;
mod staging;

pub use error::HubError;
pub use options::{HubOptions, Limits};
pub use progress::Progress;

use name::ModelName;
use std::path::PathBuf;

/// The path of the model called `name`: a GGUF file, or a directory with `config.json` and safetensors.
///
/// * a path that exists: itself;
/// * nothing, `demo` or `smollm2`: SmolLM2-135M-Instruct as Q4_1 GGUF (98 MB), fetched once into
///   [`HubOptions::model_cache`];
/// * `org/name`, `org/name@revision`: the repository's configuration, tokenizer and safetensors files, in the hub's
///   cache; `org/name:file.gguf` or `org/name:Q4_K_M`: that one GGUF file.
///
/// A repository is asked for news each time; when the hub cannot be reached, a complete copy in the cache is used.
///
/// # Errors
/// [`HubError`]; its text says what to do.
pub async fn resolve(name: &str, options: &HubOptions, progress: &dyn Progress) -> Result<PathBuf, HubError> {
    match ModelName::parse(name)? {
        ModelName::Path(path) => Ok(path),
        ModelName::Demo => demo::fetch(options, progress).await,
        ModelName::Repository(wanted) => repository::fetch(&wanted, options, progress).await,
    }
}
