//! What the gateway writes down: each decision before anything is sent on because of it, each answer when it is given.
//!
//! A decision that cannot be written down is a refusal. An answer is written down after the fact, without waiting for
//! the disk: what it answers was written down before. A request that is refused is one entry, durable before the refusal
//! leaves. [`Trail`] collects what is known of one request on its way.

use super::live::Stream;
use super::status::Refusal;
use super::{Asked, Body, Gateway};
use crate::core::action::Action;
use crate::core::approval::Approval;
use crate::core::audit::entry::Seen;
use crate::core::audit::{Decided, Effect, Entry, Kind, Outcome, Text};
use crate::core::policy::Decision;
use crate::core::recording::{Digest, SessionId};
use http::{Request, Response};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is known of one request on its way.
pub(super) struct Trail {
    arrived: Instant,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    method: String,
    target: String,
    action: Option<Action>,
    decided: Option<Decided>,
    recording: Option<SessionId>,
    forwarded: bool,
}

impl Trail {
    pub(super) fn begun() -> Self {
        Trail { arrived: Instant::now(), known: Mutex::default() }
    }

    /// The request itself.
    pub(super) fn of_request<B>(&self, request: &Request<B>) {
        let mut known = self.known();
        known.method = request.method().to_string();
        known.target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    }

    /// What it asks for.
    pub(super) fn about(&self, action: &Action) {
        self.known().action = Some(action.clone());
    }

    /// What was decided; the last one counts.
    pub(super) fn decided(&self, decision: &Decision, approval: Option<&Approval>) {
        let mut decided = Decided::of(decision);
        if let Some(approval) = approval {
            decided.approval = Some(Text::short(&approval.id));
            decided.voted(approval);
        }
        self.known().decided = Some(decided);
    }

    /// It waits for this approval.
    pub(super) fn held(&self, approval: &str) {
        if let Some(decided) = &mut self.known().decided {
            decided.approval = Some(Text::short(approval));
        }
    }

    /// It is sent on.
    pub(super) fn forwarded(&self) {
        self.known().forwarded = true;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Writes down that a request is sent on, and by which decision; a write's is the webhook's, and comes later.
    pub(super) async fn decided(&self, asked: &Asked, recording: Option<SessionId>) -> Result<(), Refusal> {
        asked.trail.known().recording = recording;
        let entry = self.entry(asked, Kind::Decision, Effect::Forwarded);
        self.append(asked, &entry).await?;
        asked.trail.forwarded();
        Ok(())
    }

    /// Writes down what the client is answered.
    pub(super) async fn witnessed(
        &self,
        asked: &Asked,
        answered: Result<Response<Body>, Refusal>,
    ) -> Result<Response<Body>, Refusal> {
        let (status, why) = match &answered {
            Ok(response) => (response.status(), None),
            Err(refusal) => (refusal.code, Some(&refusal.message)),
        };
        let forwarded = asked.trail.known().forwarded;
        let (kind, effect) = match (forwarded, why) {
            (true, None) => (Kind::Exchange, Effect::Answered),
            (true, Some(_)) => (Kind::Exchange, Effect::Unknown),
            (false, _) => (Kind::Decision, self.refusal(asked)),
        };
        let mut entry = self.entry(asked, kind, effect);
        entry.status = Some(status.as_u16());
        entry.note = why.map(Text::short);
        if forwarded {
            if let Err(error) = self.edges.log.note(&entry).await {
                tracing::error!(id = %asked.id, %error, "an answer could not be written down");
            }
            return answered;
        }
        self.append(asked, &entry).await.and(answered)
    }

    /// What the log says of a running session that is ordered to end.
    pub(super) fn ending(&self, stream: &Stream, why: &str) -> Entry {
        let stamp = self.edges.log.stamp(Duration::ZERO);
        let mut entry = Entry::blank(Kind::Termination, Effect::Ended, &stamp).about(&stream.action);
        entry.authenticated = true;
        entry.note = Some(Text::short(why));
        entry.recording = Some(stream.session);
        entry
    }

    fn refusal(&self, asked: &Asked) -> Effect {
        let held = asked.trail.known().decided.as_ref().is_some_and(|decided| decided.outcome == Outcome::Hold);
        if held { Effect::Waiting } else { Effect::Refused }
    }

    async fn append(&self, asked: &Asked, entry: &Entry) -> Result<(), Refusal> {
        self.edges.log.append(entry).await.map(drop).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(id = %asked.id, %error, cause, "a decision could not be written down");
            let message = format!("NOT EXECUTED. It could not be written down ({error}); try again later");
            Refusal::unavailable(message).retry_after(1)
        })
    }

    fn entry(&self, asked: &Asked, kind: Kind, effect: Effect) -> Entry {
        let id = asked.id.to_string();
        let known = asked.trail.known();
        let stamp = self.edges.log.stamp(asked.trail.arrived.elapsed());
        let entry = Entry::blank(kind, effect, &stamp).seen(Seen::Gateway, &id);
        let mut entry = match &known.action {
            Some(action) => entry.about(action),
            None => entry.asked_by(&asked.agent).raw(&known.method, &known.target),
        };
        entry.authenticated = true;
        entry.class = Some(Text::short(asked.class.as_str()));
        entry.request = Some(Text::short(&id));
        entry.request_digest = Some(Digest::of(format!("{} {}", known.method, known.target).as_bytes()));
        entry.recording = known.recording;
        entry.decided(known.decided.clone())
    }
}
