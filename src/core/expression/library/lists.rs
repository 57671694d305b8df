//! The list functions of Kubernetes and of cel-go's extension.

use super::{Outcome, int_at, list_at, no_overload};
use crate::core::expression::{
    meter::Meter,
    operators,
    problem::{ErrorKind, EvaluationError},
    program::Native,
    value::Value,
};
use std::cmp::Ordering;

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "isSorted" => is_sorted,
        "sum" => sum,
        "min" => |arguments, meter| extreme(arguments, meter, Ordering::Greater),
        "max" => |arguments, meter| extreme(arguments, meter, Ordering::Less),
        "distinct" => distinct,
        "flatten" => flatten,
        "lists.range" => range,
        "reverse" => reverse,
        "slice" => slice,
        "sort" => sort,
        "first" => |arguments, _| Ok(optional(list_at(arguments, 0)?.first())),
        "last" => |arguments, _| Ok(optional(list_at(arguments, 0)?.last())),
        "@sortByAssociatedKeys" => |_, _| no_overload(),
        _ => return None,
    })
}

fn optional<'v>(value: Option<&Value<'v>>) -> Value<'v> {
    value.map_or(Value::NONE, |value| Value::some(value.clone()))
}

fn is_comparable(value: &Value<'_>) -> bool {
    matches!(
        value,
        Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::Text(_)
            | Value::Bytes(_)
            | Value::Timestamp(_)
            | Value::Duration(_)
    )
}

/// The order of two elements; what cannot be compared has none.
fn order(a: &Value<'_>, b: &Value<'_>, meter: &mut Meter) -> Result<Option<Ordering>, EvaluationError> {
    match operators::compare(a, b, meter) {
        Ok(order) => Ok(Some(order)),
        Err(error) if error.kind == ErrorKind::OutOfFuel => Err(error),
        Err(_) => Ok(None),
    }
}

fn is_sorted<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let values = list_at(arguments, 0)?;
    if !values.iter().all(is_comparable) {
        return no_overload();
    }
    for pair in values.windows(2) {
        if let [a, b] = pair
            && order(a, b, meter)? == Some(Ordering::Greater)
        {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn extreme<'v>(arguments: &[Value<'v>], meter: &mut Meter, replaces: Ordering) -> Outcome<'v> {
    let mut best: Option<&Value<'v>> = None;
    for value in list_at(arguments, 0)? {
        if !is_comparable(value) {
            return no_overload();
        }
        best = match best {
            Some(before) if order(before, value, meter)? != Some(replaces) => Some(before),
            Some(_) | None => Some(value),
        };
    }
    best.cloned().ok_or_else(|| EvaluationError::invalid("min and max of an empty list"))
}

fn sum<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let values = list_at(arguments, 0)?;
    let mut total = match values.first() {
        None | Some(Value::Int(_)) => Value::Int(0),
        Some(Value::Uint(_)) => Value::Uint(0),
        Some(Value::Double(_)) => Value::Double(0.0),
        Some(Value::Duration(_)) => Value::Duration(0),
        Some(_) => return no_overload(),
    };
    for value in values {
        meter.spend(1)?;
        total = operators::add(&total, value, meter)?;
    }
    Ok(total)
}

fn distinct<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let mut kept: Vec<Value<'v>> = Vec::new();
    'values: for value in list_at(arguments, 0)? {
        for other in &kept {
            match operators::equal(value, other, meter) {
                Ok(true) => continue 'values,
                Err(error) if error.kind == ErrorKind::OutOfFuel => return Err(error),
                Ok(false) | Err(_) => {}
            }
        }
        kept.push(value.clone());
    }
    Ok(Value::list(kept))
}

fn flatten<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let depth = match arguments.get(1) {
        None => 1,
        Some(Value::Int(depth)) => *depth,
        Some(_) => return Err(EvaluationError::invalid("the level of flatten is no int")),
    };
    if depth < 0 {
        return Err(EvaluationError::invalid("flatten to a negative level"));
    }
    let mut flat = Vec::new();
    flatten_into(list_at(arguments, 0)?, depth, &mut flat, meter)?;
    Ok(Value::list(flat))
}

/// Recursion goes as deep as values nest, which JSON and the depth of expressions bound.
fn flatten_into<'v>(
    values: &[Value<'v>],
    depth: i64,
    into: &mut Vec<Value<'v>>,
    meter: &mut Meter,
) -> Result<(), EvaluationError> {
    for value in values {
        meter.spend(1)?;
        match value {
            Value::List(inner) if depth > 0 => flatten_into(inner, depth - 1, into, meter)?,
            other => into.push(other.clone()),
        }
    }
    Ok(())
}

fn range<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let end = int_at(arguments, 0)?.max(0);
    meter.elements(usize::try_from(end).unwrap_or(usize::MAX))?;
    Ok(Value::list((0..end).map(Value::Int).collect()))
}

fn reverse<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let values = list_at(arguments, 0)?;
    meter.elements(values.len())?;
    Ok(Value::list(values.iter().rev().cloned().collect()))
}

fn slice<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let values = list_at(arguments, 0)?;
    let position = |at: usize| int_at(arguments, at).map(|position| usize::try_from(position).ok());
    let (Some(from), Some(to)) = (position(1)?, position(2)?) else {
        return Err(EvaluationError::invalid("slice with a negative position"));
    };
    match values.get(from..to) {
        Some(part) => {
            meter.elements(part.len())?;
            Ok(Value::list(part.to_vec()))
        }
        None => Err(EvaluationError::invalid(format!("slice({from}, {to}) of {} elements", values.len()))),
    }
}

fn sort<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let keyed = list_at(arguments, 0)?.iter().map(|value| (value.clone(), value.clone())).collect();
    sorted(keyed, meter)
}

/// The second of each pair, in the order of the first.
pub(in crate::core::expression) fn sorted<'v>(
    mut keyed: Vec<(Value<'v>, Value<'v>)>,
    meter: &mut Meter,
) -> Outcome<'v> {
    let Some((first, _)) = keyed.first() else { return Ok(Value::list(Vec::new())) };
    if !is_comparable(first) {
        return Err(EvaluationError::invalid("elements cannot be ordered"));
    }
    let name = first.type_name();
    if keyed.iter().any(|(key, _)| key.type_name() != name) {
        return Err(EvaluationError::invalid("elements of several types cannot be ordered"));
    }
    let mut failed = None;
    keyed.sort_by(|(a, _), (b, _)| match order(a, b, meter) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(error) => {
            failed = Some(error);
            Ordering::Equal
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(Value::list(keyed.into_iter().map(|(_, value)| value).collect())),
    }
}
