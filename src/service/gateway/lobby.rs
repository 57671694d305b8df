//! A held exec or attach with a terminal: the client is switched over at once and sees on its terminal what it waits for.
//! Dialled, decided anew and written down is as elsewhere: after people have agreed.
//!
//! From the switch on there are no HTTP answers: what would be one becomes a `Status` on the error channel. The protocol is
//! chosen here, and the API server is asked for that one alone. Without a terminal the line would end in a program's input, so those wait without a word, before the switch.

use super::live::{Agreed, Place};
use super::oversight::printable;
use super::session::{self, Ask};
use super::status::{self, Refusal};
use super::stream::{NOT_ASKED_FOR, SWITCH, Unopened};
use super::upgrade::Offered;
use super::{Body, Gateway};
use crate::core::action::StreamKind;
use crate::core::policy::{Decision, Permit};
use crate::core::recording::keeping::Mode;
use crate::core::recording::{Cause, SessionId};
use crate::edge::net::upstream;
use crate::service::relay::{self, Session, Waiting};
use bytes::Bytes;
use http::header::HeaderMap;
use http::{Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::Arc;

type Client = TokioIo<Upgraded>;

/// A client that waits in the lobby.
struct Guest {
    ask: Ask,
    id: SessionId,
    session: Session,
    place: Place,
    /// What it is told.
    word: String,
}

impl Gateway {
    /// Switches the client over and has it wait, if it is one that can be told and a rule holds what it asks for.
    /// `Err` gives the stream back, to be opened as usual.
    pub(super) async fn lobby(
        self: &Arc<Self>,
        mut ask: Ask,
        on_upgrade: OnUpgrade,
    ) -> Result<Result<Response<Body>, Refusal>, (Ask, OnUpgrade)> {
        let Some(offered) = tellable(&ask) else { return Err((ask, on_upgrade)) };
        let held = match self.held(&ask.asked, &ask.action).await {
            Ok(None) => return Err((ask, on_upgrade)),
            Ok(Some(held)) => held,
            Err(refusal) => return Ok(Err(refusal)),
        };
        ask.upgrade.settle(offered);
        Ok(self.admit(ask, offered, held, on_upgrade).await)
    }

    async fn admit(
        self: &Arc<Self>,
        ask: Ask,
        offered: Offered,
        (decision, id): (Decision, String),
        on_upgrade: OnUpgrade,
    ) -> Result<Response<Body>, Refusal> {
        let response = ask.upgrade.switched(offered, &HeaderMap::new(), upstream::empty())?;
        let header = session::header(&self.config, &ask, &decision, Some(&id))?;
        // People will have agreed when it goes on.
        let id_of_session = header.session;
        let (place, orders) = self.enter(&ask, header.session, Agreed::Once)?;
        let recording = self.begin(&ask, &decision, (header, Mode::Strict)).await?;
        let session = self.session(&ask, recording, offered.speech, orders);
        let word = format!(
            "waiting for approval {id} (rule {}: {}). A person approves with: kubectl kustody approve {id}. Ctrl-C gives up",
            decision.rule, decision.reason
        );
        let guest = Guest { ask, id: id_of_session, session, place, word };
        let gateway = Arc::clone(self);
        self.edges.tracker.spawn(gateway.host(guest, on_upgrade));
        Ok(response)
    }

    /// From the switch to the end of the session.
    async fn host(self: Arc<Self>, guest: Guest, on_upgrade: OnUpgrade) {
        let Guest { ask, id, session, place, word } = guest;
        let Ok(Ok(client)) = tokio::time::timeout(SWITCH, on_upgrade).await else {
            return relay::abandon(session.recording, Cause::ClientGone, "the client did not take up the stream").await;
        };
        let mut waiting = Waiting::new(TokioIo::new(client), session);
        if let Err(error) = waiting.say("held", &printable(&word)).await {
            tracing::error!(id = %ask.asked.id, %error, "a waiting client cannot be told");
            let refusal = Refusal::unrecorded();
            return waiting.refuse(Cause::RecorderFailed, &refusal.message, refusal.json()).await;
        }
        let agreed = Box::pin(self.permit(&ask.asked, &ask.action));
        let Some((waiting, agreed)) = waiting.until(agreed).await else { return };
        match agreed {
            Ok(agreed) => Box::pin(self.proceed(&ask, waiting, id, agreed)).await,
            Err(refusal) => Box::pin(self.turn_out(&ask, waiting, refusal)).await,
        }
        drop(place);
    }

    /// People have agreed: writes that down, dials, and relays.
    async fn proceed(
        &self,
        ask: &Ask,
        mut waiting: Waiting<Client>,
        id: SessionId,
        (decision, permit): (Decision, Permit),
    ) {
        let detail = format!("let through by decision {} (rule {})", decision.id, decision.rule);
        if waiting.note("approved", &detail).await.is_err() {
            let refusal = Refusal::unrecorded();
            return self.turn_out(ask, waiting, refusal).await;
        }
        if let Err(refusal) = self.decided(&ask.asked, Some(id)).await {
            return self.turn_out(ask, waiting, refusal).await;
        }
        waiting.keep(self.keeping(&permit));
        let dialled = match Box::pin(self.dial(ask, permit)).await {
            // The client was promised another one.
            Ok(opened) if opened.agreed != ask.upgrade.favourite() => {
                Err(Unopened::Failed(Refusal::new(StatusCode::BAD_GATEWAY, NOT_ASKED_FOR)))
            }
            dialled => dialled,
        };
        match dialled {
            Ok(opened) => {
                self.told_waiting(ask, Ok(StatusCode::SWITCHING_PROTOCOLS)).await;
                waiting.go_on(TokioIo::new(opened.io), opened.translated, self.edges.stop.clone()).await;
            }
            Err(Unopened::Answered(code, _, body)) => {
                self.told_waiting(ask, Ok(code)).await;
                let detail = format!("the API server answered {code}");
                waiting.refuse(Cause::Refused, &detail, status_of(code, body)).await;
            }
            Err(Unopened::Failed(refusal)) => {
                self.told_waiting(ask, Err(refusal.clone())).await;
                waiting.refuse(Cause::UpstreamLost, &refusal.message, refusal.json()).await;
            }
        }
    }

    /// It was not to be.
    async fn turn_out(&self, ask: &Ask, waiting: Waiting<Client>, refusal: Refusal) {
        self.told_waiting(ask, Err(refusal.clone())).await;
        waiting.refuse(Cause::Refused, &refusal.message, refusal.json()).await;
    }

    /// Writes down what a client in the lobby was told, as if it had been an answer.
    async fn told_waiting(&self, ask: &Ask, answer: Result<StatusCode, Refusal>) {
        let answer = answer.map(|code| status::json(code, Bytes::new()));
        if let Err(refusal) = self.witnessed(&ask.asked, answer).await {
            tracing::info!(id = %ask.asked.id, why = refusal.message, "refused after waiting");
        }
    }
}

/// The protocol of a client with a terminal on which it can be told something.
fn tellable(ask: &Ask) -> Option<Offered> {
    let stream = ask.action.stream.as_ref()?;
    let has_screen = stream.tty && stream.stdout && matches!(stream.kind, StreamKind::Exec | StreamKind::Attach);
    ask.upgrade.presumed().filter(|_| has_screen)
}

/// What the API server answered, as a `Status`.
fn status_of(code: StatusCode, body: Bytes) -> Bytes {
    if status::parsed(&body).is_some() {
        body
    } else {
        Refusal::new(code, format!("the API server answered {code}")).json()
    }
}
