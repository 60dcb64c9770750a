//! Why a model cannot be served, found before anything is served: every variant names the file, the thing in it, what
//! was expected and what was found.

use std::path::PathBuf;
use thiserror::Error;

/// A model file that cannot be used, and what to do about it.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Give another path.
    #[error("{}: no such file or directory; give a .gguf file or a Hugging Face model directory", path.display())]
    NotFound {
        /// What was asked for.
        path: PathBuf,
    },
    /// Give another path: nothing here is a model.
    #[error(
        "{}: {found}; expected a .gguf file, a directory with config.json and *.safetensors, or a directory with \
         exactly one .gguf file",
        path.display()
    )]
    NotAModel {
        /// What was asked for.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        source: std::io::Error,
    },
    /// Repair or download the file again.
    #[error("{}: not valid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        source: serde_json::Error,
    },
    /// Download the file again: its header makes no sense.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Download the file again: it ends too early.
    #[error(
        "{}: the file is cut short: {what} ends at byte {needed}, the file has {found}; download it again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The tensor, or the header, that does not fit.
        what: String,
        /// Bytes the file should have at least.
        needed: u64,
        /// Bytes it has.
        found: u64,
    },
    /// The configuration lacks something that has no default.
    #[error("{}: key '{key}' is missing; expected {expected}", path.display())]
    MissingKey {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The configuration says something impossible.
    #[error("{}: key '{key}': expected {expected}, found {found}", path.display())]
    BadValue {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// Choose a model of a supported architecture.
    #[error("{}: architecture '{found}' is not supported; supported are {supported}", path.display())]
    UnsupportedArchitecture {
        /// The configuration file.
        path: PathBuf,
        /// The architecture named there.
        found: String,
        /// Those that work.
        supported: String,
    },
    /// Choose another variant of the model: this one needs something that is not built.
    #[error("{}: {what} is not supported; supported is {supported}", path.display())]
    UnsupportedFeature {
        /// The configuration file.
        path: PathBuf,
        /// What it asks for.
        what: String,
        /// What works instead.
        supported: &'static str,
    },
    /// The file lacks a tensor that the configuration promises.
    #[error("{}: tensor '{tensor}' is missing; expected shape {expected:?}", path.display())]
    MissingTensor {
        /// The file, or the index of a sharded model.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A tensor contradicts the configuration.
    #[error("{}: tensor '{tensor}': expected shape {expected:?}, found {found:?}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that the configuration asks for, rows first.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor's elements are of a kind that cannot be read.
    #[error("{}: tensor '{tensor}': expected {expected}, found {found}", path.display())]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The kinds that can be read.
        expected: &'static str,
        /// The kind in the file.
        found: String,
    },
    /// Tokenizer and weights are not of one model.
    #[error("{}: the tokenizer has {tokens} tokens, tensor '{tensor}' has only {rows} rows", path.display())]
    VocabularyTooLarge {
        /// The file.
        path: PathBuf,
        /// The embedding.
        tensor: String,
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
}
