//! Termination: a person's order to end one running session, and what became of it.
//!
//! `spec` is written once, by the person, in their own name; `status` by the replica that ended the session. The API
//! server holds everybody to that with the ValidatingAdmissionPolicy in `manifests/termination-policy.yaml`. Who watches
//! terminations is [`super::terminations`].
#![expect(clippy::duplicated_attributes, reason = "several printer columns have the same type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is to end, and on whose word.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kustody.dev",
    version = "v1alpha1",
    kind = "Termination",
    plural = "terminations",
    namespaced,
    shortname = "kill",
    category = "kustody",
    status = "TerminationStatus",
    doc = "A person's order to end one running session.",
    printcolumn(name = "Session", type_ = "string", json_path = ".spec.session"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "Ended", type_ = "date", json_path = ".status.endedAt"),
    printcolumn(name = "Replica", type_ = "string", json_path = ".status.replica"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "spec is immutable"}]))]
pub struct TerminationSpec {
    /// The session, as `kustody sessions` names it.
    #[schemars(length(max = 36), regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))]
    pub session: String,
    /// Why; the agent is told.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Who wants it: the user name of whoever writes this.
    #[schemars(length(min = 1, max = 512))]
    pub by: String,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TerminationStatus {
    /// When the session was told to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// The replica that had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub replica: Option<String>,
}
