//! Budgets: how much of something an agent may do in a window of time.
//!
//! A budget rule names [`Limit`]s; [`Usage`] says how much of each was used. Deciding compares the two and counts
//! nothing: who counts, and over which replicas, is not this file's business.

use super::document::{BudgetTerms, Exceeded};
use super::problems::window;
use crate::core::action::{Action, Operation};
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

/// A compiled budget.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    limits: Vec<(Limit, u32)>,
    pub(super) exceeded: Exceeded,
}

impl Counted {
    /// Whether an action counts here once it is allowed; a refusal counts whatever it was.
    #[must_use]
    pub fn counts(self, action: &Action) -> bool {
        match self {
            Self::Mutations => action.operation != Operation::Read && !action.dry_run,
            Self::Deletes => action.operation == Operation::Delete && !action.dry_run,
            Self::Denies => true,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Mutations => "changes",
            Self::Deletes => "deletions",
            Self::Denies => "refusals",
        }
    }
}

impl Budget {
    /// Windows that do not parse are left out: the caller has refused them before.
    pub(super) fn new(terms: &BudgetTerms) -> Self {
        let limit = |limit: &super::document::BudgetLimit| {
            let counter = Limit { counted: limit.counted, per: terms.per, window: window(&limit.window)? };
            Some((counter, limit.max))
        };
        Self { limits: terms.limits.iter().filter_map(limit).collect(), exceeded: terms.exceeded }
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = Limit> {
        self.limits.iter().map(|(limit, _)| *limit)
    }

    /// Says which limit `action` would exceed, if any.
    pub(super) fn exceeded_by(&self, action: &Action, usage: &Usage) -> Option<String> {
        let (limit, max) =
            self.limits.iter().find(|(limit, max)| limit.counted.counts(action) && usage.of(limit) >= *max)?;
        Some(format!("{max} {} in {} s are used up", limit.counted.noun(), limit.window.as_secs()))
    }
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
