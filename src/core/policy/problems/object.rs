//! What is wrong with a class or a policy as it comes, before it is known to have the shape of one.
//!
//! A rule that cannot be read hides no other: each is read by itself, and every problem of all of them is told.

use super::{Finder, Problem, problems_of_class, problems_of_policy};
use crate::core::policy::document::{ClassSpec, PolicySpec, Rule};
use serde_json::Value;

/// Where to read what can be written.
const EXPLAIN: &str = "see kubectl explain agentpolicy.spec.rules";

/// The kinds whose specs Kustody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// AgentClass.
    Class,
    /// AgentPolicy.
    Policy,
}

impl Kind {
    /// The kind of that name.
    #[must_use]
    pub fn of(kind: &str) -> Option<Self> {
        match kind {
            "AgentClass" => Some(Self::Class),
            "AgentPolicy" => Some(Self::Policy),
            _ => None,
        }
    }
}

/// Everything that is wrong with the `spec` of an object of this kind and name.
#[must_use]
pub fn problems_of_object(kind: Kind, name: &str, spec: &Value) -> Vec<Problem> {
    match kind {
        Kind::Class => match serde_json::from_value::<ClassSpec>(spec.clone()) {
            Ok(spec) => problems_of_class(name, &spec),
            Err(error) => {
                let mut finder = Finder::new(format!("AgentClass/{name}"));
                finder.add("spec".to_owned(), error.to_string(), "see kubectl explain agentclass.spec");
                finder.found
            }
        },
        Kind::Policy => match serde_json::from_value::<PolicySpec>(spec.clone()) {
            Ok(spec) => problems_of_policy(name, &spec),
            Err(error) => unreadable(name, spec, &error),
        },
    }
}

/// Rules one by one: which cannot be read, and what is wrong with the others.
fn unreadable(name: &str, spec: &Value, error: &serde_json::Error) -> Vec<Problem> {
    let mut finder = Finder::new(format!("AgentPolicy/{name}"));
    let rules = spec.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut readable = Vec::new();
    for (position, rule) in rules.iter().enumerate() {
        match serde_json::from_value::<Rule>(rule.clone()) {
            Ok(rule) => readable.push((position, rule)),
            Err(error) => {
                finder.rule = rule.get("id").and_then(Value::as_str).map(str::to_owned);
                finder.add(format!("spec.rules[{position}]"), error.to_string(), EXPLAIN);
            }
        }
    }
    if readable.len() == rules.len() {
        finder.rule = None;
        finder.add("spec".to_owned(), error.to_string(), EXPLAIN);
    }
    for (position, rule) in readable {
        finder.rule = Some(rule.id.clone());
        super::rule::problems_of_rule(&mut finder, &format!("spec.rules[{position}]"), &rule);
    }
    finder.found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_that_cannot_be_read_hides_no_other() {
        let spec = json!({"rules": [
            {"id": "a", "reason": "r", "action": "Maybe", "match": {"resources": []}},
            {"id": "b", "reason": "", "action": "Deny", "match": {"resources": [{"apiGroups": [""], "resources": ["pods"]}]}},
            {"id": "c", "reason": "r", "action": "Deny", "mutch": {}}
        ]});
        let found = problems_of_object(Kind::Policy, "p", &spec);
        let fields: Vec<&str> = found.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["spec.rules[0]", "spec.rules[2]", "spec.rules[1].reason"], "{found:?}");
        assert_eq!(found[0].rule.as_deref(), Some("a"));
    }

    #[test]
    fn a_spec_of_another_shape_is_a_problem_and_no_panic() {
        for spec in [json!(null), json!([]), json!({"rules": 1}), json!({"rules": [], "x": 1}), json!("x")] {
            assert!(!problems_of_object(Kind::Policy, "p", &spec).is_empty(), "{spec}");
            assert!(!problems_of_object(Kind::Class, "c", &spec).is_empty(), "{spec}");
        }
    }
}
