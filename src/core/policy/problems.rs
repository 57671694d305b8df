//! What can be wrong with written rules: everything is found at once, each with object, rule, field and hint.
//!
//! The API server refuses most of it already by schema and CEL; this is the whole list, and what `load` goes by.
//! Classes are looked at in `class.rs`, policies in `rule.rs`; this file is what both report with.

mod class;
mod object;
mod rule;

pub use class::problems_of_class;
pub use object::{Kind, problems_of_object};
pub use rule::problems_of_policy;

use super::matcher::Pattern;
use super::quantity;
use std::{fmt, time::Duration};

/// Shortest and longest time a held request may stay open.
pub(super) const EXPIRY: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600);

/// Something that is wrong with what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `AgentPolicy/base`.
    pub object: String,
    /// Id of the rule, when it is about one.
    pub rule: Option<String>,
    /// Path of the field, such as `spec.rules[3].match.names[0]`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if let Some(rule) = &self.rule {
            write!(f, " rule {rule}")?;
        }
        write!(f, ": {}: {} ({})", self.field, self.message, self.hint)
    }
}

/// `1h30m`, `45s`; `None` when it is not of that form or out of bounds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let parsed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(parsed).ok().filter(|duration| EXPIRY.contains(duration))
}

/// A number of bytes, `64Mi`; `None` when it is none, or not whole.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let billionths = quantity::parse(text)?;
    u64::try_from(billionths / quantity::ONE).ok().filter(|_| billionths % quantity::ONE == 0)
}

/// The window of a budget; `None` when it is no duration or out of bounds.
pub(super) fn window(text: &str) -> Option<Duration> {
    duration(text).filter(|window| *window <= Duration::from_secs(24 * 3600))
}

struct Finder {
    object: String,
    rule: Option<String>,
    found: Vec<Problem>,
}

impl Finder {
    fn new(object: String) -> Self {
        Self { object, rule: None, found: Vec::new() }
    }

    fn add(&mut self, field: String, message: impl Into<String>, hint: &str) {
        self.found.push(Problem {
            object: self.object.clone(),
            rule: self.rule.clone(),
            field,
            message: message.into(),
            hint: hint.to_owned(),
        });
    }

    fn patterns(&mut self, field: &str, texts: &[String]) {
        for (position, text) in texts.iter().enumerate() {
            if text.is_empty() || Pattern::parse(text).is_none() {
                self.add(
                    format!("{field}[{position}]"),
                    format!("{text:?} is no name or prefix"),
                    "write a whole name, or a prefix followed by one *",
                );
            }
        }
    }
}
