//! What people write: the `spec` of an AgentClass and of an AgentPolicy.
//!
//! These are boundary types: plain serde shapes with their JSON schema. Whatever the schema and its CEL rules
//! can say, the API server already refuses; the rest is found by [`super::PolicySnapshot`]. Matching and deciding
//! happen elsewhere.

use crate::core::action::Operation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who is an agent. Whoever matches one subject is one; everybody else never meets Kustody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClassSpec {
    /// Identities of this class.
    pub subjects: Subjects,
    /// What agents of this class must go through the gateway for.
    #[serde(default)]
    pub gateway: GatewayDemand,
}

/// Selects identities. An entry is a whole name, or a prefix followed by one `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "size(self.users) + size(self.groups) + size(self.serviceAccountNamespaces) > 0",
    "message": "name at least one user, group or service account namespace"
}]))]
pub struct Subjects {
    /// User names.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 2, max = 256)), extend("x-kubernetes-validations" = [{
        "rule": "self.all(u, !u.startsWith('system:') || u.startsWith('system:serviceaccount:'))",
        "message": "system users are never agents"
    }]))]
    pub users: Vec<String>,
    /// Groups.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 2, max = 256)), extend("x-kubernetes-validations" = [{
        "rule": "self.all(g, !g.startsWith('system:') || g.startsWith('system:serviceaccounts:'))",
        "message": "system groups are never agents"
    }]))]
    pub groups: Vec<String>,
    /// Namespaces whose service accounts are all agents.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")), extend("x-kubernetes-validations" = [{
        "rule": "self.all(n, !n.startsWith('kube-') && n != 'kustody-system')",
        "message": "service accounts of the control plane and of Kustody are never agents"
    }]))]
    pub service_account_namespaces: Vec<String>,
}

/// What only the gateway may bring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayDemand {
    /// exec, attach, port-forward and proxy need the gateway, which alone can record them.
    #[default]
    Streams,
    /// Agents may open streams directly, unrecorded, when the rules allow it.
    Nothing,
}

/// Ordered rules; over all policies the most restrictive verdict wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    /// The rules.
    #[schemars(length(min = 1, max = 128), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["id"]
    ))]
    pub rules: Vec<Rule>,
}

/// One rule: what it matches and what then happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.hold) || self.action == 'Hold'", "message": "hold terms belong to action Hold"},
    {"rule": "!has(self.match.labels) || size(self.match.labels) == 0 || (has(self.match.operations) && size(self.match.operations) > 0 && self.match.operations.all(o, o in ['CREATE', 'UPDATE', 'DELETE']))",
     "message": "labels are known for CREATE, UPDATE and DELETE only: name these operations"}
]))]
pub struct Rule {
    /// Id, unique in the policy; appears in every decision.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub id: String,
    /// Told to the agent and the approver.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
    /// What the rule applies to.
    #[serde(rename = "match")]
    pub matches: Match,
    /// The verdict.
    pub action: Verdict,
    /// How a held request is decided; only with action `Hold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// A rule matches when every part that is given matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// Agent classes; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub classes: Vec<String>,
    /// Operations; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub operations: Vec<Operation>,
    /// Resources; at least one.
    #[schemars(length(min = 1, max = 32))]
    pub resources: Vec<ResourceRule>,
    /// Namespaces, whole or as prefix with `*`; none given: all, and cluster scope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub namespaces: Vec<String>,
    /// Object names, whole or as prefix with `*`; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub names: Vec<String>,
    /// Labels the object must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Resources in the form of webhook rules: `pods`, `pods/exec`, `pods/*`, `*/scale`, `*` (no
/// subresources), `*/*` (everything).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceRule {
    /// API groups; `""` is the core group, `*` every group.
    #[schemars(length(min = 1, max = 32), inner(length(max = 253)))]
    pub api_groups: Vec<String>,
    /// Resources and subresources.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    pub resources: Vec<String>,
}

/// What happens when a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// Refuse.
    Deny,
    /// Wait for a person.
    Hold,
    /// Let through.
    Allow,
    /// Let through with a warning.
    Warn,
}

/// How a held request is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hold {
    /// How many different people must approve.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8))]
    pub quorum: u32,
    /// How long the request stays open, such as `30m` or `1h30m`.
    #[serde(default = "half_an_hour")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    pub expires_after: String,
    /// Groups whose members may approve; none given: whoever the cluster lets approve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub approvers: Vec<String>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { quorum: one(), expires_after: half_an_hour(), approvers: Vec::new() }
    }
}

fn one() -> u32 {
    1
}

fn half_an_hour() -> String {
    "30m".to_owned()
}
