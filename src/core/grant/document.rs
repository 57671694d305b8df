//! What a grant says: the `spec` of the custom resource, written once.
//!
//! A boundary type with its JSON schema. What schema and CEL can say the API server refuses by itself, also while
//! Kustody is down; who may write which of them is `manifests/grant-policy.yaml`'s business.

use crate::core::action::Operation;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may do what, where, until when and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self == oldSelf", "message": "spec is immutable: revoke this grant and ask for another"},
    {"rule": "(has(self.actions) && size(self.actions) > 0) || has(self.roleBinding)",
     "message": "name at least one action, or a role binding"},
    {"rule": "!has(self.roleBinding) || has(self.agent)", "message": "a role binding is for one agent: name it"}
]))]
pub struct GrantSpec {
    /// User name of whoever asks for it or gives it; the API server checks that it is theirs.
    #[schemars(length(min = 1, max = 256))]
    pub requester: String,
    /// Asked for, to be approved; or given by a person who may approve, and in force at once.
    #[serde(default)]
    pub origin: Origin,
    /// The AgentClass it is for.
    #[schemars(length(min = 1, max = 253))]
    pub class: String,
    /// The one agent it is for, by user name; none given: every agent of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub agent: Option<String>,
    /// What it allows without asking again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub actions: Vec<AllowedAction>,
    /// Namespaces, whole or as prefix with `*`; none given: only what lies in no namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(
            length(min = 1, max = 63),
            regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?\*?|[a-z0-9][-a-z0-9]*\*)$")
        )
    )]
    pub namespaces: Vec<String>,
    /// Object names, whole or as prefix with `*`; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = r"^[^*]*\*?$")))]
    pub names: Vec<String>,
    /// When it ends; at most 24 hours after it was written.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub until: Timestamp,
    /// How many requests it lets through.
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub max_uses: u32,
    /// How many different people must approve.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8), extend("format" = "int32"))]
    pub quorum: u32,
    /// What it is for; shown to whoever decides.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// A RoleBinding that Kustody creates while the grant is in force, and removes after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_binding: Option<TemporaryBinding>,
}

/// Where a grant comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Origin {
    /// Asked for; in force once people have approved it.
    #[default]
    Requested,
    /// Given by a person with the verb `approve` on grants.
    Given,
}

/// One kind of action that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedAction {
    /// Operations; at least one.
    #[schemars(length(min = 1, max = 5))]
    pub operations: Vec<Operation>,
    /// API groups; `""` is the core group, `*` every group.
    #[schemars(length(min = 1, max = 16), inner(length(max = 253)))]
    pub api_groups: Vec<String>,
    /// Resources and subresources in the form of webhook rules: `pods`, `pods/exec`, `*/scale`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 253)))]
    pub resources: Vec<String>,
}

/// A RoleBinding for the time of the grant. It names the grant's agent and nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemporaryBinding {
    /// The namespace it lies in.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), extend("x-kubernetes-validations" = [{
        "rule": "!self.startsWith('kube-') && self != 'kustody-system'",
        "message": "the control plane's and Kustody's namespaces are not for agents"
    }]))]
    pub namespace: String,
    /// The role it binds.
    pub role_ref: RoleOfGrant,
}

/// The role of a temporary RoleBinding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleOfGrant {
    /// Role or ClusterRole.
    pub kind: RoleKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [{
        "rule": "self != 'cluster-admin' && !self.startsWith('system:') && !self.startsWith('kustody')",
        "message": "this role is never granted"
    }]))]
    pub name: String,
}

/// What is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RoleKind {
    /// A role of the namespace.
    Role,
    /// A role of the cluster, for one namespace.
    ClusterRole,
}

impl RoleKind {
    /// The word of `roleRef.kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::ClusterRole => "ClusterRole",
        }
    }
}

fn one() -> u32 {
    1
}
