//! The life of a grant: requested or given, active, then expired, exhausted, revoked or denied.
//!
//! As with approvals the state is never stored as truth: it follows from the decisions, the uses and the time it is
//! asked at. A denial of a grant in force takes it back, for good.

use super::document::{GrantSpec, Origin};
use crate::core::approval::{Choice, Vote};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// One grant as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Name of the object.
    pub id: String,
    /// Its uid: a grant of the same name made later is another one.
    pub uid: String,
    /// What was written.
    pub spec: GrantSpec,
    /// When it was written.
    pub created_at: Timestamp,
    /// What people said, in order.
    pub votes: Vec<Vote>,
    /// How many requests it has let through.
    pub uses: u32,
}

/// Where a grant stands at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Asked for; nobody, or not everybody, has decided.
    Requested,
    /// In force.
    Active,
    /// Its time is over, decided or not.
    Expired,
    /// Used as often as it could be.
    Exhausted,
    /// Taken back while it was in force.
    Revoked,
    /// Refused.
    Denied,
}

impl State {
    /// The word shown in `status.state`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "Requested",
            Self::Active => "Active",
            Self::Expired => "Expired",
            Self::Exhausted => "Exhausted",
            Self::Revoked => "Revoked",
            Self::Denied => "Denied",
        }
    }

    /// Whether nothing more can come of it.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Requested | Self::Active)
    }
}

impl Grant {
    /// Where it stands at `now`. Grants end after `longest` even when they say later; votes of agents count for
    /// nothing.
    #[must_use]
    pub fn state(&self, longest: Duration, is_agent: &dyn Fn(&str) -> bool, now: Timestamp) -> State {
        let denied_at = self.votes.iter().position(|vote| vote.verdict == Choice::Deny);
        let before = self.votes.get(..denied_at.unwrap_or(self.votes.len())).unwrap_or_default();
        let agreed = self.agreed(before, is_agent);
        match denied_at {
            Some(_) if agreed => State::Revoked,
            Some(_) => State::Denied,
            None if agreed && self.uses >= self.spec.max_uses => State::Exhausted,
            None if now >= self.end(longest) => State::Expired,
            None if agreed => State::Active,
            None => State::Requested,
        }
    }

    /// When it ends.
    #[must_use]
    pub fn end(&self, longest: Duration) -> Timestamp {
        let latest = self.created_at.checked_add(longest).unwrap_or(self.created_at);
        self.spec.until.min(latest)
    }

    /// Everybody who stands behind it, once each: who approved, and who gave it; whoever asked for it never.
    #[must_use]
    pub fn people<'a>(&'a self, is_agent: &dyn Fn(&str) -> bool) -> BTreeSet<&'a str> {
        self.behind(&self.votes, is_agent)
    }

    /// The first denial.
    #[must_use]
    pub fn denial(&self) -> Option<&Vote> {
        self.votes.iter().find(|vote| vote.verdict == Choice::Deny)
    }

    fn agreed(&self, votes: &[Vote], is_agent: &dyn Fn(&str) -> bool) -> bool {
        u32::try_from(self.behind(votes, is_agent).len()).unwrap_or(u32::MAX) >= self.spec.quorum.max(1)
    }

    fn behind<'a>(&'a self, votes: &'a [Vote], is_agent: &dyn Fn(&str) -> bool) -> BTreeSet<&'a str> {
        let requester = self.spec.requester.as_str();
        let approvers =
            votes.iter().filter(|vote| vote.verdict == Choice::Approve && vote.by != requester).map(|vote| &*vote.by);
        let giver = (self.spec.origin == Origin::Given).then_some(requester);
        approvers.chain(giver).filter(|user| !is_agent(user) && self.spec.agent.as_deref() != Some(*user)).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::action::Operation;
    use crate::core::grant::AllowedAction;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    pub(in crate::core) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Ends at second 100; two uses.
    pub(in crate::core) fn grant(origin: Origin, votes: &[(&str, Choice)]) -> Grant {
        Grant {
            id: "g".into(),
            uid: "u".into(),
            spec: GrantSpec {
                requester: if origin == Origin::Given { "anna" } else { "bot" }.into(),
                origin,
                class: "agents".into(),
                agent: Some("bot".into()),
                actions: vec![AllowedAction {
                    operations: vec![Operation::Delete],
                    api_groups: vec!["apps".into()],
                    resources: vec!["deployments".into()],
                }],
                namespaces: vec!["shop".into()],
                names: Vec::new(),
                until: at(100),
                max_uses: 2,
                quorum: 1,
                reason: "release".into(),
                role_binding: None,
            },
            created_at: at(0),
            votes: votes.iter().map(|(by, verdict)| Vote { verdict: *verdict, ..vote(by) }).collect(),
            uses: 0,
        }
    }

    fn vote(by: &str) -> Vote {
        serde_json::from_value(serde_json::json!({"by": by, "verdict": "Approve"})).unwrap()
    }

    fn state(grant: &Grant, second: i64) -> State {
        grant.state(DAY, &|user| user.starts_with("bot"), at(second))
    }

    #[test]
    fn a_request_is_in_force_once_a_person_approved_and_until_its_end() {
        assert_eq!(state(&grant(Origin::Requested, &[]), 1), State::Requested);
        let approved = grant(Origin::Requested, &[("anna", Choice::Approve)]);
        assert_eq!((state(&approved, 99), state(&approved, 100)), (State::Active, State::Expired));
    }

    #[test]
    fn neither_the_requester_nor_another_agent_nor_its_beneficiary_counts() {
        for who in ["bot", "bot-2"] {
            assert_eq!(state(&grant(Origin::Requested, &[(who, Choice::Approve)]), 1), State::Requested, "{who}");
        }
        let mut own = grant(Origin::Given, &[]);
        own.spec.agent = Some("anna".into());
        assert_eq!(state(&own, 1), State::Requested, "nobody gives a grant to themself");
    }

    #[test]
    fn a_given_grant_is_in_force_at_once_but_a_larger_quorum_needs_more_people() {
        let mut given = grant(Origin::Given, &[]);
        assert_eq!(state(&given, 1), State::Active);
        given.spec.quorum = 2;
        assert_eq!(state(&given, 1), State::Requested);
        given.votes.push(vote("bert"));
        assert_eq!(state(&given, 1), State::Active);
    }

    #[test]
    fn a_denial_refuses_a_request_and_revokes_what_is_in_force_and_stays() {
        assert_eq!(state(&grant(Origin::Requested, &[("anna", Choice::Deny)]), 1), State::Denied);
        let revoked = grant(Origin::Requested, &[("anna", Choice::Approve), ("bert", Choice::Deny)]);
        assert_eq!((state(&revoked, 1), state(&revoked, 1000)), (State::Revoked, State::Revoked));
        let late = grant(Origin::Requested, &[("anna", Choice::Deny), ("bert", Choice::Approve)]);
        assert_eq!(state(&late, 1), State::Denied);
    }

    #[test]
    fn a_grant_used_up_is_exhausted_and_no_grant_outlives_the_longest_time() {
        let mut used = grant(Origin::Given, &[]);
        used.uses = 2;
        assert_eq!(state(&used, 1), State::Exhausted);
        let long = grant(Origin::Given, &[]);
        assert_eq!(long.state(Duration::from_secs(10), &|_| false, at(10)), State::Expired);
    }

    proptest! {
        #[test]
        fn in_force_means_enough_people_no_denial_time_and_uses_left(
            given in any::<bool>(), quorum in 1u32..4, uses in 0u32..4, second in 0i64..200,
            votes in prop::collection::vec((prop::sample::select(vec!["anna", "bert", "cleo", "bot", "bot-2"]), any::<bool>()), 0..6),
        ) {
            let origin = if given { Origin::Given } else { Origin::Requested };
            let votes: Vec<_> = votes.iter().map(|(by, yes)| (*by, if *yes { Choice::Approve } else { Choice::Deny })).collect();
            let mut grant = grant(origin, &votes);
            (grant.spec.quorum, grant.uses) = (quorum, uses);
            let people: BTreeSet<&str> = votes.iter().filter(|(by, choice)| *choice == Choice::Approve
                && !by.starts_with("bot") && (!given || *by != "anna")).map(|(by, _)| *by)
                .chain(given.then_some("anna")).collect();
            let in_force = people.len() >= quorum as usize && votes.iter().all(|(_, choice)| *choice == Choice::Approve)
                && second < 100 && uses < 2;
            prop_assert_eq!(state(&grant, second) == State::Active, in_force);
        }

        #[test]
        fn what_is_over_never_comes_back(
            first in 0i64..200, later in 0i64..200, uses in 0u32..3, more in 0u32..3,
            votes in prop::collection::vec((prop::sample::select(vec!["anna", "bert"]), any::<bool>()), 0..3),
        ) {
            let votes: Vec<_> = votes.iter().map(|(by, yes)| (*by, if *yes { Choice::Approve } else { Choice::Deny })).collect();
            let mut grant = grant(Origin::Requested, &votes);
            grant.uses = uses;
            let before = state(&grant, first);
            // Time passes and uses grow; after an end nobody is asked any more.
            grant.uses += more;
            let after = state(&grant, first.max(later));
            prop_assert!(!before.is_over() || after.is_over());
            prop_assert!(before != State::Expired || after != State::Active);
        }
    }
}
