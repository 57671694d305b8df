//! Manifests as actions: which resource a kind is, and what creating, updating or deleting it looks like.
//!
//! Without a cluster the plural follows from the kind as English does, with the exceptions Kubernetes has.

use super::located;
use crate::core::policy::fixture::Case;
use anyhow::Context;
use serde_json::Value;
use std::{fs, path::Path};

/// What is done with a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Operation {
    /// It is new.
    Create,
    /// It replaces another.
    Update,
    /// It goes.
    Delete,
}

/// What a manifest need not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) resource: Option<&'a str>,
    pub(super) namespace: &'a str,
}

/// Kinds of Kubernetes that lie in no namespace.
const CLUSTER_SCOPED: [&str; 25] = [
    "APIService",
    "AgentClass",
    "AgentPolicy",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ComponentStatus",
    "CustomResourceDefinition",
    "FlowSchema",
    "IngressClass",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

/// The objects of a file; a List is its items.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let documents = located::documents(&text).with_context(|| format!("{} is no YAML", path.display()))?;
    let mut objects = Vec::new();
    for document in documents.iter().map(located::Located::value).filter(|value| !value.is_null()) {
        match document.get("items").and_then(Value::as_array) {
            Some(items) => objects.extend(items.iter().cloned()),
            None => objects.push(document),
        }
    }
    anyhow::ensure!(!objects.is_empty(), "{} holds no object", path.display());
    Ok(objects)
}

/// The case of `object`; what it was before is found among `old` by kind and name.
pub(super) fn case(object: Value, old: &[Value], operation: Operation, names: &Names<'_>) -> anyhow::Result<Case> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").context("an object has no kind")?;
    let api_version = text("/apiVersion").with_context(|| format!("a {kind} has no apiVersion"))?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = names.resource.map_or_else(|| plural(kind), str::to_owned);
    let dot = if group.is_empty() { "" } else { "." };
    let name = text("/metadata/name").unwrap_or("*");
    let target = match text("/metadata/namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None if CLUSTER_SCOPED.contains(&kind) => name.to_owned(),
        None => format!("{}/{name}", names.namespace),
    };
    let word = match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    };
    let is_same = |other: &&Value| {
        other.get("kind") == object.get("kind") && other.pointer("/metadata/name") == object.pointer("/metadata/name")
    };
    let before = old.iter().find(is_same).cloned();
    let mut case = Case {
        action: format!("{word} {resource}{dot}{group} {target}"),
        version: Some(version.to_owned()),
        ..Case::default()
    };
    match operation {
        Operation::Create => case.object = Some(object),
        Operation::Delete => case.old_object = Some(object),
        Operation::Update => {
            let missing = || format!("--old-file holds no such object: {}", case.action);
            case.old_object = Some(before.with_context(missing)?);
            case.object = Some(object);
        }
    }
    Ok(case)
}

fn plural(kind: &str) -> String {
    let word = kind.to_lowercase();
    let vowel_before_y = word.strip_suffix('y').is_some_and(|stem| stem.ends_with(['a', 'e', 'i', 'o', 'u']));
    match word.strip_suffix('y') {
        _ if word == "endpoints" => word,
        Some(stem) if !vowel_before_y => format!("{stem}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| word.ends_with(end)) => format!("{word}es"),
        _ => format!("{word}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plurals_are_those_of_kubernetes() {
        for (kind, wanted) in [
            ("Pod", "pods"),
            ("NetworkPolicy", "networkpolicies"),
            ("Ingress", "ingresses"),
            ("StorageClass", "storageclasses"),
            ("Endpoints", "endpoints"),
            ("EndpointSlice", "endpointslices"),
            ("Gateway", "gateways"),
        ] {
            assert_eq!(plural(kind), wanted);
        }
    }

    #[test]
    fn a_manifest_becomes_the_action_it_asks_for() {
        let names = Names { resource: None, namespace: "default" };
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
        let made = case(deployment.clone(), &[], Operation::Create, &names).unwrap();
        assert_eq!(
            (made.action.as_str(), made.version.as_deref()),
            ("CREATE deployments.apps default/web", Some("v1"))
        );
        assert!(case(deployment.clone(), &[], Operation::Update, &names).is_err(), "an update needs what was before");
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
        assert_eq!(case(node, &[], Operation::Delete, &names).unwrap().action, "DELETE nodes n");
    }
}
