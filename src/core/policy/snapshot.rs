//! What the written rules compile to: one immutable snapshot, and every problem of what was written.
//!
//! What can be wrong is `problems.rs`'s business. A broken object stays out of the snapshot; its
//! name is kept, and while it is there nothing but a read is allowed without a person (fail closed).

use super::budget::Limit;
use super::class::{self, Class};
use super::document::{ClassSpec, HoldMode, PolicySpec};
use super::problems::{Problem, problems_of_class, problems_of_policy};
use super::rules::{CompiledRule, Rules};
use crate::core::{action::Identity, canonical};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Labels of namespaces, by name.
pub type Namespaces = BTreeMap<String, Arc<BTreeMap<String, String>>>;

/// SHA-256 over the canonical form of everything that was loaded: equal hashes decide equally.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PolicyHash(String);

impl PolicyHash {
    /// Lower-case hexadecimal.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Classes and rules, compiled: immutable, kept in an `Arc`.
#[derive(Debug, Clone)]
pub struct PolicySnapshot {
    classes: Vec<Class>,
    pub(super) rules: Arc<Rules>,
    pub(super) broken: Vec<String>,
    namespaces: Option<Arc<Namespaces>>,
    hash: PolicyHash,
}

impl PolicySnapshot {
    /// Compiles what was written, by object name. Broken objects are left out and reported.
    #[must_use]
    pub fn load(
        classes: &BTreeMap<String, ClassSpec>,
        policies: &BTreeMap<String, PolicySpec>,
    ) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut broken = Vec::new();
        let mut compiled = Vec::new();
        for (name, spec) in classes {
            let found = problems_of_class(name, spec);
            if found.is_empty() {
                compiled.push(class::compile(name, spec));
            } else {
                broken.push(format!("AgentClass/{name}"));
            }
            problems.extend(found);
        }
        // Of several classes that select one identity the most demanding counts, then the first by name.
        compiled.sort_by_key(|class| !class.streams_need_gateway());
        let mut rules = Vec::new();
        for (name, spec) in policies {
            let found = problems_of_policy(name, spec);
            if found.is_empty() {
                rules.extend(spec.rules.iter().map(|rule| CompiledRule::new(name, rule)));
            } else {
                broken.push(format!("AgentPolicy/{name}"));
            }
            problems.extend(found);
        }
        let hash = hash(classes, policies);
        (Self { classes: compiled, rules: Arc::new(Rules::new(rules)), broken, namespaces: None, hash }, problems)
    }

    /// The class that makes `identity` an agent; `None`: not an agent.
    #[must_use]
    pub fn classify(&self, identity: &Identity) -> Option<&Class> {
        self.classes.iter().find(|class| class.selects(identity))
    }

    /// All classes.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The hash every decision carries.
    #[must_use]
    pub fn hash(&self) -> &PolicyHash {
        &self.hash
    }

    /// Objects that are broken and have no earlier version in force.
    #[must_use]
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Whether any rule asks for the labels of namespaces.
    #[must_use]
    pub fn needs_namespaces(&self) -> bool {
        self.rules.all().iter().any(CompiledRule::needs_namespaces)
    }

    /// Whether any rule has objects created suspended.
    #[must_use]
    pub fn suspends(&self) -> bool {
        self.rules.all().iter().any(|rule| rule.terms.mode == HoldMode::Suspended)
    }

    /// The counters that budgets compare with.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.rules.limits
    }

    /// What is known of a namespace.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.as_ref()?.get(namespace).map(Arc::as_ref)
    }

    /// Whether both know the same of the namespaces.
    #[must_use]
    pub fn knows_the_same_namespaces(&self, other: &Self) -> bool {
        self.namespaces == other.namespaces
    }

    /// The same rules with what is known of the namespaces.
    #[must_use]
    pub fn with_namespaces(mut self, namespaces: Arc<Namespaces>) -> Self {
        self.namespaces = Some(namespaces);
        self
    }

    /// Marks `object` (`AgentPolicy/base`) as broken without a good version, for one that could not even be
    /// parsed.
    #[must_use]
    pub fn with_broken(mut self, object: String) -> Self {
        self.broken.push(object);
        self
    }
}

fn hash(classes: &BTreeMap<String, ClassSpec>, policies: &BTreeMap<String, PolicySpec>) -> PolicyHash {
    let value = serde_json::json!({ "classes": classes, "policies": policies });
    PolicyHash(canonical::sha256_hex(&canonical::bytes(&value)))
}
