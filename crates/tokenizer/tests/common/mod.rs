//! What several tests need: the demo model's tokenizer, made vocabularies, random numbers.
#![allow(dead_code, reason = "each test file uses a part of it")]

use baton_tokenizer::Tokenizer;
use baton_types::tokenizer_source::GgufTokenizer;
use baton_types::{TokenId, TokenizerSource};
use candle_core::quantized::gguf_file::{Content, Value};
use std::fs::File;
use std::path::PathBuf;

pub(crate) const NORMAL: i32 = 1;
pub(crate) const UNKNOWN: i32 = 2;
pub(crate) const CONTROL: i32 = 3;
pub(crate) const USER_DEFINED: i32 = 4;
pub(crate) const BYTE: i32 = 6;

pub(crate) fn build(gguf: GgufTokenizer) -> Tokenizer {
    Tokenizer::from_source(&TokenizerSource::Gguf(Box::new(gguf))).expect("a sound vocabulary")
}

pub(crate) fn ids(numbers: &[u32]) -> Vec<TokenId> {
    numbers.iter().copied().map(TokenId).collect()
}

pub(crate) fn numbers(ids: &[TokenId]) -> Vec<u32> {
    ids.iter().map(|id| id.0).collect()
}

/// The tokenizer keys of the demo model's file.
#[expect(clippy::disallowed_methods, reason = "how a test is told of another model")]
pub(crate) fn demo_gguf() -> GgufTokenizer {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("BATON_TEST_MODEL").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let mut file = File::open(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run `cargo xtask test-deps` to get the demo model", path.display())
    });
    let content = Content::read(&mut file).expect("a GGUF file");
    let find = |key: &str| content.metadata.get(&format!("tokenizer.{key}"));
    let text = |key: &str| find(key).map(|value| value.to_string().unwrap().clone());
    let id = |key: &str| find(key).map(|value| TokenId(value.to_u32().unwrap()));
    fn list<T>(value: Option<&Value>, item: impl Fn(&Value) -> T) -> Vec<T> {
        value.map(|value| value.to_vec().unwrap().iter().map(item).collect()).unwrap_or_default()
    }
    GgufTokenizer {
        model: text("ggml.model").unwrap(),
        pre: text("ggml.pre"),
        tokens: list(find("ggml.tokens"), |token| token.to_string().unwrap().clone()),
        token_types: list(find("ggml.token_type"), |kind| kind.to_i32().unwrap()),
        scores: list(find("ggml.scores"), |score| score.to_f32().unwrap()),
        merges: list(find("ggml.merges"), |merge| merge.to_string().unwrap().clone()),
        bos: id("ggml.bos_token_id"),
        eos: id("ggml.eos_token_id"),
        unknown: id("ggml.unknown_token_id"),
        padding: id("ggml.padding_token_id"),
        add_bos: find("ggml.add_bos_token").map(|value| value.to_bool().unwrap()),
        add_space_prefix: find("ggml.add_space_prefix").map(|value| value.to_bool().unwrap()),
        chat_template: text("chat_template"),
    }
}

/// GPT-2's characters for the bytes 0 to 255.
pub(crate) fn byte_alphabet() -> Vec<char> {
    let mut moved = 255;
    (0..=255_u8)
        .map(|byte| {
            if matches!(byte, 33..=126 | 161..=172 | 174..=255) {
                return byte as char;
            }
            moved += 1;
            char::from_u32(moved).unwrap()
        })
        .collect()
}

/// A byte-level vocabulary: token b is byte b, then one token a merge, then `special` (control) and `added` tokens.
pub(crate) fn byte_level(pre: &str, merges: &[&str], special: &[&str], added: &[&str]) -> GgufTokenizer {
    let mut tokens: Vec<String> = byte_alphabet().into_iter().map(String::from).collect();
    tokens.extend(merges.iter().map(|merge| merge.replacen(' ', "", 1)));
    let mut token_types = vec![NORMAL; tokens.len()];
    tokens.extend(special.iter().chain(added).map(|token| (*token).to_owned()));
    token_types.extend(vec![CONTROL; special.len()]);
    token_types.extend(vec![USER_DEFINED; added.len()]);
    GgufTokenizer {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens,
        token_types,
        merges: merges.iter().map(|merge| (*merge).to_owned()).collect(),
        ..GgufTokenizer::default()
    }
}

/// A SentencePiece vocabulary in Llama 2's order: `<unk>`, `<s>`, `</s>`, 256 bytes, pieces with falling scores.
pub(crate) fn sentence_piece(pieces: &[&str]) -> GgufTokenizer {
    let mut gguf = GgufTokenizer {
        model: "llama".into(),
        tokens: ["<unk>", "<s>", "</s>"].map(String::from).to_vec(),
        token_types: vec![UNKNOWN, CONTROL, CONTROL],
        scores: vec![0.0; 3],
        bos: Some(TokenId(1)),
        eos: Some(TokenId(2)),
        unknown: Some(TokenId(0)),
        ..GgufTokenizer::default()
    };
    for byte in 0..=255_u8 {
        gguf.tokens.push(format!("<0x{byte:02X}>"));
        gguf.token_types.push(BYTE);
        gguf.scores.push(0.0);
    }
    for (rank, piece) in pieces.iter().enumerate() {
        gguf.tokens.push((*piece).to_owned());
        gguf.token_types.push(NORMAL);
        gguf.scores.push(-(rank as f32));
    }
    gguf
}

/// A small generator (SplitMix64, Steele et al. 2014) that needs no crate. Tests print the seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// A fresh seed, printed so that a failure can be repeated with `BATON_TEST_SEED`.
#[expect(clippy::disallowed_methods, reason = "how a test is told to repeat a seed")]
pub(crate) fn seed() -> u64 {
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
    let seed = std::env::var("BATON_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
    println!("BATON_TEST_SEED={seed}");
    seed
}
