//! ApprovalRequest: one held action, what people said about it, and what became of it.
//!
//! `spec` is written once by Kustody and immutable; `status.decisions` is appended to by people under their
//! own identity, everything else in `status` by Kustody. The API server holds everybody to that with the
//! ValidatingAdmissionPolicy in `manifests/approval-policy.yaml`.
#![expect(clippy::duplicated_attributes, reason = "several printer columns have the same type")]

use crate::core::{
    action::{Operation, Resource, StreamRequest},
    approval::{
        Approval, Exhibit, Fingerprint, Release, Released, State, Supersedes, Suspended, Vote, blast::Findings,
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Label that carries the group.
pub const GROUP_LABEL: &str = "kustody.dev/group";

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
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.group"),
    printcolumn(name = "Run", type_ = "string", json_path = ".spec.requester.run", priority = "1"),
    printcolumn(name = "Dry-Run", type_ = "string", json_path = ".status.findings.dryRun.outcome", priority = "1"),
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
    /// Lists of groups: whoever decides is a member of a group of every list. None given: whoever may approve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 16), inner(length(min = 1, max = 256))))]
    pub approvers: Vec<Vec<String>>,
    /// Requests of one command share a group, which people may decide at once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub group: String,
    /// How often this agent asked for the same today (UTC) before, as far as is known.
    #[serde(default)]
    #[schemars(extend("format" = "int32"))]
    pub asked_today: u32,
    /// Digest of the object it starts from; when that has changed, people are asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub basis: Option<String>,
    /// The request whose place this one takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Supersedes>,
    /// The object, where it is there already, suspended: the approval frees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspended>,
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
    /// The person on whose behalf it works, when the gateway knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub on_behalf_of: Option<String>,
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
    /// The newer request that took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub superseded_by: Option<String>,
    /// What was found out after it was opened: what hangs on the object, what a dry run says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Findings>,
    /// What became of the object that was created suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
}

impl ApprovalRequest {
    /// The approval as the rules see it.
    #[must_use]
    pub fn approval(&self) -> Approval {
        let status = self.status.clone().unwrap_or_default();
        let awaits_release = self.awaits_release();
        let release = status.release.as_ref();
        // What is not there is not decided about any more.
        let gone_at = release.filter(|release| release.outcome == Released::Gone).map(|release| release.at);
        let expires_at = gone_at.map_or(self.spec.expires_at.0, |at| at.min(self.spec.expires_at.0));
        Approval {
            id: self.name_any(),
            fingerprint: self.spec.fingerprint.clone(),
            requester: self.spec.requester.user.clone(),
            run: self.spec.requester.run.clone(),
            group: self.spec.group.clone(),
            quorum: self.spec.quorum,
            approvers: self.spec.approvers.clone(),
            basis: self.spec.basis.clone(),
            votes: status.decisions,
            opened_at: self.metadata.creation_timestamp.as_ref().map_or(expires_at, |time| time.0),
            expires_at,
            consumed_at: status.consumed_at.map(|time| time.0),
            is_superseded: status.superseded_by.is_some(),
            supersedes: self.spec.supersedes.clone(),
            is_single_shot: self.spec.action.operation == Operation::Connect || self.spec.suspended.is_some(),
            awaits_release,
        }
    }

    /// Whether an object that was created suspended is neither freed nor told that it stays so.
    #[must_use]
    pub fn awaits_release(&self) -> bool {
        let release = self.status.as_ref().and_then(|status| status.release.as_ref());
        self.spec.suspended.is_some() && release.is_none_or(|release| !release.outcome.is_final())
    }

    /// Operation, resource and target in one line: what is counted as the same wish.
    #[must_use]
    pub fn wish(&self) -> String {
        let action = &self.spec.action;
        wish(action.operation, &action.path, &action.target)
    }
}

/// See [`ApprovalRequest::wish`].
pub(super) fn wish(operation: Operation, path: &str, target: &str) -> String {
    format!("{operation} {path} {target}")
}
