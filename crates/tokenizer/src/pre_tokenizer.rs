//! How a byte-level BPE splits a text into words before it merges, by the name that GGUF files use for it
//! (`tokenizer.ggml.pre`). The expressions are those of the models' own `tokenizer.json` files.

use crate::TokenizerError;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

/// One way to split, and what else the models that use it have in common.
pub(crate) struct PreTokenizer {
    names: &'static [&'static str],
    steps: &'static [Step],
    /// A word that is a token is taken whole, whatever the merges would make of it.
    pub(crate) whole_words_first: bool,
    /// Text is brought into Unicode's composed form first.
    pub(crate) compose_unicode: bool,
    /// Whether prompts begin with the beginning-of-sequence token where the file does not say.
    pub(crate) add_bos: bool,
}

enum Step {
    /// Every match is a word of its own.
    Regex(&'static str),
    /// Every digit is a word of its own.
    Digits,
    /// GPT-2's expression.
    Gpt2,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

const PLAIN: PreTokenizer = PreTokenizer {
    names: &[],
    steps: &[Step::Gpt2],
    whole_words_first: false,
    compose_unicode: false,
    add_bos: false,
};

/// The first one is for files that name none.
const KNOWN: [PreTokenizer; 9] = [
    PreTokenizer {
        names: &["gpt-2", "default", "phi-2", "olmo", "jais", "trillion", "granite-docling"],
        ..PLAIN
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        steps: &[Step::Digits, Step::Gpt2],
        ..PLAIN
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "dbrx", "smaug-bpe"],
        steps: &[Step::Regex(LLAMA3)],
        whole_words_first: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"],
        steps: &[Step::Regex(QWEN2)],
        compose_unicode: true,
        ..PLAIN
    },
    PreTokenizer { names: &["qwen35"], steps: &[Step::Regex(QWEN35)], compose_unicode: true, ..PLAIN },
    PreTokenizer {
        names: &["tekken"],
        steps: &[Step::Regex(TEKKEN)],
        whole_words_first: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["gpt-4o", "llama4"], steps: &[Step::Regex(GPT4O)], ..PLAIN },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense"],
        steps: &[Step::Regex(r"\p{N}{1,3}"), Step::Regex("[一-龥぀-ゟ゠-ヿ]+"), Step::Regex(DEEPSEEK_V3)],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        steps: &[
            Step::Regex("[\r\n]"),
            Step::Regex(r"\s?\p{L}+"),
            Step::Regex(r"\s?\p{P}+"),
            Step::Regex("[一-龥ࠀ-一가-퟿]+"),
            Step::Digits,
        ],
        ..PLAIN
    },
];

/// The pre-tokenizer of that name; GPT-2's where the file names none.
///
/// # Errors
/// [`TokenizerError::Unsupported`] lists the known names.
pub(crate) fn find(name: Option<&str>) -> Result<&'static PreTokenizer, TokenizerError> {
    static TABLE: [PreTokenizer; KNOWN.len()] = KNOWN;
    let Some(name) = name else { return Ok(&TABLE[0]) };
    TABLE.iter().find(|known| known.names.contains(&name)).ok_or_else(|| {
        let names: Vec<_> = TABLE.iter().flat_map(|known| known.names).copied().collect();
        TokenizerError::Unsupported {
            origin: "GGUF key tokenizer.ggml.pre".into(),
            problem: format!("pre-tokenizer `{name}`; known: {}", names.join(", ")),
        }
    })
}

impl PreTokenizer {
    /// The pre-tokenizer for the `tokenizers` crate; its last step writes bytes in GPT-2's alphabet.
    ///
    /// # Errors
    /// [`TokenizerError::Unsupported`] if an expression does not compile, which the tests rule out.
    pub(crate) fn build(&self) -> Result<PreTokenizerWrapper, TokenizerError> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::with_capacity(self.steps.len() + 1);
        let mut gpt2 = false;
        for step in self.steps {
            match step {
                Step::Digits => steps.push(Digits::new(true).into()),
                Step::Gpt2 => gpt2 = true,
                Step::Regex(regex) => {
                    let pattern = SplitPattern::Regex((*regex).into());
                    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
                    steps.push(split.map_err(|error| self.broken(error.as_ref()))?.into());
                }
            }
        }
        steps.push(ByteLevel::new(false, false, gpt2).into());
        Ok(Sequence::new(steps).into())
    }

    fn broken(&self, error: &dyn std::error::Error) -> TokenizerError {
        TokenizerError::Unsupported {
            origin: "GGUF key tokenizer.ggml.pre".into(),
            problem: format!("{}: {error}", self.names[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    fn check(name: &str, text: &str, expected: &[&str]) {
        let mut split = PreTokenizedString::from(text);
        find(Some(name)).unwrap().build().unwrap().pre_tokenize(&mut split).unwrap();
        let words: Vec<_> = split
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(_, (start, end), _)| &text[start..end])
            .collect();
        assert_eq!(words, expected, "{name}");
    }

    #[test]
    fn words_of_the_known_families() {
        let text = "It's 1234  GOOD\n\n ok!!\n";
        check("gpt-2", text, &["It", "'s", " 1234", " ", " GOOD", "\n\n", " ok", "!!", "\n"]);
        check(
            "smollm",
            text,
            &["It", "'s", " ", "1", "2", "3", "4", " ", " GOOD", "\n\n", " ok", "!!", "\n"],
        );
        check("llama-bpe", text, &["It", "'s", " ", "123", "4", " ", " GOOD", "\n\n", " ok", "!!\n"]);
        check("qwen2", text, &["It", "'s", " ", "1", "2", "3", "4", " ", " GOOD", "\n\n", " ok", "!!\n"]);
        check("tekken", "HTMLParser it'S 12", &["HTMLParser", " it", "'S", " ", "1", "2"]);
        check("gpt-4o", "camelCase it'S 1234", &["camel", "Case", " it'S", " ", "123", "4"]);
        check("deepseek-v3", "漢字kana.foo 1234", &["漢字", "kana", ".foo", " ", "123", "4"]);
        check("deepseek-coder", "a漢字 b1\n", &["a", "漢字", " b", "1", "\n"]);
        check("qwen35", "e\u{301}a 1", &["e\u{301}a", " ", "1"]);
    }

    #[test]
    fn every_known_pre_tokenizer_compiles() {
        for name in KNOWN.iter().flat_map(|known| known.names) {
            find(Some(name)).unwrap().build().unwrap();
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let problem = find(Some("nonesuch")).err().unwrap().to_string();
        assert!(problem.contains("`nonesuch`") && problem.contains("smollm, "), "{problem}");
        assert_eq!(find(None).unwrap().names[0], "gpt-2");
    }
}
