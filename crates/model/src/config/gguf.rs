//! The metadata of a GGUF file: sizes, rope, and the tokenizer's tables.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use super::{Architecture, GenerationDefaults, ModelConfig, Rope, RopeScaling};
use crate::error::LoadError;
use crate::source::TensorTable;
use baton_types::TokenId;
use baton_types::tokenizer_source::GgufTokenizer;
use candle_core::quantized::gguf_file::Value;
use std::collections::HashMap;
use std::path::PathBuf;

/// The key-value part of a GGUF file. Large arrays are moved out of it, not copied.
pub(crate) struct Metadata {
    pub(crate) path: PathBuf,
    pub(crate) values: HashMap<String, Value>,
}

impl Metadata {
    fn bad(&self, key: &str, expected: &str, found: &Value) -> LoadError {
        LoadError::BadValue {
            path: self.path.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: describe(found),
        }
    }

    fn missing(&self, key: &str, expected: &'static str) -> LoadError {
        LoadError::MissingKey { path: self.path.clone(), key: key.to_owned(), expected }
    }

    fn integer(&self, key: &str) -> Result<Option<u64>, LoadError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let number = match value {
            Value::I8(v) => u64::try_from(*v).ok(),
            Value::I16(v) => u64::try_from(*v).ok(),
            Value::I32(v) => u64::try_from(*v).ok(),
            Value::I64(v) => u64::try_from(*v).ok(),
            other => other.to_u64().ok(),
        };
        number.map(Some).ok_or_else(|| self.bad(key, "a whole number", value))
    }

    fn size(&self, key: &str) -> Result<Option<usize>, LoadError> {
        match self.integer(key)? {
            Some(number) if !(1..=u64::from(u32::MAX)).contains(&number) => {
                Err(self.bad(key, "a whole number of at least 1", &Value::U64(number)))
            }
            number => Ok(number.map(|number| number as usize)),
        }
    }

    fn required_size(&self, key: &str) -> Result<usize, LoadError> {
        self.size(key)?.ok_or_else(|| self.missing(key, "a whole number of at least 1"))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, LoadError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::F32(number)) => Ok(Some(f64::from(*number))),
            Some(Value::F64(number)) => Ok(Some(*number)),
            Some(other) => Err(self.bad(key, "a floating-point number", other)),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&str>, LoadError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.bad(key, "a string", other)),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.bad(key, "true or false", other)),
        }
    }

    fn token(&self, key: &str) -> Result<Option<TokenId>, LoadError> {
        Ok(self.integer(key)?.and_then(|id| u32::try_from(id).ok()).map(TokenId))
    }

    /// Moves an array out, element by element through `element`; absent is empty.
    fn take_array<T>(
        &mut self,
        key: &str,
        expected: &str,
        element: impl Fn(Value) -> Option<T>,
    ) -> Result<Vec<T>, LoadError> {
        match self.values.remove(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => values
                .into_iter()
                .map(element)
                .collect::<Option<_>>()
                .ok_or_else(|| self.bad(key, expected, &Value::Array(Vec::new()))),
            Some(other) => Err(self.bad(key, expected, &other)),
        }
    }

    fn unsupported(&self, what: String, supported: &'static str) -> LoadError {
        LoadError::UnsupportedFeature { path: self.path.clone(), what, supported }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The model that the metadata and the tensor table describe.
pub(crate) fn model_config(metadata: &Metadata, tensors: &TensorTable) -> Result<ModelConfig, LoadError> {
    let name = metadata
        .text("general.architecture")?
        .ok_or_else(|| metadata.missing("general.architecture", "the name of a model architecture"))?;
    let architecture = Architecture::from_name(name).ok_or_else(|| LoadError::UnsupportedArchitecture {
        path: metadata.path.clone(),
        found: name.to_owned(),
        supported: Architecture::names(),
    })?;
    let key = |suffix: &str| format!("{name}.{suffix}");
    if metadata.integer(&key("expert_count"))?.is_some_and(|experts| experts > 0) {
        return Err(metadata.unsupported("a mixture of experts (expert_count)".to_owned(), "dense models"));
    }
    if let Some(files) = metadata.integer("split.count")?.filter(|files| *files > 1) {
        let what = format!("a model split over {files} files (split.count)");
        return Err(metadata.unsupported(what, "one .gguf file; join the parts with `gguf-split --merge`"));
    }
    let names = architecture.spec().gguf;
    let hidden = metadata.required_size(&key("embedding_length"))?;
    let heads = metadata.required_size(&key("attention.head_count"))?;
    let head_dim = metadata.size(&key("attention.key_length"))?.unwrap_or(hidden / heads);
    for other in ["attention.value_length", "rope.dimension_count"] {
        if let Some(size) = metadata.size(&key(other))?
            && size != head_dim
        {
            let what = format!("{} = {size} with a head size of {head_dim}", key(other));
            return Err(metadata.unsupported(what, "the head size in both places"));
        }
    }
    let window = metadata.integer(&key("attention.sliding_window"))?.filter(|w| *w > 0).map(|w| w as usize);
    let vocab = match tensors.shape(names.embedding) {
        Some([rows, _]) => *rows,
        _ => metadata.required_size(&key("vocab_size"))?,
    };
    Ok(ModelConfig {
        architecture,
        hidden,
        layers: metadata.required_size(&key("block_count"))?,
        heads,
        kv_heads: metadata.size(&key("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        ffn: metadata.required_size(&key("feed_forward_length"))?,
        vocab,
        max_position: metadata.required_size(&key("context_length"))?.min(window.unwrap_or(usize::MAX)),
        sliding_window: window,
        norm_eps: metadata
            .number(&key("attention.layer_norm_rms_epsilon"))?
            .ok_or_else(|| metadata.missing(&key("attention.layer_norm_rms_epsilon"), "a number"))?
            as f32,
        rope: Rope {
            theta: metadata.number(&key("rope.freq_base"))?.unwrap_or(10_000.0),
            scaling: rope_scaling(metadata, name, tensors)?,
        },
        tie_embeddings: tensors.shape(names.lm_head).is_none(),
        qkv_bias: architecture.spec().always_qkv_bias
            || tensors.shape(&names.layer(0, names.q_bias)).is_some(),
        output_bias: tensors.shape(&names.layer(0, names.output_bias)).is_some(),
        qk_norm: architecture.spec().qk_norm,
    })
}

fn rope_scaling(metadata: &Metadata, name: &str, tensors: &TensorTable) -> Result<RopeScaling, LoadError> {
    if let Some(divisors) = tensors.get("rope_freqs.weight") {
        return Ok(RopeScaling::Divisors(divisors.to_vec()?));
    }
    match metadata.text(&format!("{name}.rope.scaling.type"))? {
        None | Some("none") => Ok(RopeScaling::None),
        Some("linear") => {
            let key = format!("{name}.rope.scaling.factor");
            let factor = metadata.number(&key)?.ok_or_else(|| metadata.missing(&key, "a number"))?;
            Ok(RopeScaling::Linear { factor })
        }
        Some(other) => Err(metadata
            .unsupported(format!("rope scaling '{other}' ({name}.rope.scaling.type)"), "none and linear")),
    }
}

/// End tokens: `eos`, and the end of a turn where the model has another token for it.
pub(crate) fn generation_defaults(metadata: &Metadata) -> Result<GenerationDefaults, LoadError> {
    let mut eos = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        eos.extend(metadata.token(key)?.filter(|token| !eos.contains(token)));
    }
    Ok(GenerationDefaults { eos, ..Default::default() })
}

/// Moves the tokenizer's tables out of the metadata.
pub(crate) fn take_tokenizer(metadata: &mut Metadata) -> Result<GgufTokenizer, LoadError> {
    let string = |value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    let token_type = |value| match value {
        Value::I32(number) => Some(number),
        Value::U32(number) => i32::try_from(number).ok(),
        _ => None,
    };
    let score = |value| match value {
        Value::F32(number) => Some(number),
        _ => None,
    };
    Ok(GgufTokenizer {
        model: metadata
            .text("tokenizer.ggml.model")?
            .ok_or_else(|| metadata.missing("tokenizer.ggml.model", "gpt2 or llama"))?
            .to_owned(),
        pre: metadata.text("tokenizer.ggml.pre")?.map(str::to_owned),
        tokens: metadata.take_array("tokenizer.ggml.tokens", "an array of strings", string)?,
        token_types: metadata.take_array("tokenizer.ggml.token_type", "an array of i32", token_type)?,
        scores: metadata.take_array("tokenizer.ggml.scores", "an array of f32", score)?,
        merges: metadata.take_array("tokenizer.ggml.merges", "an array of strings", string)?,
        bos: metadata.token("tokenizer.ggml.bos_token_id")?,
        eos: metadata.token("tokenizer.ggml.eos_token_id")?,
        unknown: metadata.token("tokenizer.ggml.unknown_token_id")?,
        padding: metadata.token("tokenizer.ggml.padding_token_id")?,
        add_bos: metadata.flag("tokenizer.ggml.add_bos_token")?,
        add_space_prefix: metadata.flag("tokenizer.ggml.add_space_prefix")?,
        chat_template: metadata.text("tokenizer.chat_template")?.map(str::to_owned),
    })
}
