//! What the answer to a review is: rules, ticket, approval, and the wait for people.
//!
//! Order matters: a decision that needs an approval uses it up *before* the answer says allowed; when that
//! fails the answer is no. After a wait the rules are asked again, with the approval as it then stands.

use super::Webhook;
use super::suspend::{self, Suspension};
use crate::core::{
    action::{Action, EXTRA_TICKET},
    admission::{
        answer::{Answer, Cause, Details, Status},
        review::Request as Review,
        subject,
    },
    approval::ticket::Ticket,
    audit::Decided,
    policy::{Circumstances, Class, Content, Decision, Facts, Outcome, Permit, decide},
};
use crate::edge::{budgets::Claimed, cluster::approvals};
use jiff::Timestamp;
use tokio::time::Instant;

/// How often one call is decided: once, again after the wait, and again when somebody was faster.
const ROUNDS: usize = 4;

/// The answer to an agent's review, and what the review is about.
pub(super) struct Verdict {
    pub(super) answer: Answer,
    /// `None` when the review could not be understood.
    pub(super) action: Option<Action>,
}

/// One agent's review, made ready.
pub(super) struct Case<'a> {
    pub(super) review: &'a Review<'a>,
    pub(super) action: Action,
    /// The gateway's word, when this is a stream it brought.
    ticket: Option<Ticket>,
    /// The mark it comes with, when it is a new object that was suspended on its way here.
    pub(super) suspended: Option<Suspension>,
}

impl Case<'_> {
    /// Of a suspended object its author's version: whether it is held must not depend on its being held.
    pub(super) fn facts(&self) -> Facts<'_> {
        let of_review = Content::of_review(self.review);
        let author = self.suspended.as_ref().map(|suspended| suspended.author.as_ref());
        Facts { action: &self.action, content: Content { object: author.or(of_review.object), ..of_review } }
    }
}

/// What one round came to.
pub(super) enum Step {
    Answer(Answer),
    Again,
}

impl Webhook {
    /// The answer to an agent's review; `None` for everybody else.
    pub(super) async fn verdict(&self, review: &Review<'_>, deadline: Instant) -> Option<Verdict> {
        let identity = review.identity();
        let snapshot = self.edges.snapshot.borrow().clone();
        let class = snapshot.classify(&identity)?;
        if let Err(error) = review.check() {
            return Some(Verdict { answer: Answer::bad_request(format!("NOT EXECUTED. {error}")), action: None });
        }
        let action = match subject::action_of(identity, review, class.name().clone()) {
            Ok(action) => action,
            Err(error) => {
                return Some(Verdict { answer: Answer::bad_request(format!("NOT EXECUTED. {error}")), action: None });
            }
        };
        let brought = self.ticket(&action, class).and_then(|ticket| Ok((ticket, suspend::read(&action, review)?)));
        let answer = match brought {
            Ok((ticket, suspended)) => {
                let case = Case { review, action, ticket, suspended };
                let answer = self.rounds(&case, deadline).await;
                if is_refusal(&answer) {
                    self.edges.budgets.refused(&case.action);
                }
                return Some(Verdict { answer, action: Some(case.action) });
            }
            Err(answer) => *answer,
        };
        self.edges.budgets.refused(&action);
        Some(Verdict { answer, action: Some(action) })
    }

    async fn rounds(&self, case: &Case<'_>, deadline: Instant) -> Answer {
        for _ in 0..ROUNDS {
            if let Step::Answer(answer) = self.round(case, deadline).await {
                return answer;
            }
        }
        Answer::again("", 1, "NOT EXECUTED. The approval changes too often: repeat the request".to_owned())
    }

    /// The gateway's word for a stream; one without it ends here.
    fn ticket(&self, action: &Action, class: &Class) -> Result<Option<Ticket>, Box<Answer>> {
        if action.stream.is_none() {
            return Ok(None);
        }
        let why = match action.agent.extra(EXTRA_TICKET) {
            Some(text) => match Ticket::verify(text, &self.edges.tickets, action, Timestamp::now()) {
                Ok(ticket) => return Ok(Some(ticket)),
                Err(error) => error.to_string(),
            },
            None => "it came directly".to_owned(),
        };
        if !class.streams_need_gateway() {
            return Ok(None);
        }
        tracing::warn!(agent = %action.agent.user, resource = %action.resource, target = %action.target(), %why,
            "a stream came around the gateway");
        let message = format!(
            "NOT EXECUTED. {} by an agent goes through the Kustody gateway at {}, which records it ({why}). \
             Point the kubeconfig at the gateway and repeat the command",
            action.resource.path(),
            self.config.gateway_url,
        );
        let mut answer = Answer::forbid(message);
        answer.audit_annotations.insert("action".to_owned(), in_short(action));
        answer.audit_annotations.insert("decision".to_owned(), "deny".to_owned());
        answer.audit_annotations.insert("rule".to_owned(), "built-in/gateway-only".to_owned());
        Err(Box::new(answer))
    }

    async fn round(&self, case: &Case<'_>, deadline: Instant) -> Step {
        let snapshot = self.edges.snapshot.borrow().clone();
        let claimed = self.edges.budgets.claim(&case.action, &snapshot);
        let circumstances = Circumstances { usage: claimed.usage(), ..Circumstances::at(Timestamp::now()) };
        let decision = decide(&snapshot, &case.facts(), &circumstances);
        match &decision.outcome {
            Outcome::Allow(permit) => self.allow(case, permit, &decision, claimed).await,
            Outcome::Deny => Step::Answer(denied(case, &decision, None)),
            // The gateway waited for people and used the approval up before it signed the ticket.
            Outcome::Hold(_) if case.ticket.is_some() => {
                let mut answer = Answer::allow();
                annotate(&mut answer, case, &decision, "allow", None);
                claimed.keep();
                Step::Answer(answer)
            }
            Outcome::Hold(_) => {
                drop(claimed);
                // Kept apart: what is not held, which is most, does not pay for its size.
                Box::pin(self.held(case, &snapshot, &decision, deadline)).await
            }
        }
    }

    /// Uses the approval or the grant up, when one was needed, and only then allows.
    pub(super) async fn allow(&self, case: &Case<'_>, permit: &Permit, decision: &Decision, claimed: Claimed) -> Step {
        if case.suspended.is_some() {
            return Step::Answer(suspend::stray(case, decision));
        }
        if let Some(id) = permit.approval() {
            match Box::pin(self.edges.approvals.consume(id)).await {
                Ok(()) => {}
                Err(approvals::Error::NotUsable { .. }) => return Step::Again,
                Err(error) => return Step::Answer(unavailable(case, decision, &error)),
            }
        }
        if let Some(name) = permit.grant()
            && let Err(step) = Box::pin(self.count_use(case, decision, name)).await
        {
            return *step;
        }
        if let Err(step) = self.admit_request(case, decision) {
            return *step;
        }
        let mut answer = Answer::allow();
        answer.warnings.clone_from(&decision.warnings);
        annotate(&mut answer, case, decision, "allow", permit.approval());
        if let Some(name) = permit.grant() {
            answer.audit_annotations.insert("grant".to_owned(), name.to_owned());
        }
        claimed.keep();
        Step::Answer(answer)
    }
}

/// Whether a rule or a person said no; what is held, or could not be decided, is none.
fn is_refusal(answer: &Answer) -> bool {
    let by_rule = |cause: &Cause| cause.reason == "KustodyDeny";
    let details = answer.status.as_ref().and_then(|status| status.details.as_ref());
    details.is_some_and(|details| details.causes.iter().any(by_rule))
}

pub(super) fn denied(case: &Case<'_>, decision: &Decision, id: Option<String>) -> Answer {
    let message =
        format!("NOT EXECUTED. Refused by rule {} of policy {}: {}", decision.rule, decision.policy, decision.reason);
    let mut answer =
        Answer::refuse(status(403, "Forbidden", "KustodyDeny", id.as_deref().unwrap_or_default(), message));
    answer.warnings.clone_from(&decision.warnings);
    annotate(&mut answer, case, decision, "deny", id.as_deref());
    answer
}

/// The approval could not be opened or used up: nothing is allowed on a guess.
pub(super) fn unavailable(case: &Case<'_>, decision: &Decision, error: &approvals::Error) -> Answer {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!(%error, %cause, agent = %case.action.agent.user, "an approval could not be handled");
    let message = format!("NOT EXECUTED. {error}: repeat the request later");
    let mut answer = Answer::refuse(status(503, "ServiceUnavailable", "KustodyUnavailable", "", message));
    annotate(&mut answer, case, decision, "deny", None);
    answer
}

pub(super) fn status(code: u16, reason: &'static str, cause: &'static str, id: &str, message: String) -> Status {
    let cause = Cause { reason: cause, field: id.to_owned(), message: message.clone() };
    Status { code, reason, message, details: Some(Details { causes: vec![cause], retry_after_seconds: None }) }
}

pub(super) fn annotate(answer: &mut Answer, case: &Case<'_>, decision: &Decision, word: &str, approval: Option<&str>) {
    let mut add = |key: &str, value: String| drop(answer.audit_annotations.insert(key.to_owned(), value));
    add("action", in_short(&case.action));
    add("decision", word.to_owned());
    add("decision-id", decision.id.to_string());
    add("rule", format!("{}/{}", decision.policy, decision.rule));
    if let Some(id) = approval {
        add("approval", id.to_owned());
    }
    if let Some(ticket) = &case.ticket {
        add("request", ticket.request.to_string());
    }
    answer.decided = Some(Box::new(Decided::of(decision).told(word, approval)));
}

/// `UPDATE apps/v1/deployments/scale shop/web`.
fn in_short(action: &Action) -> String {
    let dry_run = if action.dry_run { " (dry run)" } else { "" };
    format!("{} {} {}{dry_run}", action.operation, action.resource, action.target())
}
