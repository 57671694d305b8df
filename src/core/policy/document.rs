//! What people write: the `spec` of an AgentClass and of an AgentPolicy.
//!
//! These are boundary types: plain serde shapes with their JSON schema. Whatever the schema and its CEL rules
//! can say, the API server already refuses; the rest is found by [`super::PolicySnapshot`]. Matching and deciding
//! happen elsewhere. What a rule is made of is in `rule.rs` (what it matches) and `terms.rs` (what then happens).

mod rule;
mod terms;

pub use rule::{ChangeSpec, Match, ResourceRule, Rule, Severity};
pub use terms::{BudgetLimit, BudgetTerms, Exceeded, FailureAction, Hold, HoldMode, Record, Verdict};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// Rules; over all policies the most restrictive verdict wins.
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
