//! What happens when a rule matches, or cannot be evaluated: verdicts, and the terms of holds and budgets.

use crate::core::policy::budget::{Counted, Per};
use crate::core::recording::keeping::{Hidden, Mode, Stdin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens when a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// Refuse.
    Deny,
    /// Wait for a person.
    Hold,
    /// Let so much through in a time, and no more.
    Budget,
    /// Let through with a warning.
    Warn,
    /// Let through.
    Allow,
}

/// What happens when a rule cannot be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailureAction {
    /// Refuse.
    Deny,
    /// Wait for a person.
    Hold,
    /// Go on without the rule, and say so.
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
    /// Whether the client waits for people, is told at once to come back, or gets its object suspended.
    #[serde(default, skip_serializing_if = "HoldMode::is_wait")]
    pub mode: HoldMode,
}

/// What a client of a held request meets. Of several holding rules the strictest counts; the order is theirs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum HoldMode {
    /// The object is created, but suspended, and freed by the approval: for new Jobs, CronJobs and Deployments alone,
    /// where manifests/opt-in/admit-suspended.yaml is applied. Elsewhere this is Wait.
    Suspended,
    /// The request is parked and repeated by the client itself until people have decided: stock kubectl waits.
    #[default]
    Wait,
    /// The request is refused at once with the id of the approval request; repeated after the approval it passes.
    Ticket,
}

impl HoldMode {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_wait(&self) -> bool {
        *self == Self::Wait
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self { quorum: one(), expires_after: half_an_hour(), approvers: Vec::new(), mode: HoldMode::default() }
    }
}

/// How much is free, and what happens beyond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetTerms {
    /// The limits; one that is used up is enough.
    #[schemars(length(min = 1, max = 8))]
    pub limits: Vec<BudgetLimit>,
    /// For whom it is counted.
    #[serde(default)]
    pub per: Per,
    /// What happens to what goes beyond.
    #[serde(default)]
    pub exceeded: Exceeded,
}

/// So many in such a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetLimit {
    /// What is counted.
    pub counted: Counted,
    /// How many are free.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max: u32,
    /// In how long, such as `10m`.
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    pub window: String,
}

/// What happens to what goes beyond a budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Exceeded {
    /// Wait for a person.
    #[default]
    Hold,
    /// Refuse.
    Deny,
}

/// What the recording of a stream keeps. Of several rules that match and say something, what keeps more holds; what none
/// speaks of is kept as the parts say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.stdin) || has(self.hidden) || has(self.forwarded) || has(self.mode)",
    "message": "say at least one of stdin, hidden, forwarded and mode"
}]))]
pub struct Record {
    /// Of standard input; not given: Whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Stdin>,
    /// Of what is typed into a terminal that does not show it; not given: Length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Hidden>,
    /// Bytes of each forwarded connection, each way, such as `64Mi`; not given: what Kustody's configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi|Ti)?$"))]
    pub forwarded: Option<String>,
    /// Whether the session goes on while there is no room for its recording; not given: Strict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

fn one() -> u32 {
    1
}

fn half_an_hour() -> String {
    "30m".to_owned()
}
