//! GGUF files written on the spot: the same tiny models, their rows in llama.cpp's order, stored in several types.

mod common;

use baton_model::{LoadError, WeightsFormat, open};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use common::{Seq, World, golden, golden_path, greedy, load, tokens};
use std::collections::BTreeMap;
use std::path::Path;

/// Names in a checkpoint and in a GGUF file.
const NAMES: [(&str, &str); 15] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("model.layers.", "blk."),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

fn gguf_name(name: &str) -> String {
    NAMES.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// Rows of a head in llama.cpp's order: first and second half take turns.
fn interleave(tensor: &Tensor, head_dim: usize) -> Tensor {
    let (rows, columns) = tensor.dims2().unwrap();
    let heads = tensor.reshape((rows / head_dim, 2, head_dim / 2, columns)).unwrap();
    heads.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, columns)).unwrap()
}

/// The golden model `name` as GGUF, its matrices stored as `dtype`.
fn write_gguf(name: &str, dtype: GgmlDType, path: &Path, edit: impl Fn(&mut BTreeMap<String, Value>)) {
    let config = golden(&format!("{name}/config.json"));
    let architecture = match config["model_type"].as_str().unwrap() {
        "mistral" => "llama",
        other => other,
    };
    let size = |key: &str| config[key].as_u64().unwrap() as u32;
    let head_dim =
        config["head_dim"].as_u64().map_or(size("hidden_size") / size("num_attention_heads"), |d| d as u32);
    let vocabulary = (0..320).map(|id| Value::String(format!("t{id}"))).collect();
    let mut metadata = BTreeMap::from([
        ("general.architecture".to_owned(), Value::String(architecture.to_owned())),
        ("tokenizer.ggml.model".to_owned(), Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.tokens".to_owned(), Value::Array(vocabulary)),
        ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(2)),
        ("tokenizer.ggml.eot_token_id".to_owned(), Value::U32(7)),
    ]);
    for (key, value) in [
        ("block_count", Value::U32(size("num_hidden_layers"))),
        ("context_length", Value::U32(size("max_position_embeddings"))),
        ("embedding_length", Value::U32(size("hidden_size"))),
        ("feed_forward_length", Value::U32(size("intermediate_size"))),
        ("attention.head_count", Value::U32(size("num_attention_heads"))),
        ("attention.head_count_kv", Value::U32(size("num_key_value_heads"))),
        ("attention.key_length", Value::U32(head_dim)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("rope.freq_base", Value::F32(config["rope_theta"].as_f64().unwrap() as f32)),
    ] {
        metadata.insert(format!("{architecture}.{key}"), value);
    }
    edit(&mut metadata);

    let checkpoint = golden_path(name).join("model.safetensors");
    let tensors = candle_core::safetensors::load(checkpoint, &Device::Cpu).unwrap();
    let stored: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| {
            let mut tensor = tensor.to_dtype(DType::F32).unwrap();
            if architecture == "llama" && (name.contains("q_proj") || name.contains("k_proj")) {
                tensor = interleave(&tensor, head_dim as usize);
            }
            let matrix = tensor.rank() == 2;
            (
                gguf_name(name),
                QTensor::quantize(&tensor, if matrix { dtype } else { GgmlDType::F32 }).unwrap(),
            )
        })
        .collect();
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let stored: Vec<_> = stored.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &metadata, &stored).unwrap();
}

fn output(path: &Path, format: WeightsFormat, prompt: &[baton_types::TokenId]) -> Vec<baton_types::TokenId> {
    let mut world = World::new(&load(path, format), 16);
    let mut seq = Seq::new(1, prompt, greedy());
    world.prefill(&mut seq, usize::MAX);
    world.decode(&mut seq, 12);
    seq.output().to_vec()
}

#[test]
fn gguf_gives_the_same_tokens_as_the_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["llama-tied", "mistral", "qwen2-bias", "qwen3-qknorm"] {
        let prompt = tokens(&golden(&format!("{name}/golden.json"))["prompt_ids"]);
        let expected = output(&golden_path(name), WeightsFormat::F32, &prompt);
        let path = directory.path().join(format!("{name}.gguf"));
        for dtype in [GgmlDType::F32, GgmlDType::BF16] {
            write_gguf(name, dtype, &path, |_| ());
            assert_eq!(output(&path, WeightsFormat::F32, &prompt), expected, "{name} as {dtype:?}");
        }
        assert_eq!(open(&path).unwrap().generation.eos, [2, 7].map(baton_types::TokenId));
    }
}

/// Q8_0 blocks taken as they are and unpacked to f32 first differ only by rounding activations.
#[test]
fn stored_blocks_mean_what_their_dequantised_values_mean() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    for dtype in [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::Q5_1, GgmlDType::F16] {
        write_gguf("llama-tied", dtype, &path, |_| ());
        let prompt = tokens(&golden("llama-tied/golden.json")["prompt_ids"]);
        let logprobs = |format| -> Vec<f32> {
            let mut world = World::new(&load(&path, format), 16);
            let mut seq = Seq::new(1, &prompt, common::greedy_with_logprobs());
            let results = world.prefill(&mut seq, usize::MAX);
            results[0].prompt_logprobs.iter().map(|entry| entry.logprob).collect()
        };
        let (exact, stored) = (logprobs(WeightsFormat::F32), logprobs(WeightsFormat::File));
        let mean = exact.iter().zip(&stored).map(|(a, b)| (a - b).abs()).sum::<f32>() / exact.len() as f32;
        assert!(mean < 0.5, "{dtype:?}: mean difference {mean} of log-probabilities around -12");
        println!("{dtype:?}: mean difference {mean}");
    }
}

#[track_caller]
fn check(path: &Path, parts: &[&str]) {
    let result = open(path).and_then(|files| files.load_weights(WeightsFormat::F32, &|_, _| ()));
    let message = result.map(|_| ()).map_err(|error: LoadError| error.to_string()).unwrap_err();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn gguf_files_that_cannot_be_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    let write =
        |edit: &dyn Fn(&mut BTreeMap<String, Value>)| write_gguf("llama-tied", GgmlDType::F32, &path, edit);
    let set = |key: &str, value: Value| {
        write(&|metadata| drop(metadata.insert(key.to_owned(), value.clone())));
    };
    set("general.architecture", Value::String("mamba".to_owned()));
    check(&path, &["m.gguf", "'mamba'", "llama, mistral, qwen2, qwen3"]);
    set("llama.expert_count", Value::U32(8));
    check(&path, &["m.gguf", "mixture of experts", "dense"]);
    set("llama.rope.dimension_count", Value::U32(8));
    check(&path, &["llama.rope.dimension_count = 8", "head size of 16"]);
    set("split.count", Value::U16(2));
    check(&path, &["split over 2 files", "join the parts"]);
    set("llama.block_count", Value::U32(4));
    check(&path, &["m.gguf", "blk.3.attn_norm.weight", "is missing", "[64]"]);
    set("llama.feed_forward_length", Value::U32(128));
    check(&path, &["blk.0.ffn_gate.weight", "expected shape [128, 64]", "found [160, 64]"]);
    set("tokenizer.ggml.tokens", Value::Array((0..321).map(|id| Value::String(id.to_string())).collect()));
    check(&path, &["the tokenizer has 321 tokens", "token_embd.weight", "only 320 rows"]);
    write(&|metadata| drop(metadata.remove("llama.embedding_length")));
    check(&path, &["'llama.embedding_length' is missing"]);

    write(&|_| ());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 10_000]).unwrap();
    check(&path, &["m.gguf", "cut short", "tensor '", "download it again"]);
    std::fs::write(&path, &bytes[..1000]).unwrap();
    check(&path, &["m.gguf", "not a readable GGUF header"]);
    std::fs::write(&path, b"PK\x03\x04 not a model").unwrap();
    check(&path, &["m.gguf", "not a readable GGUF header", "magic"]);
}
