//! The demo model's tokenizer against reference outputs of Hugging Face transformers.

mod common;

use baton_tokenizer::{ChatPrompt, Detokenizer, Tokenizer};
use baton_types::TokenId;
use common::{Random, build, demo_gguf, ids, numbers, seed};
use serde_json::{Map, Value};
use tokenizers::Decoder as _;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

fn golden_cases() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/smollm2_greedy.json");
    let text = std::fs::read_to_string(path).expect(path);
    let golden: Value = serde_json::from_str(&text).unwrap();
    golden["cases"].as_array().unwrap().clone()
}

fn id_list(value: &Value) -> Vec<TokenId> {
    value.as_array().unwrap().iter().map(|id| TokenId(id.as_u64().unwrap() as u32)).collect()
}

fn stream(tokenizer: &Tokenizer, ids: &[TokenId], skip_special: bool) -> String {
    let mut detokenizer = Detokenizer::new(tokenizer, skip_special);
    let mut text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
    text.push_str(&detokenizer.finish());
    text
}

#[test]
fn chats_become_the_reference_prompts_and_ids() {
    let tokenizer = build(demo_gguf());
    let cases = golden_cases();
    assert_eq!(cases.len(), 12);
    for case in &cases {
        let prompt = ChatPrompt {
            messages: case["messages"].as_array().unwrap(),
            tools: None,
            add_generation_prompt: true,
            continue_final_message: false,
            extra: &Map::new(),
        };
        let text = tokenizer.chat_template().unwrap().render(&prompt).unwrap();
        assert_eq!(text, case["prompt"].as_str().unwrap());
        assert_eq!(tokenizer.encode(&text, false).unwrap(), id_list(&case["prompt_ids"]), "{text}");
        assert_eq!(tokenizer.encode(&text, true).unwrap(), id_list(&case["prompt_ids"]), "no bos is added");
        assert_eq!(tokenizer.decode(&id_list(&case["prompt_ids"]), false), text);
    }
}

#[test]
fn output_ids_become_the_reference_texts() {
    let tokenizer = build(demo_gguf());
    for case in golden_cases() {
        let (output, text) = (id_list(&case["greedy_ids"]), case["text"].as_str().unwrap());
        assert_eq!(tokenizer.decode(&output, true), text);
        assert_eq!(stream(&tokenizer, &output, true), text);
    }
}

#[test]
fn facts_of_the_vocabulary() {
    let tokenizer = build(demo_gguf());
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert_eq!(numbers(tokenizer.eos_ids()), [2, 0], "<|im_end|>, then <|endoftext|>");
    assert!(tokenizer.is_special(TokenId(1)) && !tokenizer.is_special(TokenId(504)));
    assert_eq!(tokenizer.token_bytes(TokenId(1)), b"<|im_start|>");
    assert_eq!(tokenizer.token_text(TokenId(504)), "The");
    assert_eq!(tokenizer.token_bytes(TokenId(49152)), b"", "outside of the vocabulary");
    assert_eq!(tokenizer.decode(&ids(&[1, 504, 2]), true), "The");
    assert_eq!(tokenizer.decode(&ids(&[1, 504, 2]), false), "<|im_start|>The<|im_end|>");
}

#[test]
fn streams_equal_whole_decoding_and_the_reference_decoder() {
    let gguf = demo_gguf();
    let texts = gguf.tokens.clone();
    let tokenizer = build(gguf);
    let seed = seed();
    let mut random = Random(seed);
    let all: Vec<u32> = (0..texts.len() as u32).collect();
    // Tokens that are parts of characters are rare, and what this is about.
    let parts: Vec<u32> = all
        .iter()
        .copied()
        .filter(|id| String::from_utf8(tokenizer.token_bytes(TokenId(*id))).is_err())
        .collect();
    assert!(parts.len() > 100, "{}", parts.len());
    for round in 0..2_000 {
        let len = 1 + random.below(40);
        let chosen: Vec<u32> = (0..len)
            .map(|_| {
                let from = if random.below(2) == 0 { &parts } else { &all };
                *random.pick(from)
            })
            .collect();
        let pieces = chosen.iter().map(|id| texts[*id as usize].clone()).collect();
        let reference = ByteLevel::default().decode(pieces).unwrap();
        assert_eq!(tokenizer.decode(&ids(&chosen), false), reference, "seed {seed}, round {round}");
        assert_eq!(stream(&tokenizer, &ids(&chosen), false), reference, "seed {seed}, round {round}");
    }
    assert_eq!(stream(&tokenizer, &ids(&all), false), tokenizer.decode(&ids(&all), false));
    assert_eq!(stream(&tokenizer, &ids(&all), true), tokenizer.decode(&ids(&all), true));
}

#[test]
fn any_text_survives_encoding_and_decoding() {
    let tokenizer = build(demo_gguf());
    let seed = seed();
    let mut random = Random(seed);
    let ranges =
        [(0x20, 0x7f), (0x09, 0x0e), (0xa0, 0x250), (0x4e00, 0x4f00), (0x1f300, 0x1f650), (0x300, 0x370)];
    for _ in 0..500 {
        let text: String = (0..random.below(60))
            .map(|_| {
                let (start, end) = *random.pick(&ranges);
                char::from_u32(start + random.below((end - start) as usize) as u32).unwrap()
            })
            .collect();
        let encoded = tokenizer.encode(&text, false).unwrap();
        assert_eq!(tokenizer.decode(&encoded, false), text, "seed {seed}");
    }
}
