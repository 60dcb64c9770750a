//! `POST /v1/completions`, as it arrives.

use super::options::{SEQUENCES_MAX, TOP_LOGPROBS_MAX, parse_token_id};
use super::reader::type_name;
use super::{ApiError, Fields, Options, ParseContext};
use baton_types::TokenId;
use serde_json::Value;

/// A request to continue prompts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CompletionRequest {
    pub(crate) options: Options,
    pub(crate) prompts: Vec<Prompt>,
    /// 0 only with `echo`; `None`: 16, or less where the context ends before.
    pub(crate) max_tokens: Option<u32>,
    /// Most likely tokens to report at each position.
    pub(crate) logprobs: Option<u8>,
    /// The response starts with the prompt.
    pub(crate) echo: bool,
}

/// One prompt, in either form.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<TokenId>),
}

impl CompletionRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// The first parameter that is wrong, unsupported or unknown.
    pub(crate) fn parse(body: Value, context: &ParseContext<'_>) -> Result<Self, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let options = Options::parse(&mut fields, context)?;
        let prompt = fields.take("prompt").ok_or_else(|| ApiError::missing("prompt"))?;
        let prompts = parse_prompts(prompt, context.vocab_size)?;
        if prompts.len() * options.n > SEQUENCES_MAX {
            let problem =
                format!("has {} prompts; times 'n' at most {SEQUENCES_MAX} are allowed", prompts.len());
            return Err(ApiError::invalid("prompt", problem));
        }
        if fields.int("best_of", 1..=i64::MAX)?.is_some_and(|best_of| best_of != options.n as i64) {
            return Err(ApiError::unsupported("best_of", " except where it equals 'n'"));
        }
        let request = Self {
            prompts,
            echo: fields.bool("echo")?.unwrap_or(false),
            max_tokens: fields.int("max_tokens", 0..=i64::from(u32::MAX))?.map(|tokens| tokens as u32),
            logprobs: fields.int("logprobs", 0..=TOP_LOGPROBS_MAX)?.map(|top| top as u8),
            options,
        };
        if request.max_tokens == Some(0) && !request.echo {
            return Err(ApiError::invalid("max_tokens", "must be at least 1 unless 'echo' is true"));
        }
        fields.finish()?;
        Ok(request)
    }
}

/// A string, a list of strings, a list of token ids, or a list of lists of them.
fn parse_prompts(value: Value, vocab_size: usize) -> Result<Vec<Prompt>, ApiError> {
    let list = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(list) => list,
        other => return Err(wrong(type_name(&other))),
    };
    match list.first() {
        None => Err(ApiError::invalid("prompt", "must not be an empty list")),
        Some(Value::Number(_)) => Ok(vec![Prompt::Tokens(parse_tokens(&list, vocab_size)?)]),
        // Before each is looked at: a prompt costs memory, and no number beyond this is allowed.
        Some(_) if list.len() > SEQUENCES_MAX => Err(ApiError::invalid(
            "prompt",
            format!("has {} prompts, at most {SEQUENCES_MAX} are allowed", list.len()),
        )),
        Some(Value::String(_)) => list.into_iter().map(parse_text).collect(),
        Some(Value::Array(_)) => list.iter().map(|tokens| parse_token_list(tokens, vocab_size)).collect(),
        Some(other) => Err(wrong(&format!("a list with {}", type_name(other)))),
    }
}

fn parse_text(value: Value) -> Result<Prompt, ApiError> {
    match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        other => Err(wrong(&format!("a list of strings with {}", type_name(&other)))),
    }
}

fn parse_token_list(value: &Value, vocab_size: usize) -> Result<Prompt, ApiError> {
    match value {
        Value::Array(tokens) if tokens.is_empty() => {
            Err(ApiError::invalid("prompt", "must not contain an empty list"))
        }
        Value::Array(tokens) => Ok(Prompt::Tokens(parse_tokens(tokens, vocab_size)?)),
        other => Err(wrong(&format!("a list of lists with {}", type_name(other)))),
    }
}

fn parse_tokens(list: &[Value], vocab_size: usize) -> Result<Vec<TokenId>, ApiError> {
    list.iter().map(|value| parse_token_id("prompt", value, vocab_size)).collect()
}

fn wrong(got: &str) -> ApiError {
    ApiError::wrong_type(
        "prompt",
        "a string, a list of strings, a list of token ids or a list of such lists",
        got,
    )
}
