//! Lists as sets.

use super::{Outcome, list_at};
use crate::core::expression::{meter::Meter, operators, problem::EvaluationError, program::Native, value::Value};

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "sets.contains" => {
            |arguments, meter| Ok(Value::Bool(contains(list_at(arguments, 0)?, list_at(arguments, 1)?, meter)?))
        }
        "sets.equivalent" => |arguments, meter| {
            let (a, b) = (list_at(arguments, 0)?, list_at(arguments, 1)?);
            Ok(Value::Bool(contains(a, b, meter)? && contains(b, a, meter)?))
        },
        "sets.intersects" => intersects,
        _ => return None,
    })
}

/// Whether every element of `b` is one of `a`.
fn contains(a: &[Value<'_>], b: &[Value<'_>], meter: &mut Meter) -> Result<bool, EvaluationError> {
    for wanted in b {
        if !has(a, wanted, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has(values: &[Value<'_>], wanted: &Value<'_>, meter: &mut Meter) -> Result<bool, EvaluationError> {
    for value in values {
        if operators::equal(wanted, value, meter)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn intersects<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let (a, b) = (list_at(arguments, 0)?, list_at(arguments, 1)?);
    for wanted in a {
        if has(b, wanted, meter)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
