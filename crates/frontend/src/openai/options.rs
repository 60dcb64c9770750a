//! The parameters that both endpoints share.

use super::reader::type_name;
use super::unsupported::refuse_unsupported;
use super::{ApiError, Fields};
use crate::config::SamplingDefaults;
use baton_types::{SamplingParams, TokenId};
use serde_json::Value;

/// What reading a request needs to know about the server.
pub(crate) struct ParseContext<'a> {
    pub(crate) served_model_names: &'a [String],
    pub(crate) defaults: SamplingDefaults,
    pub(crate) vocab_size: usize,
}

/// The shared parameters of one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// The name the client asked for, which responses repeat.
    pub(crate) model: String,
    /// All but `max_tokens`, `seed` and the log-probabilities, which later steps fill in.
    pub(crate) sampling: SamplingParams,
    pub(crate) seed: Option<u64>,
    pub(crate) n: usize,
    pub(crate) stop: Vec<String>,
    pub(crate) include_stop_str: bool,
    pub(crate) skip_special_tokens: bool,
    /// `None`: the endpoint's own default.
    pub(crate) add_special_tokens: Option<bool>,
    pub(crate) cache_salt: String,
    /// `None`: one response at the end.
    pub(crate) stream: Option<StreamOptions>,
}

/// What a token stream carries besides text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    /// A last chunk with the usage.
    pub(crate) include_usage: bool,
    /// The usage so far in every chunk.
    pub(crate) continuous_usage: bool,
}

/// As many sequences as one request may start: `n`, or prompts times `n`.
pub(crate) const SEQUENCES_MAX: usize = 128;
/// OpenAI allows 4 stop strings; users of vLLM send more.
const STOP_STRINGS_MAX: usize = 16;
/// Longer than any separator people use; text as long as this is held back at most.
const STOP_STRING_BYTES_MAX: usize = 1024;
const STOP_TOKENS_MAX: usize = 128;
const LOGIT_BIAS_MAX: usize = 1024;
const CACHE_SALT_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 4096;
/// Most likely tokens reported at a position: what the OpenAI API allows in chats.
pub(crate) const TOP_LOGPROBS_MAX: i64 = 20;

impl Options {
    /// Reads them, and refuses what this server knows of but cannot do.
    ///
    /// # Errors
    /// The first parameter that is wrong.
    pub(crate) fn parse(fields: &mut Fields, context: &ParseContext<'_>) -> Result<Self, ApiError> {
        let model = parse_model(fields, context)?;
        refuse_unsupported(fields)?;
        for name in ["user", "safety_identifier", "prompt_cache_key"] {
            fields.string(name, NAME_BYTES_MAX)?;
        }
        fields.object("metadata")?;
        let (stop, stop_token_ids) = (parse_stop(fields)?, parse_stop_token_ids(fields, context.vocab_size)?);
        let seed = fields.int("seed", i64::MIN..=i64::MAX)?.map(|seed| seed as u64);
        let n = fields.int("n", 1..=SEQUENCES_MAX as i64)?.unwrap_or(1) as usize;
        Ok(Self {
            model,
            sampling: SamplingParams { stop_token_ids, ..parse_sampling(fields, context)? },
            seed,
            n,
            stop,
            include_stop_str: fields.bool("include_stop_str_in_output")?.unwrap_or(false),
            skip_special_tokens: fields.bool("skip_special_tokens")?.unwrap_or(true),
            add_special_tokens: fields.bool("add_special_tokens")?,
            cache_salt: fields.string("cache_salt", CACHE_SALT_BYTES_MAX)?.unwrap_or_default(),
            stream: parse_stream(fields)?,
        })
    }
}

fn parse_model(fields: &mut Fields, context: &ParseContext<'_>) -> Result<String, ApiError> {
    let model = fields.string("model", NAME_BYTES_MAX)?.ok_or_else(|| ApiError::missing("model"))?;
    if context.served_model_names.contains(&model) {
        return Ok(model);
    }
    Err(ApiError::model_not_found(&model, &context.served_model_names.join("', '")))
}

fn parse_sampling(fields: &mut Fields, context: &ParseContext<'_>) -> Result<SamplingParams, ApiError> {
    let defaults = &context.defaults;
    let top_k = fields.int("top_k", -1..=i64::from(u32::MAX))?;
    Ok(SamplingParams {
        temperature: fields.float("temperature", 0.0..=2.0)?.or(defaults.temperature).unwrap_or(1.0),
        // 0 and -1 both mean "all tokens" to users of vLLM.
        top_k: top_k.map_or(defaults.top_k, |k| u32::try_from(k).ok()).filter(|k| *k > 0),
        // OpenAI takes 0, which leaves the most likely token only, as does the smallest number above it.
        top_p: fields.float("top_p", 0.0..=1.0)?.or(defaults.top_p).unwrap_or(1.0).max(f32::MIN_POSITIVE),
        min_p: fields.float("min_p", 0.0..=1.0)?.or(defaults.min_p).unwrap_or(0.0),
        presence_penalty: fields.float("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.float("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        // Wide enough for every use, and no logit overflows.
        repetition_penalty: fields
            .float("repetition_penalty", 0.01..=100.0)?
            .or(defaults.repetition_penalty)
            .unwrap_or(1.0),
        logit_bias: parse_logit_bias(fields, context.vocab_size)?,
        min_tokens: fields.int("min_tokens", 0..=i64::from(u32::MAX))?.unwrap_or(0) as u32,
        ignore_eos: fields.bool("ignore_eos")?.unwrap_or(false),
        ..SamplingParams::default()
    })
}

fn parse_logit_bias(fields: &mut Fields, vocab_size: usize) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let biases = fields.object("logit_bias")?.unwrap_or_default();
    if biases.len() > LOGIT_BIAS_MAX {
        let problem = format!("has {} entries, at most {LOGIT_BIAS_MAX} are allowed", biases.len());
        return Err(ApiError::invalid("logit_bias", problem));
    }
    let mut parsed = Vec::with_capacity(biases.len());
    for (key, value) in biases {
        let id = key.parse::<u32>().ok().filter(|id| (*id as usize) < vocab_size).ok_or_else(|| {
            let shown: String = key.chars().take(32).collect();
            ApiError::invalid(
                "logit_bias",
                format!("has the key '{shown}', which is not a token id of this model"),
            )
        })?;
        let bias = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).ok_or_else(|| {
            ApiError::invalid("logit_bias", format!("must be a number between -100 and 100 for token {id}"))
        })?;
        parsed.push((TokenId(id), bias as f32));
    }
    Ok(parsed)
}

fn parse_stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let list = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![Value::String(text)],
        Some(Value::Array(list)) if list.len() <= STOP_STRINGS_MAX => list,
        Some(Value::Array(list)) => {
            let problem = format!("has {} strings, at most {STOP_STRINGS_MAX} are allowed", list.len());
            return Err(ApiError::invalid("stop", problem));
        }
        Some(other) => {
            return Err(ApiError::wrong_type("stop", "a string or a list of strings", type_name(&other)));
        }
    };
    list.into_iter().map(parse_stop_string).collect()
}

fn parse_stop_string(value: Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) if text.is_empty() => {
            Err(ApiError::invalid("stop", "must not contain an empty string"))
        }
        Value::String(text) if text.len() > STOP_STRING_BYTES_MAX => {
            let problem =
                format!("has a string of {} bytes, at most {STOP_STRING_BYTES_MAX} are allowed", text.len());
            Err(ApiError::invalid("stop", problem))
        }
        Value::String(text) => Ok(text),
        other => Err(ApiError::wrong_type("stop", "a string or a list of strings", type_name(&other))),
    }
}

fn parse_stop_token_ids(fields: &mut Fields, vocab_size: usize) -> Result<Vec<TokenId>, ApiError> {
    let list = fields.list("stop_token_ids", STOP_TOKENS_MAX)?.unwrap_or_default();
    list.iter().map(|value| parse_token_id("stop_token_ids", value, vocab_size)).collect()
}

/// Reads a token id of this model.
///
/// # Errors
/// If it is none; they name `param`.
pub(crate) fn parse_token_id(param: &str, value: &Value, vocab_size: usize) -> Result<TokenId, ApiError> {
    if !(value.is_u64() || value.is_i64()) {
        return Err(ApiError::wrong_type(
            param,
            "a list of token ids",
            &format!("one with {}", type_name(value)),
        ));
    }
    match value.as_u64().filter(|id| *id < vocab_size as u64) {
        Some(id) => Ok(TokenId(id as u32)),
        None => Err(ApiError::invalid(
            param,
            format!("has the token id {value}; this model's are 0 to {}", vocab_size.max(1) - 1),
        )),
    }
}

fn parse_stream(fields: &mut Fields) -> Result<Option<StreamOptions>, ApiError> {
    let stream = fields.bool("stream")?.unwrap_or(false);
    let Some(value) = fields.take("stream_options") else {
        return Ok(stream.then(StreamOptions::default));
    };
    if !stream {
        return Err(ApiError::invalid("stream_options", "is only allowed when 'stream' is true"));
    }
    let mut nested = Fields::nested("stream_options", value)?;
    let include_usage = nested.bool("include_usage")?.unwrap_or(false);
    let continuous_usage = nested.bool("continuous_usage_stats")?.unwrap_or(false);
    // Random padding against guessing tokens from packet sizes: off is all we have.
    if nested.bool("include_obfuscation")? == Some(true) {
        return Err(ApiError::unsupported("stream_options.include_obfuscation", ""));
    }
    nested.finish()?;
    Ok(Some(StreamOptions { include_usage, continuous_usage: include_usage && continuous_usage }))
}
