//! Text in, tokens out, and back: chat templates, encoding, incremental detokenisation, stop strings.
//!
//! A [`Tokenizer`] is built once from a model's files and shared by all requests; a [`Detokenizer`] and a
//! [`StopStrings`] belong to one output stream. Nothing here knows HTTP, workers or models.

mod chat_template;
mod decode_rule;
mod detokenizer;
mod error;
mod gguf;
mod huggingface;
mod pre_tokenizer;
mod sentence_piece;
mod stop_strings;
mod token_table;
mod tokenizer;

pub use chat_template::{ChatPrompt, ChatTemplate, TemplateError};
pub use detokenizer::Detokenizer;
pub use error::TokenizerError;
pub use stop_strings::{StopStep, StopStrings};
pub use tokenizer::Tokenizer;
