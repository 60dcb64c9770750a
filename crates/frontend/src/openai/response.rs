//! Responses, whole or in chunks. What all chunks of a response share is written once, so that a token costs little more
//! than the copy of its bytes.

use super::logprobs::{push_chat_logprobs, push_completion_logprobs};
use super::options::StreamOptions;
use crate::choice_text::{Delta, Ending};
use crate::clock::unix_secs;
use crate::identity::random_id;
use crate::json::{push_json_string, push_number, push_str};
use baton_tokenizer::Tokenizer;
use bytes::BytesMut;

/// Which of the two kinds of response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Chat,
    Completion,
}

/// What a request has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) output_tokens: usize,
    /// `None`: not known, as the sequence was ended from here.
    pub(crate) cached_tokens: Option<usize>,
}

/// Writes the responses to one request.
pub(crate) struct ResponseWriter {
    shape: Shape,
    /// From `{"id":` to `"choices":[`.
    head: String,
    tokenizer: Tokenizer,
    /// Most likely tokens to report; `None`: no log-probabilities.
    top_logprobs: Option<u8>,
    stream: Option<StreamOptions>,
}

impl ResponseWriter {
    /// A writer with a new response id.
    pub(crate) fn new(
        shape: Shape,
        model: &str,
        system_fingerprint: &str,
        tokenizer: &Tokenizer,
        top_logprobs: Option<u8>,
        stream: Option<StreamOptions>,
    ) -> Self {
        let (id_prefix, object) = match (shape, stream) {
            (Shape::Chat, Some(_)) => ("chatcmpl", "chat.completion.chunk"),
            (Shape::Chat, None) => ("chatcmpl", "chat.completion"),
            (Shape::Completion, _) => ("cmpl", "text_completion"),
        };
        let created = unix_secs();
        let mut head = BytesMut::new();
        push_str(&mut head, &format!("{{\"id\":\"{id_prefix}-{}\",\"object\":\"{object}\"", random_id()));
        push_str(&mut head, &format!(",\"created\":{created},\"model\":"));
        push_json_string(&mut head, model);
        push_str(&mut head, ",\"system_fingerprint\":");
        push_json_string(&mut head, system_fingerprint);
        push_str(&mut head, ",\"choices\":[");
        let head = String::from_utf8(head.into()).expect("made of strings");
        Self { shape, head, tokenizer: tokenizer.clone(), top_logprobs, stream }
    }

    /// Appends the chunk that opens a chat choice. Completions have none.
    pub(crate) fn push_opening(&self, out: &mut BytesMut, index: usize, usage: Usage) {
        if self.shape == Shape::Chat {
            self.open_chunk(out, index);
            push_str(out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null");
            push_str(out, ",\"finish_reason\":null}]");
            self.close_chunk(out, usage);
        }
    }

    /// Appends a chunk with text.
    pub(crate) fn push_delta(&self, out: &mut BytesMut, index: usize, delta: &Delta, usage: Usage) {
        out.reserve(self.head.len() + delta.text.len() + 96);
        self.open_chunk(out, index);
        match self.shape {
            Shape::Chat => {
                push_str(out, ",\"delta\":{\"content\":");
                push_json_string(out, &delta.text);
                push_str(out, "}");
            }
            Shape::Completion => {
                push_str(out, ",\"text\":");
                push_json_string(out, &delta.text);
            }
        }
        self.push_logprobs(out, delta);
        push_str(out, ",\"finish_reason\":null}]");
        self.close_chunk(out, usage);
    }

    /// Appends the last chunk of a choice.
    pub(crate) fn push_ending(&self, out: &mut BytesMut, index: usize, ending: Ending, usage: Usage) {
        self.open_chunk(out, index);
        push_str(out, if self.shape == Shape::Chat { ",\"delta\":{}" } else { ",\"text\":\"\"" });
        push_str(out, ",\"logprobs\":null,\"finish_reason\":\"");
        push_str(out, ending.name());
        push_str(out, "\"}]");
        self.close_chunk(out, usage);
    }

    /// Appends what ends a token stream: the usage where asked for, and the end mark.
    pub(crate) fn push_done(&self, out: &mut BytesMut, usage: Usage) {
        if self.stream.is_some_and(|stream| stream.include_usage) {
            push_str(out, "data: ");
            push_str(out, &self.head);
            push_str(out, "],\"usage\":");
            push_usage(out, usage);
            push_str(out, "}\n\n");
        }
        push_str(out, "data: [DONE]\n\n");
    }

    /// Appends a whole response; `choices` in the order of their indices.
    pub(crate) fn push_whole<'a>(
        &self,
        out: &mut BytesMut,
        choices: impl Iterator<Item = (&'a Delta, Ending)>,
        usage: Usage,
    ) {
        push_str(out, &self.head);
        for (index, (delta, ending)) in choices.enumerate() {
            push_str(out, if index == 0 { "{\"index\":" } else { ",{\"index\":" });
            push_number(out, index);
            match self.shape {
                Shape::Chat => {
                    push_str(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
                    push_json_string(out, &delta.text);
                    push_str(out, ",\"refusal\":null}");
                }
                Shape::Completion => {
                    push_str(out, ",\"text\":");
                    push_json_string(out, &delta.text);
                }
            }
            self.push_logprobs(out, delta);
            push_str(out, ",\"finish_reason\":\"");
            push_str(out, ending.name());
            push_str(out, "\"}");
        }
        push_str(out, "],\"usage\":");
        push_usage(out, usage);
        push_str(out, "}");
    }

    fn open_chunk(&self, out: &mut BytesMut, index: usize) {
        push_str(out, "data: ");
        push_str(out, &self.head);
        push_str(out, "{\"index\":");
        match index {
            0 => push_str(out, "0"),
            index => push_number(out, index),
        }
    }

    fn close_chunk(&self, out: &mut BytesMut, usage: Usage) {
        match self.stream {
            Some(StreamOptions { continuous_usage: true, .. }) => {
                push_str(out, ",\"usage\":");
                push_usage(out, usage);
                push_str(out, "}\n\n");
            }
            Some(StreamOptions { include_usage: true, .. }) => push_str(out, ",\"usage\":null}\n\n"),
            _ => push_str(out, "}\n\n"),
        }
    }

    fn push_logprobs(&self, out: &mut BytesMut, delta: &Delta) {
        push_str(out, ",\"logprobs\":");
        match (self.top_logprobs, self.shape) {
            (None, _) => push_str(out, "null"),
            (Some(top), Shape::Chat) => push_chat_logprobs(out, &self.tokenizer, &delta.logprobs, top),
            (Some(top), Shape::Completion) => {
                push_completion_logprobs(out, &self.tokenizer, &delta.logprobs, top)
            }
        }
    }
}

fn push_usage(out: &mut BytesMut, usage: Usage) {
    push_str(out, "{\"prompt_tokens\":");
    push_number(out, usage.prompt_tokens);
    push_str(out, ",\"completion_tokens\":");
    push_number(out, usage.output_tokens);
    push_str(out, ",\"total_tokens\":");
    push_number(out, usage.prompt_tokens + usage.output_tokens);
    push_str(out, ",\"prompt_tokens_details\":{\"audio_tokens\":0,\"cached_tokens\":");
    match usage.cached_tokens {
        Some(cached) => push_number(out, cached),
        None => push_str(out, "null"),
    }
    push_str(out, "},\"completion_tokens_details\":{\"accepted_prediction_tokens\":0,\"audio_tokens\":0");
    push_str(out, ",\"reasoning_tokens\":0,\"rejected_prediction_tokens\":0}}");
}
