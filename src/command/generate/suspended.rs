//! What a cluster applies to have new Jobs, CronJobs and Deployments created suspended instead of held: an opt-in.
//!
//! The rights Kustody needs to free them, the MutatingWebhookConfiguration it keeps (empty until a rule asks for it),
//! and the native policy that keeps agents from freeing anything themselves while Kustody is dead. That policy fails
//! open: everybody updates these kinds, and nobody else's work may hang on the parameters being there; the gate, which
//! refuses the same, fails closed.

use super::{rbac, self_protection};
use crate::core::{
    admission::{
        registration::{Address, Site, suspending},
        suspended::{ANNOTATION, BY_AUTHOR},
    },
    policy::PolicySnapshot,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) const ABOUT: &str = "Opt-in: new jobs and deployments of agents are created suspended, and freed by their approval (hold.mode: Suspended).";
const NAME: &str = "suspended.kustody.dev";
const MESSAGE: &str = "it was created suspended by Kustody, and stays as it is until people have decided";

pub(super) fn all() -> Vec<Value> {
    let (nothing, _) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::new());
    let site = Site { address: Address::Service, known: None };
    let mut all = roles().to_vec();
    all.push(suspending::configuration(&nothing, &site, None));
    all.extend(guard());
    all
}

/// What Kustody may do with objects that were created suspended, and the rest of what it needs for them.
pub(super) fn roles() -> [Value; 2] {
    rbac::bound(
        "ClusterRole",
        "kustody-suspended",
        None,
        json!([
            {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": ["get", "patch"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            {
                "apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
                "resourceNames": [suspending::NAME], "verbs": ["update"]
            }
        ]),
    )
}

fn guard() -> [Value; 2] {
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": resources});
    let constraints = json!({"resourceRules": [
        rule("batch", &["jobs", "jobs/status", "cronjobs", "cronjobs/status"]),
        rule("apps", &["deployments", "deployments/status"])
    ]});
    let annotation = |object: &str, key: &str| {
        format!(
            "(has({object}.metadata.annotations) && '{key}' in {object}.metadata.annotations ? \
             {object}.metadata.annotations['{key}'] : '')"
        )
    };
    let same = |key: &str| format!("{} == {}", annotation("oldObject", key), annotation("object", key));
    let untouched = format!(
        "{} && {} && ({} == '' || object.spec == oldObject.spec)",
        same(ANNOTATION),
        same(BY_AUTHOR),
        annotation("oldObject", ANNOTATION),
    );
    let validations = json!([{"expression": format!("({untouched}) || !variables.agent || variables.breakGlass")}]);
    self_protection::policy((NAME, MESSAGE), "Ignore", constraints, &validations)
}
