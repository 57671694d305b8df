//! Objects that were created suspended and wait for their approval: which one it is, and how it ended.
//!
//! Boundary types of an ApprovalRequest. What the marks on the object mean is
//! [`admission::suspended`](crate::core::admission::suspended)'s business; who frees it is
//! `edge/cluster/approvals/releasing.rs`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The object that is there already, suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Suspended {
    /// Its uid: another object of its name is another one.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its annotation `kustody.dev/suspended`.
    #[schemars(length(max = 63))]
    pub mark: String,
    /// Whether its author had suspended it: then it stays so when it is freed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_author: bool,
    /// SHA-256 of its spec. Another spec is not freed.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub digest: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// In a word.
    pub outcome: Released,
    /// In a sentence.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Since when.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
}

/// What became of a suspended object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Released {
    /// It was freed.
    Freed,
    /// It stays suspended: nobody approved it, or it is not what was approved.
    Kept,
    /// It is not there: it was removed, or never came to be.
    Gone,
    /// It should be freed or marked and could not; this is tried again.
    Blocked,
}

impl Released {
    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_final(self) -> bool {
        self != Self::Blocked
    }
}
