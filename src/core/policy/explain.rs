//! Why a decision is what it is: every rule that could have a say, and what it says.
//!
//! The same evaluation as [`decide`](super::decide()), without stopping early. For people: no verdict comes from here.

use super::document::{Severity, Verdict};
use super::evaluate::{Finding, View};
use super::facts::Facts;
use super::snapshot::PolicySnapshot;
use serde::Serialize;
use std::cell::OnceCell;

/// What one rule says of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Say {
    /// Policy of the rule.
    pub policy: String,
    /// Its id.
    pub rule: String,
    /// What it does when it matches.
    pub action: Verdict,
    /// How bad it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// `matches`, `does not match`, or why it cannot be evaluated.
    pub says: String,
    /// Whether it takes part in the decision.
    pub counts: bool,
    /// Why there is such a rule.
    pub reason: String,
}

/// What the rules say that speak of the operation and resource of the action, in the order they are asked.
#[must_use]
pub fn explain(snapshot: &PolicySnapshot, facts: &Facts<'_>) -> Vec<Say> {
    let view = View::new(snapshot, facts);
    let scope = OnceCell::new();
    let say = |rule: &super::rules::CompiledRule| {
        let (says, counts) = match view.evaluate(rule, &scope) {
            Finding::Hit => ("matches".to_owned(), true),
            Finding::Miss => ("does not match".to_owned(), false),
            Finding::Failed(why) => (format!("cannot be evaluated: {why}"), true),
            Finding::Unseen => ("depends on content that is not given".to_owned(), true),
        };
        Say {
            policy: rule.policy.clone(),
            rule: rule.id.clone(),
            action: rule.verdict,
            severity: rule.severity,
            says,
            counts,
            reason: rule.reason.clone(),
        }
    };
    snapshot.rules.candidates(facts.action).map(say).collect()
}
