//! The OpenAI API over HTTP: the only crate that knows its JSON.
//!
//! A request is admitted, parsed, rendered and tokenised here, handed to a [`Backend`], and its tokens are turned back
//! into text and sent, whole or as a token stream. A client that leaves drops its response, that drops its
//! [`TokenStream`]s, and that cancels its sequences; there is no other way of cleaning up. The crate knows nothing of
//! engines, KV caches or devices.

pub mod backend;
mod body;
mod choice_text;
mod clock;
mod config;
mod frontend;
mod generation;
mod identity;
mod json;
mod openai;
mod plan;
mod record;
mod routes;
mod serve;
mod sse;

pub use backend::{Backend, Gone, Health, TokenSink, TokenStream};
pub use config::{FrontendConfig, SamplingDefaults};
pub use frontend::Frontend;
pub use routes::router;
pub use serve::{ServeConfig, serve, serve_with};
