//! Decides a request and, where a rule wants people to decide, waits for them.
//!
//! The same decision is asked again after an approval, with the approval; what it uses up is consumed
//! before anything happens. A client that goes away takes its waiting with it: the approval request stays
//! open, and the same request asked again finds it.

use super::status::{DENY, HOLD, Refusal};
use super::{Asked, Gateway, unauthorized};
use crate::core::action::{Action, Identity, Operation};
use crate::core::approval::Fingerprint;
use crate::core::approval::exhibit;
use crate::core::approval::ticket::Ticket;
use crate::core::grant::ActiveGrant;
use crate::core::keys::Secret;
use crate::core::policy::{Circumstances, Content, Decision, Facts, HoldTerms, Outcome, Permit, decide};
use crate::edge::cluster::approvals::{self, Ask, Settled};
use crate::edge::cluster::grants;
use crate::edge::cluster::identity::{self, Reviewer};
use http::StatusCode;
use jiff::Timestamp;
use tokio::time::Instant;

/// After so many rounds of "approved" and "still held" something changes under our feet.
const ROUNDS: usize = 8;

/// Whose token it is.
pub(super) async fn review(reviewer: &Reviewer, token: &Secret<String>) -> Result<Identity, Refusal> {
    reviewer.review(token).await.map_err(|error| match error {
        identity::Error::Unauthenticated { .. } => unauthorized(),
        identity::Error::Unavailable(source) => {
            tracing::warn!(%source, "a token could not be reviewed");
            Refusal::unavailable("the gateway cannot reach the API server; nothing was executed").retry_after(1)
        }
    })
}

impl Gateway {
    /// A permit for exactly this action, after people have agreed where they must.
    pub(super) async fn permit(&self, asked: &Asked, action: &Action) -> Result<(Decision, Permit), Refusal> {
        let fingerprint = Fingerprint::of_stream(action);
        let deadline = Instant::now() + self.config.hold;
        for _ in 0..ROUNDS {
            let (decision, grants) = self.verdict(asked, action, &fingerprint);
            match &decision.outcome {
                Outcome::Allow(permit) => {
                    let permit = permit.clone();
                    if let Some(id) = permit.approval() {
                        self.edges.approvals.consume(id).await.map_err(|error| unusable(asked, &error))?;
                    }
                    let granted = grants.iter().find(|grant| permit.grant() == Some(&grant.name));
                    if let Some(grant) = granted
                        && !self.count_use(asked, grant).await?
                    {
                        continue;
                    }
                    return Ok((decision, permit));
                }
                Outcome::Deny => {
                    self.edges.budgets.refused(action);
                    return Err(denied(&decision));
                }
                Outcome::Hold(terms) => {
                    let ask = to_be_approved(action, &decision, terms, &fingerprint);
                    self.wait(asked, &ask, deadline).await?;
                }
            }
        }
        Err(Refusal::unavailable("the rules change faster than this request can be decided; try again").retry_after(1))
    }

    /// What the rules say now.
    fn verdict(&self, asked: &Asked, action: &Action, fingerprint: &Fingerprint) -> (Decision, Vec<ActiveGrant>) {
        let snapshot = self.edges.policies.borrow().clone();
        let approval = self.edges.approvals.current(fingerprint, None);
        let grants = self.edges.grants.active(action);
        // Looked at only: what passes is counted by the webhook, which meets every change and stream.
        let claimed = self.edges.budgets.claim(action, &snapshot);
        let circumstances =
            Circumstances { grants: &grants, usage: claimed.usage(), ..Circumstances::at(Timestamp::now()) };
        let circumstances = circumstances.with_approval(approval.as_ref());
        let decision = decide(&snapshot, &Facts::bare(action), &circumstances);
        drop(claimed);
        asked.trail.decided(&decision, approval.as_ref());
        tracing::debug!(
            id = %asked.id, verdict = decision.outcome.word(), rule = decision.rule, user = asked.agent.user,
            resource = %action.resource, target = action.target(), "decided"
        );
        (decision, grants)
    }

    /// The decision that holds an action now, and the request that it waits for, opened where there was none.
    pub(super) async fn held(&self, asked: &Asked, action: &Action) -> Result<Option<(Decision, String)>, Refusal> {
        let fingerprint = Fingerprint::of_stream(action);
        let (decision, _) = self.verdict(asked, action, &fingerprint);
        let Outcome::Hold(terms) = &decision.outcome else { return Ok(None) };
        let ask = to_be_approved(action, &decision, terms, &fingerprint);
        let opened = self.edges.approvals.request(&ask).await.map_err(|error| unusable(asked, &error))?;
        asked.trail.held(&opened.id);
        Ok(Some((decision, opened.id)))
    }

    /// Counts one use of a grant; `false` when it ended meanwhile.
    pub(super) async fn count_use(&self, asked: &Asked, grant: &ActiveGrant) -> Result<bool, Refusal> {
        match self.edges.grants.consume(grant).await {
            Ok(()) => Ok(true),
            Err(grants::Error::NotUsable { .. }) => Ok(false),
            Err(error) => {
                tracing::warn!(id = %asked.id, %error, "a grant cannot be used");
                Err(Refusal::unavailable(format!("NOT EXECUTED. {error}; try again")).retry_after(1))
            }
        }
    }

    /// A deny rule that matches without the object denies here; a patch or a put may turn out to create,
    /// so it is denied here only when it would be either way.
    pub(super) fn deny_whatever_the_content(&self, asked: &Asked, action: &Action) -> Result<(), Refusal> {
        let snapshot = self.edges.policies.borrow().clone();
        let circumstances = Circumstances::at(Timestamp::now());
        let decision = decide(&snapshot, &Facts::bare(action), &circumstances);
        if !matches!(decision.outcome, Outcome::Deny) {
            return Ok(());
        }
        if action.operation == Operation::Update {
            let creation = Action { operation: Operation::Create, verb: "create".into(), ..action.clone() };
            if !matches!(decide(&snapshot, &Facts::bare(&creation), &circumstances).outcome, Outcome::Deny) {
                return Ok(());
            }
        }
        tracing::debug!(id = %asked.id, rule = decision.rule, "denied before forwarding");
        asked.trail.decided(&decision, None);
        self.edges.budgets.refused(action);
        Err(denied(&decision))
    }

    /// The gateway's signed word for the webhook that it decided this stream.
    pub(super) fn ticket(&self, asked: &Asked, action: &Action, permit: &Permit) -> Result<String, Refusal> {
        let ticket = Ticket::new(asked.id, action, permit, Timestamp::now());
        ticket.sign(&self.edges.key).map_err(|error| {
            tracing::error!(id = %asked.id, %error, "cannot sign a ticket");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the gateway cannot sign a ticket; nothing was executed")
        })
    }

    /// Parks until people decide; `Ok` means that the decision is to be asked again.
    async fn wait(&self, asked: &Asked, ask: &Ask<'_>, deadline: Instant) -> Result<(), Refusal> {
        let decision = ask.decision;
        let opened = self.edges.approvals.request(ask).await.map_err(|error| unusable(asked, &error))?;
        let id = opened.id;
        asked.trail.held(&id);
        let Ok(_place) = self.parked.try_acquire() else { return Err(waiting(&id, decision)) };
        tracing::info!(request = %asked.id, approval = id, user = asked.agent.user, rule = decision.rule, "held");
        let settled = tokio::select! {
            settled = self.edges.approvals.settled(&id, deadline) => settled,
            () = self.edges.grants.covered(ask.action, &ask.terms) => Settled::Approved,
            () = self.edges.stop.cancelled() => Settled::StillPending,
        };
        match settled {
            Settled::Approved | Settled::Superseded => Ok(()),
            Settled::Denied { by, reason } => {
                let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                Err(Refusal::forbidden(format!("NOT EXECUTED. Denied by {by}{why} (approval request {id})"))
                    .cause(DENY, &id))
            }
            Settled::Expired => Err(Refusal::forbidden(format!(
                "NOT EXECUTED. Approval request {id} ended without a decision (rule {}: {})",
                decision.rule, decision.reason
            ))
            .cause(HOLD, &id)),
            Settled::StillPending => Err(waiting(&id, decision)),
        }
    }
}

fn to_be_approved<'a>(
    action: &'a Action,
    decision: &'a Decision,
    terms: &HoldTerms,
    fingerprint: &'a Fingerprint,
) -> Ask<'a> {
    Ask {
        action,
        decision,
        terms: terms.clone(),
        fingerprint,
        basis: None,
        exhibit: exhibit::of_stream(action),
        content: Content::default(),
        suspended: None,
    }
}

pub(super) fn denied(decision: &Decision) -> Refusal {
    Refusal::forbidden(format!("NOT EXECUTED. Denied by rule {}: {}", decision.rule, decision.reason))
        .cause(DENY, &decision.rule)
}

/// What a client reads that waited long enough. The same request, asked again, goes on waiting.
fn waiting(id: &str, decision: &Decision) -> Refusal {
    Refusal::forbidden(format!(
        "NOT EXECUTED. Held for approval {id} (rule {}: {}). A person approves with: kubectl kustody approve {id}. \
         Then repeat the same request; do not try another way",
        decision.rule, decision.reason
    ))
    .cause(HOLD, id)
}

fn unusable(asked: &Asked, error: &approvals::Error) -> Refusal {
    tracing::warn!(id = %asked.id, %error, "an approval cannot be opened or used");
    match error {
        approvals::Error::Api { .. } | approvals::Error::Busy(_) => {
            Refusal::unavailable(format!("NOT EXECUTED. {error}; try again")).retry_after(1)
        }
        approvals::Error::TooMany { .. } | approvals::Error::NotUsable { .. } => {
            Refusal::forbidden(format!("NOT EXECUTED. {error}"))
        }
    }
}
