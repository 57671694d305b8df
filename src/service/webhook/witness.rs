//! The one place where an answer to an agent is written down, before it leaves.
//!
//! An answer that cannot be written down is a refusal, whatever it was: what was decided and cannot be shown later is
//! not let through. The entry's id goes into the audit event of the API server, so that the two find each other.

use super::{Webhook, verdict::Verdict};
use crate::core::{
    admission::{
        answer::{Answer, Cause, Details, Status},
        review::Request as Review,
    },
    audit::{Decided, Effect, Entry, Kind, Text, entry::Seen},
};
use crate::edge::store::wal;
use tokio::time::Instant;

impl Webhook {
    /// Writes down what an agent is about to be answered. Nothing of the review is held while the log is written.
    pub(super) fn witnessed<'a>(
        &'a self,
        review: &Review<'_>,
        verdict: Verdict,
        arrived: Instant,
    ) -> impl Future<Output = Answer> + Send + use<'a> {
        let Verdict { answer, action } = verdict;
        let stamp = self.edges.log.stamp(arrived.elapsed());
        let mut entry = Entry::blank(Kind::Review, effect(&answer), &stamp).seen(Seen::Admission, &review.uid);
        entry = match &action {
            Some(action) => entry.about(action).changing(action, review),
            None => entry.asked_by(&review.identity()),
        };
        if let Some(request) = answer.audit_annotations.get("request") {
            entry = entry.seen(Seen::Gateway, request);
        }
        self.written(entry, answer)
    }

    /// Writes down the refusal of a review that could not be read.
    pub(super) fn witnessed_unread<'a>(
        &'a self,
        uid: &str,
        answer: Answer,
        arrived: Instant,
    ) -> impl Future<Output = Answer> + Send + use<'a> {
        let stamp = self.edges.log.stamp(arrived.elapsed());
        self.written(Entry::blank(Kind::Review, Effect::Refused, &stamp).seen(Seen::Admission, uid), answer)
    }

    fn written(&self, mut entry: Entry, mut answer: Answer) -> impl Future<Output = Answer> + Send + use<'_> {
        entry.authenticated = self.config.caller_is_proved;
        entry.status = answer.status.as_ref().map(|status| status.code);
        let told = answer.status.as_ref().map(|status| &status.message);
        entry.note = told.or_else(|| answer.audit_annotations.get("suspended")).map(Text::short);
        entry = entry.decided(answer.decided.take().map_or_else(|| undecided(&answer), |decided| Some(*decided)));
        if let Some(decided) = &mut entry.decision
            && let Some(approval) = decided.approval.as_ref().and_then(Text::as_str)
            && let Some(approval) = self.edges.approvals.find(approval)
        {
            decided.voted(&approval);
        }
        let writing = self.edges.log.append(&entry);
        let agent = entry.principal.agent.user;
        async move {
            match writing.await {
                Ok(id) => {
                    drop(answer.audit_annotations.insert("log-entry".to_owned(), id.to_string()));
                    answer
                }
                Err(error) => unwritten(&agent, &error),
            }
        }
    }
}

fn effect(answer: &Answer) -> Effect {
    match &answer.status {
        None => Effect::Admitted,
        Some(status) if status.code == 429 => Effect::Waiting,
        Some(_) => Effect::Refused,
    }
}

/// A refusal that no rule decided, by the words of its annotation or its status.
fn undecided(answer: &Answer) -> Option<Decided> {
    let status = answer.status.as_ref()?;
    let rule = answer.audit_annotations.get("rule").and_then(|rule| rule.strip_prefix("built-in/"));
    let rule = rule.unwrap_or(match status.code {
        400 => "malformed",
        429 => "too-many",
        _ => "unavailable",
    });
    Some(Decided::built_in(rule, &status.message))
}

/// What is answered when it cannot be written down: nothing was executed, and trying again may help.
fn unwritten(agent: &Text, error: &wal::Error) -> Answer {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!(%error, cause, %agent, "an answer could not be written down");
    let message = format!("NOT EXECUTED. It could not be written down ({error}): repeat the request later");
    let cause = Cause { reason: "KustodyUnavailable", field: String::new(), message: message.clone() };
    let details = Details { causes: vec![cause], retry_after_seconds: Some(1) };
    let mut answer =
        Answer::refuse(Status { code: 503, reason: "ServiceUnavailable", message, details: Some(details) });
    for (key, value) in [("decision", "deny"), ("rule", "built-in/log")] {
        drop(answer.audit_annotations.insert(key.to_owned(), value.to_owned()));
    }
    answer
}
