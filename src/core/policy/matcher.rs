//! Does a rule speak of this action?
//!
//! Matchers are a closed set of typed tests over an [`Action`]. Where something is unknown (a list knows no
//! names) a restrictive rule matches and a permissive one does not: what is not known is never an opening.

use super::document::{Match, ResourceRule, Verdict};
use crate::core::action::{Action, Operation, Resource};
use std::collections::BTreeMap;

/// A whole word, or a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The whole word.
    Whole(String),
    /// How the word begins.
    Prefix(String),
}

impl Pattern {
    /// `None` when a `*` stands anywhere but at the end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => Some(Self::Prefix(prefix.to_owned())),
            Some(_) => None,
            None if text.contains('*') => None,
            None => Some(Self::Whole(text.to_owned())),
        }
    }

    /// Whether `text` is the word, or begins so.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Whole(whole) => text == whole,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
        }
    }
}

/// A [`Match`] with its patterns parsed.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    source: Match,
    namespaces: Vec<Pattern>,
    names: Vec<Pattern>,
}

/// What a matcher says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The rule speaks of the action.
    Yes,
    /// It does not.
    No,
    /// It does if the content, which is not at hand, says so.
    Unseen,
    /// Nothing is known of the action's namespace.
    NamespaceUnknown,
}

impl Matcher {
    /// Patterns that do not parse are left out: the caller has refused them before.
    pub(super) fn new(source: &Match) -> Self {
        let parse = |texts: &[String]| texts.iter().filter_map(|text| Pattern::parse(text)).collect();
        Self { namespaces: parse(&source.namespaces), names: parse(&source.names), source: source.clone() }
    }

    pub(super) fn speaks_of_operation(&self, operation: Operation) -> bool {
        self.source.operations.is_empty() || self.source.operations.contains(&operation)
    }

    /// Names of resources without their subresources; `*` for all.
    pub(super) fn resource_names(&self) -> Vec<&str> {
        let paths = self.source.resources.iter().flat_map(|rule| &rule.resources);
        paths.map(|path| path.split_once('/').map_or(path.as_str(), |(name, _)| name)).collect()
    }

    pub(super) fn namespaces(&self) -> &[Pattern] {
        &self.namespaces
    }

    pub(super) fn needs_namespace_labels(&self) -> bool {
        !self.source.namespace_labels.is_empty()
    }

    /// `known`: labels of the action's namespace. `unseen`: the content is not at hand.
    pub(super) fn matches(
        &self,
        action: &Action,
        verdict: Verdict,
        known: Option<&BTreeMap<String, String>>,
        unseen: bool,
    ) -> Told {
        let restrictive = matches!(verdict, Verdict::Deny | Verdict::Hold | Verdict::Budget);
        let speaks = self.class_matches(action)
            && self.speaks_of_operation(action.operation)
            && self.source.resources.iter().any(|rule| resource_matches(rule, &action.resource))
            && word_matches(&self.namespaces, action.namespace.as_deref(), restrictive && action.is_collection())
            && word_matches(&self.names, action.name.as_deref(), restrictive && action.is_collection());
        if !speaks {
            return Told::No;
        }
        let own_labels = self.needs_namespace_labels() && changes_namespace(action);
        if unseen && (own_labels || !self.source.labels.is_empty() || self.source.dry_run.is_some()) {
            return Told::Unseen;
        }
        if !self.dry_run_matches(action) || !before_and_after(action, &self.source.labels, restrictive) {
            return Told::No;
        }
        match self.namespace_matches(action, known, restrictive) {
            Some(false) => Told::No,
            Some(true) => Told::Yes,
            None => Told::NamespaceUnknown,
        }
    }

    fn class_matches(&self, action: &Action) -> bool {
        self.source.classes.is_empty() || self.source.classes.iter().any(|class| class == action.class.as_str())
    }

    fn dry_run_matches(&self, action: &Action) -> bool {
        self.source.dry_run.is_none_or(|dry_run| dry_run == action.dry_run)
    }

    /// `None`: not known. A Namespace is matched by its own labels, and cluster scope by none.
    fn namespace_matches(
        &self,
        action: &Action,
        known: Option<&BTreeMap<String, String>>,
        restrictive: bool,
    ) -> Option<bool> {
        let wanted = &self.source.namespace_labels;
        if wanted.is_empty() {
            return Some(true);
        }
        if changes_namespace(action) {
            return Some(before_and_after(action, wanted, restrictive));
        }
        match (&action.namespace, known) {
            (None, _) => Some(restrictive && action.is_collection()),
            (Some(_), Some(labels)) => Some(carries(labels, wanted)),
            (Some(_), None) => None,
        }
    }
}

/// True for a write to a Namespace, whose own labels then count.
fn changes_namespace(action: &Action) -> bool {
    action.resource.group.is_empty()
        && action.resource.resource == "namespaces"
        && matches!(action.operation, Operation::Create | Operation::Update | Operation::Delete)
}

/// An update is matched by the labels before and after: a restrictive rule needs one, a permissive both.
fn before_and_after(action: &Action, wanted: &BTreeMap<String, String>, restrictive: bool) -> bool {
    let now = carries(&action.labels, wanted);
    match &action.previous_labels {
        None => now,
        Some(previous) if restrictive => now || carries(previous, wanted),
        Some(previous) => now && carries(previous, wanted),
    }
}

fn carries(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn word_matches(patterns: &[Pattern], word: Option<&str>, when_unknown: bool) -> bool {
    match word {
        _ if patterns.is_empty() => true,
        Some(word) => patterns.iter().any(|pattern| pattern.matches(word)),
        None => when_unknown,
    }
}

/// Whether an entry of a rule speaks of `resource`.
#[must_use]
pub fn resource_matches(rule: &ResourceRule, resource: &Resource) -> bool {
    rule.api_groups.iter().any(|group| group == "*" || *group == resource.group)
        && (rule.api_versions.is_empty() || rule.api_versions.iter().any(|v| v == "*" || *v == resource.version))
        && rule.resources.iter().any(|pattern| path_matches(pattern, resource))
}

/// The rules of the API server's webhook matching, subresources included.
fn path_matches(pattern: &str, resource: &Resource) -> bool {
    let (wanted, wanted_sub) = match pattern.split_once('/') {
        Some((wanted, sub)) => (wanted, Some(sub)),
        None => (pattern, None),
    };
    let sub_matches = match (wanted_sub, resource.subresource.as_deref()) {
        (None, None) | (Some("*"), _) => true,
        (Some(wanted), Some(sub)) => wanted == sub,
        (None, Some(_)) | (Some(_), None) => false,
    };
    (wanted == "*" || wanted == resource.resource) && sub_matches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> Resource {
        let (resource, sub) = path.split_once('/').map_or((path, None), |(r, s)| (r, Some(s.to_owned())));
        Resource { group: String::new(), version: "v1".into(), resource: resource.into(), subresource: sub }
    }

    #[test]
    fn resource_patterns_follow_the_api_server() {
        for (pattern, path, expected) in [
            ("pods", "pods", true),
            ("pods", "pods/exec", false),
            ("pods/exec", "pods/exec", true),
            ("pods/exec", "pods", false),
            ("pods/*", "pods", true),
            ("pods/*", "pods/log", true),
            ("*", "pods", true),
            ("*", "pods/exec", false),
            ("*/*", "pods/exec", true),
            ("*/*", "pods", true),
            ("*/scale", "deployments/scale", true),
            ("*/scale", "deployments", false),
        ] {
            assert_eq!(path_matches(pattern, &resource(path)), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_star_is_a_prefix_only_at_the_end() {
        assert_eq!(Pattern::parse("a*b"), None);
        assert_eq!(Pattern::parse("*b*"), None);
        assert!(Pattern::parse("a*").is_some_and(|p| p.matches("abc") && !p.matches("ba")));
        assert!(Pattern::parse("abc").is_some_and(|p| p.matches("abc") && !p.matches("abcd")));
    }
}
