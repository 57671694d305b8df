//! What this replica counts of the agents' budgets, shared by webhook and gateway: the [`Ledger`] and the clock.
//!
//! An action is counted before it is decided and given back unless it was let through, so that many at once never find
//! the same last place. A restart begins with nothing counted; where that matters, keep windows short.

use crate::core::{
    action::Action,
    policy::{Claim, Ledger, PolicySnapshot, Usage},
};
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};

/// The counters; clones are the same ones.
#[derive(Debug, Clone)]
pub struct Budgets(Arc<Mutex<Ledger>>);

/// An action that is counted; given back when dropped, unless kept.
#[derive(Debug)]
#[must_use]
pub struct Claimed {
    budgets: Budgets,
    claim: Option<Claim>,
    usage: Usage,
}

impl Budgets {
    /// Counters of one of so many replicas.
    #[must_use]
    pub fn new(replicas: u32) -> Self {
        Self(Arc::new(Mutex::new(Ledger::new(replicas))))
    }

    /// From now on there are so many replicas, this one included.
    pub fn replicas(&self, count: u32) {
        self.with(|ledger| ledger.replicas(count, Timestamp::now()));
    }

    /// Counts `action` for now, and says what was used before it.
    pub fn claim(&self, action: &Action, snapshot: &PolicySnapshot) -> Claimed {
        let (usage, claim) = self.with(|ledger| ledger.claim(action, snapshot.limits(), Timestamp::now()));
        Claimed { budgets: self.clone(), claim: Some(claim), usage }
    }

    /// Counts a refusal.
    pub fn refused(&self, action: &Action) {
        self.with(|ledger| ledger.refused(action, Timestamp::now()));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Claimed {
    /// What was used before.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// It is let through: it stays counted.
    pub fn keep(mut self) {
        self.claim = None;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.budgets.with(|ledger| ledger.give_back(&claim));
        }
    }
}
