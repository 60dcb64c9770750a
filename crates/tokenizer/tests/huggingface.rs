//! Tokenizers from Hugging Face directories, made here.

mod common;

use baton_tokenizer::{ChatPrompt, Tokenizer, TokenizerError};
use baton_types::{TokenId, TokenizerSource};
use common::{Random, build, byte_level, ids, numbers, seed};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const MERGES: [&str; 7] = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "12 3"];
const SPECIAL: [&str; 3] = ["<|begin|>", "<|end|>", "<|turn|>"];
/// The first special token: 256 bytes and the merges come before it.
const BEGIN: u32 = 256 + MERGES.len() as u32;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A byte-level `tokenizer.json` in the style of Llama 3 or Qwen 2, with a beginning-of-sequence token.
fn byte_level_json(regex: &str) -> Value {
    let gguf = byte_level("llama-bpe", &MERGES, &SPECIAL, &[]);
    let vocabulary: Map<String, Value> = gguf.tokens[..BEGIN as usize]
        .iter()
        .enumerate()
        .map(|(id, text)| (text.clone(), id.into()))
        .collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(index, text)| {
            json!({"id": BEGIN as usize + index, "content": text, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "!"},
        "added_tokens": added,
        "normalizer": if regex == QWEN2 { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}, byte_level]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [BEGIN], "tokens": ["<|begin|>"]}}},
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": regex == LLAMA3, "vocab": vocabulary, "merges": MERGES},
    })
}

fn directory(files: &[(&str, &Value)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn load(directory: &Path) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_source(&TokenizerSource::HuggingFace { directory: directory.into() })
}

fn prompt(tokenizer: &Tokenizer, tools: Option<&Value>) -> String {
    let messages = [json!({"role": "user", "content": "hello"})];
    let extra = Map::new();
    let prompt = ChatPrompt {
        messages: &messages,
        tools,
        add_generation_prompt: true,
        continue_final_message: false,
        extra: &extra,
    };
    tokenizer.chat_template().expect("a chat template").render(&prompt).unwrap()
}

#[test]
fn a_directory_like_llama_3s() {
    let config = json!({"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>", "special": true},
        "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}<|turn|>{% endfor %}{{ eos_token }}"});
    let generation = json!({"eos_token_id": [BEGIN + 1, BEGIN + 2]});
    let directory = directory(&[
        ("tokenizer.json", &byte_level_json(LLAMA3)),
        ("tokenizer_config.json", &config),
        ("generation_config.json", &generation),
    ]);
    let tokenizer = load(directory.path()).unwrap();
    assert_eq!(tokenizer.vocab_size(), BEGIN as usize + 3);
    assert_eq!(numbers(tokenizer.eos_ids()), [BEGIN + 1, BEGIN + 2]);
    assert_eq!(prompt(&tokenizer, None), "<|begin|>hello<|turn|><|end|>");

    let hello = 259;
    let encoded = tokenizer.encode("hello 1234 world", true).unwrap();
    assert_eq!(numbers(&encoded[..3]), [BEGIN, hello, 0x20], "begin, hello, space");
    assert_eq!(encoded.len(), 1 + 1 + 1 + 2 + 5, "123 and 4; nothing is cut or padded");
    assert_eq!(tokenizer.encode("hello", false).unwrap(), ids(&[hello]));
    assert_eq!(numbers(&tokenizer.encode("hello<|turn|>", false).unwrap()), [hello, BEGIN + 2]);
    assert_eq!(tokenizer.decode(&encoded, true), "hello 1234 world");
    assert_eq!(tokenizer.decode(&encoded, false), "<|begin|>hello 1234 world");
    assert!(tokenizer.is_special(TokenId(BEGIN)) && !tokenizer.is_special(TokenId(hello)));
}

#[test]
fn a_directory_and_a_gguf_file_of_one_model_agree() {
    let seed = seed();
    let mut random = Random(seed);
    for (regex, pre) in [(LLAMA3, "llama-bpe"), (QWEN2, "qwen2")] {
        let directory = directory(&[("tokenizer.json", &byte_level_json(regex))]);
        let from_directory = load(directory.path()).unwrap();
        let mut gguf = byte_level(pre, &MERGES, &SPECIAL, &[]);
        (gguf.bos, gguf.add_bos) = (Some(TokenId(BEGIN)), Some(true));
        let from_gguf = build(gguf);
        for _ in 0..500 {
            let words = ["hello", " w", "1234", "é", "e\u{301}", "<|turn|>", "\n\n", "  ", "'LL", "!?", "漢"];
            let text: String = (0..random.below(12)).map(|_| *random.pick(&words)).collect();
            for add_special in [true, false] {
                let expected = from_directory.encode(&text, add_special).unwrap();
                assert_eq!(
                    from_gguf.encode(&text, add_special).unwrap(),
                    expected,
                    "{pre}, seed {seed}: {text:?}"
                );
            }
        }
    }
}

#[test]
fn the_chat_template_is_found_where_it_may_be() {
    let tokenizer = byte_level_json(QWEN2);
    let config = json!({"chat_template": "config"});
    let named = json!({"chat_template": [{"name": "tool_use", "template": "tools {{ tools | length }}"},
                                         {"name": "default", "template": "default"}]});
    let json_file = json!({"chat_template": "json"});
    let jinja = Value::from("jinja");
    let read = |files: &[(&str, &Value)]| {
        let directory = directory(&[files, &[("tokenizer.json", &tokenizer)]].concat());
        load(directory.path()).unwrap()
    };
    let tools = json!([{"type": "function"}]);
    assert_eq!(prompt(&read(&[("tokenizer_config.json", &config)]), None), "config");
    let tokenizer_with_two = read(&[("tokenizer_config.json", &named)]);
    assert_eq!(prompt(&tokenizer_with_two, None), "default");
    assert_eq!(prompt(&tokenizer_with_two, Some(&tools)), "tools 1");
    let with_json = [("tokenizer_config.json", &config), ("chat_template.json", &json_file)];
    assert_eq!(prompt(&read(&with_json), None), "json");
    assert_eq!(prompt(&read(&[&with_json[..], &[("chat_template.jinja", &jinja)]].concat()), None), "jinja");
    let without = read(&[]);
    assert!(without.chat_template().is_none());
    assert_eq!(prompt(&without.with_chat_template("given").unwrap(), None), "given");
}

#[test]
fn a_chat_template_that_does_not_parse_stops_only_chats() {
    let config = json!({"chat_template": "{% if %}"});
    let directory =
        directory(&[("tokenizer.json", &byte_level_json(QWEN2)), ("tokenizer_config.json", &config)]);
    let tokenizer = load(directory.path()).unwrap();
    assert_eq!(tokenizer.encode("hello", false).unwrap(), ids(&[259]));
    let extra = Map::new();
    let prompt = ChatPrompt {
        messages: &[],
        tools: None,
        add_generation_prompt: true,
        continue_final_message: false,
        extra: &extra,
    };
    let problem = tokenizer.chat_template().unwrap().render(&prompt).unwrap_err().to_string();
    assert!(problem.starts_with("the chat template is broken: syntax error"), "{problem}");
}

#[test]
fn tokens_that_only_the_config_knows_are_added() {
    let id = BEGIN + 3;
    let config = json!({"added_tokens_decoder": {id.to_string(): {"content": "<|tool|>", "special": true}}});
    let files = directory(&[("tokenizer.json", &byte_level_json(QWEN2)), ("tokenizer_config.json", &config)]);
    let tokenizer = load(files.path()).unwrap();
    assert_eq!(numbers(&tokenizer.encode("<|tool|>", false).unwrap()), [id]);
    assert!(tokenizer.is_special(TokenId(id)));

    let config = json!({"added_tokens_decoder": {"9999": {"content": "<|tool|>", "special": true}}});
    let files = directory(&[("tokenizer.json", &byte_level_json(QWEN2)), ("tokenizer_config.json", &config)]);
    let problem = load(files.path()).err().unwrap().to_string();
    assert!(problem.contains("tokenizer_config.json") && problem.contains("9999"), "{problem}");
}

#[test]
fn sentence_piece_with_byte_fallback() {
    let mut vocabulary = Map::new();
    for text in
        ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain((0..256).map(|b| format!("<0x{b:02X}>")))
    {
        vocabulary.insert(text, vocabulary.len().into());
    }
    for piece in ["▁", "h", "i", "▁h", "▁hi"] {
        vocabulary.insert(piece.into(), vocabulary.len().into());
    }
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": vocabulary, "merges": ["▁ h", "▁h i"]},
    });
    let reference = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    let map = json!({"eos_token": "</s>"});
    let files = directory(&[("tokenizer.json", &json), ("special_tokens_map.json", &map)]);
    let tokenizer = load(files.path()).unwrap();
    assert_eq!(numbers(tokenizer.eos_ids()), [2]);
    let encoded = tokenizer.encode("hi hié  h", false).unwrap();
    assert_eq!(numbers(&encoded), [263, 263, 3 + 0xC3, 3 + 0xA9, 259, 262]);
    assert_eq!(tokenizer.token_bytes(encoded[2]), [0xC3]);

    // The reference turns a whole run of byte tokens into U+FFFD if one of them is wrong; elsewhere the two agree.
    let seed = seed();
    let mut random = Random(seed);
    let mut compared = 0;
    for _ in 0..5_000 {
        let chosen: Vec<u32> = (0..random.below(8))
            .flat_map(|_| match random.below(3) {
                0 => vec![3 + 0xC3, 3 + 0xA9],
                1 => vec![random.below(3) as u32],
                _ => vec![259 + random.below(5) as u32],
            })
            .collect();
        let expected = reference.decode(&chosen, true).unwrap();
        compared += usize::from(expected.contains('é'));
        assert_eq!(tokenizer.decode(&ids(&chosen), true), expected, "seed {seed}: {chosen:?}");
    }
    assert!(compared > 1_000, "{compared}");
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let problem = |files: &[(&str, &Value)]| {
        let directory = directory(files);
        load(directory.path())
            .err()
            .expect("an error")
            .to_string()
            .replace(directory.path().to_str().unwrap(), "DIR")
    };
    let none = problem(&[]);
    assert_eq!(
        none,
        "DIR/tokenizer.json cannot be read: there is no such file; the model directory has no tokenizer"
    );
    let sentence_piece = problem(&[("tokenizer.model", &Value::from("x"))]);
    assert!(sentence_piece.contains("`tokenizer.model`; convert it"), "{sentence_piece}");
    let malformed = problem(&[("tokenizer.json", &json!({"version": "1.0"}))]);
    assert!(malformed.starts_with("DIR/tokenizer.json is not a valid tokenizer: "), "{malformed}");
    let config =
        problem(&[("tokenizer.json", &byte_level_json(QWEN2)), ("tokenizer_config.json", &Value::from("{"))]);
    assert!(config.starts_with("DIR/tokenizer_config.json is not a valid tokenizer: EOF"), "{config}");
    let template = json!({"chat_template": [{"name": "other", "template": "x"}]});
    let nameless =
        problem(&[("tokenizer.json", &byte_level_json(QWEN2)), ("tokenizer_config.json", &template)]);
    assert!(nameless.contains("named `default`"), "{nameless}");
    let mut json = byte_level_json(QWEN2);
    json["decoder"] =
        json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true});
    let decoder = problem(&[("tokenizer.json", &json)]);
    assert!(decoder.starts_with("DIR/tokenizer.json is not supported: decoder `CTC`"), "{decoder}");
}
