//! Kubernetes' quantities: `500m`, `1.5Gi`, `12e6`.
//!
//! As `apimachinery/pkg/api/resource` has it, a quantity is a 64-bit number with a decimal scale, or, when that does not
//! hold it, a decimal of arbitrary size; only the former is an integer.

mod amount;

use super::{Outcome, no_overload};
use crate::core::expression::{meter::Meter, problem::EvaluationError, program::Native, value::Value};
use amount::Amount;
use std::{cmp::Ordering, fmt, sync::Arc};

/// Longest text of a quantity, in bytes.
const MAX_TEXT: usize = 1024;

/// A quantity.
#[derive(Debug, Clone)]
pub(in crate::core::expression) struct Quantity {
    amount: Amount,
    /// It came from `add` or `sub`: such a quantity has no equality on the right side of `==` in Kubernetes.
    pub(in crate::core::expression) is_computed: bool,
}

impl Quantity {
    /// What comparing two costs.
    pub(in crate::core::expression) fn distance(&self, other: &Self) -> u64 {
        self.amount.distance(&other.amount)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.amount.compare(&other.amount) == Ordering::Equal
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::core::double_text(self.amount.approximate()))
    }
}

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "quantity" => |arguments, meter| match arguments.first() {
            Some(Value::Text(text)) => {
                let amount = read(text, meter)?.ok_or_else(|| EvaluationError::invalid("no quantity"))?;
                Ok(quantity(amount, false))
            }
            _ => no_overload(),
        },
        "isQuantity" => |arguments, meter| match arguments.first() {
            Some(Value::Text(text)) => Ok(Value::Bool(read(text, meter)?.is_some())),
            _ => no_overload(),
        },
        "sign" => |arguments, _| Ok(Value::Int(of(arguments, 0)?.amount.sign())),
        "isInteger" => |arguments, _| Ok(Value::Bool(of(arguments, 0)?.amount.integer().is_some())),
        "asInteger" => |arguments, _| {
            let integer = of(arguments, 0)?.amount.integer();
            integer.map(Value::Int).ok_or_else(|| EvaluationError::invalid("cannot convert value to integer"))
        },
        "asApproximateFloat" => |arguments, _| Ok(Value::Double(of(arguments, 0)?.amount.approximate())),
        "isGreaterThan" => |arguments, meter| compared(arguments, meter, |order| Value::Bool(order.is_gt())),
        "isLessThan" => |arguments, meter| compared(arguments, meter, |order| Value::Bool(order.is_lt())),
        "compareTo" => |arguments, meter| compared(arguments, meter, |order| Value::Int(order as i64)),
        "add" => |arguments, meter| sum(arguments, meter, false),
        "sub" => |arguments, meter| sum(arguments, meter, true),
        _ => return None,
    })
}

fn quantity<'v>(amount: Amount, is_computed: bool) -> Value<'v> {
    Value::Quantity(Arc::new(Quantity { amount, is_computed }))
}

/// The amount a text says. Longer ones than anybody writes are an error, not an answer.
fn read(text: &str, meter: &mut Meter) -> Result<Option<Amount>, EvaluationError> {
    if text.len() > MAX_TEXT {
        return Err(EvaluationError::OVERFLOW);
    }
    meter.elements(text.len() / 4)?;
    Ok(Amount::parse(text))
}

fn of<'a>(arguments: &'a [Value<'_>], position: usize) -> Result<&'a Quantity, EvaluationError> {
    match arguments.get(position) {
        Some(Value::Quantity(quantity)) => Ok(quantity),
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

/// Versions compare by functions of the same names.
fn compared<'v>(arguments: &[Value<'v>], meter: &mut Meter, answer: fn(Ordering) -> Value<'v>) -> Outcome<'v> {
    meter.spend(1)?;
    match arguments {
        [Value::Quantity(a), Value::Quantity(b)] => {
            meter.spend(a.amount.distance(&b.amount))?;
            Ok(answer(a.amount.compare(&b.amount)))
        }
        [Value::Semver(a), Value::Semver(b)] => Ok(answer((**a).cmp(b))),
        _ => no_overload(),
    }
}

fn sum<'v>(arguments: &[Value<'v>], meter: &mut Meter, is_negative: bool) -> Outcome<'v> {
    let a = &of(arguments, 0)?.amount;
    let b = match arguments.get(1) {
        Some(Value::Quantity(other)) => other.amount.clone(),
        Some(Value::Int(value)) => Amount::Small { value: *value, scale: 0 },
        _ => return no_overload(),
    };
    let b = if is_negative { b.negated() } else { b };
    meter.spend(a.distance(&b))?;
    let sum = a.plus(&b).ok_or(EvaluationError::OVERFLOW)?;
    Ok(quantity(sum, true))
}
