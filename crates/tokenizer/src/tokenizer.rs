//! The tokenizer of one model.

use crate::token_table::TokenTable;
use crate::{ChatTemplate, TemplateError, TokenizerError, gguf, huggingface};
use baton_types::{TokenId, TokenizerSource};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The tokenizer of one model. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    parts: Arc<Parts>,
    chat_template: Option<Arc<ChatTemplate>>,
}

/// What a source gives.
pub(crate) struct Parts {
    /// Text to ids.
    pub(crate) encoder: tokenizers::Tokenizer,
    /// Special tokens before a text, where `encoder` does not put them there itself.
    pub(crate) prefix: Vec<TokenId>,
    /// Ids to text.
    pub(crate) table: TokenTable,
    /// Tokens that end an output.
    pub(crate) eos_ids: Vec<TokenId>,
    /// `bos_token` and its like, for chat templates.
    pub(crate) special_tokens: Map<String, Value>,
}

impl Tokenizer {
    /// Builds a tokenizer from what a weights loader found.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file or key and what is wrong with it. A chat template that does not parse is no
    /// error here: plain completions work without it, and [`ChatTemplate::render`] tells.
    pub fn from_source(source: &TokenizerSource) -> Result<Self, TokenizerError> {
        let (parts, chat_template) = match source {
            TokenizerSource::HuggingFace { directory } => huggingface::load(directory)?,
            TokenizerSource::Gguf(gguf) => gguf::load(gguf)?,
        };
        if let Some(problem) = chat_template.as_ref().and_then(ChatTemplate::problem) {
            tracing::warn!(%problem, "chat requests will fail");
        }
        Ok(Self { parts: Arc::new(parts), chat_template: chat_template.map(Arc::new) })
    }

    /// The same tokenizer with another chat template, in Jinja.
    ///
    /// # Errors
    /// [`TemplateError::Broken`] if it does not parse.
    pub fn with_chat_template(&self, template: &str) -> Result<Self, TemplateError> {
        let template = ChatTemplate::new(template, self.parts.special_tokens.clone())?;
        Ok(Self { parts: self.parts.clone(), chat_template: Some(Arc::new(template)) })
    }

    /// The tokens of `text`. `add_special_tokens` puts those around it that the model's tokenizer asks for (usually a
    /// beginning-of-sequence token); a rendered chat prompt has them already, so pass `false` for it.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] for a text outside of the vocabulary.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<TokenId>, TokenizerError> {
        let encoding = self.parts.encoder.encode_fast(text, add_special_tokens);
        let encoding = encoding.map_err(|error| TokenizerError::Encode(error.to_string()))?;
        let prefix = if add_special_tokens { self.parts.prefix.as_slice() } else { &[] };
        Ok(prefix.iter().copied().chain(encoding.get_ids().iter().copied().map(TokenId)).collect())
    }

    /// The text of `ids`, with U+FFFD for bytes that are not UTF-8. `skip_special` leaves special tokens out.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        let table = &self.parts.table;
        let mut leading = table.leading();
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for id in ids.iter().filter(|id| !(skip_special && table.is_special(**id))) {
            bytes.extend_from_slice(leading.cut(table.bytes(*id)));
        }
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// The bytes that a token stands for inside a text; they may be a part of a character. Empty for an id without a
    /// token.
    pub fn token_bytes(&self, id: TokenId) -> Vec<u8> {
        self.parts.table.bytes(id).to_vec()
    }

    /// [`token_bytes`](Self::token_bytes) as text, with U+FFFD for bytes that are not UTF-8.
    pub fn token_text(&self, id: TokenId) -> String {
        String::from_utf8_lossy(self.parts.table.bytes(id)).into_owned()
    }

    /// Whether a token marks structure rather than text (`<s>`, `<|im_end|>`).
    pub fn is_special(&self, id: TokenId) -> bool {
        self.parts.table.is_special(id)
    }

    /// One more than the largest id. The model's own vocabulary may be larger: it is padded.
    pub fn vocab_size(&self) -> usize {
        self.parts.table.len()
    }

    /// Tokens that end an output, the tokenizer's own end token first.
    pub fn eos_ids(&self) -> &[TokenId] {
        &self.parts.eos_ids
    }

    /// The model's chat template, if it has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_deref()
    }

    pub(crate) fn table(&self) -> &TokenTable {
        &self.parts.table
    }
}
