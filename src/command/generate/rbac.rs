//! Permissions: Kustody's own, as few as its work needs, and the roles of approvers and responders.
//!
//! Kustody may impersonate the service accounts of the default agent namespace, their groups and the extras it
//! sets, and nobody else. A cluster with other classes adds rules of the same form.

use super::defaults::AGENT_NAMESPACE;
use crate::core::{
    action::{EXTRA_ON_BEHALF_OF, EXTRA_REQUEST, EXTRA_RUN, EXTRA_TICKET, NAMESPACE},
    admission::registration::{NAME, suspending},
};
use crate::edge::cluster::{GROUP, public, secrets};
use serde_json::{Value, json};

/// Kustody's service account.
pub(super) const ACCOUNT: &str = "kustody";
/// Its user name.
pub(super) const USER: &str = "system:serviceaccount:kustody-system:kustody";
const RBAC: &str = "rbac.authorization.k8s.io";
/// ClusterRoles that a grant may bind for its time. A cluster that wants more adds a rule of the same form.
const GRANTABLE: [&str; 1] = ["view"];
/// Extras a service account token carries.
const TOKEN_EXTRAS: [&str; 5] = ["credential-id", "pod-name", "pod-uid", "node-name", "node-uid"];

pub(super) fn all() -> Vec<Value> {
    let mut all = vec![json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": metadata(ACCOUNT, Some(NAMESPACE))
    })];
    // Empty: a running Kustody writes its entries, which `kubectl apply` of this file leaves alone.
    all.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(public::PUBLIC, Some(NAMESPACE))
    }));
    all.extend(bound("ClusterRole", "kustody", None, cluster_rules()));
    // Apart, so that a cluster can leave it out: approvers then read "unknown".
    all.extend(bound("ClusterRole", "kustody-blast-radius", None, blast_radius_rules()));
    all.extend(bound("Role", "kustody", Some(NAMESPACE), own_rules()));
    all.extend(bound("Role", "kustody-impersonate", Some(AGENT_NAMESPACE), impersonation_of_accounts()));
    all.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": metadata("kustody-approver", None),
        "rules": [
            {"apiGroups": [GROUP], "resources": ["approvalrequests"], "verbs": ["get", "list", "watch", "approve"]},
            {"apiGroups": [GROUP], "resources": ["approvalrequests/status"], "verbs": ["get", "patch"]},
            {"apiGroups": [GROUP], "resources": ["grants"], "verbs": ["get", "list", "watch", "create", "delete", "approve"]},
            {"apiGroups": [GROUP], "resources": ["grants/status"], "verbs": ["get", "patch"]}
        ]
    }));
    all.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": metadata("kustody-responder", None),
        "rules": [{"apiGroups": [GROUP], "resources": ["terminations"], "verbs": ["get", "list", "watch", "create"]}]
    }));
    all.extend(grant_requesters());
    all
}

/// Agents may ask for grants, and look at one by its name.
fn grant_requesters() -> [Value; 2] {
    let name = "kustody-grant-requester";
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata(name, None),
            "rules": [{"apiGroups": [GROUP], "resources": ["grants"], "verbs": ["create", "get"]}]
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata(name, Some(NAMESPACE)),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Group",
                "name": format!("system:serviceaccounts:{AGENT_NAMESPACE}")
            }]
        }),
    ]
}

fn metadata(name: &str, namespace: Option<&str>) -> Value {
    let mut metadata = json!({"name": name, "labels": {"app.kubernetes.io/name": "kustody"}});
    if let (Some(namespace), Some(members)) = (namespace, metadata.as_object_mut()) {
        members.insert("namespace".to_owned(), json!(namespace));
    }
    metadata
}

/// A role and its binding to Kustody.
pub(super) fn bound(kind: &str, name: &str, namespace: Option<&str>, rules: Value) -> [Value; 2] {
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": metadata(name, namespace), "rules": rules
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
            "metadata": metadata(name, namespace),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}]
        }),
    ]
}

fn cluster_rules() -> Value {
    let own = [EXTRA_RUN, EXTRA_REQUEST, EXTRA_ON_BEHALF_OF, EXTRA_TICKET].map(|key| format!("userextras/{key}"));
    let token = TOKEN_EXTRAS.map(|key| format!("userextras/authentication.kubernetes.io/{key}"));
    let extras: Vec<String> = own.into_iter().chain(token).collect();
    json!([
        {"apiGroups": [GROUP], "resources": ["agentclasses", "agentpolicies"], "verbs": ["list", "watch"]},
        {"apiGroups": [GROUP], "resources": ["agentclasses/status", "agentpolicies/status"], "verbs": ["patch"]},
        // Rules ask for the labels of namespaces.
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
        // The gateway asks which APIs other servers serve.
        {"apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"], "verbs": ["list", "watch"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {
            "apiGroups": ["admissionregistration.k8s.io"], "resources": ["validatingwebhookconfigurations"],
            "resourceNames": [NAME], "verbs": ["list", "watch", "update"]
        },
        // Whether the cluster opted in to suspending is looked at everywhere; changing it comes with the opt-in.
        {
            "apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [suspending::NAME], "verbs": ["get"]
        },
        {
            "apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"],
            "resourceNames": ["system:authenticated", "system:serviceaccounts", format!("system:serviceaccounts:{AGENT_NAMESPACE}")]
        },
        {"apiGroups": ["authentication.k8s.io"], "resources": ["uids"], "verbs": ["impersonate"]},
        // RoleBindings of grants; which ones, is held by manifests/grant-policy.yaml. Roles are read, to refuse
        // dangerous ones, and only those named here are bound.
        {"apiGroups": [RBAC], "resources": ["rolebindings"], "verbs": ["get", "list", "create", "delete"]},
        {"apiGroups": [RBAC], "resources": ["roles", "clusterroles"], "verbs": ["get"]},
        {"apiGroups": [RBAC], "resources": ["clusterroles"], "resourceNames": GRANTABLE, "verbs": ["bind"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": extras, "verbs": ["impersonate"]}
    ])
}

/// Lists that tell approvers what hangs on an object. No Secrets, no ConfigMaps.
fn blast_radius_rules() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["pods", "services", "persistentvolumeclaims"], "verbs": ["list"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["list"]},
        {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": ["list"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["list"]},
        {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": ["list"]},
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]}
    ])
}

fn own_rules() -> Value {
    json!([
        {"apiGroups": [GROUP], "resources": ["approvalrequests"], "verbs": ["get", "list", "watch", "create", "delete"]},
        {"apiGroups": [GROUP], "resources": ["approvalrequests/status"], "verbs": ["patch"]},
        {"apiGroups": [GROUP], "resources": ["grants"], "verbs": ["get", "list", "watch", "delete"]},
        {"apiGroups": [GROUP], "resources": ["grants/status"], "verbs": ["patch"]},
        {"apiGroups": [GROUP], "resources": ["terminations"], "verbs": ["list", "watch", "delete"]},
        {"apiGroups": [GROUP], "resources": ["terminations/status"], "verbs": ["patch"]},
        // Creating cannot be limited to names; reading and changing is.
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {
            "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"],
            "resourceNames": [secrets::SIGNING_KEY, secrets::TLS]
        },
        // The signing key is never changed; the certificate is, and every replica sees it.
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch", "update"], "resourceNames": [secrets::TLS]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [public::PUBLIC], "verbs": ["patch"]},
        // One Lease a replica, named after its pod.
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "patch", "list", "delete"]}
    ])
}

fn impersonation_of_accounts() -> Value {
    json!([{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}])
}
