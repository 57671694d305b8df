//! The string functions. Positions count characters, not bytes.

use super::{Outcome, formatting, int_at, list_at, no_overload, part, text_at};
use crate::core::expression::{
    meter::Meter,
    operators,
    problem::{ErrorKind, EvaluationError},
    program::Native,
    value::Value,
};

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "charAt" => char_at,
        "contains" => |arguments, meter| searched(arguments, meter, |text, part| text.contains(part)),
        "startsWith" => |arguments, meter| searched(arguments, meter, |text, part| text.starts_with(part)),
        "endsWith" => |arguments, meter| searched(arguments, meter, |text, part| text.ends_with(part)),
        "indexOf" => index_of,
        "lastIndexOf" => last_index_of,
        "lowerAscii" => |arguments, meter| changed(arguments, meter, str::to_ascii_lowercase),
        "upperAscii" => |arguments, meter| changed(arguments, meter, str::to_ascii_uppercase),
        "trim" => |arguments, meter| changed(arguments, meter, |text| text.trim_matches(is_space).to_owned()),
        "strings.quote" => |arguments, meter| changed(arguments, meter, quoted),
        "replace" => replace,
        "split" => split,
        "join" => join,
        "substring" => substring,
        "format" => formatting::format,
        _ => return None,
    })
}

fn searched<'v>(arguments: &[Value<'v>], meter: &mut Meter, is: fn(&str, &str) -> bool) -> Outcome<'v> {
    let (text, part) = (text_at(arguments, 0)?, text_at(arguments, 1)?);
    meter.bytes(text.len() + part.len())?;
    Ok(Value::Bool(is(text, part)))
}

fn changed<'v>(arguments: &[Value<'v>], meter: &mut Meter, change: fn(&str) -> String) -> Outcome<'v> {
    let text = text_at(arguments, 0)?;
    meter.bytes(text.len())?;
    Ok(Value::text(change(text)))
}

/// What Go's `unicode.IsSpace` takes for space.
fn is_space(c: char) -> bool {
    c.is_whitespace()
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match escape(c) {
            Some(escaped) => out.push_str(escaped),
            None => out.push(c),
        }
    }
    out.push('"');
    out
}

/// How Go writes a character that has an escape with a letter or sign of its own.
pub(super) fn escape(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        '\\' => "\\\\",
        '"' => "\\\"",
        _ => return None,
    })
}

fn out_of_bounds(position: i64) -> EvaluationError {
    EvaluationError::new(ErrorKind::OutOfBounds, position.to_string())
}

/// The byte where a character begins; the end of the text is one after the last.
fn byte_of(text: &str, position: i64) -> Option<usize> {
    let position = usize::try_from(position).ok()?;
    if position > text.len() {
        return None;
    }
    text.char_indices().map(|(byte, _)| byte).chain([text.len()]).nth(position)
}

fn char_at<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let (Some(Value::Text(text)), position) = (arguments.first(), int_at(arguments, 1)?) else { return no_overload() };
    meter.bytes(text.len())?;
    let start = byte_of(text, position).ok_or_else(|| out_of_bounds(position))?;
    let length = text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    Ok(part(text, start..start + length))
}

fn substring<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let (Some(Value::Text(text)), from) = (arguments.first(), int_at(arguments, 1)?) else { return no_overload() };
    meter.bytes(text.len())?;
    let to = if arguments.len() > 2 { Some(int_at(arguments, 2)?) } else { None };
    if let Some(to) = to.filter(|to| from > *to) {
        return Err(EvaluationError::invalid(format!("substring from {from} to {to}")));
    }
    let start = byte_of(text, from).ok_or_else(|| out_of_bounds(from))?;
    let end = match to {
        Some(to) => byte_of(text, to).ok_or_else(|| out_of_bounds(to))?,
        None => text.len(),
    };
    Ok(part(text, start..end))
}

fn index(count: usize) -> Value<'static> {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

/// How many characters stand before a byte.
fn characters_before(text: &str, byte: usize) -> usize {
    text.get(..byte).unwrap_or_default().chars().count()
}

fn index_of<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    if let Some(Value::List(values)) = arguments.first() {
        return in_list(values.iter().enumerate(), arguments.get(1), meter);
    }
    let (text, wanted) = (text_at(arguments, 0)?, text_at(arguments, 1)?);
    meter.bytes(text.len() + wanted.len())?;
    let offset = if arguments.len() > 2 { int_at(arguments, 2)? } else { 0 };
    if wanted.is_empty() {
        return Ok(Value::Int(offset));
    }
    if offset < 0 {
        return Err(out_of_bounds(offset));
    }
    let Some(start) = byte_of(text, offset) else { return Ok(Value::Int(-1)) };
    let found = text.get(start..).and_then(|rest| rest.find(wanted));
    Ok(found.map_or(Value::Int(-1), |byte| index(characters_before(text, start + byte))))
}

fn last_index_of<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    if let Some(Value::List(values)) = arguments.first() {
        return in_list(values.iter().enumerate().rev(), arguments.get(1), meter);
    }
    let (text, wanted) = (text_at(arguments, 0)?, text_at(arguments, 1)?);
    meter.bytes(text.len() + wanted.len())?;
    if arguments.len() < 3 {
        if wanted.is_empty() {
            return Ok(index(text.chars().count()));
        }
        return Ok(text.rfind(wanted).map_or(Value::Int(-1), |byte| index(characters_before(text, byte))));
    }
    let offset = int_at(arguments, 2)?;
    if wanted.is_empty() {
        return Ok(Value::Int(offset));
    }
    if offset < 0 {
        return Err(out_of_bounds(offset));
    }
    let Some(start) = byte_of(text, offset).filter(|start| *start < text.len()) else { return Ok(Value::Int(-1)) };
    let end = (start + wanted.len()).min(text.len());
    // The end may fall inside a character of a text that cannot match there.
    let end = (end..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
    let found = text.get(..end).and_then(|before| before.rmatch_indices(wanted).find(|(byte, _)| *byte <= start));
    Ok(found.map_or(Value::Int(-1), |(byte, _)| index(characters_before(text, byte))))
}

fn in_list<'a, 'v: 'a>(
    values: impl Iterator<Item = (usize, &'a Value<'v>)>,
    wanted: Option<&Value<'v>>,
    meter: &mut Meter,
) -> Outcome<'v> {
    let Some(wanted) = wanted else { return no_overload() };
    for (position, value) in values {
        meter.spend(1)?;
        match operators::equal(value, wanted, meter) {
            Ok(true) => return Ok(index(position)),
            Err(error) if error.kind == ErrorKind::OutOfFuel => return Err(error),
            Ok(false) | Err(_) => {}
        }
    }
    Ok(Value::Int(-1))
}

/// `None` when all are meant.
fn limit(arguments: &[Value<'_>], position: usize) -> Result<Option<usize>, EvaluationError> {
    if arguments.len() <= position {
        return Ok(None);
    }
    Ok(usize::try_from(int_at(arguments, position)?).ok())
}

fn replace<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let (text, old, new) = (text_at(arguments, 0)?, text_at(arguments, 1)?, text_at(arguments, 2)?);
    let limit = limit(arguments, 3)?.unwrap_or(usize::MAX);
    meter.bytes(text.len() + old.len())?;
    let count = text.matches(old).take(limit).count();
    meter.bytes(text.len().saturating_add(count.saturating_mul(new.len())))?;
    meter.elements(count)?;
    Ok(Value::text(text.replacen(old, new, limit)))
}

fn split<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let Some(Value::Text(whole)) = arguments.first() else { return no_overload() };
    let separator = text_at(arguments, 1)?;
    let limit = limit(arguments, 2)?.unwrap_or(usize::MAX);
    meter.bytes(whole.len() + separator.len())?;
    let mut parts = Vec::new();
    let mut start = 0;
    while parts.len() + 1 < limit {
        let Some(rest) = whole.get(start..) else { break };
        let step = if separator.is_empty() {
            // Between characters, but neither before the first nor after the last.
            rest.chars().next().map(char::len_utf8).filter(|length| *length < rest.len()).map(|length| (length, length))
        } else {
            rest.find(separator).map(|length| (length, length + separator.len()))
        };
        let Some((length, next)) = step else { break };
        meter.spend(1)?;
        parts.push(part(whole, start..start + length));
        start += next;
    }
    if limit > 0 && !(separator.is_empty() && whole.is_empty()) {
        parts.push(part(whole, start..whole.len()));
    }
    Ok(Value::list(parts))
}

fn join<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let values = list_at(arguments, 0)?;
    let separator = if arguments.len() > 1 { text_at(arguments, 1)? } else { "" };
    let mut out = String::new();
    for (position, value) in values.iter().enumerate() {
        let Value::Text(text) = value else {
            return no_overload();
        };
        meter.spend(1)?;
        meter.bytes(text.len() + separator.len())?;
        if position > 0 {
            out.push_str(separator);
        }
        out.push_str(text);
    }
    Ok(Value::text(out))
}
