//! The tokenizer of one model.

use crate::{ChatTemplate, TokenizerError};
use baton_types::{TokenId, TokenizerSource};
use std::sync::Arc;

/// The tokenizer of one model. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

struct Shared {
    eos_ids: Vec<TokenId>,
    chat_template: Option<ChatTemplate>,
}

impl Tokenizer {
    /// Builds a tokenizer from what a weights loader found.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file or key and what is wrong with it.
    pub fn from_source(source: &TokenizerSource) -> Result<Self, TokenizerError> {
        let _ = source;
        Err(TokenizerError::Unsupported { origin: "tokenizer".into(), problem: "not written yet".into() })
    }

    /// The tokens of `text`. `add_special_tokens` puts those around it that the model's tokenizer asks for (usually a
    /// beginning-of-sequence token); a rendered chat prompt has them already, so pass `false` for it.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] for a text outside of the vocabulary.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<TokenId>, TokenizerError> {
        let _ = (text, add_special_tokens);
        Ok(Vec::new())
    }

    /// The text of `ids`, with U+FFFD for bytes that are not UTF-8. `skip_special` leaves special tokens out.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        let _ = (ids, skip_special);
        String::new()
    }

    /// The bytes that a token stands for inside a text; they may be a part of a character. Empty for an id without a
    /// token.
    pub fn token_bytes(&self, id: TokenId) -> Vec<u8> {
        let _ = id;
        Vec::new()
    }

    /// [`token_bytes`](Self::token_bytes) as text, with U+FFFD for bytes that are not UTF-8.
    pub fn token_text(&self, id: TokenId) -> String {
        String::from_utf8_lossy(&self.token_bytes(id)).into_owned()
    }

    /// Whether a token marks structure rather than text (`<s>`, `<|im_end|>`).
    pub fn is_special(&self, id: TokenId) -> bool {
        let _ = id;
        false
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        0
    }

    /// Tokens that end an output, the tokenizer's own end token first.
    pub fn eos_ids(&self) -> &[TokenId] {
        &self.shared.eos_ids
    }

    /// The model's chat template, if it has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.shared.chat_template.as_ref()
    }
}
