//! Grant: the custom resource around [`GrantSpec`], and what became of it.
//!
//! `spec` is written once by whoever asks or gives; `status.decisions` is appended to by people under their own
//! identity, everything else in `status` by Kustody. The API server holds everybody to that with the
//! ValidatingAdmissionPolicy in `manifests/grant-policy.yaml`. Who watches grants is [`super::grants`].
#![expect(clippy::duplicated_attributes, reason = "several printer columns have the same type")]

use crate::core::{
    approval::Vote,
    grant::{self, State},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is allowed, to whom, until when.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kustody.dev",
    version = "v1alpha1",
    kind = "Grant",
    plural = "grants",
    namespaced,
    shortname = "grt",
    category = "kustody",
    status = "GrantStatus",
    doc = "A time-boxed allowance for agents, asked for or given.",
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.class"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".spec.agent"),
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.namespaces"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Uses", type_ = "integer", json_path = ".status.uses"),
    printcolumn(name = "Of", type_ = "integer", json_path = ".spec.maxUses"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.until"),
    printcolumn(name = "Requester", type_ = "string", json_path = ".spec.requester", priority = "1"),
    printcolumn(name = "Binding", type_ = "string", json_path = ".status.roleBinding", priority = "1"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(transparent)]
pub struct GrantSpec(pub grant::GrantSpec);

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantStatus {
    /// Where it stands; set by Kustody, follows from the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// What people said, in order; each appends their own. A denial of an active grant revokes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub decisions: Vec<Vote>,
    /// How many requests it has let through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    pub uses: Option<u32>,
    /// When it last let one through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
    /// `namespace/name` of the RoleBinding that is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub role_binding: Option<String>,
    /// Why something of it is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

impl Grant {
    /// The grant as the rules see it.
    #[must_use]
    pub fn grant(&self) -> grant::Grant {
        let status = self.status.clone().unwrap_or_default();
        grant::Grant {
            id: self.name_any(),
            uid: self.uid().unwrap_or_default(),
            spec: self.spec.0.clone(),
            // Without a time of its own it ended long ago.
            created_at: self.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            votes: status.decisions,
            uses: status.uses.unwrap_or_default(),
        }
    }
}
