//! SentencePiece's BPE from a GGUF vocabulary (`tokenizer.ggml.model` = `llama`).
//!
//! SentencePiece merges the pair of neighbours whose union has the best score. That is BPE with the merges ranked by
//! score, so the merges are derived here: every way to cut a piece into two pieces, best score first. A Unigram model
//! would look for the best sum of scores instead and split words differently; Llama 2 and Mistral are BPE, and their
//! scores are no probabilities but negated ranks.

use crate::TokenizerError;
use crate::decode_rule::{DecodeRule, LeadingSpace};
use crate::gguf::{invalid, vocabulary};
use baton_types::tokenizer_source::GgufTokenizer;
use std::cmp::Reverse;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence};

/// The encoder, how to decode, and whether prompts begin with the beginning-of-sequence token by default.
///
/// # Errors
/// [`TokenizerError::Invalid`] names the key.
pub(crate) fn build(gguf: &GgufTokenizer) -> Result<(Tokenizer, DecodeRule, bool), TokenizerError> {
    if gguf.scores.is_empty() {
        return Err(invalid("tokenizer.ggml.scores", "a SentencePiece vocabulary needs scores"));
    }
    let vocabulary = vocabulary(gguf);
    let merges = merges(gguf, &vocabulary);
    let mut model = BPE::builder().vocab_and_merges(vocabulary, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = gguf.unknown {
        model = model.unk_token(gguf.tokens[unknown.0 as usize].clone());
    }
    let model = model.build().map_err(|error| invalid("tokenizer.ggml.tokens", error.as_ref()))?;
    let mut encoder = Tokenizer::new(model);

    let space_prefix = gguf.add_space_prefix.unwrap_or(true);
    let spaces =
        Replace::new(" ", "\u{2581}").map_err(|error| invalid("tokenizer.ggml.tokens", error.as_ref()))?;
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if space_prefix {
        normalizers.push(Prepend::new("\u{2581}".into()).into());
    }
    normalizers.push(spaces.into());
    encoder
        .with_normalizer(Some(Sequence::new(normalizers)))
        .map_err(|error| invalid("tokenizer.ggml.tokens", error.as_ref()))?;
    let leading = if space_prefix { LeadingSpace::Strip(1) } else { LeadingSpace::Keep };
    Ok((encoder, DecodeRule::sentence_piece(leading), true))
}

/// All cuts of all pieces, best score first; of one piece's cuts, those with the longer left part first, which is the
/// order of Hugging Face's conversion.
fn merges(gguf: &GgufTokenizer, vocabulary: &Vocab) -> Vec<(String, String)> {
    const NORMAL: i32 = 1;
    const USER_DEFINED: i32 = 4;
    let mut cuts: Vec<(f32, usize, &str, &str)> = Vec::with_capacity(gguf.tokens.len() * 2);
    for (id, piece) in gguf.tokens.iter().enumerate() {
        if !matches!(gguf.token_types.get(id), None | Some(&(NORMAL | USER_DEFINED))) {
            continue;
        }
        for (position, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(position);
            if vocabulary.contains_key(left) && vocabulary.contains_key(right) {
                cuts.push((gguf.scores[id], left.chars().count(), left, right));
            }
        }
    }
    cuts.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| Reverse(a.1).cmp(&Reverse(b.1))));
    cuts.into_iter().map(|(_, _, left, right)| (left.to_owned(), right.to_owned())).collect()
}
