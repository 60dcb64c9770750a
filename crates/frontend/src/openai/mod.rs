//! The JSON of the OpenAI API: requests in, responses and errors out.

mod chat;
mod completion;
mod error;
mod logprobs;
mod messages;
mod options;
mod reader;
mod response;
mod unsupported;

pub(crate) use chat::ChatRequest;
pub(crate) use completion::{CompletionRequest, Prompt};
pub(crate) use error::ApiError;
pub(crate) use options::{Options, ParseContext, StreamOptions};
pub(crate) use reader::Fields;
pub(crate) use response::{ResponseWriter, Shape, Usage};
