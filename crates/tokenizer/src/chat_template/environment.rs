//! What templates may use: Jinja as Hugging Face transformers sets it up.

use super::python::{json_dumps, str_of};
use super::{TemplateError, TemplateSources, strftime};
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, escape_formatter};
use std::error::Error as _;
use std::fmt;
use std::time::SystemTime;

/// Name of the template for every chat.
pub(super) const DEFAULT: &str = "chat_template";
/// Name of the template for chats with tools, where there is one.
pub(super) const TOOL_USE: &str = "tool_use";

/// Instructions that one rendering may execute. A long chat (1,000 messages with tools) takes some 100,000; this many
/// take about a second, so that no template hangs a request.
const FUEL: u64 = 10_000_000;

/// Why rendering failed.
pub(super) enum Failure {
    /// The template called `raise_exception`.
    Raised(String),
    /// Anything else.
    Other(String),
}

/// An exception of the template's own.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// An environment with the model's templates in it.
///
/// # Errors
/// [`TemplateError::Broken`] if one does not parse.
#[expect(clippy::disallowed_methods, reason = "`strftime_now` is what templates call for today's date")]
pub(super) fn build(sources: &TemplateSources) -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map => {
            Ok(out.write_str(&str_of(value))?)
        }
        _ => escape_formatter(out, state, value),
    });
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| str_of(value));
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| strftime::format(format, SystemTime::now()));

    let mut add = |name: &'static str, source: &str| {
        environment
            .add_template_owned(name, without_generation_tags(source))
            .map_err(|error| TemplateError::Broken(describe(&error)))
    };
    add(DEFAULT, &sources.default)?;
    if let Some(tool_use) = &sources.tool_use {
        add(TOOL_USE, tool_use)?;
    }
    Ok(environment)
}

/// Tells the template's own exceptions from everything else.
pub(super) fn failure(error: &Error) -> Failure {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return Failure::Raised(message.clone());
        }
        source = cause.source();
    }
    Failure::Other(if error.kind() == ErrorKind::OutOfFuel {
        format!("it did not finish within {FUEL} instructions")
    } else {
        describe(error)
    })
}

fn describe(error: &Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("{}{detail}{line}", error.kind())
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = str_of(message);
    Err(Error::new(ErrorKind::InvalidOperation, "exception").with_source(Raised(message)))
}

/// `json.dumps` with `ensure_ascii` off, and nothing escaped for HTML.
fn tojson(value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<String, Error> {
    let ensure_ascii = options.get::<Option<bool>>("ensure_ascii")?.or(ensure_ascii).unwrap_or(false);
    let indent = options.get::<Option<usize>>("indent")?;
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let separators = match separators.as_deref() {
        None => None,
        Some([item, key]) => Some((item.as_str(), key.as_str())),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "`separators` is not a pair")),
    };
    json_dumps(value, indent, separators, sort_keys, ensure_ascii)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "no JSON value").with_source(error))
}

/// Replaces `{% generation %}`, which marks what a model is trained on and says nothing to a server, by a block
/// without effect.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        result.push_str(before);
        let Some(end) = tag.find("%}") else { return result + tag };
        let (tag, after) = tag.split_at(end);
        let word = tag.trim_matches(['-', '+']).trim();
        match word {
            "generation" => result.push_str(&tag.replacen(word, "if true", 1)),
            "endgeneration" => result.push_str(&tag.replacen(word, "endif", 1)),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_blocks_without_effect() {
        let source =
            "{% if x %}{%- generation -%}a{% endgeneration %}{% endif %}{%generation%} {% 'generation' %}";
        let expected = "{% if x %}{%- if true -%}a{% endif %}{% endif %}{%if true%} {% 'generation' %}";
        assert_eq!(without_generation_tags(source), expected);
        assert_eq!(without_generation_tags("a {% b"), "a {% b");
    }
}
