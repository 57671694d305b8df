//! The life of an approval: pending, approved or denied, consumed, expired, or superseded by a newer one.
//!
//! The state is never stored as truth: it follows from the decisions, the quorum, the expiry and the
//! consumption, and from the time it is asked at. What `status.state` shows is a copy for people.

use super::Fingerprint;
use crate::core::policy::HoldTerms;
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
    /// The run it was asked in.
    pub run: Option<String>,
    /// The group it is shown in.
    pub group: String,
    /// How many different people must approve.
    pub quorum: u32,
    /// Lists of groups: the API server lets only members of a group of every list decide.
    pub approvers: Vec<Vec<String>>,
    /// Digest of the object it starts from, see [`super::normal::basis`].
    pub basis: Option<String>,
    /// What people said, in order.
    pub votes: Vec<Vote>,
    /// When it was asked for.
    pub opened_at: Timestamp,
    /// When it stops being of use, decided or not.
    pub expires_at: Timestamp,
    /// When it was used.
    pub consumed_at: Option<Timestamp>,
    /// True when a newer request took its place.
    pub is_superseded: bool,
    /// The older request whose place it took.
    pub supersedes: Option<Supersedes>,
    /// True for streams, of which the API server never repeats one by itself, and for objects created suspended, which
    /// are freed once: no window after its use.
    pub is_single_shot: bool,
    /// True while an object that was created suspended is neither freed nor told that it stays so.
    pub awaits_release: bool,
}

/// Which request a newer one takes the place of, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Supersedes {
    /// Name of the older ApprovalRequest.
    #[schemars(length(max = 63))]
    pub id: String,
    /// Why it does not fit any more.
    pub because: Because,
}

/// Why an approval request does not fit any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Because {
    /// The object is not the one that people were shown.
    ObjectChanged,
    /// The rules ask for more people, or for others.
    RulesChanged,
}

impl Because {
    /// For the middle of a sentence.
    #[must_use]
    pub fn as_text(self) -> &'static str {
        match self {
            Self::ObjectChanged => "the object changed since",
            Self::RulesChanged => "the rules ask for more since",
        }
    }
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
    /// A newer request took its place: the object changed, or the rule asks for more.
    Superseded,
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
            Self::Superseded => "Superseded",
        }
    }
}

impl Approval {
    /// Where it stands at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        if self.consumed_at.is_some() {
            State::Consumed
        } else if self.is_superseded {
            State::Superseded
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

    /// Whether it lets its action through at `now`, for rules that hold on these terms.
    #[must_use]
    pub fn covers(&self, terms: &HoldTerms, now: Timestamp) -> bool {
        self.satisfies(terms) && self.is_usable(now) && self.is_approved_by(terms.quorum)
    }

    /// Whether it was asked on terms that are at least as strict.
    #[must_use]
    pub fn satisfies(&self, terms: &HoldTerms) -> bool {
        self.quorum >= terms.quorum && terms.approvers.iter().all(|groups| self.approvers.contains(groups))
    }

    /// Whether it may be used at `now`, by the terms it was asked on.
    #[must_use]
    pub fn is_usable(&self, now: Timestamp) -> bool {
        let in_time = match self.consumed_at {
            Some(at) => self.is_within_window(at, now),
            None => now < self.expires_at && !self.is_superseded,
        };
        in_time && self.denial().is_none() && self.is_approved_by(self.quorum)
    }

    /// Whether the same action needs a new request: used up, expired, or superseded.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        match self.consumed_at {
            Some(at) => !self.is_within_window(at, now),
            None => now >= self.expires_at || self.is_superseded,
        }
    }

    /// When it ended, for one that is over.
    #[must_use]
    pub fn ended_at(&self, now: Timestamp) -> Timestamp {
        self.consumed_at.unwrap_or(self.expires_at).min(now)
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
    use crate::core::policy::HoldMode;

    fn approval(votes: &[(&str, Choice)]) -> Approval {
        Approval {
            id: "apr-1".into(),
            fingerprint: Fingerprint::of_bytes(b"x"),
            requester: "agent".into(),
            run: None,
            group: "grp-1".into(),
            quorum: 1,
            approvers: Vec::new(),
            basis: None,
            votes: votes
                .iter()
                .map(|(by, verdict)| Vote { by: (*by).into(), verdict: *verdict, reason: None })
                .collect(),
            opened_at: at(0),
            expires_at: at(100),
            consumed_at: None,
            is_superseded: false,
            supersedes: None,
            is_single_shot: false,
            awaits_release: false,
        }
    }

    #[test]
    fn a_stream_uses_its_approval_up_at_once() {
        let mut used = approval(&[("anna", Choice::Approve)]);
        used.is_single_shot = true;
        used.consumed_at = Some(at(10));
        assert!(!used.covers(&quorum(1), at(10)) && used.is_over(at(10)));
    }

    fn quorum(quorum: u32) -> HoldTerms {
        HoldTerms {
            quorum,
            expires_after: Duration::from_secs(60),
            approvers: Vec::new(),
            mode: HoldMode::default(),
            grantable: true,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn one_approval_is_enough_for_a_quorum_of_one_and_ends_with_the_expiry() {
        let approval = approval(&[("anna", Choice::Approve)]);
        assert_eq!(approval.state(at(50)), State::Approved);
        assert_eq!(approval.state(at(100)), State::Expired);
        assert!(!approval.covers(&quorum(1), at(100)));
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
        assert!(!approval(&[("anna", Choice::Approve)]).covers(&quorum(2), at(1)));
    }

    #[test]
    fn a_rule_that_names_approvers_later_is_not_met_by_an_approval_asked_without_them() {
        let mut approved = approval(&[("anna", Choice::Approve)]);
        let terms = HoldTerms { approvers: vec![vec!["security".into()]], ..quorum(1) };
        assert!(!approved.covers(&terms, at(1)));
        approved.approvers = vec![vec!["sre".into()], vec!["security".into()]];
        assert!(approved.covers(&terms, at(1)) && approved.covers(&quorum(1), at(1)));
    }

    #[test]
    fn a_superseded_approval_is_of_no_use() {
        let mut approved = approval(&[("anna", Choice::Approve)]);
        approved.is_superseded = true;
        assert_eq!(approved.state(at(1)), State::Superseded);
        assert!(!approved.is_usable(at(1)) && approved.is_over(at(1)));
    }

    #[test]
    fn a_denial_wins_over_approvals_and_stays_in_force_until_the_expiry() {
        let denied = approval(&[("anna", Choice::Approve), ("bert", Choice::Deny)]);
        assert_eq!(denied.state(at(99)), State::Denied);
        assert!(!denied.covers(&quorum(1), at(99)) && !denied.is_over(at(99)) && denied.is_over(at(100)));
    }

    #[test]
    fn a_consumed_approval_covers_the_repeats_of_its_request_and_nothing_later() {
        let mut used = approval(&[("anna", Choice::Approve)]);
        used.consumed_at = Some(at(10));
        assert!(used.covers(&quorum(1), at(69)) && !used.is_over(at(69)));
        assert!(!used.covers(&quorum(1), at(70)) && used.is_over(at(70)));
        assert_eq!(used.state(at(11)), State::Consumed);
    }
}
