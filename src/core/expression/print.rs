//! Values as text, for people and tests.

use super::{
    library,
    value::{Value, order},
};
use std::fmt::Write;

/// A value as CEL would write it.
pub(super) fn value(value: &Value<'_>) -> String {
    let mut out = String::new();
    push(value, &mut out);
    out
}

fn push(value: &Value<'_>, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Uint(value) => {
            out.push_str(&value.to_string());
            out.push('u');
        }
        Value::Double(value) => {
            out.push_str("double(");
            out.push_str(&library::core::double_text(*value));
            out.push(')');
        }
        Value::Text(text) => quoted(text, out),
        Value::Pattern(pattern) => quoted(pattern.as_str(), out),
        Value::Bytes(octets) => {
            out.push_str("b\"");
            for octet in octets.iter() {
                hex(*octet, out);
            }
            out.push('"');
        }
        Value::List(values) => joined('[', ']', values.iter(), out, push),
        Value::Map(map) => {
            let mut entries: Vec<_> = map.entries().iter().collect();
            entries.sort_by(|a, b| order(&a.0, &b.0));
            joined('{', '}', entries.into_iter(), out, |(key, value), out| {
                push(key, out);
                out.push_str(": ");
                push(value, out);
            });
        }
        Value::Optional(None) => out.push_str("optional.none()"),
        Value::Optional(Some(inner)) => {
            out.push_str("optional.of(");
            push(inner, out);
            out.push(')');
        }
        other => {
            out.push_str(other.type_name());
            out.push('(');
            out.push_str(&library::core::plain_text(other));
            out.push(')');
        }
    }
}

fn joined<T>(
    open: char,
    close: char,
    items: impl Iterator<Item = T>,
    out: &mut String,
    mut each: impl FnMut(T, &mut String),
) {
    out.push(open);
    for (position, item) in items.enumerate() {
        if position > 0 {
            out.push_str(", ");
        }
        each(item, out);
    }
    out.push(close);
}

fn hex(octet: u8, out: &mut String) {
    // Writing to a String cannot fail.
    if write!(out, "\\x{octet:02x}").is_err() {
        out.push('?');
    }
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 => hex(u8::try_from(c).unwrap_or(b'?'), out),
            c => out.push(c),
        }
    }
    out.push('"');
}
