//! The messages of a chat: checked, and brought into the plain form that chat templates are written for.

use super::reader::type_name;
use super::{ApiError, Fields};
use serde_json::{Map, Value};

/// Reads the list of messages. Each becomes an object with `role`, `content` (a string) and, where given, `name`,
/// `tool_calls` and `tool_call_id`.
///
/// `developer` becomes `system`, which is what it was called before and what templates know. Text parts are joined by
/// line breaks. The arguments of tool calls become objects, as templates expect them.
///
/// # Errors
/// The first thing that is wrong, by its path.
pub(crate) fn parse_messages(value: Value) -> Result<Vec<Value>, ApiError> {
    let Value::Array(messages) = value else {
        return Err(ApiError::wrong_type("messages", "a list", type_name(&value)));
    };
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "must have at least one message"));
    }
    messages.into_iter().enumerate().map(|(index, message)| parse_message(index, message)).collect()
}

fn parse_message(index: usize, value: Value) -> Result<Value, ApiError> {
    let path = format!("messages[{index}]");
    let mut fields = Fields::nested(&path, value)?;
    let role = fields.string("role", 64)?.ok_or_else(|| ApiError::missing(fields.path("role")))?;
    let role = match role.as_str() {
        "developer" => "system",
        "system" | "user" | "assistant" | "tool" => role.as_str(),
        _ => {
            let problem = "must be one of 'system', 'developer', 'user', 'assistant' and 'tool'";
            return Err(ApiError::invalid(fields.path("role"), problem));
        }
    };
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    let tool_calls = if role == "assistant" { parse_tool_calls(&mut fields)? } else { None };
    let content = match fields.take("content") {
        Some(content) => parse_content(&fields.path("content"), content)?,
        None if tool_calls.is_some() => String::new(),
        None => return Err(ApiError::missing(fields.path("content"))),
    };
    message.insert("content".into(), content.into());
    if let Some(calls) = tool_calls {
        message.insert("tool_calls".into(), calls.into());
    }
    if let Some(name) = fields.string("name", 256)? {
        message.insert("name".into(), name.into());
    }
    if role == "tool" {
        let id = fields.string("tool_call_id", 256)?;
        message.insert(
            "tool_call_id".into(),
            id.ok_or_else(|| ApiError::missing(fields.path("tool_call_id")))?.into(),
        );
    }
    refuse_extras(&mut fields)?;
    fields.finish()?;
    Ok(Value::Object(message))
}

/// What responses of OpenAI carry and clients send back as it is: empty, or not for us.
fn refuse_extras(fields: &mut Fields) -> Result<(), ApiError> {
    for name in
        ["refusal", "audio", "function_call", "tool_calls", "annotations", "reasoning_content", "reasoning"]
    {
        let value = fields.take(name);
        if value.is_some_and(|value| !value.as_array().is_some_and(Vec::is_empty)) {
            return Err(ApiError::unsupported(fields.path(name), ""));
        }
    }
    Ok(())
}

fn parse_content(path: &str, content: Value) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => return Err(ApiError::wrong_type(path, "a string or a list of parts", type_name(&other))),
    };
    let texts =
        parts.into_iter().enumerate().map(|(index, part)| parse_part(&format!("{path}[{index}]"), part));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn parse_part(path: &str, part: Value) -> Result<String, ApiError> {
    let mut fields = Fields::nested(path, part)?;
    let kind = fields.string("type", 64)?.ok_or_else(|| ApiError::missing(fields.path("type")))?;
    if kind != "text" {
        let hint = format!(": it is of type '{kind}', and this model reads text only");
        return Err(ApiError::unsupported(path, &hint));
    }
    let text = fields.string("text", usize::MAX)?.ok_or_else(|| ApiError::missing(fields.path("text")))?;
    fields.finish()?;
    Ok(text)
}

fn parse_tool_calls(fields: &mut Fields) -> Result<Option<Vec<Value>>, ApiError> {
    let path = fields.path("tool_calls");
    let Some(calls) = fields.list("tool_calls", 128)?.filter(|calls| !calls.is_empty()) else {
        return Ok(None);
    };
    let calls =
        calls.into_iter().enumerate().map(|(index, call)| parse_tool_call(&format!("{path}[{index}]"), call));
    calls.collect::<Result<_, _>>().map(Some)
}

fn parse_tool_call(path: &str, call: Value) -> Result<Value, ApiError> {
    let mut fields = Fields::nested(path, call)?;
    let id = fields.string("id", 256)?.ok_or_else(|| ApiError::missing(fields.path("id")))?;
    let kind = fields.string("type", 64)?.unwrap_or_else(|| "function".into());
    if kind != "function" {
        return Err(ApiError::unsupported(fields.path("type"), " except \"function\""));
    }
    let function = fields.take("function").ok_or_else(|| ApiError::missing(fields.path("function")))?;
    let mut inner = Fields::nested(&fields.path("function"), function)?;
    let name = inner.string("name", 256)?.ok_or_else(|| ApiError::missing(inner.path("name")))?;
    let arguments = inner.string("arguments", usize::MAX)?.unwrap_or_default();
    inner.finish()?;
    fields.finish()?;
    let arguments = serde_json::from_str(&arguments)
        .ok()
        .filter(Value::is_object)
        .unwrap_or_else(|| if arguments.trim().is_empty() { Map::new().into() } else { arguments.into() });
    Ok(serde_json::json!({"id": id, "type": kind, "function": {"name": name, "arguments": arguments}}))
}
