//! Python's way of writing values: `str()` and `json.dumps()`.

use minijinja::value::{Value, ValueKind};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io;

/// `str(value)`.
pub(super) fn str_of(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let mut text = String::new();
            write_repr(value, &mut text);
            text
        }
    }
}

/// `repr(value)`. Depth is bounded by that of the JSON it came from (128, serde_json's own limit) or by the template's
/// fuel.
fn write_repr(value: &Value, out: &mut String) {
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => write_repr_of_str(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq => {
            out.push('[');
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(&item, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(&key, out);
                out.push_str(": ");
                write_repr(&value.get_item(&key).unwrap_or_default(), out);
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

fn write_repr_of_str(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            character if character == quote => out.extend(['\\', quote]),
            character if character.is_control() => out.push_str(&format!("\\x{:02x}", character as u32)),
            character => out.push(character),
        }
    }
    out.push(quote);
}

/// `json.dumps(value, indent, separators, sort_keys, ensure_ascii)`.
///
/// # Errors
/// For a value that JSON cannot express.
pub(super) fn json_dumps(
    value: &Value,
    indent: Option<usize>,
    separators: Option<(&str, &str)>,
    sort_keys: bool,
    ensure_ascii: bool,
) -> Result<String, serde_json::Error> {
    let (item, key) = separators.unwrap_or(if indent.is_some() { (",", ": ") } else { (", ", ": ") });
    let style = PythonStyle {
        indent,
        item: item.as_bytes(),
        key: key.as_bytes(),
        depth: 0,
        empty: true,
        ensure_ascii,
    };
    let mut bytes = Vec::with_capacity(128);
    let mut serializer = Serializer::with_formatter(&mut bytes, style);
    if sort_keys {
        let mut sorted = serde_json::to_value(value)?;
        sorted.sort_all_objects();
        sorted.serialize(&mut serializer)?;
    } else {
        value.serialize(&mut serializer)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Python's spacing: blanks after separators, line ends only where an indent is given.
struct PythonStyle<'a> {
    indent: Option<usize>,
    item: &'a [u8],
    key: &'a [u8],
    depth: usize,
    /// Whether the innermost list or object has no items yet.
    empty: bool,
    ensure_ascii: bool,
}

impl PythonStyle<'_> {
    fn open<W: io::Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        writer.write_all(bracket)
    }

    fn close<W: io::Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.line(writer)?;
        }
        self.empty = false;
        writer.write_all(bracket)
    }

    fn begin<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        if !first {
            writer.write_all(self.item)?;
        }
        self.line(writer)
    }

    fn line<W: io::Write + ?Sized>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = self.indent else { return Ok(()) };
        write!(writer, "\n{:width$}", "", width = indent * self.depth)
    }
}

impl Formatter for PythonStyle<'_> {
    fn begin_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.begin(writer, first)
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.begin(writer, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key)
    }

    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.ensure_ascii {
            return writer.write_all(fragment.as_bytes());
        }
        fragment.chars().try_for_each(|character| {
            if character.is_ascii() {
                return writer.write_all(&[character as u8]);
            }
            character.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dumps(value: serde_json::Value, indent: Option<usize>) -> String {
        json_dumps(&Value::from_serialize(value), indent, None, false, false).unwrap()
    }

    /// The expected texts are what CPython 3 writes.
    #[test]
    fn json_as_python_writes_it() {
        let value = json!({"b": [1, 2.5, {}], "a": "<é>&'\"\n", "n": null, "t": true, "e": []});
        let expected = r#"{"b": [1, 2.5, {}], "a": "<é>&'\"\n", "n": null, "t": true, "e": []}"#;
        assert_eq!(dumps(value, None), expected);
        let nested = "{\n  \"a\": [\n    1,\n    {\n      \"b\": {}\n    }\n  ],\n  \"c\": []\n}";
        assert_eq!(dumps(json!({"a": [1, {"b": {}}], "c": []}), Some(2)), nested);
        let value = Value::from_serialize(json!({"b": "é😀", "a": [1, 2]}));
        let expected = r#"{"a":[1,2],"b":"\u00e9\ud83d\ude00"}"#;
        assert_eq!(json_dumps(&value, None, Some((",", ":")), true, true).unwrap(), expected);
    }

    #[test]
    fn values_as_python_writes_them() {
        let value =
            Value::from_serialize(json!({"a": [null, true, 1, 1.5], "b": "it's\n", "c": {"d": "x\"'\\"}}));
        assert_eq!(str_of(&value), r#"{'a': [None, True, 1, 1.5], 'b': "it's\n", 'c': {'d': 'x"\'\\'}}"#);
        assert_eq!(str_of(&Value::from("plain 'text'")), "plain 'text'");
        assert_eq!(str_of(&Value::UNDEFINED), "");
    }
}
