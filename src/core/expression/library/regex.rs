//! Regular expressions: RE2's dialect, matched in time linear in the text.
//!
//! The patterns are RE2's as Go reads them; `regex` reads almost the same language, and `dialect` rewrites what it reads
//! differently. A pattern that is a literal was compiled with the expression.

mod dialect;

use super::{Outcome, no_overload, part};
use crate::core::expression::{
    meter::Meter,
    problem::EvaluationError,
    program::Native,
    value::{Shared, Value},
};
use regex::{Regex, RegexBuilder};
use std::borrow::Cow;

/// Size of a compiled pattern, in bytes.
const MAX_SIZE: usize = 1 << 20;
/// What compiling a pattern costs for each of its bytes.
const COMPILING: usize = 50;

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "matches" => matches,
        "find" => find,
        "findAll" => find_all,
        _ => return None,
    })
}

/// Compiles a pattern.
///
/// # Errors
/// It is none, or too big.
pub(in crate::core::expression) fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = dialect::translate(pattern)?;
    RegexBuilder::new(&translated)
        .size_limit(MAX_SIZE)
        .dfa_size_limit(MAX_SIZE)
        .nest_limit(100)
        .build()
        .map_err(|error| format!("no usable pattern: {}", first_line(&error.to_string())))
}

fn first_line(text: &str) -> String {
    text.lines().rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// The text and the pattern of a call.
fn subject<'a, 'v>(
    arguments: &'a [Value<'v>],
    meter: &mut Meter,
) -> Result<(&'a Shared<'v, str>, Cow<'a, Regex>), EvaluationError> {
    let [Value::Text(text), pattern, ..] = arguments else { return Err(EvaluationError::NO_OVERLOAD) };
    meter.bytes(text.len())?;
    match pattern {
        Value::Pattern(regex) => {
            meter.bytes(text.len())?;
            Ok((text, Cow::Borrowed(regex)))
        }
        Value::Text(pattern) => {
            meter.product(pattern.len() + 1, COMPILING)?;
            meter.bytes(text.len().saturating_mul(pattern.len()))?;
            let regex = compile(pattern).map_err(EvaluationError::invalid)?;
            Ok((text, Cow::Owned(regex)))
        }
        _ => Err(EvaluationError::NO_OVERLOAD),
    }
}

fn matches<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let (text, regex) = subject(arguments, meter)?;
    Ok(Value::Bool(regex.is_match(text)))
}

fn find<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let (text, regex) = subject(arguments, meter)?;
    Ok(regex.find(text).map_or(Value::Text(Shared::Borrowed("")), |found| part(text, found.range())))
}

fn find_all<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let limit = match arguments.get(2) {
        None => usize::MAX,
        Some(Value::Int(limit)) => usize::try_from(*limit).unwrap_or(usize::MAX),
        Some(_) => return no_overload(),
    };
    let (text, regex) = subject(arguments, meter)?;
    let mut found = Vec::new();
    for hit in regex.find_iter(text).take(limit) {
        meter.spend(1)?;
        found.push(part(text, hit.range()));
    }
    Ok(Value::list(found))
}
