//! What can be wrong with a class: above all, selecting somebody the cluster itself needs.

use super::{Finder, Problem};
use crate::core::{action::NAMESPACE, policy::document::ClassSpec};

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
