//! Optional values. `or` and `orValue` are no functions: they evaluate their argument only when needed.

use super::{Outcome, list_at, no_overload};
use crate::core::expression::{
    meter::Meter,
    problem::EvaluationError,
    program::Native,
    value::{Timestamp, Value},
};

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "optional.none" => |_, _| Ok(Value::NONE),
        "optional.of" => |arguments, _| arguments.first().map_or_else(no_overload, |value| Ok(some(value))),
        "optional.ofNonZeroValue" => |arguments, _| match arguments.first() {
            Some(value) if is_zero(value) => Ok(Value::NONE),
            Some(value) => Ok(some(value)),
            None => no_overload(),
        },
        "hasValue" => |arguments, _| match arguments.first() {
            Some(Value::Optional(inner)) => Ok(Value::Bool(inner.is_some())),
            _ => no_overload(),
        },
        "value" => |arguments, _| match arguments.first() {
            Some(Value::Optional(Some(inner))) => Ok(Value::clone(inner)),
            Some(Value::Optional(None)) => Err(EvaluationError::invalid("optional.none() has no value")),
            _ => no_overload(),
        },
        "optional.unwrap" | "unwrapOpt" => unwrap,
        "or" | "orValue" => |_, _| no_overload(),
        _ => return None,
    })
}

fn some<'v>(value: &Value<'v>) -> Value<'v> {
    Value::some(value.clone())
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => true,
        Value::Double(value) => *value == 0.0,
        // Go's zero time is the first moment of year 1.
        Value::Timestamp(at) => *at == Timestamp { seconds: -62_135_596_800, nanos: 0, offset: 0 },
        Value::Text(text) => text.is_empty(),
        Value::Bytes(octets) => octets.is_empty(),
        Value::List(values) => values.is_empty(),
        Value::Map(map) => map.len() == 0,
        Value::Optional(inner) => inner.as_ref().is_none_or(|inner| is_zero(inner)),
        _ => false,
    }
}

fn unwrap<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let mut values = Vec::new();
    for value in list_at(arguments, 0)? {
        meter.spend(1)?;
        match value {
            Value::Optional(Some(inner)) => values.push(Value::clone(inner)),
            Value::Optional(None) => {}
            _ => return Err(EvaluationError::invalid("an element is no optional")),
        }
    }
    Ok(Value::list(values))
}
