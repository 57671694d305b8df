//! What the API server sends: the ValidatingWebhookConfiguration, generated from the agent classes.
//!
//! Agents are selected by one CEL match condition. Everybody else's requests never leave the API server, so
//! that `failurePolicy: Fail` hits agents alone. Who keeps the configuration in the cluster up to date is
//! `edge/cluster/registration.rs`.

use crate::core::{
    action::NAMESPACE,
    policy::{Class, PolicySnapshot},
};
use serde_json::{Value, json};

/// Name of the ValidatingWebhookConfiguration.
pub const NAME: &str = "kustody";
/// Name of the one webhook in it; prefix of its audit annotations.
pub const WEBHOOK: &str = "gate.kustody.dev";
/// Where reviews are posted.
pub const PATH: &str = "/admission";
/// The longest the API server waits: the most it can be told.
pub const TIMEOUT_SECONDS: u32 = 30;

/// Where the API server finds the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The Service `kustody` in Kustody's namespace.
    Service,
    /// An `https://…` URL, path included.
    Url(String),
}

/// The whole configuration. `ca_bundle` is PEM in base64; without one the API server trusts nobody.
#[must_use]
pub fn configuration(snapshot: &PolicySnapshot, address: &Address, ca_bundle: Option<&str>) -> Value {
    let mut client = match address {
        Address::Service => {
            json!({"service": {"name": "kustody", "namespace": NAMESPACE, "path": PATH, "port": 443}})
        }
        Address::Url(url) => json!({ "url": url }),
    };
    if let (Some(bundle), Some(members)) = (ca_bundle, client.as_object_mut()) {
        members.insert("caBundle".to_owned(), Value::String(bundle.to_owned()));
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": "kustody"}},
        "webhooks": [{
            "name": WEBHOOK,
            "admissionReviewVersions": ["v1"],
            "clientConfig": client,
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "sideEffects": "NoneOnDryRun",
            "timeoutSeconds": TIMEOUT_SECONDS,
            "rules": [{
                "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"],
                "operations": ["CREATE", "UPDATE", "DELETE", "CONNECT"], "scope": "*"
            }],
            "matchConditions": [{"name": "agents", "expression": agents(snapshot.classes())}]
        }]
    })
}

/// The CEL expression that is true for agents alone. Total: it never errs on an absent member.
#[must_use]
pub fn agents(classes: &[Class]) -> String {
    let mut terms: Vec<String> = classes.iter().flat_map(terms).collect();
    terms.sort();
    terms.dedup();
    if terms.is_empty() { "false".to_owned() } else { terms.join(" || ") }
}

fn terms(class: &Class) -> Vec<String> {
    let subjects = &class.spec().subjects;
    let user = |pattern: &String| test("request.userInfo.username", pattern);
    let group = |pattern: &String| {
        format!("(has(request.userInfo.groups) && request.userInfo.groups.exists(g, {}))", test("g", pattern))
    };
    let namespace = |name: &String| {
        format!("request.userInfo.username.startsWith({})", quote(&format!("system:serviceaccount:{name}:")))
    };
    subjects
        .users
        .iter()
        .map(user)
        .chain(subjects.groups.iter().map(group))
        .chain(subjects.service_account_namespaces.iter().map(namespace))
        .collect()
}

fn test(variable: &str, pattern: &str) -> String {
    match pattern.strip_suffix('*') {
        Some(prefix) => format!("{variable}.startsWith({})", quote(prefix)),
        None => format!("{variable} == {}", quote(pattern)),
    }
}

/// A CEL string literal: the escapes of JSON are all escapes of CEL.
fn quote(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::{ClassSpec, document::Subjects};
    use std::collections::BTreeMap;

    fn snapshot(subjects: Subjects) -> PolicySnapshot {
        let spec = ClassSpec { subjects, gateway: Default::default() };
        let classes = BTreeMap::from([("agents".to_owned(), spec)]);
        let (snapshot, problems) = PolicySnapshot::load(&classes, &BTreeMap::new());
        assert_eq!(problems, []);
        snapshot
    }

    #[test]
    fn without_a_class_nobody_is_an_agent() {
        let (snapshot, _) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::new());
        assert_eq!(agents(snapshot.classes()), "false");
    }

    #[test]
    fn names_are_quoted_so_that_none_can_end_the_literal() {
        let snapshot = snapshot(Subjects {
            users: vec!["bot\" || true || \"*".to_owned()],
            groups: vec!["robots".to_owned()],
            service_account_namespaces: vec!["agents".to_owned()],
        });
        let expression = agents(snapshot.classes());
        assert!(expression.contains(r#"startsWith("bot\" || true || \"")"#), "{expression}");
        assert!(expression.contains(r#"startsWith("system:serviceaccount:agents:")"#));
        assert!(expression.contains(r#"exists(g, g == "robots")"#));
    }
}
