//! The ValidatingAdmissionPolicy that guards terminations inside the API server: who ends a session does so in their own
//! name, and only Kustody says what became of it. Kustody itself orders nothing. That agents write nothing in Kustody's
//! namespace is `self_protection.rs`'s business.

use super::rbac;
use serde_json::{Value, json};

pub(super) const ABOUT: &str = "Guards terminations inside the API server: people end sessions, in their own name.";
const NAME: &str = "terminations.kustody.dev";

pub(super) fn all() -> Vec<Value> {
    let metadata = json!({"name": NAME, "labels": {"app.kubernetes.io/name": "kustody"}});
    let kustody = format!("request.userInfo.username == '{}'", rbac::USER);
    let forbidden = |expression: String, message: &str| json!({"expression": expression, "message": message, "reason": "Forbidden"});
    vec![
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": metadata,
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["kustody.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["terminations", "terminations/status"]
                }]},
                "variables": [
                    {"name": "kustody", "expression": kustody},
                    {"name": "creates", "expression": "request.operation == 'CREATE'"}
                ],
                "validations": [
                    forbidden(
                        "!variables.creates || object.spec.by == request.userInfo.username".to_owned(),
                        "end a session in your own name: spec.by is yours"
                    ),
                    forbidden("!variables.creates || !variables.kustody".to_owned(), "kustody itself ends no session"),
                    forbidden(
                        "variables.creates || request.subResource != 'status' || variables.kustody".to_owned(),
                        "only kustody says what became of it"
                    )
                ]
            }
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {"policyName": NAME, "validationActions": ["Deny"]}
        }),
    ]
}
