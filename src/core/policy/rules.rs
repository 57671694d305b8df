//! The compiled rules, in the order they are evaluated, and the index that finds those of one action.
//!
//! Rules are sorted by verdict (deny first), then by what they cost, those for named resources before those for any. The index leads from operation, resource and
//! namespace to the few that can match; whether they do, each rule's matcher says.

use super::budget::{Budget, Limit};
use super::change::Change;
use super::decision::HoldTerms;
use super::document::{FailureAction, Hold, Record, Rule, Severity, Verdict};
use super::matcher::{Matcher, Pattern};
use super::problems::{EXPIRY, bytes, duration};
use crate::core::{
    action::{Action, Operation},
    expression::Expression,
    recording::keeping::Wishes,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

const OPERATIONS: [Operation; 5] =
    [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect, Operation::Read];

/// A condition without any of these words depends on no content.
const CONTENT: [&str; 5] = ["object", "Object", "request", "params", "dryRun"];

/// A compiled rule.
#[derive(Debug, Clone)]
pub(super) struct CompiledRule {
    pub(super) policy: String,
    pub(super) id: String,
    pub(super) reason: String,
    pub(super) severity: Option<Severity>,
    pub(super) verdict: Verdict,
    pub(super) on_failure: Option<FailureAction>,
    pub(super) matcher: Matcher,
    pub(super) changes: Vec<Change>,
    pub(super) conditions: Vec<Arc<Expression>>,
    /// Whether a condition may look at more than who asks for what.
    pub(super) looks_inside: bool,
    pub(super) terms: HoldTerms,
    pub(super) budget: Option<Budget>,
    pub(super) record: Option<Wishes>,
}

/// All rules, sorted and indexed.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    sorted: Vec<CompiledRule>,
    /// Every counter that a budget asks for, once.
    pub(super) limits: Vec<Limit>,
    index: [ByResource; 5],
}

/// Positions of rules by the resource they name; those for any resource apart.
#[derive(Debug, Clone, Default)]
struct ByResource {
    named: HashMap<String, ByNamespace>,
    any: ByNamespace,
}

/// Positions of rules by the namespace they name in full; the others apart.
#[derive(Debug, Clone, Default)]
struct ByNamespace {
    named: HashMap<String, Vec<u32>>,
    other: Vec<u32>,
}

impl CompiledRule {
    /// Whatever does not compile is left out: the caller has refused it before.
    pub(super) fn new(policy: &str, rule: &Rule) -> Self {
        let stated = rule.failure_action;
        Self {
            policy: policy.to_owned(),
            id: rule.id.clone(),
            reason: rule.reason.clone(),
            severity: rule.severity,
            verdict: rule.action,
            on_failure: stated.or(match rule.action {
                Verdict::Deny => Some(FailureAction::Deny),
                Verdict::Hold | Verdict::Budget => Some(FailureAction::Hold),
                Verdict::Warn => Some(FailureAction::Warn),
                Verdict::Allow => None,
            }),
            matcher: Matcher::new(&rule.matches),
            changes: rule.change.iter().filter_map(|change| Change::compile(change).ok()).collect(),
            conditions: rule.when.iter().filter_map(|text| Expression::compile(text).ok().map(Arc::new)).collect(),
            looks_inside: rule.when.iter().any(|text| CONTENT.iter().any(|word| text.contains(word))),
            terms: HoldTerms {
                // What might have been a denial, and a spent budget, are for a person to look at.
                grantable: rule.action == Verdict::Hold,
                ..terms(rule.hold.as_ref().unwrap_or(&Hold::default()))
            },
            budget: rule.budget.as_ref().map(Budget::new),
            record: rule.record.as_ref().map(wishes),
        }
    }

    /// Whether it asks for the labels of namespaces.
    pub(super) fn needs_namespaces(&self) -> bool {
        let told = |condition: &Arc<Expression>| condition.text().contains("namespaceObject");
        self.matcher.needs_namespace_labels() || self.conditions.iter().any(told)
    }

    /// Cheap ones first.
    fn cost(&self) -> usize {
        self.changes.len() + 64 * self.conditions.len()
    }
}

/// Terms of a hold as written.
pub(super) fn terms(hold: &Hold) -> HoldTerms {
    HoldTerms {
        quorum: hold.quorum,
        expires_after: duration(&hold.expires_after).unwrap_or(*EXPIRY.start()),
        approvers: if hold.approvers.is_empty() { Vec::new() } else { vec![hold.approvers.clone()] },
        mode: hold.mode,
        grantable: true,
    }
}

fn wishes(record: &Record) -> Wishes {
    Wishes {
        stdin: record.stdin,
        hidden: record.hidden,
        forwarded: record.forwarded.as_deref().and_then(bytes),
        mode: record.mode,
    }
}

impl Rules {
    pub(super) fn new(mut rules: Vec<CompiledRule>) -> Self {
        rules.sort_by_key(|rule| (rule.verdict, rule.cost(), rule.matcher.resource_names().contains(&"*")));
        let mut index: [ByResource; 5] = Default::default();
        for (position, rule) in (0u32..).zip(&rules) {
            for (operation, by_resource) in OPERATIONS.iter().zip(&mut index) {
                if rule.matcher.speaks_of_operation(*operation) {
                    by_resource.insert(position, &rule.matcher);
                }
            }
        }
        let limits: BTreeSet<Limit> =
            rules.iter().filter_map(|rule| rule.budget.as_ref()).flat_map(Budget::counters).collect();
        Self { limits: limits.into_iter().collect(), sorted: rules, index }
    }

    pub(super) fn all(&self) -> &[CompiledRule] {
        &self.sorted
    }

    /// Rules that can match, in the order of evaluation.
    pub(super) fn candidates(&self, action: &Action) -> impl Iterator<Item = &CompiledRule> {
        let mut positions = Vec::with_capacity(32);
        let slot = OPERATIONS.iter().position(|operation| *operation == action.operation);
        if let Some(by_resource) = slot.and_then(|slot| self.index.get(slot)) {
            by_resource.any.collect(action, &mut positions);
            if let Some(by_namespace) = by_resource.named.get(&action.resource.resource) {
                by_namespace.collect(action, &mut positions);
            }
        }
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().filter_map(|position| self.sorted.get(usize::try_from(position).ok()?))
    }
}

impl ByResource {
    fn insert(&mut self, position: u32, matcher: &Matcher) {
        let named = matcher.resource_names();
        if named.contains(&"*") {
            return self.any.insert(position, matcher);
        }
        for name in named {
            self.named.entry(name.to_owned()).or_default().insert(position, matcher);
        }
    }
}

impl ByNamespace {
    fn insert(&mut self, position: u32, matcher: &Matcher) {
        let whole: Option<Vec<&String>> = matcher
            .namespaces()
            .iter()
            .map(|pattern| match pattern {
                Pattern::Whole(name) => Some(name),
                Pattern::Prefix(_) => None,
            })
            .collect();
        match whole {
            Some(names) if !names.is_empty() => {
                for name in names {
                    self.named.entry(name.clone()).or_default().push(position);
                }
            }
            Some(_) | None => self.other.push(position),
        }
    }

    fn collect(&self, action: &Action, positions: &mut Vec<u32>) {
        positions.extend(&self.other);
        match &action.namespace {
            Some(namespace) => positions.extend(self.named.get(namespace).into_iter().flatten()),
            // A collection over all namespaces may be of any.
            None => positions.extend(self.named.values().flatten()),
        }
    }
}

#[cfg(test)]
mod tests;
