//! What can be wrong with a tokenizer.

use thiserror::Error;

/// Why a tokenizer could not be built or used, named by what its owner can do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenizerError {
    /// Bring the file.
    #[error("{file} cannot be read: {problem}")]
    Missing {
        /// The file that was looked for.
        file: String,
        /// What the system says, and what to do.
        problem: String,
    },
    /// Repair the file, or convert the model again.
    #[error("{origin} is not a valid tokenizer: {problem}")]
    Invalid {
        /// The file, or the GGUF key.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Use another model: this one's tokenizer is sound but of a kind that is not implemented.
    #[error("{origin} is not supported: {problem}")]
    Unsupported {
        /// The file, or the GGUF key.
        origin: String,
        /// What is not supported, and what is.
        problem: String,
    },
    /// Change the text.
    #[error("the text cannot be encoded: {0}")]
    Encode(String),
}
