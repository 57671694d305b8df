//! The life of an approval: pending, approved or denied, consumed, expired.
//!
//! The state is never stored as truth: it follows from the decisions, the quorum, the expiry and the
//! consumption, and from the time it is asked at. What `status.state` shows is a copy for people.

use super::Fingerprint;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// How long a consumed approval still covers the repeats of one user request: updates run again on conflict,
/// creations with a generated name up to eight times, and each is a review of its own.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(60);

/// One approval request as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Name of the ApprovalRequest.
    pub id: String,
    /// The one action it fits.
    pub fingerprint: Fingerprint,
    /// User name of the agent.
    pub requester: String,
    /// How many different people must approve.
    pub quorum: u32,
    /// What people said, in order.
    pub votes: Vec<Vote>,
    /// When it stops being of use, decided or not.
    pub expires_at: Timestamp,
    /// When it was used.
    pub consumed_at: Option<Timestamp>,
    /// True for streams, of which the API server never repeats one by itself: no window after its use.
    pub is_single_shot: bool,
}

/// What one person said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vote {
    /// Their Kubernetes user name; the API server checks that it is theirs.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
    /// Yes or no.
    pub verdict: Choice,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Choice {
    /// Yes.
    Approve,
    /// No; one is enough.
    Deny,
}

/// Where an approval stands at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Nobody, or not everybody, has decided.
    Pending,
    /// May be used once.
    Approved,
    /// In force until it expires, so that repeating the request does not ask again.
    Denied,
    /// Was used.
    Consumed,
    /// Too late.
    Expired,
}

impl State {
    /// The word shown in `status.state`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Approved => "Approved",
            Self::Denied => "Denied",
            Self::Consumed => "Consumed",
            Self::Expired => "Expired",
        }
    }
}

impl Approval {
    /// Where it stands at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        if self.consumed_at.is_some() {
            State::Consumed
        } else if now >= self.expires_at {
            State::Expired
        } else if self.denial().is_some() {
            State::Denied
        } else if self.is_approved_by(self.quorum) {
            State::Approved
        } else {
            State::Pending
        }
    }

    /// The first denial.
    #[must_use]
    pub fn denial(&self) -> Option<&Vote> {
        self.votes.iter().find(|vote| vote.verdict == Choice::Deny)
    }

    /// Everybody who approved, once each, the requester never.
    #[must_use]
    pub fn approvers(&self) -> BTreeSet<&str> {
        self.votes
            .iter()
            .filter(|vote| vote.verdict == Choice::Approve && vote.by != self.requester)
            .map(|vote| vote.by.as_str())
            .collect()
    }

    /// Whether it lets its action through at `now`, for a rule that asks for `quorum` people.
    #[must_use]
    pub fn covers(&self, quorum: u32, now: Timestamp) -> bool {
        let in_time = match self.consumed_at {
            Some(at) => self.is_within_window(at, now),
            None => now < self.expires_at,
        };
        in_time && self.denial().is_none() && self.is_approved_by(quorum.max(self.quorum))
    }

    /// Whether the same action needs a new request: used up, or expired.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        match self.consumed_at {
            Some(at) => !self.is_within_window(at, now),
            None => now >= self.expires_at,
        }
    }

    /// True from `at` (or a little before: the clocks of replicas differ) until the window is over.
    fn is_within_window(&self, at: Timestamp, now: Timestamp) -> bool {
        !self.is_single_shot && Duration::try_from(now.duration_since(at)).map_or(true, |age| age < IDEMPOTENCY_WINDOW)
    }

    fn is_approved_by(&self, quorum: u32) -> bool {
        u32::try_from(self.approvers().len()).unwrap_or(u32::MAX) >= quorum.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(votes: &[(&str, Choice)]) -> Approval {
        Approval {
            id: "apr-1".into(),
            fingerprint: Fingerprint::of_bytes(b"x"),
            requester: "agent".into(),
            quorum: 1,
            votes: votes
                .iter()
                .map(|(by, verdict)| Vote { by: (*by).into(), verdict: *verdict, reason: None })
                .collect(),
            expires_at: at(100),
            consumed_at: None,
            is_single_shot: false,
        }
    }

    #[test]
    fn a_stream_uses_its_approval_up_at_once() {
        let mut used = approval(&[("anna", Choice::Approve)]);
        used.is_single_shot = true;
        used.consumed_at = Some(at(10));
        assert!(!used.covers(1, at(10)) && used.is_over(at(10)));
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn one_approval_is_enough_for_a_quorum_of_one_and_ends_with_the_expiry() {
        let approval = approval(&[("anna", Choice::Approve)]);
        assert_eq!(approval.state(at(50)), State::Approved);
        assert_eq!(approval.state(at(100)), State::Expired);
        assert!(!approval.covers(1, at(100)));
    }

    #[test]
    fn a_requester_or_a_repeated_person_never_fills_the_quorum() {
        assert_eq!(approval(&[("agent", Choice::Approve)]).state(at(1)), State::Pending);
        let mut two = approval(&[("anna", Choice::Approve), ("anna", Choice::Approve)]);
        two.quorum = 2;
        assert_eq!(two.state(at(1)), State::Pending);
        two.votes.push(Vote { by: "bert".into(), verdict: Choice::Approve, reason: None });
        assert_eq!(two.state(at(1)), State::Approved);
    }

    #[test]
    fn a_stricter_rule_than_at_the_time_of_asking_needs_its_own_quorum() {
        assert!(!approval(&[("anna", Choice::Approve)]).covers(2, at(1)));
    }

    #[test]
    fn a_denial_wins_over_approvals_and_stays_in_force_until_the_expiry() {
        let denied = approval(&[("anna", Choice::Approve), ("bert", Choice::Deny)]);
        assert_eq!(denied.state(at(99)), State::Denied);
        assert!(!denied.covers(1, at(99)) && !denied.is_over(at(99)) && denied.is_over(at(100)));
    }

    #[test]
    fn a_consumed_approval_covers_the_repeats_of_its_request_and_nothing_later() {
        let mut used = approval(&[("anna", Choice::Approve)]);
        used.consumed_at = Some(at(10));
        assert!(used.covers(1, at(69)) && !used.is_over(at(69)));
        assert!(!used.covers(1, at(70)) && used.is_over(at(70)));
        assert_eq!(used.state(at(11)), State::Consumed);
    }
}
