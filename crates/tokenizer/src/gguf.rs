//! A tokenizer from the keys of a GGUF file (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).

use crate::chat_template::TemplateSources;
use crate::decode_rule::DecodeRule;
use crate::token_table::{TokenEntry, TokenKind, TokenTable};
use crate::tokenizer::Parts;
use crate::{ChatTemplate, TokenizerError, pre_tokenizer, sentence_piece};
use baton_types::TokenId;
use baton_types::tokenizer_source::GgufTokenizer;
use serde_json::{Map, Value};
use std::collections::HashSet;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, Tokenizer};

/// Builds the tokenizer of a GGUF file: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE with byte fallback).
///
/// # Errors
/// [`TokenizerError`] names the key.
pub(crate) fn load(gguf: &GgufTokenizer) -> Result<(Parts, Option<ChatTemplate>), TokenizerError> {
    check(gguf)?;
    let (mut encoder, rule, add_bos) = match gguf.model.as_str() {
        "gpt2" => byte_level_bpe(gguf)?,
        "llama" => sentence_piece::build(gguf)?,
        other => {
            let problem = format!("`{other}`; supported: gpt2 (byte-level BPE), llama (SentencePiece)");
            return Err(TokenizerError::Unsupported { origin: "tokenizer.ggml.model".into(), problem });
        }
    };
    let added: Vec<_> = entries(gguf)
        .filter(|entry| entry.kind != TokenKind::Piece && !entry.text.is_empty())
        .map(|entry| AddedToken::from(entry.text, entry.kind == TokenKind::Special).normalized(false))
        .collect();
    encoder.add_tokens(added).map_err(|error| invalid("tokenizer.ggml.token_type", error.as_ref()))?;

    let special_tokens = special_tokens(gguf);
    let template = gguf.chat_template.as_ref().map(|template| {
        let sources = TemplateSources { default: template.clone(), tool_use: None };
        ChatTemplate::from_sources(&sources, special_tokens.clone())
    });
    let parts = Parts {
        encoder,
        prefix: if gguf.add_bos.unwrap_or(add_bos) { gguf.bos.into_iter().collect() } else { Vec::new() },
        table: TokenTable::new(&rule, entries(gguf).map(Some)),
        eos_ids: eos_ids(gguf),
        special_tokens,
    };
    Ok((parts, template))
}

fn byte_level_bpe(gguf: &GgufTokenizer) -> Result<(Tokenizer, DecodeRule, bool), TokenizerError> {
    let known = pre_tokenizer::find(gguf.pre.as_deref())?;
    let vocabulary = vocabulary(gguf);
    let merges = merges(gguf, &vocabulary)?;
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .ignore_merges(known.whole_words_first)
        .build()
        .map_err(|error| invalid("tokenizer.ggml.merges", error.as_ref()))?;
    let mut encoder = Tokenizer::new(model);
    encoder.with_pre_tokenizer(Some(known.build()?));
    if known.compose_unicode {
        let normalizer = tokenizers::normalizers::NFC;
        encoder
            .with_normalizer(Some(normalizer))
            .map_err(|error| invalid("tokenizer.ggml.pre", error.as_ref()))?;
    }
    Ok((encoder, DecodeRule::byte_level(), known.add_bos))
}

/// Token texts to ids; of two tokens with the same text the later one is used.
pub(crate) fn vocabulary(gguf: &GgufTokenizer) -> Vocab {
    gguf.tokens.iter().enumerate().map(|(id, text)| (text.clone(), id as u32)).collect()
}

fn merges(gguf: &GgufTokenizer, vocabulary: &Vocab) -> Result<Vec<(String, String)>, TokenizerError> {
    let mut whole = String::new();
    let split = |(rank, merge): (usize, &String)| {
        // A merge may start with a space of its own, so the separator is the first space after that.
        let space = merge.bytes().skip(1).position(|byte| byte == b' ').map(|position| position + 1);
        let pair = space.map(|space| (&merge[..space], &merge[space + 1..]));
        let (left, right) = pair.ok_or_else(|| {
            invalid("tokenizer.ggml.merges", &format!("merge {rank}, `{merge}`, is not a pair of tokens"))
        })?;
        whole.clear();
        whole.extend([left, right]);
        if [left, right, &whole].into_iter().any(|text| !vocabulary.contains_key(text)) {
            let problem =
                format!("merge {rank}, `{merge}`, uses or makes a token that is not in the vocabulary");
            return Err(invalid("tokenizer.ggml.merges", &problem));
        }
        Ok((left.to_owned(), right.to_owned()))
    };
    gguf.merges.iter().enumerate().map(split).collect()
}

/// What `tokenizer.ggml.token_type` says of each token.
fn entries(gguf: &GgufTokenizer) -> impl ExactSizeIterator<Item = TokenEntry<'_>> {
    const UNKNOWN: i32 = 2;
    const CONTROL: i32 = 3;
    const USER_DEFINED: i32 = 4;
    gguf.tokens.iter().enumerate().map(|(id, text)| {
        let kind = match gguf.token_types.get(id) {
            Some(&(UNKNOWN | CONTROL)) => TokenKind::Special,
            // SentencePiece writes runs of spaces as user-defined pieces; the merges make those.
            Some(&USER_DEFINED) if !text.contains('\u{2581}') => TokenKind::Added,
            _ => TokenKind::Piece,
        };
        TokenEntry { text, kind }
    })
}

fn special_tokens(gguf: &GgufTokenizer) -> Map<String, Value> {
    let names = [
        ("bos_token", gguf.bos),
        ("eos_token", gguf.eos),
        ("unk_token", gguf.unknown),
        ("pad_token", gguf.padding),
    ];
    let text = |id: Option<TokenId>| gguf.tokens.get(id?.0 as usize).map(|text| Value::from(text.as_str()));
    names.into_iter().filter_map(|(name, id)| Some((name.to_owned(), text(id)?))).collect()
}

/// The file's end token, and the control tokens that end a turn or a text in the known chat formats: GGUF has one key
/// for what is often two tokens.
fn eos_ids(gguf: &GgufTokenizer) -> Vec<TokenId> {
    const ENDS: [&str; 8] = [
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<｜end▁of▁sentence｜>",
    ];
    let named: HashSet<&str> = ENDS.into();
    let further = entries(gguf)
        .enumerate()
        .filter(|(_, entry)| entry.kind == TokenKind::Special && named.contains(entry.text))
        .map(|(id, _)| TokenId(id as u32))
        .filter(|id| Some(*id) != gguf.eos);
    gguf.eos.into_iter().chain(further).collect()
}

fn check(gguf: &GgufTokenizer) -> Result<(), TokenizerError> {
    let count = gguf.tokens.len();
    if count == 0 {
        return Err(invalid("tokenizer.ggml.tokens", "there are no tokens"));
    }
    for (key, len) in [("token_type", gguf.token_types.len()), ("scores", gguf.scores.len())] {
        if len != 0 && len != count {
            return Err(invalid(
                &format!("tokenizer.ggml.{key}"),
                &format!("{len} entries for {count} tokens"),
            ));
        }
    }
    let ids = [("bos", gguf.bos), ("eos", gguf.eos), ("unknown", gguf.unknown), ("padding", gguf.padding)];
    for (key, id) in ids {
        if let Some(id) = id.filter(|id| id.0 as usize >= count) {
            let problem = format!("{id} is outside of the {count} tokens");
            return Err(invalid(&format!("tokenizer.ggml.{key}_token_id"), &problem));
        }
    }
    Ok(())
}

/// A mistake in a GGUF file's tokenizer, by key.
pub(crate) fn invalid(key: &str, problem: &(impl std::fmt::Display + ?Sized)) -> TokenizerError {
    TokenizerError::Invalid { origin: format!("GGUF key {key}"), problem: problem.to_string() }
}
