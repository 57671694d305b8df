//! A compiled agent class: whom it selects, and what it demands of them.

use super::document::{ClassSpec, GatewayDemand};
use super::matcher::Pattern;
use crate::core::action::{ClassName, Identity};

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

    pub(super) fn selects(&self, identity: &Identity) -> bool {
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

/// What was written, compiled; patterns that do not parse are left out: the caller has refused them before.
pub(super) fn compile(name: &str, spec: &ClassSpec) -> Class {
    let parse = |texts: &[String]| texts.iter().filter_map(|text| Pattern::parse(text)).collect();
    Class {
        name: ClassName::from(name),
        users: parse(&spec.subjects.users),
        groups: parse(&spec.subjects.groups),
        spec: spec.clone(),
    }
}
