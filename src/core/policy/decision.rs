//! What a decision is: the verdict, the rule behind it, and the [`Permit`] of an allowing one.
//!
//! Plain data. Only [`decide`](super::decide()) makes a [`Permit`]: its fields are private to the rules, and opening an
//! upstream needs one. How a verdict comes about is `decide.rs`'s business.

use super::document::HoldMode;
use super::snapshot::PolicyHash;
use crate::core::action::{Operation, Resource, StreamRequest};
use crate::core::recording::keeping::Keeping;
use std::{fmt, time::Duration};

/// Names one decision: a digest of what was decided, by which rules, when.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct DecisionId(pub(super) String);

impl DecisionId {
    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was decided, and by which rule.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The verdict.
    pub outcome: Outcome,
    /// Policy of the rule that decided; `built-in` when none did.
    pub policy: String,
    /// Id of that rule.
    pub rule: String,
    /// Why, for the agent and the approver.
    pub reason: String,
    /// What to warn the client of.
    pub warnings: Vec<String>,
    /// Hash of the rules in force.
    pub policy_hash: PolicyHash,
    /// Names this decision.
    pub id: DecisionId,
}

/// The verdict.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one for each request, moved once or twice")]
pub enum Outcome {
    /// Let exactly this through.
    Allow(Permit),
    /// Refuse.
    Deny,
    /// Wait for people.
    Hold(HoldTerms),
}

impl Outcome {
    /// `allow`, `deny` or `hold`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Deny => "deny",
            Self::Hold(_) => "hold",
        }
    }
}

/// How a held request gets decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldTerms {
    /// How many different people must approve.
    pub quorum: u32,
    /// How long the request stays open.
    pub expires_after: Duration,
    /// One list of groups for each holding rule that names approvers: whoever approves is in a group of every
    /// list. Empty: whoever the cluster lets approve.
    pub approvers: Vec<Vec<String>>,
    /// What the client meets meanwhile.
    pub mode: HoldMode,
    /// Whether a grant that people have given may stand in for an approval.
    pub grantable: bool,
}

/// Proof that one exact target was allowed. Made by [`decide()`](super::decide()) alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Permit {
    pub(super) operation: Operation,
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) stream: Option<StreamRequest>,
    pub(super) decision: DecisionId,
    pub(super) approval: Option<String>,
    pub(super) grant: Option<String>,
    pub(super) keeping: Keeping,
}

impl Permit {
    /// What may be done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// To which resource.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// In which namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// To which object.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The stream, with container and argv, when it is one.
    #[must_use]
    pub fn stream(&self) -> Option<&StreamRequest> {
        self.stream.as_ref()
    }

    /// What the recording of a stream keeps.
    #[must_use]
    pub fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// The decision it came from.
    #[must_use]
    pub fn decision(&self) -> &DecisionId {
        &self.decision
    }

    /// The approval that let it through, which must be consumed before use.
    #[must_use]
    pub fn approval(&self) -> Option<&str> {
        self.approval.as_deref()
    }

    /// The grant that let a held action through, of which this is one use.
    #[must_use]
    pub fn grant(&self) -> Option<&str> {
        self.grant.as_deref()
    }
}
