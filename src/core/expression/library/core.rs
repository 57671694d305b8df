//! CEL's own functions: size, type and conversions.

use super::{Outcome, no_overload, numbers, time};
use crate::core::expression::{
    meter::Meter,
    operators::{moment, negate},
    problem::EvaluationError,
    program::Native,
    types::Type,
    value::{Shared, Timestamp, Value},
};

pub(in crate::core::expression) use super::numbers::double_text;

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "size" => size,
        "type" => |arguments, _| arguments.first().map_or_else(no_overload, |value| Ok(Value::Type(value.type_name()))),
        "dyn" => |arguments, _| arguments.first().cloned().map_or_else(no_overload, Ok),
        "bool" => to_bool,
        "bytes" => to_bytes,
        "double" => to_double,
        "duration" => to_duration,
        "int" => to_int,
        "string" => to_text,
        "timestamp" => to_timestamp,
        "uint" => to_uint,
        "-_" => |arguments, _| arguments.first().map_or_else(no_overload, negate),
        _ => return None,
    })
}

/// The name `type()` gives for values of a type.
pub(in crate::core::expression) fn type_name(of: &Type) -> &'static str {
    match of {
        Type::List(_) => "list",
        Type::Map(_) | Type::Struct(_) => "map",
        Type::Optional(_) => "optional_type",
        Type::Of(_) => "type",
        Type::Opaque(name) => name,
        Type::Null => "null_type",
        Type::Bool => "bool",
        Type::Int => "int",
        Type::Uint => "uint",
        Type::Double => "double",
        Type::Text => "string",
        Type::Bytes => "bytes",
        Type::Timestamp => "google.protobuf.Timestamp",
        Type::Duration => "google.protobuf.Duration",
        Type::Dyn | Type::Parameter(_) => "dyn",
    }
}

/// What a scalar or a library's value says of itself.
pub(in crate::core::expression) fn plain_text(value: &Value<'_>) -> String {
    match value {
        Value::Timestamp(at) => time::timestamp_text(*at),
        Value::Duration(span) => time::duration_text(*span),
        Value::Type(name) => (*name).to_owned(),
        Value::Quantity(quantity) => quantity.to_string(),
        Value::Url(url) => url.to_string(),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(cidr) => cidr.to_string(),
        Value::Semver(version) => version.to_string(),
        Value::Format(format) => format.name.to_owned(),
        _ => String::new(),
    }
}

fn size<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let count = match arguments.first() {
        Some(Value::Text(text)) => {
            meter.bytes(text.len())?;
            text.chars().count()
        }
        Some(Value::Bytes(octets)) => octets.len(),
        Some(Value::List(values)) => values.len(),
        Some(Value::Map(map)) => map.len(),
        _ => return no_overload(),
    };
    Ok(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn refused<'v>(what: &str) -> Outcome<'v> {
    Err(EvaluationError::invalid(format!("not convertible to {what}")))
}

fn to_bool<'v>(arguments: &[Value<'v>], _: &mut Meter) -> Outcome<'v> {
    match arguments.first() {
        Some(Value::Bool(value)) => Ok(Value::Bool(*value)),
        Some(Value::Text(text)) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => refused("bool"),
        },
        _ => no_overload(),
    }
}

fn to_bytes<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    match arguments.first() {
        Some(Value::Bytes(octets)) => Ok(Value::Bytes(octets.clone())),
        Some(Value::Text(Shared::Borrowed(text))) => Ok(Value::Bytes(Shared::Borrowed(text.as_bytes()))),
        Some(Value::Text(Shared::Owned(text))) => {
            meter.bytes(text.len())?;
            Ok(Value::Bytes(Shared::Owned(text.as_bytes().into())))
        }
        _ => no_overload(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a conversion to double rounds")]
fn to_double<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    match arguments.first() {
        Some(Value::Double(value)) => Ok(Value::Double(*value)),
        Some(Value::Int(value)) => Ok(Value::Double(*value as f64)),
        Some(Value::Uint(value)) => Ok(Value::Double(*value as f64)),
        Some(Value::Text(text)) => {
            meter.bytes(text.len())?;
            numbers::read_double(text).map_or_else(|| refused("double"), |value| Ok(Value::Double(value)))
        }
        _ => no_overload(),
    }
}

fn to_duration<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    match arguments.first() {
        Some(Value::Duration(value)) => Ok(Value::Duration(*value)),
        // Declared, but cel-go cannot do it.
        Some(Value::Int(_)) => refused("duration"),
        Some(Value::Text(text)) => {
            meter.bytes(text.len())?;
            time::read_duration(text).map_or_else(|| refused("duration"), |value| Ok(Value::Duration(value)))
        }
        _ => no_overload(),
    }
}

fn to_timestamp<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    match arguments.first() {
        Some(Value::Timestamp(value)) => Ok(Value::Timestamp(*value)),
        Some(Value::Int(seconds)) => moment(*seconds, 0).map(Value::Timestamp),
        Some(Value::Text(text)) => {
            meter.bytes(text.len())?;
            match time::read_timestamp(text) {
                Some((seconds, nanos, offset)) => {
                    let at = moment(seconds, nanos)?;
                    Ok(Value::Timestamp(Timestamp { offset, ..at }))
                }
                None => refused("timestamp"),
            }
        }
        _ => no_overload(),
    }
}

fn to_int<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    match arguments.first() {
        Some(Value::Int(value) | Value::Duration(value)) => Ok(Value::Int(*value)),
        Some(Value::Uint(value)) => i64::try_from(*value).map(Value::Int).map_err(|_| EvaluationError::OVERFLOW),
        Some(Value::Timestamp(at)) => Ok(Value::Int(at.seconds)),
        Some(Value::Double(value)) => numbers::truncated_int(*value).map(Value::Int).ok_or(EvaluationError::OVERFLOW),
        Some(Value::Text(text)) => {
            meter.bytes(text.len())?;
            text.parse().map_or_else(|_| refused("int"), |value| Ok(Value::Int(value)))
        }
        _ => no_overload(),
    }
}

fn to_uint<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    match arguments.first() {
        Some(Value::Uint(value)) => Ok(Value::Uint(*value)),
        Some(Value::Int(value)) => u64::try_from(*value).map(Value::Uint).map_err(|_| EvaluationError::OVERFLOW),
        Some(Value::Double(value)) => numbers::truncated_uint(*value).map(Value::Uint).ok_or(EvaluationError::OVERFLOW),
        Some(Value::Text(text)) => {
            meter.bytes(text.len())?;
            // A sign is accepted for int only.
            let digits = Some(&**text).filter(|text| !text.starts_with('+'));
            digits
                .and_then(|digits| digits.parse().ok())
                .map_or_else(|| refused("uint"), |value| Ok(Value::Uint(value)))
        }
        _ => no_overload(),
    }
}

fn to_text<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    Ok(match arguments.first() {
        Some(Value::Text(text)) => Value::Text(text.clone()),
        Some(Value::Bool(value)) => Value::text(if *value { "true" } else { "false" }),
        Some(Value::Int(value)) => Value::text(value.to_string()),
        Some(Value::Uint(value)) => Value::text(value.to_string()),
        Some(Value::Double(value)) => Value::text(double_text(*value)),
        Some(Value::Bytes(octets)) => {
            meter.bytes(octets.len())?;
            match std::str::from_utf8(octets) {
                Ok(text) => Value::text(text),
                Err(_) => return refused("string: invalid UTF-8"),
            }
        }
        Some(value @ (Value::Timestamp(_) | Value::Duration(_) | Value::Ip(_) | Value::Cidr(_))) => {
            Value::text(plain_text(value))
        }
        _ => return no_overload(),
    })
}
