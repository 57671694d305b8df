//! `'…'.format([…])`: `%s %d %f %e %b %x %X %o`, with American separators, as cel-go writes them.

use super::{Outcome, core::double_text, core::plain_text, no_overload, strings::escape};
use crate::core::expression::{meter::Meter, problem::EvaluationError, value::Value};

/// Digits after the point when none are asked for.
const PRECISION: usize = 6;
/// Most digits after the point.
const MAX_PRECISION: usize = 1000;

type Text = Result<String, EvaluationError>;

fn refused<T>(what: impl Into<Box<str>>) -> Result<T, EvaluationError> {
    Err(EvaluationError::invalid(what))
}

pub(super) fn format<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let [Value::Text(pattern), Value::List(values)] = arguments else { return no_overload() };
    meter.bytes(pattern.len())?;
    let mut out = String::with_capacity(pattern.len());
    let mut values = values.iter();
    let mut rest: &str = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let Some(value) = values.next() else { return refused("format: too few values") };
        let (precision, after) = precision(after)?;
        let mut chars = after.chars();
        let Some(clause) = chars.next() else { return refused("format: ends after %") };
        let text = clause_text(clause, precision, value, meter)?;
        meter.spend(1)?;
        meter.bytes(text.len())?;
        out.push_str(&text);
        rest = chars.as_str();
    }
    out.push_str(rest);
    Ok(Value::text(out))
}

fn precision(text: &str) -> Result<(usize, &str), EvaluationError> {
    let Some(rest) = text.strip_prefix('.') else { return Ok((PRECISION, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let digits = rest.get(..end).unwrap_or_default();
    match digits.parse().ok().filter(|precision| *precision <= MAX_PRECISION) {
        Some(precision) => Ok((precision, rest.get(end..).unwrap_or_default())),
        None => refused("format: no precision after the point"),
    }
}

fn clause_text(clause: char, precision: usize, value: &Value<'_>, meter: &mut Meter) -> Text {
    let radix = |int: fn(i64) -> String, uint: fn(u64) -> String| match value {
        Value::Int(value) => Ok(int(*value)),
        Value::Uint(value) => Ok(uint(*value)),
        other => refused(format!("format: %{clause} of {}", other.type_name())),
    };
    // Go writes a sign, not a complement.
    let signed = |value: i64, digits: String| if value < 0 { format!("-{digits}") } else { digits };
    match (clause, value) {
        ('s', value) => string(value, meter),
        ('d', _) => radix(|value| value.to_string(), |value| value.to_string()),
        ('f', value) => double(value).map(|value| fixed(value, precision)),
        ('e', value) => double(value).map(|value| scientific(value, precision)),
        ('b', Value::Bool(value)) => Ok(if *value { "1" } else { "0" }.to_owned()),
        ('b', Value::Int(value)) => Ok(signed(*value, format!("{:b}", value.unsigned_abs()))),
        ('b', _) => radix(|_| String::new(), |value| format!("{value:b}")),
        ('o', Value::Int(value)) => Ok(signed(*value, format!("{:o}", value.unsigned_abs()))),
        ('o', _) => radix(|_| String::new(), |value| format!("{value:o}")),
        ('x' | 'X', value) => {
            let text = match value {
                Value::Int(value) => signed(*value, format!("{:x}", value.unsigned_abs())),
                Value::Text(text) => hex(text.as_bytes()),
                Value::Bytes(octets) => hex(octets),
                _ => radix(|_| String::new(), |value| format!("{value:x}"))?,
            };
            Ok(if clause == 'X' { text.to_ascii_uppercase() } else { text })
        }
        (other, _) => refused(format!("format: %{other} is no clause")),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn double(value: &Value<'_>) -> Result<f64, EvaluationError> {
    match value {
        Value::Double(value) => Ok(*value),
        Value::Text(text) => match &**text {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => refused("format: a text is no double"),
        },
        other => refused(format!("format: {} is no double", other.type_name())),
    }
}

fn special(value: f64) -> Option<String> {
    if value.is_nan() {
        return Some("NaN".to_owned());
    }
    value.is_infinite().then(|| if value > 0.0 { "∞" } else { "-∞" }.to_owned())
}

/// With a comma every three digits.
fn fixed(value: f64, precision: usize) -> String {
    if let Some(text) = special(value) {
        return text;
    }
    let text = format!("{value:.precision$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let mut out = String::from(sign);
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// `1.000000×10⁰³`; what is written as precision is a width in cel-go.
fn scientific(value: f64, width: usize) -> String {
    if let Some(text) = special(value) {
        return text;
    }
    let text = format!("{value:.PRECISION$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |exponent| ("⁻", exponent));
    let raised: String = format!("{exponent:0>2}").chars().map(superscript).collect();
    let text = format!("{digits}×10{sign}{raised}");
    format!("{text:>width$}")
}

fn superscript(digit: char) -> char {
    match digit {
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4' => '⁴',
        '5' => '⁵',
        '6' => '⁶',
        '7' => '⁷',
        '8' => '⁸',
        '9' => '⁹',
        _ => '⁰',
    }
}

/// `%s`.
fn string(value: &Value<'_>, meter: &mut Meter) -> Text {
    meter.spend(1)?;
    Ok(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => double_text(*value),
        Value::Text(text) => {
            meter.bytes(text.len())?;
            text.to_string()
        }
        Value::Bytes(octets) => {
            meter.bytes(octets.len())?;
            match std::str::from_utf8(octets) {
                Ok(text) => text.to_owned(),
                Err(_) => return refused("format: invalid UTF-8"),
            }
        }
        Value::Timestamp(_) | Value::Duration(_) | Value::Type(_) => plain_text(value),
        Value::List(values) => {
            let parts: Vec<String> = values.iter().map(|value| nested(value, meter)).collect::<Result<_, _>>()?;
            format!("[{}]", parts.join(", "))
        }
        Value::Map(map) => {
            let mut parts = Vec::with_capacity(map.len());
            for (key, value) in map.entries() {
                parts.push((nested(key, meter)?, nested(value, meter)?));
            }
            parts.sort();
            let parts: Vec<String> = parts.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{{{}}}", parts.join(", "))
        }
        other => return refused(format!("format: %s of {}", other.type_name())),
    })
}

/// A value inside a list or map.
fn nested(value: &Value<'_>, meter: &mut Meter) -> Text {
    Ok(match value {
        Value::Text(_) => quoted(&string(value, meter)?),
        Value::Bytes(_) => format!("b{}", quoted(&string(value, meter)?)),
        Value::Double(value) if value.is_nan() => "\"NaN\"".to_owned(),
        Value::Double(value) if value.is_infinite() => if *value > 0.0 { "\"+Inf\"" } else { "\"-Inf\"" }.to_owned(),
        Value::Double(value) => format!("{value:.PRECISION$}"),
        Value::Timestamp(_) => format!("timestamp({})", quoted(&plain_text(value))),
        Value::Duration(_) => format!("duration({})", quoted(&plain_text(value))),
        other => string(other, meter)?,
    })
}

/// As Go's `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match escape(c) {
            Some(escaped) => out.push_str(escaped),
            None if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            None => out.push(c),
        }
    }
    out.push('"');
    out
}
