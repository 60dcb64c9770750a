//! Files that cannot be served are refused before anything is, by an error that names file, tensor and expectation.

mod common;

use baton_model::{LoadError, WeightsFormat, open};
use common::golden_path;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use tempfile::TempDir;

/// A copy of the tiny llama, to be spoilt.
struct Copy {
    directory: TempDir,
}

impl Copy {
    fn of(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(golden_path(name)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
        }
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn edit_config(&self, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
        let path = self.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(config.as_object_mut().unwrap());
        std::fs::write(&path, config.to_string()).unwrap();
    }

    /// Rewrites the checkpoint; `edit` may change type, shape and data of a tensor, or drop it with `None`.
    fn edit_tensors(
        &self,
        edit: impl Fn(&str, Dtype, Vec<usize>, Vec<u8>) -> Option<(Dtype, Vec<usize>, Vec<u8>)>,
    ) {
        let path = self.path().join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let edited: HashMap<_, _> = tensors
            .tensors()
            .into_iter()
            .filter_map(|(name, view)| {
                let edited = edit(&name, view.dtype(), view.shape().to_vec(), view.data().to_vec())?;
                Some((name, edited))
            })
            .collect();
        let views = edited.iter().map(|(name, (dtype, shape, data))| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn error(&self) -> LoadError {
        load_error(self.path())
    }
}

fn load_error(path: &Path) -> LoadError {
    match open(path).and_then(|files| files.load_weights(WeightsFormat::F32, &|_, _| ())) {
        Ok(_) => panic!("{} was loaded", path.display()),
        Err(error) => error,
    }
}

/// The message of an error contains every one of these.
#[track_caller]
fn check(error: &LoadError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn a_path_without_a_model() {
    check(&load_error(Path::new("no/such/model")), &["no/such/model", "no such file or directory", ".gguf"]);
    let empty = tempfile::tempdir().unwrap();
    check(&load_error(empty.path()), &["no config.json and no .gguf file"]);
    std::fs::write(empty.path().join("a.gguf"), b"").unwrap();
    std::fs::write(empty.path().join("b.gguf"), b"").unwrap();
    check(&load_error(empty.path()), &["2 .gguf files", "name one of them"]);
    std::fs::write(empty.path().join("config.json"), b"{\"model_type\": }").unwrap();
    check(&load_error(empty.path()), &["config.json", "not valid JSON", "line 1"]);
}

#[test]
fn architectures_that_do_not_run() {
    let expected = ["config.json", "'qwen3_moe'", "llama, mistral, qwen2, qwen3"];
    check(&load_error(&golden_path("qwen3-moe")), &expected);
    let copy = Copy::of("llama-tied");
    copy.edit_config(|config| drop(config.insert("model_type".into(), json!("mamba"))));
    check(&copy.error(), &["'mamba'"]);
    copy.edit_config(|config| drop(config.remove("model_type")));
    open(copy.path()).map(|_| ()).expect("`architectures` says LlamaForCausalLM");
}

#[test]
fn variants_that_would_compute_something_else() {
    for (key, value, said) in [
        ("hidden_act", json!("gelu"), "hidden_act = \"gelu\""),
        ("mlp_bias", json!(true), "mlp_bias"),
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor = 0.5"),
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 4.0}), "rope scaling 'yarn'"),
        ("quantization_config", json!({"quant_method": "awq"}), "quantisation 'awq'"),
    ] {
        let copy = Copy::of("llama-tied");
        copy.edit_config(|config| drop(config.insert(key.into(), value)));
        check(&copy.error(), &["config.json", said, "not supported; supported is"]);
    }
}

#[test]
fn configurations_that_lack_or_contradict() {
    let check_edit = |key: &str, value: Option<Value>, parts: &[&str]| {
        let copy = Copy::of("llama-tied");
        copy.edit_config(|config| {
            match value {
                Some(value) => config.insert(key.into(), value),
                None => config.remove(key),
            };
        });
        check(&copy.error(), parts);
    };
    check_edit("hidden_size", None, &["config.json", "'hidden_size' is missing", "whole number"]);
    check_edit(
        "hidden_size",
        Some(json!("64")),
        &["'hidden_size'", "expected a whole number", "found \"64\""],
    );
    check_edit("num_attention_heads", Some(json!(0)), &["'num_attention_heads'", "at least 1", "found 0"]);
    check_edit("num_key_value_heads", Some(json!(3)), &["key/value heads", "divisor of the 4", "found 3"]);
    check_edit(
        "rope_parameters",
        Some(json!({"rope_type": "llama3"})),
        &["'rope_parameters.factor' is missing"],
    );
    check_edit("eos_token_id", Some(json!("</s>")), &["'eos_token_id'", "a list of token ids"]);
}

#[test]
fn tensors_that_are_not_what_the_configuration_says() {
    let name = "model.layers.1.self_attn.k_proj.weight";
    let copy = Copy::of("llama-tied");
    copy.edit_tensors(|tensor, dtype, shape, data| (tensor != name).then_some((dtype, shape, data)));
    check(&copy.error(), &["model.safetensors", name, "is missing", "[32, 64]"]);

    let copy = Copy::of("llama-tied");
    copy.edit_tensors(|tensor, dtype, shape, data| {
        Some((dtype, if tensor == name { vec![64, 32] } else { shape }, data))
    });
    check(&copy.error(), &["model.safetensors", name, "expected shape [32, 64]", "found [64, 32]"]);

    let copy = Copy::of("llama-tied");
    copy.edit_tensors(|tensor, dtype, shape, data| {
        Some((if tensor == name { Dtype::I16 } else { dtype }, shape, data))
    });
    check(&copy.error(), &["model.safetensors", name, "expected F32, F16, BF16", "found"]);
}

#[test]
fn a_safetensors_file_that_ends_too_early() {
    let copy = Copy::of("llama-tied");
    let path = copy.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let whole = format!("ends at byte {}", bytes.len());
    check(&copy.error(), &["model.safetensors", "cut short", "tensor 'model.", &whole, "download it again"]);
    std::fs::write(&path, &bytes[..100]).unwrap();
    check(&copy.error(), &["model.safetensors", "not a readable safetensors header"]);
    std::fs::write(&path, b"").unwrap();
    check(&copy.error(), &["model.safetensors"]);
}

#[test]
fn a_sharded_checkpoint() {
    let copy = Copy::of("llama-tied");
    let single = copy.path().join("model.safetensors");
    let bytes = std::fs::read(&single).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut weight_map = serde_json::Map::new();
    for (index, shard) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let part: Vec<_> =
            tensors.tensors().into_iter().filter(|(name, _)| name.len() % 2 == index).collect();
        assert!(!part.is_empty());
        weight_map.extend(part.iter().map(|(name, _)| (name.clone(), json!(shard))));
        let bytes = safetensors::serialize(part, None).unwrap();
        std::fs::write(copy.path().join(shard), bytes).unwrap();
    }
    std::fs::remove_file(&single).unwrap();
    let index = copy.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({ "weight_map": weight_map }).to_string()).unwrap();
    let sharded = open(copy.path()).unwrap().load_weights(WeightsFormat::F32, &|_, _| ()).unwrap();
    let whole =
        open(&golden_path("llama-tied")).unwrap().load_weights(WeightsFormat::F32, &|_, _| ()).unwrap();
    assert_eq!(sharded.identity(), whole.identity(), "the same model, however it is cut");

    std::fs::remove_file(copy.path().join("b.safetensors")).unwrap();
    check(&copy.error(), &["b.safetensors", "no such file"]);
    std::fs::write(&index, json!({ "weight_map": {"x": "../b.safetensors"} }).to_string()).unwrap();
    check(&copy.error(), &["index.json", "plain file names"]);
}

#[test]
fn a_sliding_window_limits_the_context() {
    let copy = Copy::of("mistral");
    copy.edit_config(|config| drop(config.insert("sliding_window".into(), json!(100))));
    let config = open(copy.path()).unwrap().config;
    assert_eq!((config.max_position, config.sliding_window), (100, Some(100)));
    let qwen = open(&golden_path("qwen2-bias")).unwrap().config;
    assert_eq!((qwen.max_position, qwen.sliding_window), (512, None), "use_sliding_window is false");
}

#[test]
fn generation_defaults_come_from_their_own_file_first() {
    let copy = Copy::of("llama-tied");
    let defaults = || open(copy.path()).unwrap().generation;
    assert_eq!(defaults().eos, [baton_types::TokenId(2)], "config.json");
    let text = r#"{"eos_token_id": [5, 6], "temperature": 0.6, "top_p": 0.9, "top_k": 20}"#;
    std::fs::write(copy.path().join("generation_config.json"), text).unwrap();
    let found = defaults();
    assert_eq!(found.eos, [5, 6].map(baton_types::TokenId));
    assert_eq!((found.temperature, found.top_p, found.top_k), (Some(0.6), Some(0.9), Some(20)));
    assert_eq!(found.repetition_penalty, None);
}
