//! `POST /v1/chat/completions`, as it arrives.

use super::messages::parse_messages;
use super::options::TOP_LOGPROBS_MAX;
use super::{ApiError, Fields, Options, ParseContext};
use serde_json::{Map, Value};

/// A request for the next message of a chat.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChatRequest {
    pub(crate) options: Options,
    /// Checked and normalised.
    pub(crate) messages: Vec<Value>,
    /// `None`: whatever is left of the context.
    pub(crate) max_tokens: Option<u32>,
    /// Most likely tokens to report at each position.
    pub(crate) logprobs: Option<u8>,
    pub(crate) add_generation_prompt: bool,
    pub(crate) continue_final_message: bool,
    /// Further variables for the chat template.
    pub(crate) template_extra: Map<String, Value>,
}

impl ChatRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// The first parameter that is wrong, unsupported or unknown.
    pub(crate) fn parse(body: Value, context: &ParseContext<'_>) -> Result<Self, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let options = Options::parse(&mut fields, context)?;
        let messages = fields.take("messages").ok_or_else(|| ApiError::missing("messages"))?;
        let (add_generation_prompt, continue_final_message) = parse_ending(&mut fields)?;
        if fields.bool("echo")? == Some(true) {
            return Err(ApiError::unsupported("echo", " in chats"));
        }
        let request = Self {
            messages: parse_messages(messages)?,
            max_tokens: parse_max_tokens(&mut fields)?,
            logprobs: parse_logprobs(&mut fields)?,
            add_generation_prompt,
            continue_final_message,
            template_extra: fields.object("chat_template_kwargs")?.unwrap_or_default(),
            options,
        };
        fields.finish()?;
        Ok(request)
    }
}

fn parse_ending(fields: &mut Fields) -> Result<(bool, bool), ApiError> {
    let continue_final = fields.bool("continue_final_message")?.unwrap_or(false);
    let add_prompt = fields.bool("add_generation_prompt")?;
    if continue_final && add_prompt == Some(true) {
        let problem = "cannot be true together with 'add_generation_prompt'";
        return Err(ApiError::invalid("continue_final_message", problem));
    }
    Ok((add_prompt.unwrap_or(!continue_final), continue_final))
}

/// `max_tokens` is the older name of `max_completion_tokens`.
fn parse_max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let range = 1..=i64::from(u32::MAX);
    let older = fields.int("max_tokens", range.clone())?;
    let newer = fields.int("max_completion_tokens", range)?;
    match (older, newer) {
        (Some(older), Some(newer)) if older != newer => {
            Err(ApiError::invalid("max_tokens", "differs from 'max_completion_tokens'; give one of them"))
        }
        _ => Ok(newer.or(older).map(|tokens| tokens as u32)),
    }
}

fn parse_logprobs(fields: &mut Fields) -> Result<Option<u8>, ApiError> {
    let logprobs = fields.bool("logprobs")?.unwrap_or(false);
    let top = fields.int("top_logprobs", 0..=TOP_LOGPROBS_MAX)?;
    match top {
        Some(top) if top > 0 && !logprobs => {
            Err(ApiError::invalid("top_logprobs", "is only allowed when 'logprobs' is true"))
        }
        _ => Ok(logprobs.then(|| top.unwrap_or(0) as u8)),
    }
}
