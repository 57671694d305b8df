//! The functions of Kubernetes' CEL environment, one file a library.
//!
//! [`function`] goes by name alone: the checker has refused what no overload takes, and where types are known only while
//! running, a function looks at its arguments itself. Everything a function does beyond constant work is paid for.

pub(super) mod cidr;
pub(super) mod core;
pub(super) mod format;
mod formatting;
pub(super) mod lists;
mod numbers;
mod optional;
pub(super) mod quantity;
pub(super) mod regex;
pub(super) mod semver;
mod sets;
mod strings;
mod time;
pub(super) mod url;

use super::{
    problem::EvaluationError,
    program::Native,
    value::{Shared, Value},
};

/// The function of a name.
pub(super) fn function(name: &str) -> Option<Native> {
    core::function(name)
        .or_else(|| strings::function(name))
        .or_else(|| lists::function(name))
        .or_else(|| optional::function(name))
        .or_else(|| sets::function(name))
        .or_else(|| time::function(name))
        .or_else(|| regex::function(name))
        .or_else(|| quantity::function(name))
        .or_else(|| cidr::function(name))
        .or_else(|| semver::function(name))
        .or_else(|| url::function(name))
        .or_else(|| format::function(name))
}

type Outcome<'v> = Result<Value<'v>, EvaluationError>;

fn no_overload<'v>() -> Outcome<'v> {
    Err(EvaluationError::NO_OVERLOAD)
}

/// The text of the argument at `position`.
fn text_at<'a>(arguments: &'a [Value<'_>], position: usize) -> Result<&'a str, EvaluationError> {
    match arguments.get(position) {
        Some(Value::Text(text)) => Ok(text),
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

/// The whole number at `position`.
fn int_at(arguments: &[Value<'_>], position: usize) -> Result<i64, EvaluationError> {
    match arguments.get(position) {
        Some(Value::Int(value)) => Ok(*value),
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

/// The list at `position`.
fn list_at<'a, 'v>(arguments: &'a [Value<'v>], position: usize) -> Result<&'a [Value<'v>], EvaluationError> {
    match arguments.get(position) {
        Some(Value::List(values)) => Ok(values),
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

/// The part of a text from byte to byte, borrowed where the text is.
fn part<'v>(of: &Shared<'v, str>, range: std::ops::Range<usize>) -> Value<'v> {
    match of {
        Shared::Borrowed(text) => {
            let text: &'v str = text;
            Value::Text(Shared::Borrowed(text.get(range).unwrap_or_default()))
        }
        Shared::Owned(text) => Value::text(text.get(range).unwrap_or_default()),
    }
}
