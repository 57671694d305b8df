//! ApprovalRequest: one held action, what people said about it, and what became of it.
//!
//! `spec` is written once by Kustody and immutable; `status.decisions` is appended to by people under their
//! own identity, everything else in `status` by Kustody. The API server holds everybody to that with the
//! ValidatingAdmissionPolicy in `manifests/approval-policy.yaml`.
#![expect(clippy::duplicated_attributes, reason = "several printer columns have the same type")]

use crate::core::{
    action::{Operation, Resource, StreamRequest},
    approval::{Approval, Exhibit, Fingerprint, State, Vote},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kustody.dev",
    version = "v1alpha1",
    kind = "ApprovalRequest",
    plural = "approvalrequests",
    namespaced,
    shortname = "approvals",
    shortname = "apr",
    category = "kustody",
    status = "ApprovalRequestStatus",
    doc = "One action of an agent that waits for people.",
    printcolumn(name = "Requester", type_ = "string", json_path = ".spec.requester.user"),
    printcolumn(name = "Operation", type_ = "string", json_path = ".spec.action.operation"),
    printcolumn(name = "Resource", type_ = "string", json_path = ".spec.action.path"),
    printcolumn(name = "Object", type_ = "string", json_path = ".spec.action.target"),
    printcolumn(name = "Rule", type_ = "string", json_path = ".spec.rule"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = "1"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "self == oldSelf", "message": "spec is immutable"}]))]
pub struct ApprovalRequestSpec {
    /// Who asks.
    pub requester: Requester,
    /// What they want to do.
    pub action: RequestedAction,
    /// What an approver is shown.
    #[serde(default)]
    pub exhibit: Exhibit,
    /// The one action this fits.
    pub fingerprint: Fingerprint,
    /// Policy of the rule that holds it.
    #[schemars(length(max = 253))]
    pub policy: String,
    /// That rule.
    #[schemars(length(max = 63))]
    pub rule: String,
    /// Why it is held.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// How many different people must approve.
    #[schemars(range(min = 1, max = 8), extend("format" = "int32"))]
    pub quorum: u32,
    /// When it stops being of use.
    pub expires_at: Time,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// Kubernetes user name.
    #[schemars(length(min = 1, max = 1024))]
    pub user: String,
    /// Groups.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    pub groups: Vec<String>,
    /// AgentClass.
    #[schemars(length(max = 253))]
    pub class: String,
    /// Run, when the agent says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub run: Option<String>,
}

/// What the agent wants to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestedAction {
    /// Operation.
    pub operation: Operation,
    /// Resource.
    pub resource: Resource,
    /// `deployments.apps/scale`: the resource in one word.
    #[schemars(length(max = 512))]
    pub path: String,
    /// `namespace/name`.
    #[schemars(length(max = 512))]
    pub target: String,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Container, argv and flags of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamRequest>,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalRequestStatus {
    /// Where it stands; set by Kustody, follows from the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// What people said, in order; each appends their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub decisions: Vec<Vote>,
    /// When it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumed_at: Option<Time>,
}

impl ApprovalRequest {
    /// The approval as the rules see it.
    #[must_use]
    pub fn approval(&self) -> Approval {
        let status = self.status.clone().unwrap_or_default();
        Approval {
            id: self.name_any(),
            fingerprint: self.spec.fingerprint.clone(),
            requester: self.spec.requester.user.clone(),
            quorum: self.spec.quorum,
            votes: status.decisions,
            expires_at: self.spec.expires_at.0,
            consumed_at: status.consumed_at.map(|time| time.0),
            is_single_shot: self.spec.action.operation == Operation::Connect,
        }
    }
}
