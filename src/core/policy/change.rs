//! Changes a rule looks for: one typed test of one field, on the old object and the new.
//!
//! Elements of lists belong together by their `name` when every one has a name of its own, else by position. On a
//! creation everything is new, on a deletion everything goes. Only a number that is none is an error.

use super::document::ChangeSpec;
use super::path::{Found, Path};
use super::quantity;
use serde_json::{Value, value::RawValue};
use std::collections::BTreeMap;

/// A compiled change.
#[derive(Debug, Clone)]
pub(super) struct Change {
    path: Path,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Removed,
    Added,
    Changed,
    Set(Value),
    Increased(Amount),
    Decreased(Amount),
}

/// How much, in billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    Absolute(i128),
    Percent(i128),
}

/// Why a change cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the object cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("{0} is no number or quantity")]
    NoQuantity(String),
    #[error("a number is too large to compare")]
    TooLarge,
}

impl Change {
    /// What was written, with every problem: the member it is about, what is wrong, what to write.
    pub(super) fn compile(spec: &ChangeSpec) -> Result<Self, Vec<(&'static str, String, &'static str)>> {
        let mut problems = Vec::new();
        let path = Path::parse(&spec.path).map_err(|problem| {
            problems.push((
                "path",
                format!("{:?} {problem}", spec.path),
                "write for example spec.replicas, spec.containers[*].image or data.*",
            ));
        });
        let mut tests = Vec::new();
        tests.extend(spec.removed.then_some(Test::Removed));
        tests.extend(spec.added.then_some(Test::Added));
        tests.extend(spec.changed.then_some(Test::Changed));
        tests.extend(spec.set.clone().map(Test::Set));
        let mut amount = |field, text: &Option<String>, test: fn(Amount) -> Test| {
            let Some(text) = text else { return };
            tests.extend(Amount::parse(text).map(test));
            if Amount::parse(text).is_none() {
                problems.push((field, format!("{text:?} is no amount"), "write for example 3, 500Mi or 50%"));
            }
        };
        amount("increasedBy", &spec.increased_by, Test::Increased);
        amount("decreasedBy", &spec.decreased_by, Test::Decreased);
        let test = match <[Test; 1]>::try_from(tests) {
            Ok([test]) => Some(test),
            Err(_) if problems.iter().any(|(field, ..)| *field != "path") => None,
            Err(tests) => {
                let hint = "give exactly one of removed, added, changed, set, increasedBy, decreasedBy";
                problems.push(("", format!("asks for {} changes of one field", tests.len()), hint));
                None
            }
        };
        match (path, test) {
            (Ok(path), Some(test)) if problems.is_empty() => Ok(Self { path, test }),
            _ => Err(problems),
        }
    }

    /// Whether the step from `old` to `new` makes this change somewhere at the path.
    pub(super) fn happens(&self, old: Option<&RawValue>, new: Option<&RawValue>) -> Result<bool, Error> {
        // What cannot have happened is not looked for in the other object.
        let old = self.path.find(old)?;
        if matches!((&self.test, &old), (Test::Removed | Test::Increased(_) | Test::Decreased(_), Found::Absent)) {
            return Ok(false);
        }
        self.compare(&old, &self.path.find(new)?)
    }

    fn compare(&self, old: &Found, new: &Found) -> Result<bool, Error> {
        const NONE: &[(Option<String>, Found)] = &[];
        let (before, after) = match (old, new) {
            (Found::Each(old), Found::Each(new)) => (old.as_slice(), new.as_slice()),
            (Found::Each(old), _) => (old.as_slice(), NONE),
            (_, Found::Each(new)) => (NONE, new.as_slice()),
            _ => return self.test.holds(old.value(), new.value()),
        };
        for (old, new) in pairs(before, after) {
            if self.compare(old, new)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

type Item = (Option<String>, Found);

/// Elements that belong together.
fn pairs<'a>(old: &'a [Item], new: &'a [Item]) -> Vec<(&'a Found, &'a Found)> {
    if let (Some(before), Some(after)) = (by_name(old), by_name(new)) {
        let kept = before.iter().map(|(name, found)| (*found, after.get(name).copied().unwrap_or(&Found::Absent)));
        let fresh =
            after.iter().filter(|(name, _)| !before.contains_key(*name)).map(|(_, found)| (&Found::Absent, *found));
        return kept.chain(fresh).collect();
    }
    let at = |items: &'a [Item], position| items.get(position).map_or(&Found::Absent, |(_, found)| found);
    (0..old.len().max(new.len())).map(|position| (at(old, position), at(new, position))).collect()
}

/// `None` when a name is missing or there twice.
fn by_name(items: &[Item]) -> Option<BTreeMap<&str, &Found>> {
    let mut named = BTreeMap::new();
    for (name, found) in items {
        if named.insert(name.as_deref()?, found).is_some() {
            return None;
        }
    }
    Some(named)
}

impl Test {
    fn holds(&self, old: Option<&Value>, new: Option<&Value>) -> Result<bool, Error> {
        Ok(match self {
            Self::Removed => old.is_some() && new.is_none(),
            Self::Added => old.is_none() && new.is_some(),
            Self::Changed => old != new,
            Self::Set(value) => new == Some(value) && old != Some(value),
            Self::Increased(amount) | Self::Decreased(amount) => {
                let (Some(old), Some(new)) = (old, new) else { return Ok(false) };
                let (old, new) = (number(old)?, number(new)?);
                let grown = matches!(self, Self::Increased(_));
                let step = if grown { new.checked_sub(old) } else { old.checked_sub(new) };
                amount.is_reached(old, step.ok_or(Error::TooLarge)?)?
            }
        })
    }
}

fn number(value: &Value) -> Result<i128, Error> {
    let parsed = match value {
        Value::String(text) => quantity::parse(text),
        Value::Number(number) => quantity::parse(&number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    parsed.ok_or_else(|| Error::NoQuantity(value.to_string().chars().take(40).collect()))
}

impl Amount {
    fn parse(text: &str) -> Option<Self> {
        let (text, wrap): (&str, fn(i128) -> Self) = match text.strip_suffix('%') {
            Some(text) => (text, Self::Percent),
            None => (text, Self::Absolute),
        };
        quantity::parse(text).filter(|amount| *amount > 0).map(wrap)
    }

    /// Whether `step`, away from `old`, is as large as this.
    fn is_reached(self, old: i128, step: i128) -> Result<bool, Error> {
        if step <= 0 {
            return Ok(false);
        }
        match self {
            Self::Absolute(amount) => Ok(step >= amount),
            Self::Percent(percent) => {
                let hundred = 100 * quantity::ONE;
                let left = step.checked_mul(hundred).ok_or(Error::TooLarge)?;
                Ok(left >= old.checked_abs().and_then(|old| old.checked_mul(percent)).ok_or(Error::TooLarge)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, value::to_raw_value};

    fn happens(spec: Value, old: Value, new: Value) -> Result<bool, Error> {
        let spec: ChangeSpec = serde_json::from_value(spec).unwrap();
        let raw = |value: Value| (!value.is_null()).then(|| to_raw_value(&value).unwrap());
        let (old, new) = (raw(old), raw(new));
        Change::compile(&spec).unwrap().happens(old.as_deref(), new.as_deref())
    }

    #[test]
    fn a_cut_is_told_by_its_share_or_its_size() {
        for (by, old, new, expected) in [
            ("50%", json!(4), json!(2), true),
            ("50%", json!(4), json!(3), false),
            ("50%", json!(1), json!(0), true),
            ("1", json!(4), json!(3), true),
            ("2", json!(4), json!(3), false),
            ("75%", json!("1Gi"), json!("256Mi"), true),
            ("75%", json!("1Gi"), json!("257Mi"), false),
            ("100m", json!("1"), json!("900m"), true),
            ("50%", json!(2), json!(4), false),
        ] {
            let spec = json!({"path": "a", "decreasedBy": by});
            let told = happens(spec, json!({"a": old}), json!({"a": new})).unwrap();
            assert_eq!(told, expected, "{old} to {new} by {by}");
        }
    }

    #[test]
    fn growth_from_zero_reaches_any_share() {
        let spec = json!({"path": "a", "increasedBy": "300%"});
        assert!(happens(spec.clone(), json!({"a": 0}), json!({"a": 1})).unwrap());
        assert!(happens(spec.clone(), json!({"a": 2}), json!({"a": 8})).unwrap());
        assert!(!happens(spec, json!({"a": 2}), json!({"a": 7})).unwrap());
    }

    #[test]
    fn containers_belong_together_by_name() {
        let spec = json!({"path": "c[*].probe", "removed": true});
        let old = json!({"c": [{"name": "a", "probe": 1}, {"name": "b"}]});
        let swapped = json!({"c": [{"name": "b"}, {"name": "a", "probe": 1}]});
        assert!(!happens(spec.clone(), old.clone(), swapped).unwrap());
        assert!(happens(spec.clone(), old.clone(), json!({"c": [{"name": "a"}, {"name": "b", "probe": 1}]})).unwrap());
        assert!(happens(spec, old, json!({})).unwrap());
    }

    #[test]
    fn set_and_added_tell_what_is_new() {
        let set = json!({"path": "spec.suspend", "set": true});
        assert!(happens(set.clone(), json!({"spec": {}}), json!({"spec": {"suspend": true}})).unwrap());
        assert!(!happens(set, json!({"spec": {"suspend": true}}), json!({"spec": {"suspend": true}})).unwrap());
        let added = json!({"path": "spec.v[*].hostPath", "added": true});
        assert!(happens(added.clone(), json!(null), json!({"spec": {"v": [{"hostPath": {}}]}})).unwrap());
        assert!(!happens(added, json!(null), json!({"spec": {"v": [{"emptyDir": {}}]}})).unwrap());
    }

    #[test]
    fn what_is_no_number_is_an_error_and_not_a_miss() {
        let spec = json!({"path": "a", "increasedBy": "1"});
        assert!(matches!(happens(spec, json!({"a": 1}), json!({"a": "many"})), Err(Error::NoQuantity(_))));
    }

    #[test]
    fn two_tests_or_none_or_no_amount_are_problems() {
        for spec in [
            json!({"path": "a"}),
            json!({"path": "a", "removed": true, "added": true}),
            json!({"path": "a", "increasedBy": "-1"}),
            json!({"path": "a", "decreasedBy": "lots"}),
            json!({"path": "a..b", "removed": true}),
        ] {
            let spec: ChangeSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(Change::compile(&spec).unwrap_err().len(), 1, "{spec:?}");
        }
    }
}
