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
use std::sync::Arc;

/// Size of a compiled pattern, in bytes.
const MAX_SIZE: usize = 256 * 1024;
/// What compiling a pattern costs, at most some milliseconds.
const COMPILING: u64 = 20_000;
/// How much of a pattern's weight is looked at in one step, for each byte of the text.
const WEIGHT_OF_STEP: usize = 256;

/// A compiled pattern.
#[derive(Debug)]
pub(in crate::core::expression) struct Pattern {
    regex: Regex,
    /// About how many states it has: its length, times what it repeats.
    weight: usize,
}

impl Pattern {
    pub(in crate::core::expression) fn as_str(&self) -> &str {
        self.regex.as_str()
    }
}

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
pub(in crate::core::expression) fn compile(pattern: &str) -> Result<Pattern, String> {
    let (translated, repeats) = dialect::translate(pattern)?;
    let weight = pattern.len().saturating_mul(repeats).max(1);
    let regex = RegexBuilder::new(&translated)
        .size_limit(MAX_SIZE)
        .dfa_size_limit(MAX_SIZE)
        .nest_limit(100)
        .build()
        .map_err(|error| format!("no usable pattern: {}", first_line(&error.to_string())))?;
    Ok(Pattern { regex, weight })
}

fn first_line(text: &str) -> String {
    text.lines().rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// The text and the pattern of a call, paid for.
fn subject<'a, 'v>(
    arguments: &'a [Value<'v>],
    meter: &mut Meter,
) -> Result<(&'a Shared<'v, str>, Arc<Pattern>), EvaluationError> {
    let [Value::Text(text), pattern, ..] = arguments else { return Err(EvaluationError::NO_OVERLOAD) };
    let pattern = match pattern {
        Value::Pattern(pattern) => Arc::clone(pattern),
        Value::Text(pattern) => {
            meter.spend(COMPILING)?;
            meter.elements(pattern.len())?;
            Arc::new(compile(pattern).map_err(EvaluationError::invalid)?)
        }
        _ => return Err(EvaluationError::NO_OVERLOAD),
    };
    meter.bytes(text.len())?;
    meter.elements(text.len().saturating_mul(pattern.weight) / WEIGHT_OF_STEP)?;
    Ok((text, pattern))
}

fn matches<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let (text, pattern) = subject(arguments, meter)?;
    Ok(Value::Bool(pattern.regex.is_match(text)))
}

fn find<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let (text, pattern) = subject(arguments, meter)?;
    Ok(pattern.regex.find(text).map_or(Value::Text(Shared::Borrowed("")), |found| part(text, found.range())))
}

fn find_all<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let limit = match arguments.get(2) {
        None => usize::MAX,
        Some(Value::Int(limit)) => usize::try_from(*limit).unwrap_or(usize::MAX),
        Some(_) => return no_overload(),
    };
    let (text, pattern) = subject(arguments, meter)?;
    let mut found = Vec::new();
    let mut hits = pattern.regex.find_iter(text);
    let mut rest = text.len();
    while found.len() < limit {
        // Each search may look at all that is left, however short what it finds.
        meter.elements(1 + rest.saturating_mul(pattern.weight) / WEIGHT_OF_STEP)?;
        let Some(hit) = hits.next() else { break };
        rest = text.len() - hit.end();
        found.push(part(text, hit.range()));
    }
    Ok(Value::list(found))
}
