//! One rule against one action: matcher, then changes, then conditions, each only as far as needed.
//!
//! Cheap parts come first, and a part that says no ends it: a rule that could not be evaluated fails only when
//! everything else of it matches. What the gateway cannot see is [`Finding::Unseen`], never a miss.

use super::facts::Facts;
use super::matcher::Told;
use super::rules::CompiledRule;
use super::snapshot::PolicySnapshot;
use crate::core::{
    action::{Action, Operation, StreamKind},
    expression::{Documents, Fuel, Scope},
};
use serde_json::{json, value::RawValue};
use std::{cell::OnceCell, collections::BTreeMap};

/// What one condition may spend.
const FUEL: Fuel = Fuel::new(200_000);

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
    /// The options of a stream where no review brings them.
    stream: Option<Box<RawValue>>,
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
            stream: if facts.content.object.is_none() { options_of(action) } else { None },
        }
    }

    /// What conditions see. Made once, when the first one is asked.
    fn scope<'v>(&'v self, scope: &'v OnceCell<Scope<'v>>) -> &'v Scope<'v> {
        scope.get_or_init(|| {
            let content = self.facts.content;
            let documents = Documents {
                object: content.object.or(self.stream.as_deref()),
                old_object: content.old_object,
                options: content.options,
                params: None,
                namespace_labels: self.namespace_labels,
            };
            Scope::new(self.facts.action, documents)
        })
    }

    /// What `rule` says.
    pub(super) fn evaluate<'v>(&'v self, rule: &CompiledRule, scope: &'v OnceCell<Scope<'v>>) -> Finding {
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
        if !rule.conditions.is_empty() {
            if self.unseen && rule.looks_inside {
                return Finding::Unseen;
            }
            match self.holds(rule, self.scope(scope)) {
                Ok(true) => {}
                Ok(false) => return Finding::Miss,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Finding::Hit, Finding::Failed)
    }

    /// Whether all conditions hold; an error only when none surely does not.
    fn holds(&self, rule: &CompiledRule, scope: &Scope<'_>) -> Result<bool, String> {
        let mut failure = None;
        for (position, condition) in rule.conditions.iter().enumerate() {
            match condition.evaluate(scope, FUEL) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => failure = Some(format!("when[{position}]: {error}")),
            }
        }
        failure.map_or(Ok(true), Err)
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

/// The options object the API server would make of a stream; none for what is no stream.
fn options_of(action: &Action) -> Option<Box<RawValue>> {
    let stream = action.stream.as_ref()?;
    let kind = match stream.kind {
        StreamKind::Exec => "PodExecOptions",
        StreamKind::Attach => "PodAttachOptions",
        StreamKind::PortForward | StreamKind::Proxy => return None,
    };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    let members = options.as_object_mut()?;
    let flags = [("stdin", stream.stdin), ("stdout", stream.stdout), ("stderr", stream.stderr), ("tty", stream.tty)];
    members.extend(flags.into_iter().filter(|(_, set)| *set).map(|(key, set)| (key.to_owned(), set.into())));
    members.extend(stream.container.iter().map(|name| ("container".to_owned(), name.as_str().into())));
    if !stream.command.is_empty() {
        members.insert("command".to_owned(), stream.command.as_slice().into());
    }
    serde_json::value::to_raw_value(&options).ok()
}
