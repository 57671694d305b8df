//! What the fields of an entry are made of: the principal, the decision, the diff, the witnesses. Plain data, in the
//! order of their names like the entry itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::audit::bounded::{Bounded, Text};

/// Who asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Principal {
    /// The agent's Kubernetes identity.
    pub agent: Agent,
    /// The person it works for, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub human: Option<Text>,
    /// The pod that its token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

/// A Kubernetes identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Agent {
    /// Extras, without those that other fields hold and without tickets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Bounded<BTreeMap<String, Vec<String>>>>,
    /// Groups.
    pub groups: Bounded<Vec<String>>,
    /// Uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Text>,
    /// User name.
    pub user: Text,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Text>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Text>,
    /// Its uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Text>,
}

/// What was decided, by what and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// The ApprovalRequest that was opened, waited for, or used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Text>,
    /// Who voted on it, at most [`VOTERS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<Approver>,
    /// The Grant that let it through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Text>,
    /// The decision's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// The verdict.
    pub outcome: Outcome,
    /// The policy whose rule decided; `built-in` when none did.
    pub policy: Text,
    /// Hash of everything that was in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_hash: Option<Text>,
    /// Why: the rule's reason, or what the client was told.
    pub reason: Text,
    /// The rule.
    pub rule: Text,
}

/// A vote on an approval request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approver {
    /// Whether it was a yes.
    pub approved: bool,
    /// Kubernetes user name.
    pub by: Text,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Let through.
    Allow,
    /// Refused.
    Deny,
    /// People decide.
    Hold,
}

/// What a write changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// What an update changes, one line each: `path: old -> new`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Bounded<Vec<String>>>,
    /// JSON of the object as it would be created, or as it is before it is deleted. Left out where it is too large:
    /// then with the digest of the bytes in the review, which for a Secret is left out too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Text>,
}

/// Somebody who saw the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Witness {
    /// Where it was seen.
    pub by: Seen,
    /// What it was called there: the review's uid, the gateway's request id.
    pub id: Text,
}

/// Where a request was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Seen {
    /// At the gateway.
    Gateway,
    /// At the webhook.
    Admission,
}

/// Votes kept in an entry; the approval request has them all.
pub const VOTERS: usize = 8;

impl Default for Agent {
    fn default() -> Self {
        Agent { extra: None, groups: Bounded::Whole(Vec::new()), uid: None, user: Text::short("") }
    }
}

impl Outcome {
    /// As it stands in the entry.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Allow => "allow",
            Outcome::Deny => "deny",
            Outcome::Hold => "hold",
        }
    }
}
