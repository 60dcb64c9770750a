//! `config.json` and `generation_config.json` of a Hugging Face directory.
//!
//! Absent keys have the defaults of the `transformers` configuration class of the architecture; the sizes that a class
//! cannot sensibly default (hidden size, layers, heads, vocabulary) must be there.

use super::{Architecture, GenerationDefaults, ModelConfig, Rope, RopeScaling};
use crate::error::LoadError;
use baton_types::TokenId;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A JSON object with the file it came from, for errors.
pub(crate) struct JsonFile {
    path: PathBuf,
    object: Map<String, Value>,
}

impl JsonFile {
    /// Reads a JSON file whose top level is an object.
    pub(crate) fn read(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
        match serde_json::from_slice(&text) {
            Ok(Value::Object(object)) => Ok(Self { path: path.to_owned(), object }),
            Ok(_) => Err(LoadError::Malformed {
                path: path.to_owned(),
                reason: "expected a JSON object".to_owned(),
            }),
            Err(source) => Err(LoadError::Json { path: path.to_owned(), source }),
        }
    }

    /// The value of a key; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn bad(&self, key: &str, expected: &str, found: &Value) -> LoadError {
        LoadError::BadValue {
            path: self.path.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    fn size(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().filter(|number| (1..=u64::from(u32::MAX)).contains(number)) {
            Some(number) => Ok(Some(number as usize)),
            None => Err(self.bad(key, "a whole number of at least 1", value)),
        }
    }

    fn required_size(&self, key: &str) -> Result<usize, LoadError> {
        self.size(key)?.ok_or_else(|| LoadError::MissingKey {
            path: self.path.clone(),
            key: key.to_owned(),
            expected: "a whole number of at least 1",
        })
    }

    fn number(&self, key: &str) -> Result<Option<f64>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.bad(key, "a number", value))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.bad(key, "true or false", value))
    }

    /// A token id or a list of them.
    fn token_ids(&self, key: &str) -> Result<Vec<TokenId>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        list.iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()).map(TokenId))
            .collect::<Option<_>>()
            .ok_or_else(|| self.bad(key, "a token id or a list of token ids", value))
    }

    fn unsupported(&self, what: String, supported: &'static str) -> LoadError {
        LoadError::UnsupportedFeature { path: self.path.clone(), what, supported }
    }
}

/// The model that `config.json` describes.
pub(crate) fn model_config(file: &JsonFile) -> Result<ModelConfig, LoadError> {
    let architecture = architecture(file)?;
    refuse_variants(file)?;
    let hidden = file.required_size("hidden_size")?;
    let heads = file.required_size("num_attention_heads")?;
    let window = sliding_window(file, architecture)?;
    let max_position =
        file.size("max_position_embeddings")?.unwrap_or(architecture.spec().max_position_default);
    let attention_bias = file.flag("attention_bias")?.unwrap_or(false);
    Ok(ModelConfig {
        architecture,
        hidden,
        layers: file.required_size("num_hidden_layers")?,
        heads,
        kv_heads: file.size("num_key_value_heads")?.unwrap_or(heads),
        head_dim: match file.size("head_dim")?.or(architecture.spec().head_dim_default) {
            Some(head_dim) => head_dim,
            None => hidden / heads,
        },
        ffn: file.required_size("intermediate_size")?,
        vocab: file.required_size("vocab_size")?,
        max_position: max_position.min(window.unwrap_or(usize::MAX)),
        sliding_window: window,
        norm_eps: file.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope: rope(file)?,
        tie_embeddings: file.flag("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: architecture.spec().always_qkv_bias || attention_bias,
        output_bias: !architecture.spec().always_qkv_bias && attention_bias,
        qk_norm: architecture.spec().qk_norm,
    })
}

/// The attention window: none where it is switched off or `null`; where the key is absent, what the class assumes.
fn sliding_window(file: &JsonFile, architecture: Architecture) -> Result<Option<usize>, LoadError> {
    let default = architecture.spec().sliding_window_default;
    let off = default.needs_flag && !file.flag("use_sliding_window")?.unwrap_or(false);
    let none = file.object.get("sliding_window").is_some_and(Value::is_null);
    if off || none { Ok(None) } else { Ok(file.size("sliding_window")?.or(default.size)) }
}

fn architecture(file: &JsonFile) -> Result<Architecture, LoadError> {
    let found = match (file.get("model_type"), file.get("architectures")) {
        (Some(Value::String(model_type)), _) => model_type.clone(),
        (None, Some(Value::Array(classes))) if classes.iter().any(Value::is_string) => {
            let class = classes.iter().find_map(Value::as_str).unwrap_or_default();
            class.trim_end_matches("ForCausalLM").to_lowercase()
        }
        _ => {
            return Err(LoadError::MissingKey {
                path: file.path.clone(),
                key: "model_type".to_owned(),
                expected: "the name of a model architecture",
            });
        }
    };
    Architecture::from_name(&found).ok_or_else(|| LoadError::UnsupportedArchitecture {
        path: file.path.clone(),
        found,
        supported: Architecture::names(),
    })
}

/// Variants of a supported architecture whose numbers would come out wrong.
fn refuse_variants(file: &JsonFile) -> Result<(), LoadError> {
    if let Some(act) = file.get("hidden_act")
        && !matches!(act.as_str(), Some("silu" | "swish"))
    {
        return Err(file.unsupported(format!("the activation hidden_act = {act}"), "silu"));
    }
    if file.flag("mlp_bias")? == Some(true) {
        return Err(
            file.unsupported("a bias in the feed-forward part (mlp_bias)".to_owned(), "mlp_bias = false")
        );
    }
    if let Some(factor) = file.number("partial_rotary_factor")?
        && factor != 1.0
    {
        let what = format!("rope over a part of a head (partial_rotary_factor = {factor})");
        return Err(file.unsupported(what, "partial_rotary_factor = 1"));
    }
    if let Some(quantisation) = file.get("quantization_config") {
        let method = quantisation.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
        let supported = "float32, float16 and bfloat16 safetensors, and quantised GGUF files";
        return Err(file.unsupported(format!("quantisation '{method}' (quantization_config)"), supported));
    }
    Ok(())
}

/// Both spellings: `rope_parameters` with everything, or `rope_theta` beside `rope_scaling`.
fn rope(file: &JsonFile) -> Result<Rope, LoadError> {
    let (key, found) = match (file.get("rope_parameters"), file.get("rope_scaling")) {
        (Some(new), _) => ("rope_parameters", Some(new)),
        (None, old) => ("rope_scaling", old),
    };
    let object = match found {
        None => Map::new(),
        Some(Value::Object(object)) => object.clone(),
        Some(other) => return Err(file.bad(key, "an object", other)),
    };
    let inner = JsonFile { path: file.path.clone(), object };
    let number = |name: &'static str| {
        inner.number(name)?.ok_or_else(|| LoadError::MissingKey {
            path: file.path.clone(),
            key: format!("{key}.{name}"),
            expected: "a number",
        })
    };
    let theta = inner.number("rope_theta")?.or(file.number("rope_theta")?).unwrap_or(10_000.0);
    let kind = inner.get("rope_type").or(inner.get("type")).and_then(Value::as_str).unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: number("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position: number("original_max_position_embeddings")?,
        },
        other => {
            let what = format!("rope scaling '{other}' ({key})");
            return Err(file.unsupported(
                what,
                "default, linear and llama3; remove the scaling to serve the original context",
            ));
        }
    };
    Ok(Rope { theta, scaling })
}

/// `generation_config.json` where there is one, otherwise what `config.json` says of end tokens.
pub(crate) fn generation_defaults(
    config: &JsonFile,
    generation: Option<&JsonFile>,
) -> Result<GenerationDefaults, LoadError> {
    let Some(file) = generation else {
        return Ok(GenerationDefaults { eos: config.token_ids("eos_token_id")?, ..Default::default() });
    };
    let mut eos = file.token_ids("eos_token_id")?;
    if eos.is_empty() {
        eos = config.token_ids("eos_token_id")?;
    }
    let single = |number: f64| number as f32;
    Ok(GenerationDefaults {
        eos,
        temperature: file.number("temperature")?.map(single),
        top_p: file.number("top_p")?.map(single),
        top_k: file.number("top_k")?.map(|k| k as u32).filter(|k| *k > 0),
        repetition_penalty: file.number("repetition_penalty")?.map(single),
    })
}
