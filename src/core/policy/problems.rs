//! What can be wrong with written rules: everything is found at once, each with object, rule, field and hint.
//!
//! The API server refuses most of it already by schema and CEL; this is the whole list, and what `load` goes by.

use super::document::{ClassSpec, PolicySpec, Rule, Verdict};
use super::matcher::Pattern;
use crate::core::action::NAMESPACE;
use std::{collections::BTreeMap, fmt, time::Duration};

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

/// Everything that is wrong with a class.
#[must_use]
pub fn problems_of_class(name: &str, spec: &ClassSpec) -> Vec<Problem> {
    let mut finder = Finder::new(format!("AgentClass/{name}"));
    let subjects = &spec.subjects;
    if subjects.users.is_empty() && subjects.groups.is_empty() && subjects.service_account_namespaces.is_empty() {
        finder.add("spec.subjects".into(), "selects nobody", "name a user, a group or a service account namespace");
    }
    finder.patterns("spec.subjects.users", &subjects.users);
    finder.patterns("spec.subjects.groups", &subjects.groups);
    for (field, texts, allowed) in
        [("users", &subjects.users, "system:serviceaccount:"), ("groups", &subjects.groups, "system:serviceaccounts:")]
    {
        for (position, text) in texts.iter().enumerate() {
            if reaches_system(text, allowed) {
                finder.add(
                    format!("spec.subjects.{field}[{position}]"),
                    format!("{text:?} would select the control plane, nodes or everybody"),
                    "select agents alone, for example by a group of their own",
                );
            }
        }
    }
    for (position, namespace) in subjects.service_account_namespaces.iter().enumerate() {
        if namespace.starts_with("kube-") || namespace == NAMESPACE || namespace.contains('*') {
            finder.add(
                format!("spec.subjects.serviceAccountNamespaces[{position}]"),
                format!("service accounts of {namespace:?} are never agents"),
                "give agents a namespace of their own",
            );
        }
    }
    finder.found
}

/// True when a pattern can select an identity the cluster itself needs.
fn reaches_system(text: &str, allowed: &str) -> bool {
    let prefix = text.trim_end_matches('*');
    let is_glob = text.ends_with('*');
    let inner = prefix.strip_prefix(allowed);
    let own = |rest: &str| rest.starts_with("kube-") || rest.starts_with(NAMESPACE);
    match inner {
        // Below the allowed prefix a namespace must be named in full, and not be the cluster's own.
        Some(rest) => own(rest) || (is_glob && allowed.ends_with("account:") && !rest.contains(':')) || rest.is_empty(),
        None => text.starts_with("system:") || (is_glob && "system:".starts_with(prefix)),
    }
}

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

fn problems_of_rule(finder: &mut Finder, field: &str, rule: &Rule) {
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
    problems_of_hold(finder, field, rule);
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

fn problems_of_labels(finder: &mut Finder, field: &str, rule: &Rule) {
    use crate::core::action::Operation::{Connect, Create, Delete, Read, Update};
    let known = !rule.matches.operations.is_empty()
        && rule.matches.operations.iter().all(|operation| match operation {
            Create | Update | Delete => true,
            Connect | Read => false,
        });
    if !rule.matches.labels.is_empty() && !known {
        finder.add(
            format!("{field}.match.labels"),
            "labels are not known for CONNECT and READ",
            "give operations out of CREATE, UPDATE, DELETE, or name namespaces instead",
        );
    }
}

fn problems_of_hold(finder: &mut Finder, field: &str, rule: &Rule) {
    let Some(hold) = &rule.hold else { return };
    if rule.action != Verdict::Hold {
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
}
