//! Messages in the form that templates expect.

use super::TemplateError;
use serde_json::{Value, json};

/// What a template does with a message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentForms {
    /// It prints a text.
    texts: bool,
    /// It looks into a list of parts.
    parts: bool,
}

impl Default for ContentForms {
    fn default() -> Self {
        Self { texts: true, parts: false }
    }
}

impl ContentForms {
    /// Finds out by rendering one message in both forms.
    pub(super) fn probe(render: impl Fn(&[Value]) -> Option<String>) -> Self {
        const WORD: &str = "baton-content-probe";
        let shown = |content: Value| {
            let text = render(&[json!({"role": "user", "content": content})])?;
            // A template that prints the list as it is does not look into it.
            (text.contains(WORD) && !text.contains("'text'") && !text.contains("\"text\"")).then_some(())
        };
        let parts = shown(json!([{"type": "text", "text": WORD}])).is_some();
        let texts = shown(WORD.into()).is_some();
        Self { texts: texts || !parts, parts }
    }
}

/// The messages as the template expects them: contents in a form that it handles, tool arguments as objects, no empty
/// lists of tool calls.
///
/// # Errors
/// [`TemplateError::Rejected`] for parts that are not text where the template handles only texts.
pub(super) fn prepare(messages: &[Value], forms: ContentForms) -> Result<Vec<Value>, TemplateError> {
    let mut prepared = messages.to_vec();
    for (index, message) in prepared.iter_mut().enumerate() {
        let Some(message) = message.as_object_mut() else {
            return Err(TemplateError::Rejected(format!("messages[{index}] is not an object")));
        };
        let content = message.remove("content").unwrap_or_default();
        let content = prepare_content(content, forms)
            .map_err(|problem| TemplateError::Rejected(format!("messages[{index}].content {problem}")))?;
        message.insert("content".into(), content);
        match message.get_mut("tool_calls") {
            Some(Value::Array(calls)) if !calls.is_empty() => calls.iter_mut().for_each(parse_arguments),
            Some(_) => {
                message.shift_remove("tool_calls");
            }
            None => {}
        }
    }
    Ok(prepared)
}

fn prepare_content(content: Value, forms: ContentForms) -> Result<Value, String> {
    match content {
        // An assistant message that only calls tools. Python would print a null as "None".
        Value::Null if forms.texts => Ok("".into()),
        Value::Null => Ok(json!([])),
        Value::String(text) if !forms.texts => Ok(json!([{"type": "text", "text": text}])),
        Value::Array(parts) if !forms.parts => {
            let texts: Vec<&str> = parts.iter().map(text_of_part).collect::<Result<_, _>>()?;
            Ok(texts.join("\n").into())
        }
        content => Ok(content),
    }
}

fn text_of_part(part: &Value) -> Result<&str, String> {
    let kind = part["type"].as_str().unwrap_or("text");
    let text = if kind == "text" || kind == "input_text" || kind == "output_text" || kind == "refusal" {
        part.as_str().or_else(|| part["text"].as_str()).or_else(|| part["refusal"].as_str())
    } else {
        None
    };
    text.ok_or_else(|| format!("has a part of type `{kind}`, but this model takes only text"))
}

/// The API carries a call's arguments as JSON in a text; templates want the object. Arguments that a model got wrong
/// stay a text.
fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call.get_mut("function").and_then(|function| function.get_mut("arguments")) else {
        return;
    };
    let Some(text) = arguments.as_str() else { return };
    if text.trim().is_empty() {
        *arguments = json!({});
    } else if let Ok(object @ Value::Object(_)) = serde_json::from_str(text) {
        *arguments = object;
    }
}

/// Where the final message's content ends in the prompt, for the model to continue it.
pub(super) struct Ending;

/// Stands after the final content while the template runs. The blank at its end tells whether the template trims.
const MARK: &str = "\u{e000}baton-final-message-ends\u{e001} ";

impl Ending {
    /// Puts a mark after the final message's text.
    ///
    /// # Errors
    /// [`TemplateError::Rejected`] if there is no text to continue.
    pub(super) fn mark(messages: &mut [Value]) -> Result<Self, TemplateError> {
        let content = messages.last_mut().and_then(|message| message.get_mut("content"));
        let text = match content {
            Some(Value::Array(parts)) => parts.iter_mut().rev().find_map(|part| part.get_mut("text")),
            content => content,
        };
        let Some(Value::String(text)) = text else {
            let problem = "`continue_final_message` needs a final message with text";
            return Err(TemplateError::Rejected(problem.into()));
        };
        text.push_str(MARK);
        Ok(Self)
    }

    /// Cuts the prompt at the mark.
    ///
    /// # Errors
    /// [`TemplateError::Rejected`] if the template dropped or changed the final message.
    pub(super) fn cut(self, mut prompt: String) -> Result<String, TemplateError> {
        let Some(position) = prompt.rfind(MARK.trim_end()) else {
            let problem = "`continue_final_message` is set, but the model's chat template does not show the final \
                           message as it is";
            return Err(TemplateError::Rejected(problem.into()));
        };
        let trimmed = !prompt[position..].starts_with(MARK);
        prompt.truncate(position);
        if trimmed {
            prompt.truncate(prompt.trim_end().len());
        }
        Ok(prompt)
    }
}
