//! One rule against one action: matcher, then changes, then conditions, each only as far as needed.
//!
//! Cheap parts come first, and a part that says no ends it: a rule that could not be evaluated fails only when
//! everything else of it matches. What the gateway cannot see is [`Finding::Unseen`], never a miss.

use super::facts::Facts;
use super::matcher::Told;
use super::rules::CompiledRule;
use super::snapshot::PolicySnapshot;
use crate::core::action::Operation;
use std::collections::BTreeMap;

/// What a rule says of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// It matches.
    Hit,
    /// It does not.
    Miss,
    /// It cannot be evaluated: why.
    Failed(String),
    /// It depends on content that is not at hand.
    Unseen,
}

/// The view of one decision on its facts, shared by all rules.
pub(super) struct View<'a> {
    facts: &'a Facts<'a>,
    namespace_labels: Option<&'a BTreeMap<String, String>>,
    /// A write whose objects are not at hand.
    unseen: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(snapshot: &'a PolicySnapshot, facts: &'a Facts<'a>) -> Self {
        let action = facts.action;
        let of_snapshot = || action.namespace.as_deref().and_then(|name| snapshot.namespace_labels(name));
        let writes = matches!(action.operation, Operation::Create | Operation::Update | Operation::Delete);
        Self {
            facts,
            namespace_labels: facts.content.namespace_labels.or_else(of_snapshot),
            unseen: writes && !facts.content.is_known,
        }
    }

    /// What `rule` says.
    pub(super) fn evaluate(&self, rule: &CompiledRule) -> Finding {
        let told = rule.matcher.matches(self.facts.action, rule.verdict, self.namespace_labels, self.unseen);
        let mut failure = match told {
            Told::No => return Finding::Miss,
            Told::Unseen => return Finding::Unseen,
            Told::Yes => None,
            Told::NamespaceUnknown => Some("the labels of the namespace are not known".to_owned()),
        };
        if !rule.changes.is_empty() {
            if self.unseen {
                return Finding::Unseen;
            }
            match self.changed(rule) {
                Ok(true) => {}
                Ok(false) => return Finding::Miss,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Finding::Hit, Finding::Failed)
    }

    /// Whether one of the rule's changes happens; an error only when none surely does.
    fn changed(&self, rule: &CompiledRule) -> Result<bool, String> {
        let mut failure = None;
        for change in &rule.changes {
            match change.happens(self.facts.content.old_object, self.facts.content.object) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => failure = Some(error.to_string()),
            }
        }
        failure.map_or(Ok(false), Err)
    }
}
