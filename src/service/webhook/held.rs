//! A held action: the approval that fits it, the request that asks for one, and the wait for people.
//!
//! Rungs of the ladder, in order: created suspended where that can be (`suspend.rs`); park and then 429, which clients of
//! Kubernetes repeat by themselves; at once a 429 to come back later, where no place to park is left; a ticket, 403 with
//! how to go on, where the rule says so. Nothing is executed on any but the first, and there nothing runs.

use super::Webhook;
use super::suspend;
use super::verdict::{Case, Step, annotate, denied, status, unavailable};
use crate::core::{
    admission::answer::Answer,
    approval::{Fingerprint, exhibit, normal},
    policy::{Circumstances, Decision, HoldMode, Outcome, PolicySnapshot, decide},
};
use crate::edge::cluster::approvals::{self, Ask, Opened, Settled};
use jiff::Timestamp;
use std::hash::{DefaultHasher, Hash, Hasher};
use tokio::time::Instant;

/// When a call comes back that found no place to wait, in seconds. Ten repeats are two and a half to five minutes, as long
/// as parked calls wait.
const LATER: (u32, u32) = (15, 30);

/// Which approval fits: of this action, starting from this object.
struct Fit {
    fingerprint: Fingerprint,
    basis: Option<String>,
}

impl Case<'_> {
    fn fit(&self) -> Result<Fit, normal::Error> {
        // A suspended object is one by itself: no approval of another one, or of an earlier try, fits it.
        let basis = match &self.suspended {
            Some(suspended) => Some(suspended.asked.uid.clone()),
            None => normal::basis(&self.action, self.review)?,
        };
        Ok(Fit { fingerprint: Fingerprint::of_review(&self.action, self.review)?, basis })
    }
}

impl Webhook {
    /// A held action: only now is its content read, to find the approval that fits it.
    pub(super) async fn held(
        &self,
        case: &Case<'_>,
        snapshot: &PolicySnapshot,
        decision: &Decision,
        deadline: Instant,
    ) -> Step {
        let fit = match case.fit() {
            Ok(fit) => fit,
            Err(error) => return Step::Answer(Answer::bad_request(format!("NOT EXECUTED. {error}"))),
        };
        let approval = self.edges.approvals.current(&fit.fingerprint, fit.basis.as_deref());
        let grants = self.edges.grants.active(&case.action);
        if approval.is_none() && grants.is_empty() {
            return self.hold(case, decision, fit, deadline).await;
        }
        let claimed = self.edges.budgets.claim(&case.action, snapshot);
        let circumstances =
            Circumstances { grants: &grants, usage: claimed.usage(), ..Circumstances::at(Timestamp::now()) };
        let decision = decide(snapshot, &case.facts(), &circumstances.with_approval(approval.as_ref()));
        match &decision.outcome {
            Outcome::Allow(permit) => self.allow(case, permit, &decision, claimed).await,
            Outcome::Deny => Step::Answer(denied(case, &decision, approval.map(|approval| approval.id))),
            Outcome::Hold(_) => {
                drop(claimed);
                self.hold(case, &decision, fit, deadline).await
            }
        }
    }

    async fn hold(&self, case: &Case<'_>, decision: &Decision, fit: Fit, deadline: Instant) -> Step {
        let Outcome::Hold(terms) = &decision.outcome else { return Step::Again };
        if case.suspended.is_some() && terms.mode != HoldMode::Suspended {
            return Step::Answer(suspend::stray(case, decision));
        }
        let exhibit = match exhibit::of_review(&case.action, case.review) {
            Ok(exhibit) => exhibit,
            Err(error) => return Step::Answer(Answer::bad_request(format!("NOT EXECUTED. {error}"))),
        };
        let ask = Ask {
            action: &case.action,
            decision,
            terms: terms.clone(),
            fingerprint: &fit.fingerprint,
            basis: fit.basis,
            exhibit,
            content: case.facts().content,
            suspended: case.suspended.as_ref().map(|suspended| suspended.asked.clone()),
        };
        match Box::pin(self.edges.approvals.request(&ask)).await {
            Ok(opened) => {
                if opened.is_new {
                    tracing::info!(id = %opened.id, agent = %case.action.agent.user, resource = %case.action.resource,
                        target = %case.action.target(), rule = %decision.rule, "held for approval");
                }
                match terms.mode {
                    HoldMode::Suspended if ask.suspended.is_some() => self.suspended(case, decision, (&opened, &ask)),
                    HoldMode::Suspended | HoldMode::Wait => {
                        // Many wait at a time, and what people are shown is in the cluster by now.
                        drop(ask);
                        self.wait(case, decision, &opened, deadline).await
                    }
                    HoldMode::Ticket => Step::Answer(ticket(case, decision, &opened)),
                }
            }
            Err(error @ approvals::Error::TooMany { .. }) => {
                let mut answer =
                    Answer::refuse(status(403, "Forbidden", "KustodyLimit", "", format!("NOT EXECUTED. {error}")));
                annotate(&mut answer, case, decision, "deny", None);
                Step::Answer(answer)
            }
            Err(error) => Step::Answer(unavailable(case, decision, &error)),
        }
    }

    /// Created suspended: counted like everything that is let through.
    fn suspended(&self, case: &Case<'_>, decision: &Decision, (opened, ask): (&Opened, &Ask<'_>)) -> Step {
        // A request that is there already is about another object: somebody uses a mark twice.
        if opened.approval.basis != ask.basis || opened.approval.denial().is_some() {
            return Step::Answer(suspend::stray(case, decision));
        }
        let snapshot = self.edges.snapshot.borrow().clone();
        self.edges.budgets.claim(&case.action, &snapshot).keep();
        Step::Answer(suspend::admitted(case, decision, opened))
    }

    async fn wait(&self, case: &Case<'_>, decision: &Decision, opened: &Opened, deadline: Instant) -> Step {
        let Some(_place) = self.parking.place(&case.action.agent.user) else {
            let later = come_back(case, decision, (opened, later(&case.review.uid)));
            return Step::Answer(later);
        };
        let Outcome::Hold(terms) = &decision.outcome else { return Step::Again };
        let settled = tokio::select! {
            settled = self.edges.approvals.settled(&opened.id, deadline) => settled,
            () = self.edges.grants.covered(&case.action, terms) => Settled::Approved,
            () = self.edges.shutdown.cancelled() => Settled::StillPending,
        };
        match settled {
            Settled::Approved | Settled::Denied { .. } => Step::Again,
            // What is held here is out of date: the client's own repeat brings the object as it is now.
            Settled::StillPending | Settled::Superseded => Step::Answer(come_back(case, decision, (opened, 1))),
            Settled::Expired => {
                let message =
                    format!("NOT EXECUTED. The approval request {} expired before it was approved", opened.id);
                let mut answer = Answer::refuse(status(403, "Forbidden", "KustodyExpired", &opened.id, message));
                annotate(&mut answer, case, decision, "deny", Some(&opened.id));
                Step::Answer(answer)
            }
        }
    }
}

/// Seconds after which a call comes back that found no place to wait: apart from each other, so that they do not all come
/// at once, and long enough that the ten repeats of client-go outlast those who found one.
fn later(review: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    // Fresh at every call.
    review.hash(&mut hasher);
    let [first, ..] = hasher.finish().to_le_bytes();
    LATER.0 + u32::from(first) % (LATER.1 - LATER.0 + 1)
}

/// 429: the client repeats the request by itself after so many seconds, and waits on.
fn come_back(case: &Case<'_>, decision: &Decision, (opened, seconds): (&Opened, u32)) -> Answer {
    let mut answer = Answer::again(&opened.id, seconds, told(decision, opened));
    annotate(&mut answer, case, decision, "hold", Some(&opened.id));
    answer
}

/// 403: the client does not wait; whoever drives it reads how to go on.
fn ticket(case: &Case<'_>, decision: &Decision, opened: &Opened) -> Answer {
    let message = format!("{}. Then repeat the same request; do not try another way", told(decision, opened));
    let mut answer = Answer::refuse(status(403, "Forbidden", "KustodyHold", &opened.id, message));
    annotate(&mut answer, case, decision, "hold", Some(&opened.id));
    answer
}

fn told(decision: &Decision, opened: &Opened) -> String {
    let again = opened
        .approval
        .supersedes
        .as_ref()
        .map(|older| format!("It is held again: {} {} was asked for. ", older.because.as_text(), older.id));
    let group = Some(opened.approval.group.as_str()).filter(|group| !group.is_empty());
    let group = group.map(|group| format!(", or with all of its group: kubectl kustody approve --group {group}"));
    format!(
        "NOT EXECUTED. Held for approval {id} (rule {}: {}). {}A person approves with: kubectl kustody approve {id}{}",
        decision.rule,
        decision.reason,
        again.unwrap_or_default(),
        group.unwrap_or_default(),
        id = opened.id,
    )
}
