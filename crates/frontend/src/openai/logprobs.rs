//! Log-probabilities in the two shapes of the OpenAI API.

use crate::choice_text::LogprobEntry;
use crate::json::{push_json_string, push_logprob, push_number, push_str};
use baton_tokenizer::Tokenizer;
use baton_types::{TokenId, TokenLogprobs};
use bytes::BytesMut;

/// Chats: `{"content": [{"token", "logprob", "bytes", "top_logprobs": [...]}], "refusal": null}`.
pub(crate) fn push_chat_logprobs(
    out: &mut BytesMut,
    tokenizer: &Tokenizer,
    entries: &[LogprobEntry],
    top: u8,
) {
    push_str(out, "{\"content\":[");
    for (index, entry) in entries.iter().enumerate() {
        push_separator(out, index);
        push_chat_token(
            out,
            tokenizer,
            entry.id,
            entry.logprobs.as_ref().map_or(0.0, |logprobs| logprobs.logprob),
        );
        push_str(out, ",\"top_logprobs\":[");
        for (index, (id, logprob)) in most_likely(entry, top).enumerate() {
            push_separator(out, index);
            push_chat_token(out, tokenizer, *id, *logprob);
            push_str(out, "}");
        }
        push_str(out, "]}");
    }
    push_str(out, "],\"refusal\":null}");
}

/// Completions: `{"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": [{}]}`. A prompt's first token
/// has `null` for both, as nothing precedes it.
pub(crate) fn push_completion_logprobs(
    out: &mut BytesMut,
    tokenizer: &Tokenizer,
    entries: &[LogprobEntry],
    top: u8,
) {
    push_list(out, "{\"text_offset\":[", entries, |out, entry| push_number(out, entry.text_offset));
    push_list(out, ",\"token_logprobs\":[", entries, |out, entry| match &entry.logprobs {
        Some(logprobs) => push_logprob(out, logprobs.logprob),
        None => push_str(out, "null"),
    });
    push_list(out, ",\"tokens\":[", entries, |out, entry| {
        push_json_string(out, &tokenizer.token_text(entry.id))
    });
    push_list(out, ",\"top_logprobs\":[", entries, |out, entry| match &entry.logprobs {
        Some(logprobs) => push_alternatives(out, tokenizer, entry, logprobs, top),
        None => push_str(out, "null"),
    });
    push_str(out, "}");
}

/// An object from token texts to log-probabilities: the most likely ones and the one that stands here. Two tokens can
/// have one text (bytes that are not UTF-8); the more likely one is kept, as an object's keys are unique.
fn push_alternatives(
    out: &mut BytesMut,
    tokenizer: &Tokenizer,
    entry: &LogprobEntry,
    logprobs: &TokenLogprobs,
    top: u8,
) {
    let own = (entry.id, logprobs.logprob);
    let mut written: Vec<String> = Vec::with_capacity(usize::from(top) + 1);
    push_str(out, "{");
    for (id, logprob) in most_likely(entry, top).chain([&own]) {
        let text = tokenizer.token_text(*id);
        if written.contains(&text) {
            continue;
        }
        push_separator(out, written.len());
        push_json_string(out, &text);
        push_str(out, ":");
        push_logprob(out, *logprob);
        written.push(text);
    }
    push_str(out, "}");
}

fn most_likely(entry: &LogprobEntry, top: u8) -> impl Iterator<Item = &(TokenId, f32)> {
    entry.logprobs.iter().flat_map(|logprobs| &logprobs.top).take(usize::from(top))
}

/// Leaves the object open.
fn push_chat_token(out: &mut BytesMut, tokenizer: &Tokenizer, id: TokenId, logprob: f32) {
    push_str(out, "{\"token\":");
    push_json_string(out, &tokenizer.token_text(id));
    push_str(out, ",\"logprob\":");
    push_logprob(out, logprob);
    push_str(out, ",\"bytes\":[");
    for (index, byte) in tokenizer.token_bytes(id).iter().enumerate() {
        push_separator(out, index);
        push_number(out, byte);
    }
    push_str(out, "]");
}

fn push_list<T>(out: &mut BytesMut, opening: &str, items: &[T], mut push: impl FnMut(&mut BytesMut, &T)) {
    push_str(out, opening);
    for (index, item) in items.iter().enumerate() {
        push_separator(out, index);
        push(out, item);
    }
    push_str(out, "]");
}

fn push_separator(out: &mut BytesMut, index: usize) {
    if index > 0 {
        push_str(out, ",");
    }
}
