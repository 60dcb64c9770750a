//! Parameters that exist in the OpenAI API or in vLLM's and that this server cannot honour. They are refused by name: a
//! client that asks for JSON and gets prose is worse off than one that gets an error.

use super::{ApiError, Fields};
use serde_json::{Value, json};

/// Refuses each of them unless its value asks for nothing.
///
/// # Errors
/// It names the parameter.
pub(crate) fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    for (names, asks_for_nothing, hint) in TABLE {
        for name in *names {
            if fields.take(name).is_some_and(|value| !asks_for_nothing(&value)) {
                return Err(ApiError::unsupported(*name, hint));
            }
        }
    }
    Ok(())
}

/// Whether a value leaves everything as it would be without it.
type AsksForNothing = fn(&Value) -> bool;

/// Names, what is accepted because it has no effect, and a hint for everybody else.
const TABLE: &[(&[&str], AsksForNothing, &str)] = &[
    (&["tools", "functions"], is_empty_list, "; describe the tools in a message instead"),
    (&["tool_choice", "function_call"], is_no_tool, ": it has no tools"),
    (&["parallel_tool_calls"], Value::is_boolean, ""),
    (&["response_format"], is_text_format, " except {\"type\": \"text\"}"),
    (&["modalities"], is_text_only, " except [\"text\"]"),
    (&["service_tier"], is_default_tier, " except \"auto\" and \"default\""),
    (
        &["store", "use_beam_search", "return_tokens_as_token_ids", "return_token_ids"],
        is_false,
        " except false",
    ),
    (&["early_stopping", "include_reasoning", "return_token_offsets"], is_false, " except false"),
    (&["spaces_between_special_tokens", "detokenize"], is_true, " except true"),
    (&["length_penalty"], is_one, " except 1"),
    (&["priority"], is_zero, " except 0"),
    (&["audio", "prediction", "web_search_options", "reasoning_effort", "reasoning", "verbosity"], never, ""),
    (&["prompt_cache_retention", "moderation"], never, ""),
    (&["suffix"], is_empty_text, ""),
    (
        &["guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_decoding_backend"],
        never,
        "",
    ),
    (&["guided_whitespace_pattern", "structural_tag", "structured_outputs", "response_schema"], never, ""),
    (&["documents", "chat_template", "mm_processor_kwargs", "media_io_kwargs"], never, ""),
    (&["prompt_logprobs"], never, "; /v1/completions with 'echo' and 'logprobs' gives them"),
    (
        &["prompt_embeds", "truncate_prompt_tokens", "allowed_token_ids", "bad_words", "logits_processors"],
        never,
        "",
    ),
    (&["kv_transfer_params", "vllm_xargs", "request_id", "typical_p", "thinking_token_budget"], never, ""),
];

fn never(_: &Value) -> bool {
    false
}

fn is_false(value: &Value) -> bool {
    *value == Value::Bool(false)
}

fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true)
}

fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

fn is_empty_text(value: &Value) -> bool {
    value.as_str() == Some("")
}

fn is_no_tool(value: &Value) -> bool {
    matches!(value.as_str(), Some("none" | "auto"))
}

fn is_default_tier(value: &Value) -> bool {
    matches!(value.as_str(), Some("auto" | "default"))
}

fn is_text_only(value: &Value) -> bool {
    *value == json!(["text"])
}

fn is_text_format(value: &Value) -> bool {
    *value == json!({"type": "text"})
}
