//! What the written rules compile to: one immutable snapshot, and every problem of what was written.
//!
//! What can be wrong is `problems.rs`'s business. A broken object stays out of the snapshot; its
//! name is kept, and while it is there nothing but a read is allowed without a person (fail closed).

use super::document::{ClassSpec, GatewayDemand, Hold, PolicySpec, Rule, Verdict};
use super::matcher::{Matcher, Pattern};
use super::problems::{EXPIRY, Problem, duration, problems_of_class, problems_of_policy};
use crate::core::{
    action::{ClassName, Identity},
    canonical,
};
use std::{collections::BTreeMap, fmt, time::Duration};

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

/// A compiled class.
#[derive(Debug, Clone)]
pub struct Class {
    name: ClassName,
    spec: ClassSpec,
    users: Vec<Pattern>,
    groups: Vec<Pattern>,
}

impl Class {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ClassName {
        &self.name
    }

    /// What was written.
    #[must_use]
    pub fn spec(&self) -> &ClassSpec {
        &self.spec
    }

    /// Whether streams must come through the gateway.
    #[must_use]
    pub fn streams_need_gateway(&self) -> bool {
        self.spec.gateway == GatewayDemand::Streams
    }

    fn selects(&self, identity: &Identity) -> bool {
        let of_namespace = |namespace: &String| {
            identity
                .user
                .strip_prefix("system:serviceaccount:")
                .and_then(|rest| rest.strip_prefix(namespace.as_str()))
                .is_some_and(|rest| rest.starts_with(':'))
        };
        self.users.iter().any(|pattern| pattern.matches(&identity.user))
            || identity.groups.iter().any(|group| self.groups.iter().any(|pattern| pattern.matches(group)))
            || self.spec.subjects.service_account_namespaces.iter().any(of_namespace)
    }
}

/// A compiled rule.
#[derive(Debug, Clone)]
pub(super) struct CompiledRule {
    pub(super) policy: String,
    pub(super) id: String,
    pub(super) reason: String,
    pub(super) verdict: Verdict,
    pub(super) matcher: Matcher,
    pub(super) quorum: u32,
    pub(super) expires_after: Duration,
    pub(super) approvers: Vec<String>,
}

/// Classes and rules, compiled: immutable, kept in an `Arc`.
#[derive(Debug, Clone)]
pub struct PolicySnapshot {
    classes: Vec<Class>,
    pub(super) rules: Vec<CompiledRule>,
    pub(super) broken: Vec<String>,
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
                compiled.push(compile_class(name, spec));
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
                rules.extend(spec.rules.iter().map(|rule| compile_rule(name, rule)));
            } else {
                broken.push(format!("AgentPolicy/{name}"));
            }
            problems.extend(found);
        }
        let hash = hash(classes, policies);
        (Self { classes: compiled, rules, broken, hash }, problems)
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

fn compile_class(name: &str, spec: &ClassSpec) -> Class {
    let parse = |texts: &[String]| texts.iter().filter_map(|text| Pattern::parse(text)).collect();
    Class {
        name: ClassName::from(name),
        users: parse(&spec.subjects.users),
        groups: parse(&spec.subjects.groups),
        spec: spec.clone(),
    }
}

fn compile_rule(policy: &str, rule: &Rule) -> CompiledRule {
    let hold = rule.hold.clone().unwrap_or_default();
    CompiledRule {
        policy: policy.to_owned(),
        id: rule.id.clone(),
        reason: rule.reason.clone(),
        verdict: rule.action,
        matcher: Matcher::new(&rule.matches),
        quorum: hold.quorum,
        expires_after: duration(&hold.expires_after).unwrap_or(*EXPIRY.start()),
        approvers: hold.approvers,
    }
}

/// `Hold` terms of an unmatched write.
pub(super) fn default_hold() -> (u32, Duration) {
    let hold = Hold::default();
    (hold.quorum, duration(&hold.expires_after).unwrap_or(*EXPIRY.start()))
}
