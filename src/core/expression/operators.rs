//! Equality, order and arithmetic, with cel-go's meaning: numbers compare across types, nothing wraps around.

use super::{
    meter::Meter,
    problem::EvaluationError,
    value::{Map, Shared, Timestamp, Value},
};
use std::{cmp::Ordering, sync::Arc};

type Outcome<'v> = Result<Value<'v>, EvaluationError>;

/// Nanoseconds in a second.
pub(super) const SECOND: i64 = 1_000_000_000;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const MOMENTS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// `a == b`.
pub(super) fn equal(a: &Value<'_>, b: &Value<'_>, meter: &mut Meter) -> Result<bool, EvaluationError> {
    meter.spend(1)?;
    Ok(match (a, b) {
        (Value::Text(a), Value::Text(b)) => {
            meter.bytes(a.len().min(b.len()))?;
            **a == **b
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.bytes(a.len().min(b.len()))?;
            **a == **b
        }
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::List(a), Value::List(b)) => equal_lists(a, b, meter)?,
        (Value::Map(a), Value::Map(b)) => equal_maps(a, b, meter)?,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b, meter)?,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        },
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::Ip(a), Value::Ip(b)) => a == b,
        (Value::Cidr(a), Value::Cidr(b)) => a == b,
        (Value::Url(a), Value::Url(b)) => a == b,
        (Value::Quantity(a), Value::Quantity(b)) if !b.is_computed => {
            meter.spend(a.distance(b))?;
            a == b
        }
        (Value::Semver(a), Value::Semver(b)) => a == b,
        (Value::Format(a), Value::Format(b)) => a.name == b.name,
        (Value::Null, _) | (_, Value::Null) => false,
        // A library's type compares with its own kind only.
        (
            Value::Ip(_) | Value::Cidr(_) | Value::Url(_) | Value::Quantity(_) | Value::Semver(_) | Value::Format(_),
            _,
        ) => {
            return Err(EvaluationError::NO_OVERLOAD);
        }
        (a, b) => numbers(a, b) == Some(Some(Ordering::Equal)),
    })
}

fn equal_lists(a: &[Value<'_>], b: &[Value<'_>], meter: &mut Meter) -> Result<bool, EvaluationError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b) {
        if !equal(a, b, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_maps(a: &Map<'_>, b: &Map<'_>, meter: &mut Meter) -> Result<bool, EvaluationError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (key, value) in a.entries() {
        match b.get(key) {
            Some(other) if equal(value, other, meter)? => {}
            Some(_) | None => return Ok(false),
        }
    }
    Ok(true)
}

/// `None` unless both are numbers; then their order, which a NaN has not.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Double(a), Value::Int(b)) => double_and_whole(*a, i128::from(*b)),
        (Value::Double(a), Value::Uint(b)) => double_and_whole(*a, i128::from(*b)),
        (Value::Int(a), Value::Double(b)) => double_and_whole(*b, i128::from(*a)).map(Ordering::reverse),
        (Value::Uint(a), Value::Double(b)) => double_and_whole(*b, i128::from(*a)).map(Ordering::reverse),
        _ => return None,
    })
}

/// As cel-go has it: what lies outside 64 bits is decided by range, the rest after rounding the whole number.
fn double_and_whole(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "rounding is what the comparison is defined by")]
    let rounded = whole as f64;
    double.partial_cmp(&rounded)
}

/// The order of `a` and `b`.
pub(super) fn compare(a: &Value<'_>, b: &Value<'_>, meter: &mut Meter) -> Result<Ordering, EvaluationError> {
    meter.spend(1)?;
    Ok(match (a, b) {
        (Value::Text(a), Value::Text(b)) => {
            meter.bytes(a.len().min(b.len()))?;
            (**a).cmp(&**b)
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.bytes(a.len().min(b.len()))?;
            (**a).cmp(&**b)
        }
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (a, b) => match numbers(a, b) {
            Some(Some(order)) => order,
            Some(None) => return Err(EvaluationError::invalid("NaN values cannot be ordered")),
            None => return Err(EvaluationError::NO_OVERLOAD),
        },
    })
}

/// `a in b`.
pub(super) fn contained(a: &Value<'_>, b: &Value<'_>, meter: &mut Meter) -> Result<bool, EvaluationError> {
    match b {
        Value::List(values) => {
            let mut failed = None;
            for value in values.iter() {
                match equal(a, value, meter) {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(false), Err)
        }
        Value::Map(map) => Ok(map.get(a).is_some()),
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

fn whole(result: Option<i64>) -> Outcome<'static> {
    result.map(Value::Int).ok_or(EvaluationError::OVERFLOW)
}

fn natural(result: Option<u64>) -> Outcome<'static> {
    result.map(Value::Uint).ok_or(EvaluationError::OVERFLOW)
}

fn span(result: Option<i64>) -> Outcome<'static> {
    result.map(Value::Duration).ok_or(EvaluationError::OVERFLOW)
}

/// A moment, when it is one that can be written.
pub(super) fn moment(seconds: i64, nanos: i64) -> Result<Timestamp, EvaluationError> {
    let seconds = seconds.checked_add(nanos.div_euclid(SECOND)).filter(|seconds| MOMENTS.contains(seconds));
    let nanos = u32::try_from(nanos.rem_euclid(SECOND)).ok();
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Timestamp { seconds, nanos, offset: 0 }),
        _ => Err(EvaluationError::OVERFLOW),
    }
}

/// `a + b`.
pub(super) fn add<'v>(a: &Value<'v>, b: &Value<'v>, meter: &mut Meter) -> Outcome<'v> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => natural(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::Text(a), Value::Text(b)) => {
            meter.bytes(a.len() + b.len())?;
            Ok(Value::text([&**a, &**b].concat()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.bytes(a.len() + b.len())?;
            Ok(Value::Bytes(Shared::Owned(Arc::from([&**a, &**b].concat()))))
        }
        (Value::List(a), Value::List(b)) => {
            meter.elements(a.len() + b.len())?;
            Ok(Value::list([&**a, &**b].concat()))
        }
        (Value::Duration(a), Value::Duration(b)) => span(a.checked_add(*b)),
        (Value::Timestamp(at), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(at)) => {
            later(*at, by / SECOND, by % SECOND)
        }
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

fn later(at: Timestamp, seconds: i64, nanos: i64) -> Outcome<'static> {
    let seconds = at.seconds.checked_add(seconds).ok_or(EvaluationError::OVERFLOW)?;
    let sum = moment(seconds, i64::from(at.nanos) + nanos)?;
    Ok(Value::Timestamp(Timestamp { offset: at.offset, ..sum }))
}

/// `a - b`.
pub(super) fn subtract<'v>(a: &Value<'v>, b: &Value<'v>) -> Outcome<'v> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => natural(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => span(a.checked_sub(*b)),
        (Value::Timestamp(at), Value::Duration(by)) => later(*at, -(by / SECOND), -(by % SECOND)),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = i64::from(a.nanos) - i64::from(b.nanos);
            let seconds = a.seconds.checked_sub(b.seconds).and_then(|seconds| seconds.checked_mul(SECOND));
            span(seconds.and_then(|seconds| seconds.checked_add(nanos)))
        }
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

/// `a * b`.
pub(super) fn multiply<'v>(a: &Value<'v>, b: &Value<'v>) -> Outcome<'v> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_mul(*b)),
        (Value::Uint(a), Value::Uint(b)) => natural(a.checked_mul(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

/// `a / b`.
pub(super) fn divide<'v>(a: &Value<'v>, b: &Value<'v>) -> Outcome<'v> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(EvaluationError::DIVISION_BY_ZERO),
        (Value::Int(a), Value::Int(b)) => whole(a.checked_div(*b)),
        (Value::Uint(a), Value::Uint(b)) => natural(a.checked_div(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

/// `a % b`.
pub(super) fn remainder<'v>(a: &Value<'v>, b: &Value<'v>) -> Outcome<'v> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(EvaluationError::DIVISION_BY_ZERO),
        (Value::Int(a), Value::Int(b)) => whole(a.checked_rem(*b)),
        (Value::Uint(a), Value::Uint(b)) => natural(a.checked_rem(*b)),
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

/// `-a`.
pub(super) fn negate<'v>(a: &Value<'v>) -> Outcome<'v> {
    match a {
        Value::Int(a) => whole(a.checked_neg()),
        Value::Double(a) => Ok(Value::Double(-a)),
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}
