//! What the counters must never do: count less than the truth, forget too early, or give replicas more than the limit.

use super::*;
use crate::core::action::{EXTRA_RUN, Identity, Operation};
use proptest::prelude::*;
use std::time::Duration;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn action(run: Option<&str>, operation: Operation) -> Action {
    let extra = run.map(|run| (EXTRA_RUN.to_owned(), vec![run.to_owned()])).into_iter().collect();
    Action { agent: Identity { user: "bot".into(), extra, ..Identity::default() }, operation, ..Action::sample() }
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

#[test]
fn who_joins_halves_the_share_at_once_and_who_leaves_is_remembered_for_a_window() {
    let limit = Limit { counted: Counted::Mutations, per: Per::Run, window: Duration::from_secs(600) };
    let change = action(Some("r"), Operation::Create);
    let mut ledger = Ledger::new(1);
    for _ in 0..3 {
        drop(ledger.claim(&change, &[limit], at(0)));
    }
    let used = |ledger: &Ledger, second| ledger.usage(&change, &[limit], at(second)).of(&limit);
    assert_eq!(used(&ledger, 1), 3);
    ledger.replicas(2, at(2));
    // One more would be the fourth of a half share: beyond a limit of seven, within one of eight.
    assert_eq!(used(&ledger, 2), 7);
    ledger.replicas(1, at(3));
    assert_eq!(used(&ledger, 500), 7, "what the other let through still counts");
    drop(ledger.claim(&change, &[limit], at(700)));
    assert_eq!(used(&ledger, 701), 1, "the window is over");
    ledger.replicas(0, at(702));
    assert_eq!(used(&ledger, 703), 1, "there is always one");
}

#[test]
fn a_number_of_replicas_that_changes_all_the_time_is_remembered_by_its_most() {
    let mut ledger = Ledger::new(1);
    for second in 0..10_000_u32 {
        ledger.replicas(if second == 17 { 9 } else { 1 + second % 2 }, at(second.into()));
    }
    assert!(ledger.replicas.len() <= CHANGES);
    assert_eq!(ledger.shared_by(86_400, at(10_000)), 9);
    assert_eq!(ledger.shared_by(10, at(10_000)), 2);
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
