//! Budgets: how much of something an agent may do in a window of time.
//!
//! A budget rule names [`Limit`]s; [`Usage`] says how much of each was used. Deciding compares the two and counts
//! nothing: who counts, and over which replicas, is not this file's business.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Counted {
    /// Allowed CREATE, UPDATE, DELETE and CONNECT, dry runs left out.
    Mutations,
    /// Allowed DELETE, dry runs left out.
    Deletes,
    /// Refusals, whatever the operation.
    Denies,
}

/// For whom it is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Per {
    /// The run the agent works in; without one, the agent.
    #[default]
    Run,
    /// The agent's user name.
    Agent,
}

/// One counter: what, for whom, over which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Limit {
    /// What is counted.
    pub counted: Counted,
    /// For whom.
    pub per: Per,
    /// Over how long, up to now.
    pub window: Duration,
}

/// How much was used so far, by counter; what is absent is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    used: BTreeMap<Limit, u32>,
}

impl Usage {
    /// Nothing was used.
    pub const NONE: Self = Self { used: BTreeMap::new() };

    /// How much of `limit` was used.
    #[must_use]
    pub fn of(&self, limit: &Limit) -> u32 {
        self.used.get(limit).copied().unwrap_or(0)
    }
}

impl FromIterator<(Limit, u32)> for Usage {
    fn from_iter<T: IntoIterator<Item = (Limit, u32)>>(counts: T) -> Self {
        Self { used: counts.into_iter().collect() }
    }
}
