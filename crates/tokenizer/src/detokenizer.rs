//! Tokens to text, one token at a time.

use crate::Tokenizer;
use crate::decode_rule::LeadingSpace;
use baton_types::TokenId;
use std::str;

/// Turns one stream of tokens into pieces of text. All pieces together equal [`Tokenizer::decode`] of all tokens.
///
/// A token costs its own bytes: nothing is decoded twice, because only the bytes of an unfinished character are kept.
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    leading: LeadingSpace,
    /// The start of an unfinished character: three bytes at most between calls.
    unfinished: Vec<u8>,
}

impl Detokenizer {
    /// For a text that starts with the first token. `skip_special` leaves special tokens out.
    pub fn new(tokenizer: &Tokenizer, skip_special: bool) -> Self {
        let leading = tokenizer.table().leading();
        Self { tokenizer: tokenizer.clone(), skip_special, leading, unfinished: Vec::with_capacity(32) }
    }

    /// For a text that goes on after other text, as output does after a prompt: SentencePiece drops a space at the
    /// start of a text, and here that space is part of the text.
    pub fn continuing(tokenizer: &Tokenizer, skip_special: bool) -> Self {
        Self { leading: LeadingSpace::Keep, ..Self::new(tokenizer, skip_special) }
    }

    /// The text that became certain with this token: empty inside a character of several tokens.
    pub fn push(&mut self, id: TokenId) -> String {
        let table = self.tokenizer.table();
        if !(self.skip_special && table.is_special(id)) {
            self.unfinished.extend_from_slice(self.leading.cut(table.bytes(id)));
        }
        self.take_certain()
    }

    /// What is left: U+FFFD for a character that was cut off, otherwise nothing.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.unfinished).into_owned();
        self.unfinished.clear();
        rest
    }

    /// Takes all whole characters, with U+FFFD for bytes that no further byte can make one.
    fn take_certain(&mut self) -> String {
        let mut text = String::with_capacity(self.unfinished.len());
        let mut start = 0;
        loop {
            let bytes = &self.unfinished[start..];
            let error = match str::from_utf8(bytes) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.unfinished.clear();
                    return text;
                }
                Err(error) => error,
            };
            let (whole, rest) = bytes.split_at(error.valid_up_to());
            text.push_str(str::from_utf8(whole).unwrap_or_default());
            match error.error_len() {
                Some(invalid) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    start += whole.len() + invalid;
                }
                None => {
                    debug_assert!(rest.len() < 4, "an unfinished character is three bytes at most");
                    self.unfinished.drain(..start + whole.len());
                    return text;
                }
            }
        }
    }
}
