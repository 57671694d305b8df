//! What can be wrong with a policy, rule by rule.

use super::{Finder, Problem, bytes, duration, window};
use crate::core::{
    action::Operation,
    admission::suspended::Suspendable,
    expression::Expression,
    policy::{
        change::Change,
        document::{FailureAction, HoldMode, PolicySpec, Record, Rule, Verdict},
    },
};
use std::collections::BTreeMap;

/// Everything that is wrong with a policy.
#[must_use]
pub fn problems_of_policy(name: &str, spec: &PolicySpec) -> Vec<Problem> {
    let mut finder = Finder::new(format!("AgentPolicy/{name}"));
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    if spec.rules.is_empty() {
        finder.add("spec.rules".into(), "has no rules", "write at least one, or delete the policy");
    }
    for (position, rule) in spec.rules.iter().enumerate() {
        finder.rule = Some(rule.id.clone());
        let field = format!("spec.rules[{position}]");
        if let Some(first) = seen.insert(&rule.id, position) {
            finder.add(format!("{field}.id"), format!("is also the id of rule {first}"), "give every rule its own id");
        }
        problems_of_rule(&mut finder, &field, rule);
    }
    finder.found
}

pub(super) fn problems_of_rule(finder: &mut Finder, field: &str, rule: &Rule) {
    if rule.id.is_empty() {
        finder.add(format!("{field}.id"), "is empty", "name the rule, for example delete-workloads");
    }
    if rule.reason.trim().is_empty() {
        finder.add(format!("{field}.reason"), "is empty", "say why: agents and approvers read it");
    }
    finder.patterns(&format!("{field}.match.namespaces"), &rule.matches.namespaces);
    finder.patterns(&format!("{field}.match.names"), &rule.matches.names);
    problems_of_resources(finder, field, rule);
    problems_of_labels(finder, field, rule);
    problems_of_changes(finder, field, rule);
    problems_of_conditions(finder, field, rule);
    problems_of_hold(finder, field, rule);
    problems_of_budget(finder, field, rule);
    problems_of_record(finder, field, rule);
    if rule.action == Verdict::Allow && rule.failure_action == Some(FailureAction::Warn) {
        finder.add(
            format!("{field}.failureAction"),
            "would allow what could not be checked",
            "write Deny or Hold, or leave it out: the rule then does not allow",
        );
    }
}

fn problems_of_resources(finder: &mut Finder, field: &str, rule: &Rule) {
    if rule.matches.resources.is_empty() {
        finder.add(format!("{field}.match.resources"), "is empty", "name resources, or \"*/*\" for all");
    }
    for (position, entry) in rule.matches.resources.iter().enumerate() {
        let at = format!("{field}.match.resources[{position}]");
        if entry.api_groups.is_empty() {
            finder.add(format!("{at}.apiGroups"), "is empty", "write \"\" for the core group, \"*\" for all");
        }
        if entry.resources.is_empty() {
            finder.add(format!("{at}.resources"), "is empty", "write pods, pods/exec, pods/*, */scale, * or */*");
        }
        for path in &entry.resources {
            let parts: Vec<&str> = path.split('/').collect();
            let sound = |part: &&str| *part == "*" || (!part.is_empty() && !part.contains('*'));
            let lower = path.chars().all(|c| !c.is_ascii_uppercase());
            if parts.len() > 2 || !parts.iter().all(sound) || !lower {
                finder.add(
                    format!("{at}.resources"),
                    format!("{path:?} names no resource"),
                    "write the plural in lower case: pods, pods/exec, pods/*, */scale, * or */*",
                );
            }
        }
    }
}

/// True when only operations are named that change objects.
fn changes_objects(rule: &Rule) -> bool {
    !rule.matches.operations.is_empty()
        && rule.matches.operations.iter().all(|operation| match operation {
            Operation::Create | Operation::Update | Operation::Delete => true,
            Operation::Connect | Operation::Read => false,
        })
}

fn problems_of_labels(finder: &mut Finder, field: &str, rule: &Rule) {
    if !rule.matches.labels.is_empty() && !changes_objects(rule) {
        finder.add(
            format!("{field}.match.labels"),
            "labels are not known for CONNECT and READ",
            "give operations out of CREATE, UPDATE, DELETE, or name namespaces instead",
        );
    }
}

fn problems_of_changes(finder: &mut Finder, field: &str, rule: &Rule) {
    if !rule.change.is_empty() && !changes_objects(rule) {
        finder.add(
            format!("{field}.change"),
            "CONNECT and READ change no object",
            "give operations out of CREATE, UPDATE, DELETE",
        );
    }
    for (position, change) in rule.change.iter().enumerate() {
        for (member, message, hint) in Change::compile(change).err().into_iter().flatten() {
            let dot = if member.is_empty() { "" } else { "." };
            finder.add(format!("{field}.change[{position}]{dot}{member}"), message, hint);
        }
    }
}

fn problems_of_conditions(finder: &mut Finder, field: &str, rule: &Rule) {
    for (position, text) in rule.when.iter().enumerate() {
        if let Err(problem) = Expression::compile(text) {
            let hint = if problem.hint.is_empty() { "write a condition in CEL" } else { &problem.hint };
            finder.add(format!("{field}.when[{position}]"), problem.to_string(), hint);
        }
    }
}

fn problems_of_hold(finder: &mut Finder, field: &str, rule: &Rule) {
    let Some(hold) = &rule.hold else { return };
    if !matches!(rule.action, Verdict::Hold | Verdict::Budget) {
        finder.add(format!("{field}.hold"), "has no effect on this action", "set action: Hold, or remove it");
    }
    if !(1..=8).contains(&hold.quorum) {
        finder.add(format!("{field}.hold.quorum"), "is out of bounds", "between 1 and 8 people");
    }
    if duration(&hold.expires_after).is_none() {
        finder.add(
            format!("{field}.hold.expiresAfter"),
            format!("{:?} is no duration between 10s and 168h", hold.expires_after),
            "write for example 30m or 1h30m",
        );
    }
    if hold.mode == HoldMode::Suspended {
        problems_of_suspension(finder, field, rule);
    }
}

/// Only what does not exist yet, and can be suspended, is created suspended.
fn problems_of_suspension(finder: &mut Finder, field: &str, rule: &Rule) {
    if rule.matches.operations != [Operation::Create] {
        finder.add(
            format!("{field}.match.operations"),
            "can match more than CREATE, and hold.mode Suspended is for new objects",
            "write operations: [CREATE], or hold.mode: Wait or Ticket",
        );
    }
    for (position, entry) in rule.matches.resources.iter().enumerate() {
        let mut pairs = entry.api_groups.iter().flat_map(|group| entry.resources.iter().map(move |path| (group, path)));
        if let Some((group, path)) = pairs.find(|(group, path)| Suspendable::named(group, path).is_none()) {
            finder.add(
                format!("{field}.match.resources[{position}]"),
                format!("can match {path:?} of group {group:?}, which cannot be created suspended"),
                "write apiGroups: [batch], resources: [jobs, cronjobs], or apiGroups: [apps], resources: [deployments]; \
                 or hold.mode: Wait or Ticket",
            );
        }
    }
}

fn problems_of_record(finder: &mut Finder, field: &str, rule: &Rule) {
    let Some(record) = &rule.record else { return };
    if rule.action == Verdict::Deny {
        finder.add(format!("{field}.record"), "has no effect: what is denied is not recorded", "remove it");
    }
    if *record == Record::default() {
        finder.add(format!("{field}.record"), "says nothing", "give stdin, hidden, forwarded or mode, or remove it");
    }
    if let Some(text) = record.forwarded.as_ref().filter(|text| bytes(text).is_none()) {
        finder.add(
            format!("{field}.record.forwarded"),
            format!("{text:?} is no number of bytes"),
            "write for example 64Mi, or 0 to keep none",
        );
    }
}

fn problems_of_budget(finder: &mut Finder, field: &str, rule: &Rule) {
    let Some(budget) = &rule.budget else {
        if rule.action == Verdict::Budget {
            finder.add(format!("{field}.budget"), "is missing", "say how much is free: limits, per, exceeded");
        }
        return;
    };
    if rule.action != Verdict::Budget {
        finder.add(format!("{field}.budget"), "has no effect on this action", "set action: Budget, or remove it");
    }
    if budget.limits.is_empty() {
        finder.add(
            format!("{field}.budget.limits"),
            "is empty",
            "write for example counted: Deletes, max: 5, window: 10m",
        );
    }
    for (position, limit) in budget.limits.iter().enumerate() {
        if window(&limit.window).is_none() {
            finder.add(
                format!("{field}.budget.limits[{position}].window"),
                format!("{:?} is no duration between 10s and 24h", limit.window),
                "write for example 10m",
            );
        }
    }
}
