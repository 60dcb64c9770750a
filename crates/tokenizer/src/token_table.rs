//! The bytes of every token.

use crate::decode_rule::{DecodeRule, LeadingSpace};
use baton_types::TokenId;

/// The bytes of every token, and which tokens are special. Ids without a token have no bytes.
pub(crate) struct TokenTable {
    /// All tokens' bytes, by id.
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<u32>,
    special: Vec<bool>,
    leading: LeadingSpace,
}

/// A token of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenEntry<'a> {
    /// As the vocabulary writes it.
    pub(crate) text: &'a str,
    /// What it is for.
    pub(crate) kind: TokenKind,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A piece of text in the vocabulary's own spelling.
    Piece,
    /// Text that was added to the vocabulary as it is.
    Added,
    /// Structure: added as it is, and left out of plain text.
    Special,
}

impl TokenTable {
    /// The table of a vocabulary, by id; `None` where an id has no token.
    pub(crate) fn new<'a>(
        rule: &DecodeRule,
        entries: impl ExactSizeIterator<Item = Option<TokenEntry<'a>>>,
    ) -> Self {
        let mut table = Self {
            bytes: Vec::with_capacity(entries.len() * 8),
            ends: Vec::with_capacity(entries.len()),
            special: Vec::with_capacity(entries.len()),
            leading: rule.leading,
        };
        for entry in entries {
            match entry {
                Some(TokenEntry { text, kind: TokenKind::Piece }) => {
                    rule.append_bytes(text, &mut table.bytes)
                }
                Some(TokenEntry { text, .. }) => table.bytes.extend_from_slice(text.as_bytes()),
                None => {}
            }
            table.ends.push(table.bytes.len() as u32);
            table.special.push(entry.is_some_and(|entry| entry.kind == TokenKind::Special));
        }
        table
    }

    /// One more than the largest id.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// What a token stands for inside a text.
    pub(crate) fn bytes(&self, id: TokenId) -> &[u8] {
        let index = id.0 as usize;
        let Some(end) = self.ends.get(index) else { return &[] };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..*end as usize]
    }

    /// Whether a token marks structure.
    pub(crate) fn is_special(&self, id: TokenId) -> bool {
        self.special.get(id.0 as usize).copied().unwrap_or(false)
    }

    /// What happens to spaces at the start of a text.
    pub(crate) fn leading(&self) -> LeadingSpace {
        self.leading
    }
}

impl LeadingSpace {
    /// Cuts the next token's bytes, and remembers how far the start of the text reaches.
    pub(crate) fn cut<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if bytes.is_empty() {
            return bytes;
        }
        let spaces = bytes.iter().take_while(|byte| **byte == b' ').count();
        let cut = match *self {
            Self::Keep => 0,
            Self::Strip(most) => spaces.min(most),
            Self::StripFirstToken => spaces,
        };
        *self = match *self {
            Self::Strip(most) if cut == bytes.len() && cut < most => Self::Strip(most - cut),
            _ => Self::Keep,
        };
        &bytes[cut..]
    }
}
