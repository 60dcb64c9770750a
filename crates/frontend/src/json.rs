//! Writing JSON by hand, for responses whose shape is fixed and whose number is large.

use bytes::BytesMut;
use std::fmt::Write;

/// Appends text as it is.
pub(crate) fn push_str(out: &mut BytesMut, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a number.
pub(crate) fn push_number(out: &mut BytesMut, number: impl std::fmt::Display) {
    write!(out, "{number}").expect("writing to memory cannot fail");
}

/// Appends a log-probability. JSON has no infinities: what has probability zero is -9999, as in the OpenAI API.
pub(crate) fn push_logprob(out: &mut BytesMut, logprob: f32) {
    push_number(out, if logprob.is_finite() { logprob.max(-9999.0) } else { -9999.0 });
}

/// Appends a quoted string (RFC 8259, section 7).
pub(crate) fn push_json_string(out: &mut BytesMut, text: &str) {
    out.reserve(text.len() + 2);
    out.extend_from_slice(b"\"");
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..index]);
        copied = index + 1;
        if escape.is_empty() {
            write!(out, "\\u{byte:04x}").expect("writing to memory cannot fail");
        } else {
            push_str(out, escape);
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.extend_from_slice(b"\"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_back_by_serde_json() {
        let all: String = (0..0x250u32).filter_map(char::from_u32).chain(['\u{2028}', '😀']).collect();
        for text in ["", "plain", "\"\\\"", "a\u{0}b\u{1f}", "\r\n\t", &all] {
            let mut out = BytesMut::new();
            push_json_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn logprobs_are_finite() {
        for (logprob, expected) in
            [(f32::NEG_INFINITY, "-9999"), (f32::NAN, "-9999"), (-1e30, "-9999"), (-0.5, "-0.5"), (0.0, "0")]
        {
            let mut out = BytesMut::new();
            push_logprob(&mut out, logprob);
            assert_eq!(out, expected);
        }
    }
}
