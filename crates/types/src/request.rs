//! The contract between a frontend and the engines: one request in, a stream of events out.

use crate::{SamplingParams, TokenId, TokenLogprobs};
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error;

/// One sequence to generate. A client's request with `n > 1` makes several.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// The client's request id, for logs; several sequences may share it.
    pub request_id: Arc<str>,
    /// Prompt tokens; at least one.
    pub prompt: Arc<[TokenId]>,
    /// How to choose tokens, and when to stop.
    pub sampling: SamplingParams,
    /// Separates this tenant's cached blocks from others'. Empty: shared.
    pub cache_salt: Arc<[u8]>,
    /// When to give up, whatever state the sequence is in.
    pub deadline: Instant,
}

/// What happens to a sequence, in order: it is admitted, prompt log-probabilities if asked for, tokens, exactly one
/// `Finished`. A sequence that ends while it waits is never admitted.
#[derive(Clone, Debug, PartialEq)]
pub enum SequenceEvent {
    /// It has KV blocks for its prompt.
    Admitted {
        /// Prompt tokens that were found in the KV cache (`cached_len`).
        cached_tokens: usize,
    },
    /// Log-probabilities of the prompt's tokens from the second on, where asked for.
    PromptLogprobs(Vec<TokenLogprobs>),
    /// The next output token.
    Token(OutputToken),
    /// The last event.
    Finished(Finish),
}

/// One generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputToken {
    /// The token.
    pub id: TokenId,
    /// Where asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// How a sequence ended, and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// Why no more tokens come.
    pub reason: FinishReason,
    /// Prompt tokens.
    pub prompt_tokens: usize,
    /// Prompt tokens that were found in the KV cache at admission (`cached_len`).
    pub cached_tokens: usize,
    /// Output tokens, the end token included.
    pub output_tokens: usize,
}

/// Why a sequence ended.
#[derive(Clone, Debug, PartialEq)]
pub enum FinishReason {
    /// The model's end token, or one of the request's stop tokens: the last token that was sent, not part of the text.
    Stop(TokenId),
    /// `max_tokens`, or the end of the context.
    Length,
    /// The caller went away or asked for it.
    Cancelled,
    /// The deadline passed.
    DeadlineExceeded,
    /// Something broke; the text says what.
    Error(String),
}

/// Why a request was not taken, named by what the caller can do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AdmitError {
    /// Try later, or elsewhere.
    #[error("the waiting queue is full ({waiting} requests wait, the limit is {limit})")]
    QueueFull {
        /// Sequences waiting.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// Shorten the prompt: it can never run here.
    #[error("the prompt has {prompt_tokens} tokens, at most {limit} fit")]
    PromptTooLong {
        /// The prompt's length.
        prompt_tokens: usize,
        /// The most that fits, one output token kept free.
        limit: usize,
    },
    /// Give at least one prompt token.
    #[error("the prompt is empty")]
    PromptEmpty,
    /// Go elsewhere: this server takes no new requests.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Go elsewhere: this server broke.
    #[error("the engine is not running: {0}")]
    EngineDown(String),
}
