//! Grants: time-boxed allowances that let held actions through without asking again.
//!
//! An [`ActiveGrant`] is one that people have given and that is in force; the rules ask it whether it covers an
//! action. It turns a hold into an allowance, never a denial. Who gives and counts grants is the edge's business.

use crate::core::{
    action::{Action, ClassName, Operation},
    policy::{Pattern, document::ResourceRule, resource_matches},
};
use jiff::Timestamp;

/// A grant in force.
#[derive(Debug, Clone)]
pub struct ActiveGrant {
    /// Its name.
    pub name: String,
    /// The class it was given to.
    pub class: ClassName,
    /// Operations it lets through; none named: all.
    pub operations: Vec<Operation>,
    /// Resources it speaks of.
    pub resources: Vec<ResourceRule>,
    /// Namespaces it speaks of; none named: all, and cluster scope.
    pub namespaces: Vec<Pattern>,
    /// Object names it speaks of; none named: all.
    pub names: Vec<Pattern>,
    /// When it ends.
    pub until: Timestamp,
}

impl ActiveGrant {
    /// Whether it lets `action` through at `now`. What is not known of the action is not covered.
    #[must_use]
    pub fn covers(&self, action: &Action, now: Timestamp) -> bool {
        let named = |patterns: &[Pattern], word: Option<&str>| {
            patterns.is_empty() || word.is_some_and(|word| patterns.iter().any(|pattern| pattern.matches(word)))
        };
        now < self.until
            && self.class == action.class
            && (self.operations.is_empty() || self.operations.contains(&action.operation))
            && self.resources.iter().any(|rule| resource_matches(rule, &action.resource))
            && named(&self.namespaces, action.namespace.as_deref())
            && named(&self.names, action.name.as_deref())
    }
}
