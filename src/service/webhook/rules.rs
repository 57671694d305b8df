//! The check of classes and policies when they are written: the same as `kustody policy check`, told to whoever writes.
//!
//! A courtesy: while Kustody is down the API server takes what its schema takes, and a broken version that came in so is
//! refused when it is loaded. Every problem is told at once.

use super::encoded;
use crate::core::{
    admission::{
        answer::{Answer, Cause, Details, Status},
        review::Request as Review,
    },
    policy::problems::{Kind, Problem, problems_of_object},
};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// Refuses a class or policy with problems, and lets everything else through.
pub(super) fn check(review: &Review<'_>) -> Response<Full<Bytes>> {
    encoded(&answer(review), &review.uid)
}

fn answer(review: &Review<'_>) -> Answer {
    let Some(raw) = review.object else { return Answer::allow() };
    let written: Written = match serde_json::from_str(raw.get()) {
        Ok(written) => written,
        Err(error) => return Answer::bad_request(format!("the object cannot be read: {error}")),
    };
    let Some(kind) = Kind::of(&written.kind) else { return Answer::allow() };
    let problems = problems_of_object(kind, &written.metadata.name, &written.spec);
    if problems.is_empty() {
        return Answer::allow();
    }
    let cause = |problem: &Problem| Cause {
        reason: "FieldValueInvalid",
        field: problem.field.clone(),
        message: format!("{} ({})", problem.message, problem.hint),
    };
    let message = problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ");
    let details = Details { causes: problems.iter().map(cause).collect(), retry_after_seconds: None };
    Answer::refuse(Status { code: 422, reason: "Invalid", message, details: Some(details) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::admission::review::decode;
    use serde_json::json;

    fn told(kind: &str, spec: Value) -> Answer {
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "operation": "CREATE", "userInfo": {"username": "anna"},
            "resource": {"group": "kustody.dev", "version": "v1alpha1", "resource": "agentpolicies"},
            "object": {"kind": kind, "metadata": {"name": "p"}, "spec": spec}}});
        answer(&decode(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn every_problem_of_a_policy_is_told_to_its_author_at_once() {
        let rule = |when: &str| {
            json!({"id": "a", "reason": "r", "action": "Deny", "when": [when],
                "match": {"resources": [{"apiGroups": [""], "resources": ["pods"]}]}})
        };
        assert!(told("AgentPolicy", json!({"rules": [rule("object.spec.x == 1")]})).allowed);
        let refused = told("AgentPolicy", json!({"rules": [rule("object.spec.x ==")]}));
        let status = refused.status.unwrap();
        assert_eq!((status.code, status.details.unwrap().causes.len()), (422, 1));
        assert!(status.message.contains("spec.rules[0].when[0]"), "{}", status.message);
        assert!(!told("AgentClass", json!({"subjects": {"users": ["system:admin"]}})).allowed);
        assert!(told("Pod", json!({"rules": 1})).allowed);
    }
}
