//! Reads a JSON object field by field. Every error names its field, and [`Fields::finish`] refuses what nobody read.

use super::ApiError;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// The fields of an object that were not read yet. A field that is `null` counts as absent.
pub(crate) struct Fields {
    /// What precedes a field's name in an error: empty, or e.g. `stream_options.`.
    prefix: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// The request itself.
    ///
    /// # Errors
    /// If it is not an object.
    pub(crate) fn of_body(value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(fields) => Ok(Self { prefix: String::new(), fields }),
            other => Err(ApiError::malformed(format!(
                "The request's body must be a JSON object, not {}.",
                type_name(&other)
            ))),
        }
    }

    /// An object inside a request; `path` is its full name.
    ///
    /// # Errors
    /// If it is not an object.
    pub(crate) fn nested(path: &str, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(fields) => Ok(Self { prefix: format!("{path}."), fields }),
            other => Err(ApiError::wrong_type(path, "an object", type_name(&other))),
        }
    }

    /// The full name of a field.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Reads a field of any type.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// Reads `true` or `false`.
    pub(crate) fn bool(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.take(name)
            .map(|value| value.as_bool().ok_or_else(|| self.wrong(name, "a boolean", &value)))
            .transpose()
    }

    /// Reads a number without a fraction inside `range`. `1.0` is not one.
    pub(crate) fn int(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = match value.as_i64() {
            Some(number) => number,
            None if value.is_u64() => i64::MAX,
            None => return Err(self.wrong(name, "an integer", &value)),
        };
        // An integer beyond 64 bits is out of any range, the widest included.
        if !range.contains(&number) || value.as_i64().is_none() {
            return Err(self.out_of_range(name, range.start(), range.end(), &value));
        }
        Ok(Some(number))
    }

    /// Reads a number inside `range`.
    pub(crate) fn float(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| self.wrong(name, "a number", &value))?;
        if !range.contains(&number) {
            return Err(self.out_of_range(name, range.start(), range.end(), &value));
        }
        Ok(Some(number as f32))
    }

    /// Reads a string of at most `bytes_max` bytes.
    pub(crate) fn string(&mut self, name: &str, bytes_max: usize) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= bytes_max => Ok(Some(text)),
            Some(Value::String(text)) => Err(ApiError::invalid(
                self.path(name),
                format!("has {} bytes, at most {bytes_max} are allowed", text.len()),
            )),
            Some(other) => Err(self.wrong(name, "a string", &other)),
        }
    }

    /// Reads a list of at most `len_max` entries.
    pub(crate) fn list(&mut self, name: &str, len_max: usize) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() <= len_max => Ok(Some(list)),
            Some(Value::Array(list)) => Err(ApiError::invalid(
                self.path(name),
                format!("has {} entries, at most {len_max} are allowed", list.len()),
            )),
            Some(other) => Err(self.wrong(name, "a list", &other)),
        }
    }

    /// Reads an object whose keys are not ours to know.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(self.wrong(name, "an object", &other)),
        }
    }

    /// Refuses the first field that was not read.
    ///
    /// # Errors
    /// It names the field.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::unknown(self.path(&name.chars().take(128).collect::<String>()))),
        }
    }

    fn wrong(&self, name: &str, expected: &str, got: &Value) -> ApiError {
        ApiError::wrong_type(self.path(name), expected, type_name(got))
    }

    fn out_of_range(&self, name: &str, low: &impl Display, high: &impl Display, got: &Value) -> ApiError {
        ApiError::invalid(self.path(name), format!("must be between {low} and {high}, not {got}"))
    }
}

/// A JSON value's type, for people.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
