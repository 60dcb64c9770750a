//! Tokenizers from made GGUF vocabularies.

mod common;

use baton_tokenizer::Tokenizer;
use baton_types::tokenizer_source::GgufTokenizer;
use baton_types::{TokenId, TokenizerSource};
use common::{CONTROL, build, byte_level, numbers, sentence_piece};

/// Single characters come last in a SentencePiece vocabulary: they have the worst scores.
const PIECES: [&str; 15] =
    ["▁h", "ll", "el", "▁hell", "ell", "▁hello", "he", "▁▁", "▁▁▁", "▁", "h", "e", "l", "o", "é"];

fn piece(text: &str) -> u32 {
    259 + PIECES.iter().position(|piece| *piece == text).unwrap() as u32
}

fn pieces(texts: &[&str]) -> Vec<u32> {
    texts.iter().map(|text| piece(text)).collect()
}

fn problem(gguf: GgufTokenizer) -> String {
    Tokenizer::from_source(&TokenizerSource::Gguf(Box::new(gguf))).err().expect("an error").to_string()
}

#[test]
fn sentence_piece_merges_by_score() {
    let tokenizer = build(sentence_piece(&PIECES));
    let encode = |text: &str| numbers(&tokenizer.encode(text, false).unwrap());
    // By score: ▁h, ll; then ell, ▁hell, ▁hello are reachable only as ▁hell = ▁h + ell and ell = e + ll.
    assert_eq!(encode("hello"), pieces(&["▁hello"]));
    assert_eq!(encode("helo"), pieces(&["▁h", "el", "o"]), "`el` wins over `he`");
    assert_eq!(encode("  h"), pieces(&["▁▁", "▁h"]), "runs of spaces stay");
    assert_eq!(encode("oé€"), [piece("▁"), piece("o"), piece("é"), 3 + 0xE2, 3 + 0x82, 3 + 0xAC]);
    assert_eq!(encode(""), Vec::<u32>::new());
    assert_eq!(
        encode("h</s>h"),
        [pieces(&["▁h"]), vec![2], pieces(&["▁h"])].concat(),
        "a space after special tokens"
    );
    for text in ["hello", " hello  é€ \n", "h", "  "] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, true).unwrap(), true), text);
    }
}

#[test]
fn sentence_piece_options() {
    let mut gguf = sentence_piece(&PIECES);
    let default = build(gguf.clone());
    assert_eq!(
        numbers(&default.encode("h", true).unwrap()),
        [1, piece("▁h")],
        "bos and space are the default"
    );
    gguf.add_space_prefix = Some(false);
    gguf.add_bos = Some(false);
    let without = build(gguf);
    assert_eq!(numbers(&without.encode("h", true).unwrap()), [piece("h")]);
    assert_eq!(without.decode(&[TokenId(piece("▁h"))], true), " h", "no space was added, so none is removed");
}

#[test]
fn byte_level_options() {
    let merges = ["a b", "Ġ ab"];
    let mut gguf = byte_level("gpt-2", &merges, &["<|start|>", "<|im_end|>", "<|endoftext|>"], &["<think>"]);
    (gguf.bos, gguf.eos) = (Some(TokenId(258)), Some(TokenId(260)));
    let tokenizer = build(gguf.clone());
    assert_eq!(numbers(&tokenizer.encode("ab ab", true).unwrap()), [256, 257], "no bos by default");
    assert_eq!(numbers(&tokenizer.encode("ab<think><|start|>", false).unwrap()), [256, 261, 258]);
    assert!(!tokenizer.is_special(TokenId(261)) && tokenizer.is_special(TokenId(258)));
    assert_eq!(numbers(tokenizer.eos_ids()), [260, 259], "its own first, then known ends of turns");
    gguf.add_bos = Some(true);
    assert_eq!(numbers(&build(gguf.clone()).encode("ab", true).unwrap()), [258, 256]);
    (gguf.add_bos, gguf.pre) = (None, Some("llama-bpe".into()));
    assert_eq!(numbers(&build(gguf).encode("ab", true).unwrap()), [258, 256], "the default of Llama 3");
}

#[test]
fn whole_words_come_before_merges_in_llama_3() {
    // `abc` is a token that no merge makes.
    let mut gguf = byte_level("llama-bpe", &["b c"], &[], &[]);
    gguf.tokens.push("abc".into());
    gguf.token_types.push(common::NORMAL);
    assert_eq!(numbers(&build(gguf.clone()).encode("abc", false).unwrap()), [257]);
    gguf.pre = Some("qwen2".into());
    assert_eq!(numbers(&build(gguf).encode("abc", false).unwrap()), [0x61, 256]);
}

#[test]
fn errors_name_the_key() {
    let sound = byte_level("gpt-2", &["a b"], &[], &[]);
    let check = |change: fn(&mut GgufTokenizer), expected: &str| {
        let mut gguf = sound.clone();
        change(&mut gguf);
        let got = problem(gguf);
        assert!(got.starts_with(expected), "{got}");
    };
    check(
        |gguf| gguf.tokens.clear(),
        "GGUF key tokenizer.ggml.tokens is not a valid tokenizer: there are no tokens",
    );
    check(
        |gguf| gguf.model = "bert".into(),
        "tokenizer.ggml.model is not supported: `bert`; supported: gpt2",
    );
    check(
        |gguf| gguf.pre = Some("x".into()),
        "GGUF key tokenizer.ggml.pre is not supported: pre-tokenizer `x`; known: gpt-2,",
    );
    check(
        |gguf| gguf.merges.push("ab".into()),
        "GGUF key tokenizer.ggml.merges is not a valid tokenizer: merge 1, `ab`, is not",
    );
    check(
        |gguf| gguf.merges.push("a zz".into()),
        "GGUF key tokenizer.ggml.merges is not a valid tokenizer: merge 1, `a zz`, uses",
    );
    check(
        |gguf| gguf.merges.push("a c".into()),
        "GGUF key tokenizer.ggml.merges is not a valid tokenizer: merge 1, `a c`, uses",
    );
    check(
        |gguf| gguf.token_types = vec![CONTROL],
        "GGUF key tokenizer.ggml.token_type is not a valid tokenizer: 1 entries for 257",
    );
    check(
        |gguf| gguf.eos = Some(TokenId(999)),
        "GGUF key tokenizer.ggml.eos_token_id is not a valid tokenizer: 999 is",
    );
    check(
        |gguf| gguf.model = "llama".into(),
        "GGUF key tokenizer.ggml.scores is not a valid tokenizer: a SentencePiece",
    );
}
