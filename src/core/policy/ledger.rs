//! What agents have used of their budgets: counted in memory, by run and by agent, over sliding windows.
//!
//! Counts are never below the truth of the window: time is cut into slots, and a slot counts as long as any of it
//! lies inside. Memory is bounded: of too many subjects the one not seen for longest is put out, and what it had used
//! stays as the least that every new subject starts with, so that being put out forgives nothing. Each replica counts
//! what it sees; [`Ledger::new`] is told how many there are, and gives each its share, rounded down.

use super::budget::{Counted, Limit, Per, Usage};
use crate::core::action::Action;
use jiff::Timestamp;
use std::collections::HashMap;

/// Length of a slot in seconds, finest first; [`SLOTS`] of the last are longer than a day.
const TIERS: [i64; 3] = [10, 120, 1500];
const SLOTS: i64 = 64;
/// Most runs and agents counted at once.
const SUBJECTS: usize = 4096;

/// The counters of one replica.
#[derive(Debug)]
pub struct Ledger {
    subjects: HashMap<String, Subject>,
    /// The most that any subject had used that was put out.
    floor: History,
    most: usize,
    replicas: u32,
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
        Self { subjects: HashMap::new(), floor: History::default(), most, replicas: replicas.max(1) }
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
            let shared = match limit.counted {
                // One more would be beyond the share: (used + 1) * replicas > limit.
                Counted::Mutations | Counted::Deletes => {
                    used.saturating_add(1).saturating_mul(self.replicas).saturating_sub(1)
                }
                Counted::Denies => used.saturating_mul(self.replicas),
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
mod tests {
    use super::*;
    use crate::core::action::{ClassName, EXTRA_RUN, Identity, Operation, Resource};
    use proptest::prelude::*;
    use std::{collections::BTreeMap, time::Duration};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn action(run: Option<&str>, operation: Operation) -> Action {
        let extra = run.map(|run| (EXTRA_RUN.to_owned(), vec![run.to_owned()])).into_iter().collect();
        Action {
            agent: Identity { user: "bot".into(), extra, ..Identity::default() },
            class: ClassName::from("agents"),
            operation,
            verb: "delete".into(),
            resource: Resource {
                group: String::new(),
                version: "v1".into(),
                resource: "pods".into(),
                subresource: None,
            },
            namespace: Some("n".into()),
            name: Some("p".into()),
            labels: BTreeMap::new(),
            previous_labels: None,
            dry_run: false,
            stream: None,
        }
    }

    fn limit(counted: Counted, per: Per, seconds: u64) -> Limit {
        Limit { counted, per, window: Duration::from_secs(seconds) }
    }

    fn used(ledger: &Ledger, action: &Action, limit: Limit, second: i64) -> u32 {
        ledger.usage(action, &[limit], at(second)).of(&limit)
    }

    #[test]
    fn runs_and_agents_are_counted_apart_and_what_is_given_back_does_not_count() {
        let mut ledger = Ledger::new(1);
        let (one, other) = (action(Some("r1"), Operation::Delete), action(Some("r2"), Operation::Update));
        let (_, kept) = ledger.claim(&one, &[], at(0));
        let (_, back) = ledger.claim(&other, &[], at(1));
        ledger.give_back(&back);
        let (_, _second) = ledger.claim(&other, &[], at(2));
        assert_eq!(kept.counted, [Counted::Mutations, Counted::Deletes]);
        assert_eq!(used(&ledger, &one, limit(Counted::Mutations, Per::Run, 60), 3), 1);
        assert_eq!(used(&ledger, &one, limit(Counted::Mutations, Per::Agent, 60), 3), 2);
        assert_eq!(used(&ledger, &other, limit(Counted::Deletes, Per::Run, 60), 3), 0);
    }

    #[test]
    fn without_a_run_an_action_counts_once_for_its_agent() {
        let mut ledger = Ledger::new(1);
        let (_, _claim) = ledger.claim(&action(None, Operation::Delete), &[], at(0));
        assert_eq!(used(&ledger, &action(None, Operation::Delete), limit(Counted::Deletes, Per::Agent, 60), 1), 1);
    }

    #[test]
    fn the_same_refusal_again_counts_again_and_reads_and_dry_runs_are_no_changes() {
        let mut ledger = Ledger::new(1);
        let read = action(Some("r"), Operation::Read);
        let mut dry = action(Some("r"), Operation::Delete);
        dry.dry_run = true;
        for action in [&read, &dry] {
            let (_, claim) = ledger.claim(action, &[], at(0));
            assert!(claim.counted.is_empty());
        }
        ledger.refused(&dry, at(0));
        ledger.refused(&dry, at(1));
        assert_eq!(used(&ledger, &read, limit(Counted::Denies, Per::Run, 60), 2), 2);
    }

    #[test]
    fn replicas_together_never_allow_more_than_the_limit() {
        for (replicas, most) in [(1, 5), (2, 5), (3, 5), (5, 5), (7, 5), (2, 1)] {
            let wanted = limit(Counted::Mutations, Per::Run, 60);
            let mut allowed = 0;
            for _ in 0..replicas {
                let mut ledger = Ledger::new(replicas);
                for second in 0..20 {
                    let (usage, claim) = ledger.claim(&action(Some("r"), Operation::Create), &[wanted], at(second));
                    if usage.of(&wanted) < most { allowed += 1 } else { ledger.give_back(&claim) }
                }
            }
            assert!(allowed <= most, "{allowed} of {most} with {replicas} replicas");
            assert_eq!(allowed, most / replicas * replicas);
        }
    }

    #[test]
    fn being_put_out_forgives_nothing() {
        let mut ledger = Ledger::bounded(1, 4);
        let spent = action(Some("spent"), Operation::Delete);
        for _ in 0..9 {
            let (_, _claim) = ledger.claim(&spent, &[], at(0));
        }
        for number in 0..40 {
            let other = action(Some(&format!("r{number}")), Operation::Delete);
            let (_, _claim) = ledger.claim(&other, &[], at(1 + number));
        }
        assert!(ledger.subjects.len() <= 4);
        let deletes = limit(Counted::Deletes, Per::Run, 600);
        assert!(used(&ledger, &spent, deletes, 50) >= 9);
        assert_eq!(used(&ledger, &spent, deletes, 50 + 700), 0, "until the window is over");
    }

    proptest! {
        #[test]
        fn a_window_never_counts_less_than_the_truth_and_not_much_older(
            times in prop::collection::vec(0i64..100_000, 0..80), window in 60u64..86_400,
        ) {
            let mut times = times;
            times.sort_unstable();
            let mut ledger = Ledger::new(1);
            let action = action(Some("r"), Operation::Update);
            for time in &times {
                let (_, _claim) = ledger.claim(&action, &[], at(*time));
            }
            let now = times.last().copied().unwrap_or(0);
            let seconds = i64::try_from(window).unwrap();
            let within = |reach: i64| u32::try_from(times.iter().filter(|time| **time > now - reach).count()).unwrap();
            let counted = used(&ledger, &action, limit(Counted::Mutations, Per::Run, window), now);
            prop_assert!(counted >= within(seconds));
            prop_assert!(counted <= within(seconds + seconds / 4 + 11));
        }
    }
}
