//! How a vocabulary's pieces become bytes.
//!
//! Every decoder that language models use works piece by piece, apart from what it does with a space at the start of
//! the text. So decoding is a table of bytes, one entry a token, and UTF-8 is put together from the bytes afterwards.

use crate::TokenizerError;
use serde_json::Value;
use std::sync::LazyLock;

/// How pieces become bytes, and what happens at the start of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DecodeRule {
    /// A character that stands for some text, e.g. U+2581 for a space.
    pub(crate) replacements: Vec<(char, String)>,
    /// Characters stand for bytes as in GPT-2.
    pub(crate) byte_level: bool,
    /// A piece `<0x41>` is that byte.
    pub(crate) byte_fallback: bool,
    /// Pieces are words: a space goes between them.
    pub(crate) space_before: bool,
    /// What happens to spaces at the start of a text.
    pub(crate) leading: LeadingSpace,
}

/// What happens to spaces at the start of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LeadingSpace {
    /// They stay.
    #[default]
    Keep,
    /// At most this many are removed.
    Strip(usize),
    /// All of the first token's are removed.
    StripFirstToken,
}

impl DecodeRule {
    /// GPT-2's alphabet.
    pub(crate) fn byte_level() -> Self {
        Self { byte_level: true, ..Self::default() }
    }

    /// SentencePiece with byte fallback.
    pub(crate) fn sentence_piece(leading: LeadingSpace) -> Self {
        Self { replacements: vec![('\u{2581}', " ".into())], byte_fallback: true, leading, ..Self::default() }
    }

    /// Reads the `decoder` of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Unsupported`] for a decoder that does not work piece by piece.
    pub(crate) fn from_json(decoder: &Value, origin: &str) -> Result<Self, TokenizerError> {
        let mut rule = Self::default();
        if decoder.is_null() {
            rule.space_before = true;
            rule.leading = LeadingSpace::Strip(1);
            return Ok(rule);
        }
        let mut fused = false;
        rule.add_step(decoder, &mut fused).map_err(|problem| TokenizerError::Unsupported {
            origin: origin.into(),
            problem: format!(
                "{problem}; supported: ByteLevel, Metaspace, ByteFallback, Fuse, Replace, Strip"
            ),
        })?;
        Ok(rule)
    }

    fn add_step(&mut self, step: &Value, fused: &mut bool) -> Result<(), String> {
        match step["type"].as_str().unwrap_or_default() {
            "Sequence" => {
                let steps = step["decoders"].as_array().ok_or("a decoder sequence without `decoders`")?;
                return steps.iter().try_for_each(|step| self.add_step(step, fused));
            }
            "ByteLevel" => self.byte_level = true,
            "ByteFallback" => self.byte_fallback = true,
            "Fuse" => *fused = true,
            "Replace" => {
                let pattern = step["pattern"]["String"].as_str().and_then(single_char);
                let pattern = pattern.ok_or("a Replace decoder of anything but one character")?;
                let content = step["content"].as_str().ok_or("a Replace decoder without `content`")?;
                self.replacements.push((pattern, content.into()));
            }
            "Metaspace" => {
                let replacement = step["replacement"].as_str().and_then(single_char).unwrap_or('\u{2581}');
                self.replacements.push((replacement, " ".into()));
                let never = step["prepend_scheme"].as_str() == Some("never");
                self.leading = if never { LeadingSpace::Keep } else { LeadingSpace::StripFirstToken };
            }
            "Strip" => {
                let spaces = step["content"].as_str() == Some(" ") && step["stop"].as_u64() == Some(0);
                if !*fused || !spaces {
                    return Err("a Strip decoder of anything but spaces at the start of the text".into());
                }
                self.leading = LeadingSpace::Strip(step["start"].as_u64().unwrap_or(0) as usize);
            }
            other => return Err(format!("decoder `{other}`")),
        }
        Ok(())
    }

    /// Appends the bytes that the piece stands for in the middle of a text.
    pub(crate) fn append_bytes(&self, piece: &str, bytes: &mut Vec<u8>) {
        if self.byte_fallback
            && let Some(byte) = byte_piece(piece)
        {
            bytes.push(byte);
            return;
        }
        if self.space_before {
            bytes.push(b' ');
        }
        let start = bytes.len();
        for character in piece.chars() {
            if let Some((_, text)) = self.replacements.iter().find(|(pattern, _)| *pattern == character) {
                bytes.extend_from_slice(text.as_bytes());
            } else if !self.byte_level {
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            } else if let Some(byte) = alphabet_byte(character) {
                bytes.push(byte);
            } else {
                // A piece with a character outside of the alphabet was put into the vocabulary as it is.
                bytes.truncate(start);
                bytes.extend_from_slice(piece.as_bytes());
                return;
            }
        }
    }
}

fn single_char(text: &str) -> Option<char> {
    let mut characters = text.chars();
    characters.next().filter(|_| characters.next().is_none())
}

/// The byte of a byte-fallback piece, `<0x00>` to `<0xFF>`.
fn byte_piece(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The byte that a character of GPT-2's alphabet stands for. Printable Latin-1 characters are themselves; the other
/// bytes, in order, are the characters from U+0100 on.
fn alphabet_byte(character: char) -> Option<u8> {
    const SIZE: usize = 256 + 68;
    static BYTES: LazyLock<[Option<u8>; SIZE]> = LazyLock::new(|| {
        let mut bytes = [None; SIZE];
        let mut moved = 256;
        for byte in 0..=255_u8 {
            if matches!(byte, 33..=126 | 161..=172 | 174..=255) {
                bytes[usize::from(byte)] = Some(byte);
            } else {
                bytes[moved] = Some(byte);
                moved += 1;
            }
        }
        bytes
    });
    BYTES.get(character as usize).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(rule: &DecodeRule, piece: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        rule.append_bytes(piece, &mut bytes);
        bytes
    }

    #[test]
    fn the_gpt2_alphabet() {
        let rule = DecodeRule::byte_level();
        assert_eq!(bytes(&rule, "ĠHi"), b" Hi");
        assert_eq!(bytes(&rule, "Ċ"), b"\n");
        assert_eq!(bytes(&rule, "Ã©"), "é".as_bytes());
        assert_eq!(bytes(&rule, "\u{143}"), [0xAD], "the last of the moved bytes");
        assert_eq!(bytes(&rule, "\u{144}"), "\u{144}".as_bytes(), "just outside of the alphabet");
        assert_eq!(
            bytes(&rule, "Ġ｜"),
            "Ġ｜".as_bytes(),
            "one foreign character makes the whole piece literal"
        );
    }

    #[test]
    fn sentence_piece() {
        let rule = DecodeRule::sentence_piece(LeadingSpace::Strip(1));
        assert_eq!(bytes(&rule, "▁Hi"), b" Hi");
        assert_eq!(bytes(&rule, "<0xE2>"), [0xE2]);
        assert_eq!(bytes(&rule, "<0xE2>x"), b"<0xE2>x");
        assert_eq!(bytes(&rule, "<0x1>"), b"<0x1>");
    }

    #[test]
    fn decoders_of_tokenizer_json() {
        let llama = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let read = |json: &Value| DecodeRule::from_json(json, "tokenizer.json");
        assert_eq!(read(&llama), Ok(DecodeRule::sentence_piece(LeadingSpace::Strip(1))));
        assert_eq!(read(&json!({"type": "ByteLevel"})), Ok(DecodeRule::byte_level()));
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"});
        assert_eq!(read(&metaspace).unwrap().leading, LeadingSpace::StripFirstToken);
        let problem = read(&json!({"type": "WordPiece"})).unwrap_err().to_string();
        assert!(problem.starts_with("tokenizer.json is not supported: decoder `WordPiece`"), "{problem}");
    }
}
