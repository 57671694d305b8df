//! Semantic versions, as `blang/semver` reads and orders them.

use super::{Outcome, no_overload};
use crate::core::expression::{meter::Meter, problem::EvaluationError, program::Native, value::Value};
use std::{cmp::Ordering, fmt, sync::Arc};

/// A version. What stands after `+` does not count.
#[derive(Debug, Clone)]
pub(in crate::core::expression) struct Version {
    numbers: [u64; 3],
    pre: Vec<Identifier>,
    build: String,
}

/// A part of what stands after `-`; numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (position, identifier) in self.pre.iter().enumerate() {
            f.write_str(if position == 0 { "-" } else { "." })?;
            match identifier {
                Identifier::Number(number) => write!(f, "{number}")?,
                Identifier::Word(word) => f.write_str(word)?,
            }
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            // The release comes after all that leads to it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        })
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = text.len() == 1 || !text.starts_with('0');
    text.parse().ok().filter(|_| is_number && is_plain)
}

fn identifier(text: &str) -> Option<Identifier> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text).map(Identifier::Number);
    }
    is_word(text).then(|| Identifier::Word(text.to_owned()))
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let (major, minor, rest) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let pre = match pre {
            Some(pre) => pre.split('.').map(identifier).collect::<Option<_>>()?,
            None => Vec::new(),
        };
        if !build.is_none_or(|build| build.split('.').all(is_word)) {
            return None;
        }
        Some(Self { numbers: [major, minor, number(patch)?], pre, build: build.unwrap_or_default().to_owned() })
    }

    /// Also reads `v1.2`, and numbers with zeros in front.
    fn parse_normal(text: &str) -> Option<Self> {
        let mut parts: Vec<String> = text.strip_prefix('v').unwrap_or(text).splitn(3, '.').map(normal).collect();
        if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return None;
        }
        parts.resize(3, "0".to_owned());
        Self::parse(&parts.join("."))
    }
}

fn normal(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let trimmed = part.trim_start_matches('0');
    if trimmed.starts_with(|c: char| c.is_ascii_digit()) { trimmed.to_owned() } else { format!("0{trimmed}") }
}

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "semver" => |arguments, meter| {
            let version = read(arguments, meter)?.ok_or_else(|| EvaluationError::invalid("no semantic version"))?;
            Ok(Value::Semver(Arc::new(version)))
        },
        "isSemver" => |arguments, meter| Ok(Value::Bool(read(arguments, meter)?.is_some())),
        "major" => |arguments, _| part(arguments, 0),
        "minor" => |arguments, _| part(arguments, 1),
        "patch" => |arguments, _| part(arguments, 2),
        _ => return None,
    })
}

fn read(arguments: &[Value<'_>], meter: &mut Meter) -> Result<Option<Version>, EvaluationError> {
    let (text, is_normalized) = match arguments {
        [Value::Text(text)] => (text, false),
        [Value::Text(text), Value::Bool(normalized)] => (text, *normalized),
        _ => return Err(EvaluationError::NO_OVERLOAD),
    };
    meter.bytes(text.len())?;
    Ok(if is_normalized { Version::parse_normal(text) } else { Version::parse(text) })
}

fn part<'v>(arguments: &[Value<'v>], position: usize) -> Outcome<'v> {
    match arguments {
        [Value::Semver(version)] => {
            let number = version.numbers.get(position).copied().unwrap_or_default();
            // Go converts to a signed number without a check.
            Ok(Value::Int(number.cast_signed()))
        }
        _ => no_overload(),
    }
}
