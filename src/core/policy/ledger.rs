//! What agents have used of their budgets: counted in memory, by run and by agent, over sliding windows.
//!
//! Counts are never below the truth of the window: time is cut into slots, and a slot counts as long as any of it
//! lies inside. Memory is bounded: of too many subjects the one not seen for longest is put out, and what it had used
//! stays as the least that every new subject starts with, so that being put out forgives nothing. Each replica counts
//! what it sees and is told how many there are ([`Ledger::replicas`]); its share of a limit, rounded down, is by the most
//! there were at any time of the limit's window, since what others let through before they went still counts.

use super::budget::{Counted, Limit, Per, Usage};
use crate::core::action::Action;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// Length of a slot in seconds, finest first; [`SLOTS`] of the last are longer than a day.
const TIERS: [i64; 3] = [10, 120, 1500];
const SLOTS: i64 = 64;
/// Most runs and agents counted at once.
const SUBJECTS: usize = 4096;
/// Changes of the number of replicas that are remembered; of more, the oldest two become one.
const CHANGES: usize = 64;

/// The counters of one replica.
#[derive(Debug)]
pub struct Ledger {
    subjects: HashMap<String, Subject>,
    /// The most that any subject had used that was put out.
    floor: History,
    most: usize,
    /// How many replicas there were from when on, oldest first; never empty.
    replicas: Vec<(Timestamp, u32)>,
}

/// One action counted before it is decided; give it back when it is not allowed.
#[derive(Debug, Clone)]
#[must_use]
pub struct Claim {
    subjects: Vec<String>,
    counted: Vec<Counted>,
    at: Timestamp,
}

#[derive(Debug, Clone, Default)]
struct Subject {
    history: History,
    seen: i64,
}

/// By kind and tier: the slots that are not empty, oldest first, as position and count.
#[derive(Debug, Clone, Default)]
struct History([[Vec<(i64, u32)>; TIERS.len()]; 3]);

impl Ledger {
    /// An empty one, of one of so many replicas.
    #[must_use]
    pub fn new(replicas: u32) -> Self {
        Self::bounded(replicas, SUBJECTS)
    }

    fn bounded(replicas: u32, most: usize) -> Self {
        let replicas = vec![(Timestamp::MIN, replicas.max(1))];
        Self { subjects: HashMap::new(), floor: History::default(), most, replicas }
    }

    /// From now on there are so many, this one included.
    pub fn replicas(&mut self, count: u32, now: Timestamp) {
        if self.replicas.last().is_some_and(|(_, there)| *there == count.max(1)) {
            return;
        }
        self.replicas.push((now, count.max(1)));
        if self.replicas.len() > CHANGES
            && let [first, second, ..] = self.replicas.as_mut_slice()
        {
            second.1 = second.1.max(first.1);
            second.0 = first.0;
            self.replicas.remove(0);
        }
    }

    /// The most that there were at any time of the window up to now.
    fn shared_by(&self, window: u64, now: Timestamp) -> u32 {
        let window = SignedDuration::from_secs(i64::try_from(window).unwrap_or(i64::MAX));
        let begun = now.checked_sub(window).unwrap_or(Timestamp::MIN);
        let ends = self.replicas.iter().skip(1).map(|(end, _)| *end).chain([Timestamp::MAX]);
        self.replicas.iter().zip(ends).filter(|(_, end)| *end >= begun).map(|((_, count), _)| *count).max().unwrap_or(1)
    }

    /// What was used before `action` of each of `limits`, this replica's share in mind; and `action` counted as if it
    /// were allowed, in one step, so that many at once do not all find the last place free.
    pub fn claim(&mut self, action: &Action, limits: &[Limit], now: Timestamp) -> (Usage, Claim) {
        let usage = self.usage(action, limits, now);
        let counted = [Counted::Mutations, Counted::Deletes].into_iter().filter(|kind| kind.counts(action)).collect();
        let claim = Claim { subjects: distinct(action), counted, at: now };
        for subject in &claim.subjects {
            for kind in &claim.counted {
                self.subject(subject, now).history.add(*kind, now, 1);
            }
        }
        (usage, claim)
    }

    /// Takes a claim back: what it was about was not allowed.
    pub fn give_back(&mut self, claim: &Claim) {
        for subject in &claim.subjects {
            let Some(there) = self.subjects.get_mut(subject) else { continue };
            claim.counted.iter().for_each(|kind| there.history.take_back(*kind, claim.at));
        }
    }

    /// Counts a refusal; the same one again counts again.
    pub fn refused(&mut self, action: &Action, now: Timestamp) {
        for subject in distinct(action) {
            self.subject(&subject, now).history.add(Counted::Denies, now, 1);
        }
    }

    /// What was used of each of `limits`, scaled so that a limit is reached when this replica's share of it is.
    #[must_use]
    pub fn usage(&self, action: &Action, limits: &[Limit], now: Timestamp) -> Usage {
        let [run, agent] = subjects(action);
        let of = |limit: &Limit| {
            let subject = match limit.per {
                Per::Run => &run,
                Per::Agent => &agent,
            };
            let history = self.subjects.get(subject).map_or(&self.floor, |there| &there.history);
            let used = history.sum(limit.counted, limit.window.as_secs(), now);
            let replicas = self.shared_by(limit.window.as_secs(), now);
            let shared = match limit.counted {
                // One more would be beyond the share: (used + 1) * replicas > limit.
                Counted::Mutations | Counted::Deletes => {
                    used.saturating_add(1).saturating_mul(replicas).saturating_sub(1)
                }
                Counted::Denies => used.saturating_mul(replicas),
            };
            (*limit, shared)
        };
        limits.iter().map(of).collect()
    }

    fn subject(&mut self, name: &str, now: Timestamp) -> &mut Subject {
        if !self.subjects.contains_key(name) && self.subjects.len() >= self.most {
            self.put_out();
        }
        let floor = &self.floor;
        let fresh = || Subject { history: floor.clone(), seen: 0 };
        let subject = self.subjects.entry(name.to_owned()).or_insert_with(fresh);
        subject.seen = now.as_second();
        subject
    }

    fn put_out(&mut self) {
        let oldest = self.subjects.iter().min_by_key(|(_, subject)| subject.seen).map(|(name, _)| name.clone());
        if let Some(gone) = oldest.and_then(|name| self.subjects.remove(&name)) {
            self.floor.raise(&gone.history);
        }
    }
}

/// The run, else the agent; and the agent.
fn subjects(action: &Action) -> [String; 2] {
    let user = &action.agent.user;
    let agent = format!("agent\0{user}");
    let run = action.agent.run().map_or_else(|| agent.clone(), |run| format!("run\0{user}\0{run}"));
    [run, agent]
}

/// The same without repetition.
fn distinct(action: &Action) -> Vec<String> {
    let [run, agent] = subjects(action);
    if run == agent { vec![agent] } else { vec![run, agent] }
}

impl History {
    fn tiers(&mut self, kind: Counted) -> Option<&mut [Vec<(i64, u32)>; TIERS.len()]> {
        self.0.get_mut(kind as usize)
    }

    fn add(&mut self, kind: Counted, at: Timestamp, count: u32) {
        for (slots, length) in self.tiers(kind).into_iter().flatten().zip(TIERS) {
            let position = at.as_second().div_euclid(length);
            slots.retain(|(slot, _)| *slot > position - SLOTS);
            match slots.iter_mut().find(|(slot, _)| *slot == position) {
                Some((_, there)) => *there = there.saturating_add(count),
                None => slots.push((position, count)),
            }
        }
    }

    fn take_back(&mut self, kind: Counted, at: Timestamp) {
        for (slots, length) in self.tiers(kind).into_iter().flatten().zip(TIERS) {
            let position = at.as_second().div_euclid(length);
            for (_, there) in slots.iter_mut().filter(|(slot, _)| *slot == position) {
                *there = there.saturating_sub(1);
            }
        }
    }

    /// All slots of which any part lies within the last `window` seconds, in the finest tier that reaches so far.
    fn sum(&self, kind: Counted, window: u64, now: Timestamp) -> u32 {
        let window = i64::try_from(window).unwrap_or(i64::MAX);
        let reaches = |(_, length): &(&Vec<(i64, u32)>, i64)| window <= length.saturating_mul(SLOTS - 1);
        let tiers = self.0.get(kind as usize).into_iter().flatten().zip(TIERS);
        let coarsest = tiers.clone().last();
        let Some((slots, length)) = tiers.clone().find(reaches).or(coarsest) else { return 0 };
        let first = now.as_second().saturating_sub(window).div_euclid(length);
        slots.iter().filter(|(slot, _)| *slot >= first).fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// At least as much as `other`, slot by slot.
    fn raise(&mut self, other: &Self) {
        for (tiers, others) in self.0.iter_mut().zip(&other.0) {
            for ((slots, theirs), _) in tiers.iter_mut().zip(others).zip(TIERS) {
                for (position, count) in theirs {
                    match slots.iter_mut().find(|(slot, _)| slot == position) {
                        Some((_, there)) => *there = (*there).max(*count),
                        None => slots.push((*position, *count)),
                    }
                }
                let newest = slots.iter().map(|(slot, _)| *slot).max().unwrap_or_default();
                slots.retain(|(slot, _)| *slot > newest - SLOTS);
            }
        }
    }
}

#[cfg(test)]
mod tests;
