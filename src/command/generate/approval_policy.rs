//! The ValidatingAdmissionPolicy that guards approvals inside the API server.
//!
//! It holds while Kustody is down, and it holds Kustody itself: a decision is appended by a person, in their
//! own name, with the verb `approve`, in the groups the request asks for, never by the requester and never by
//! Kustody. A second policy reads every AgentClass: who is an agent of any class decides nothing.

use super::rbac;
use serde_json::{Value, json};

/// The policy that keeps agents away from decisions.
const AGENTS: &str = "approvals-agents.kustody.dev";

pub(super) const ABOUT: &str =
    "Guards approvals inside the API server: people decide, in their own name; Kustody never does.";

pub(super) fn all() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "approvals.kustody.dev", "labels": {"app.kubernetes.io/name": "kustody"}},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["kustody.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"],
                    "resources": ["approvalrequests", "approvalrequests/status"]
                }]},
                "variables": variables(),
                "validations": validations()
            }
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "approvals.kustody.dev", "labels": {"app.kubernetes.io/name": "kustody"}},
            "spec": {"policyName": "approvals.kustody.dev", "validationActions": ["Deny"]}
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": AGENTS, "labels": {"app.kubernetes.io/name": "kustody"}},
            "spec": {
                "failurePolicy": "Fail",
                "paramKind": {"apiVersion": "kustody.dev/v1alpha1", "kind": "AgentClass"},
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["kustody.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"],
                    "resources": ["approvalrequests", "approvalrequests/status"]
                }]},
                "variables": subject_variables(),
                "validations": [{
                    "expression": "!variables.isUser && !variables.isMember && !variables.isAccount",
                    "message": "agents decide nothing, and least of all what their own class asks for",
                    "reason": "Forbidden"
                }]
            }
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": AGENTS, "labels": {"app.kubernetes.io/name": "kustody"}},
            // Once for every class; where there is no class there is no agent.
            "spec": {
                "policyName": AGENTS, "validationActions": ["Deny"],
                "paramRef": {"selector": {}, "parameterNotFoundAction": "Allow"}
            }
        }),
    ]
}

/// Whether the class `params` selects whoever writes, the way Kustody itself tells.
pub(super) fn subject_variables() -> Value {
    let matches =
        |what: &str| format!("(p.endsWith('*') ? {what}.startsWith(p.substring(0, size(p) - 1)) : {what} == p)");
    let listed = |field: &str, test: &str| {
        format!("has(params.spec.subjects.{field}) && params.spec.subjects.{field}.exists(p, {test})")
    };
    json!([
        {"name": "user", "expression": "request.userInfo.username"},
        {"name": "groups", "expression": "has(request.userInfo.groups) ? request.userInfo.groups : []"},
        {"name": "isUser", "expression": listed("users", &matches("variables.user"))},
        {"name": "isMember", "expression": listed("groups", &format!("variables.groups.exists(g, {})", matches("g")))},
        {
            "name": "isAccount",
            "expression": listed("serviceAccountNamespaces", "variables.user.startsWith('system:serviceaccount:' + p + ':')")
        }
    ])
}

fn variables() -> Value {
    json!([
        {"name": "kustody", "expression": format!("request.userInfo.username == '{}'", rbac::USER)},
        // Namespace deletion and garbage collection are the cluster's own.
        {"name": "cluster", "expression": "request.userInfo.username.startsWith('system:serviceaccount:kube-system:')"},
        {"name": "deletes", "expression": "request.operation == 'DELETE'"},
        {"name": "request", "expression": "request.operation == 'DELETE' ? oldObject : object"},
        {"name": "old", "expression": "oldObject != null && has(oldObject.status) && has(oldObject.status.decisions) ? oldObject.status.decisions : []"},
        {"name": "new", "expression": "object != null && has(object.status) && has(object.status.decisions) ? object.status.decisions : []"},
        {"name": "oldState", "expression": "oldObject != null && has(oldObject.status) && has(oldObject.status.state) ? oldObject.status.state : ''"},
        {"name": "newState", "expression": "object != null && has(object.status) && has(object.status.state) ? object.status.state : ''"},
        {"name": "oldUse", "expression": "oldObject != null && has(oldObject.status) && has(oldObject.status.consumedAt) ? string(oldObject.status.consumedAt) : ''"},
        {"name": "newUse", "expression": "object != null && has(object.status) && has(object.status.consumedAt) ? string(object.status.consumedAt) : ''"},
        {"name": "oldKept", "expression": "oldObject != null && has(oldObject.status) ? [has(oldObject.status.findings) ? oldObject.status.findings : null, has(oldObject.status.supersededBy) ? oldObject.status.supersededBy : null, has(oldObject.status.release) ? oldObject.status.release : null] : [null, null, null]"},
        {"name": "newKept", "expression": "object != null && has(object.status) ? [has(object.status.findings) ? object.status.findings : null, has(object.status.supersededBy) ? object.status.supersededBy : null, has(object.status.release) ? object.status.release : null] : [null, null, null]"},
        {"name": "approvers", "expression": "object != null && has(object.spec.approvers) ? object.spec.approvers : []"},
        {"name": "decides", "expression": "!variables.kustody && !variables.deletes"},
        {"name": "mayApprove", "expression": "authorizer.group('kustody.dev').resource('approvalrequests').namespace(request.namespace).name(request.name).check('approve').allowed()"}
    ])
}

fn validations() -> Value {
    // The list of decisions holds at most 16.
    let positions = (0..16).map(|position| position.to_string()).collect::<Vec<_>>().join(", ");
    let kept = format!("[{positions}].all(i, i >= size(variables.old) || variables.old[i] == variables.new[i])");
    let forbidden = |expression: String, message: &str| json!({"expression": expression, "message": message, "reason": "Forbidden"});
    let deciding = |test: &str, message: &str| forbidden(format!("!variables.decides || ({test})"), message);
    json!([
        forbidden(
            "!variables.kustody || variables.deletes || variables.new == variables.old".to_owned(),
            "kustody itself never decides"
        ),
        forbidden("variables.kustody || request.operation != 'CREATE'".to_owned(), "only kustody opens approval requests"),
        deciding(
            &format!(
                "size(variables.new) == size(variables.old) + 1 && {kept} && \
                 variables.new[size(variables.new) - 1].by == request.userInfo.username"
            ),
            "append exactly one decision, in your own name"
        ),
        deciding(
            "variables.newState == variables.oldState && variables.newUse == variables.oldUse && \
             variables.newKept == variables.oldKept",
            "state, consumption, findings and release are set by kustody alone"
        ),
        deciding(
            "variables.approvers.all(groups, groups.exists(g, has(request.userInfo.groups) && g in request.userInfo.groups))",
            "this request is decided by members of the groups it names in spec.approvers"
        ),
        deciding("variables.oldUse == ''", "this request has been used already"),
        deciding(
            "object.spec.requester.user != request.userInfo.username",
            "a requester cannot decide their own request"
        ),
        deciding("!variables.old.exists(d, d.by == request.userInfo.username)", "you have decided already"),
        deciding(
            "variables.new.all(d, d.verdict != 'Deny' || (has(d.reason) && size(d.reason) > 0))",
            "a denial needs a reason"
        ),
        forbidden(
            "variables.kustody || (variables.deletes && variables.cluster) || variables.mayApprove".to_owned(),
            "needs the verb approve on approvalrequests.kustody.dev"
        ),
        forbidden(
            "!variables.deletes || variables.kustody || variables.request.spec.requester.user != request.userInfo.username".to_owned(),
            "a requester cannot remove their own request"
        ),
    ])
}
