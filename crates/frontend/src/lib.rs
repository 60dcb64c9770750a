//! The OpenAI API over HTTP: the only crate that knows its JSON.
//!
//! A request is parsed, rendered and tokenised here, handed to a [`Backend`], and its tokens are turned back into text
//! and streamed. The crate knows nothing of engines, KV caches or devices.

pub mod backend;

pub use backend::{Backend, Gone, Health, TokenSink, TokenStream};
