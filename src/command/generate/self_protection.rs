//! The ValidatingAdmissionPolicies that keep agents away from Kustody itself, while it runs and while it is dead.
//!
//! Who is an agent they learn from the AgentClass objects, as parameters: a changed class counts at once, and Kustody
//! needs no right to write them. Webhook configurations and admission policies are exempt from all admission: those
//! are RBAC's business, and `edge/cluster/registration.rs` watches the one that matters. What matches by name alone
//! fails closed; deleted collections, whose reviews bear no name, are matched by kind and fail open, so that nobody
//! else's work on such a kind hangs on the parameters being there.

use super::{crds, flow_control, rbac, suspended};
use crate::core::{
    action::NAMESPACE,
    admission::registration::{AGENT_OF_PARAMETERS, BREAK_GLASS},
};
use crate::edge::cluster::GROUP;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) const ABOUT: &str = "Keeps agents away from Kustody itself, also while it is dead.";
const NAMED: &str = "self-protection.kustody.dev";
const COLLECTIONS: &str = "self-protection-collections.kustody.dev";
const MESSAGE: &str = "agents change nothing of Kustody's own";
/// Where objects of a kind are found in the API: group and plural.
const PLACES: [(&str, &str, &str); 7] = [
    ("CustomResourceDefinition", "apiextensions.k8s.io", "customresourcedefinitions"),
    ("ClusterRole", "rbac.authorization.k8s.io", "clusterroles"),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ("Role", "rbac.authorization.k8s.io", "roles"),
    ("RoleBinding", "rbac.authorization.k8s.io", "rolebindings"),
    ("FlowSchema", "flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("PriorityLevelConfiguration", "flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
];

/// Names by group and plural.
type Names = BTreeMap<(&'static str, &'static str), Vec<String>>;

pub(super) fn all() -> anyhow::Result<Vec<Value>> {
    let names = names()?;
    let mut policies = Vec::new();
    policies.extend(policy(
        (NAMED, MESSAGE),
        "Fail",
        named(&names),
        &json!([{"expression": "!variables.agent || variables.breakGlass"}]),
    ));
    let held = names.iter().map(|((group, plural), names)| {
        let listed = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let here = format!("request.resource.group == '{group}' && request.resource.resource == '{plural}'");
        format!("({here} && oldObject.metadata.name in [{listed}])")
    });
    let ours = held.collect::<Vec<_>>().join(" || ");
    let validations = json!([{"expression": format!("!({ours}) || !variables.agent || variables.breakGlass")}]);
    policies.extend(policy((COLLECTIONS, MESSAGE), "Ignore", collections(&names), &validations));
    Ok(policies)
}

/// Everything that the manifests create outside Kustody's namespace, and what stands before it.
fn names() -> anyhow::Result<Names> {
    let mut names = Names::new();
    let everything = [crds::all()?, rbac::all(), flow_control::all(), suspended::roles().to_vec()].concat();
    for object in &everything {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let Some((_, group, plural)) = PLACES.iter().find(|(kind, ..)| text("/kind") == Some(kind)) else { continue };
        let Some(name) = text("/metadata/name") else { continue };
        if text("/metadata/namespace") == Some(NAMESPACE) {
            continue;
        }
        names.entry((*group, *plural)).or_default().push(name.to_owned());
    }
    // Whoever may write these decides which server answers for Kustody's own kinds, or keeps its namespace.
    names.insert(("apiregistration.k8s.io", "apiservices"), vec![format!("v1alpha1.{GROUP}")]);
    Ok(names)
}

fn named(names: &Names) -> Value {
    let writes = ["CREATE", "UPDATE", "DELETE"];
    let mut rules = vec![
        json!({"apiGroups": [GROUP], "apiVersions": ["*"], "resources": ["*/*"], "operations": writes, "scope": "Cluster"}),
        json!({
            "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "scope": "Namespaced",
            "operations": ["CREATE", "UPDATE", "DELETE", "CONNECT"]
        }),
        json!({
            "apiGroups": [""], "apiVersions": ["*"], "resources": ["namespaces", "namespaces/*"],
            "operations": writes, "resourceNames": [NAMESPACE]
        }),
    ];
    // Namespaced ones elsewhere are not reached by a policy that selects Kustody's namespace alone.
    rules.extend(names.iter().filter(|((_, plural), _)| !["roles", "rolebindings"].contains(plural)).map(
        |((group, plural), names)| {
            json!({
                "apiGroups": [group], "apiVersions": ["*"], "resources": [plural, format!("{plural}/*")],
                "operations": writes, "resourceNames": names
            })
        },
    ));
    json!({
        "resourceRules": rules,
        // An agent asks for a grant by creating one; what it may say there is the grants' own policy's business.
        "excludeResourceRules": [{
            "apiGroups": [GROUP], "apiVersions": ["*"], "resources": ["grants"], "operations": ["CREATE"]
        }],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
    })
}

fn collections(names: &Names) -> Value {
    let rules: Vec<Value> = names
        .keys()
        .map(|(group, plural)| {
            json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [plural], "operations": ["DELETE"]})
        })
        .collect();
    json!({ "resourceRules": rules })
}

/// A policy with its binding to every AgentClass; without a class nobody is an agent.
pub(super) fn policy(
    (name, message): (&str, &str),
    failure: &str,
    constraints: Value,
    validations: &Value,
) -> [Value; 2] {
    let metadata = json!({"name": name, "labels": {"app.kubernetes.io/name": "kustody"}});
    let mut validations = validations.clone();
    for validation in validations.as_array_mut().into_iter().flatten() {
        if let Some(members) = validation.as_object_mut() {
            members.insert("message".to_owned(), json!(message));
            members.insert("reason".to_owned(), json!("Forbidden"));
        }
    }
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": metadata,
            "spec": {
                "failurePolicy": failure,
                "paramKind": {"apiVersion": format!("{GROUP}/v1alpha1"), "kind": "AgentClass"},
                "matchConstraints": constraints,
                "variables": [
                    {"name": "agent", "expression": AGENT_OF_PARAMETERS},
                    {"name": "breakGlass", "expression": BREAK_GLASS}
                ],
                "validations": validations
            }
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {
                "policyName": name, "validationActions": ["Deny"],
                "paramRef": {"selector": {}, "parameterNotFoundAction": "Allow"}
            }
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_custom_resource_definition_and_role_of_the_manifests_is_guarded() {
        let names = names().unwrap();
        let definitions = &names[&("apiextensions.k8s.io", "customresourcedefinitions")];
        assert!(definitions.contains(&"approvalrequests.kustody.dev".to_owned()), "{definitions:?}");
        assert_eq!(definitions.len(), crds::all().unwrap().len());
        let roles = &names[&("rbac.authorization.k8s.io", "clusterroles")];
        assert!(roles.contains(&"kustody".to_owned()) && roles.contains(&"kustody-approver".to_owned()), "{roles:?}");
    }

    #[test]
    fn what_fails_closed_matches_nothing_but_kustodys_own() {
        let policies = all().unwrap();
        let rules = policies[0].pointer("/spec/matchConstraints/resourceRules").unwrap().as_array().unwrap();
        for rule in rules.iter().filter(|rule| rule["scope"] != "Namespaced" && rule["apiGroups"][0] != GROUP) {
            assert!(rule.get("resourceNames").is_some(), "without names: {rule}");
        }
    }
}
