//! The ValidatingAdmissionPolicy that guards approvals inside the API server.
//!
//! It holds while Kustody is down, and it holds Kustody itself: a decision is appended by a person, in their
//! own name, with the verb `approve`, never by the requester and never by Kustody.

use super::rbac;
use serde_json::{Value, json};

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
    ]
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
            "variables.newState == variables.oldState && variables.newUse == variables.oldUse",
            "state and consumption are set by kustody alone"
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
