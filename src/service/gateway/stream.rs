//! Opens a stream: decide, hold, begin the recording, dial, and only then switch the client over.
//!
//! The order is the point: by the time the API server hears of the command its recording is on the disk.
//! Whatever the API server answers instead of 101 goes to the client as it is.

use super::forward::unanswered;
use super::live::{Agreed, Full, Place, Stream};
use super::session::{self, Ask};
use super::status::{self, LIMIT, Refusal};
use super::upgrade::{Offered, PASSED, Upgrade, knows_no_websocket, nonce};
use super::{Asked, Body, Gateway, describe};
use crate::core::action::Action;
use crate::core::api_path::{ApiRequest, Query};
use crate::core::keys::Secret;
use crate::core::policy::{Decision, Permit};
use crate::core::recording::header::Header;
use crate::core::recording::keeping::{Keeping, Mode};
use crate::core::recording::{Cause, SessionId};
use crate::core::wire::channels::Streams;
use crate::edge::net::upstream::{self, Switch};
use crate::edge::store::spool::Recording;
use crate::service::relay::{self, Orders, Session, Speech};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest body of a refusal that is read; the API server's are a few hundred bytes.
const REFUSAL: usize = 64 * 1024;
/// Of an API server that chose what nobody offered.
pub(super) const NOT_ASKED_FOR: &str = "the API server agreed to a stream that was not asked for";
/// How long a client may take to go on after 101.
pub(super) const SWITCH: Duration = Duration::from_secs(10);

/// The API server's side of a stream that was opened.
pub(super) struct Opened {
    pub(super) agreed: Offered,
    headers: HeaderMap,
    pub(super) io: Upgraded,
    /// The client speaks WebSocket, and the API server SPDY.
    pub(super) translated: bool,
}

/// How dialling the API server for a stream ended, when not in 101.
pub(super) enum Unopened {
    Answered(StatusCode, HeaderMap, Bytes),
    Failed(Refusal),
}

impl Gateway {
    pub(super) async fn stream(
        self: &Arc<Self>,
        asked: &Arc<Asked>,
        (api, query): (&ApiRequest, &Query),
        action: Action,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let Some(kind) = action.stream.as_ref().map(|stream| stream.kind) else {
            return Err(Refusal::bad_request("not a stream"));
        };
        let key = fallback_key(&action);
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let upgrade = Upgrade::read(kind, &parts)?;
        let ports = describe::ports(kind, query)?;
        let is_websocket = upgrade.is_websocket();
        if !is_websocket && let Some(answer) = self.refusals.take(&key) {
            return Ok(answer);
        }
        let most = self.config.limits.connections;
        if ports.len() > most {
            let message = format!("NOT EXECUTED. At most {most} connections can be forwarded at a time");
            return Err(Refusal::forbidden(message).cause(LIMIT, "maxConnections"));
        }
        let ask = Ask { asked: Arc::clone(asked), api: api.clone(), action, upgrade, ports };
        let opened = match self.lobby(ask, on_upgrade).await {
            Ok(answer) => answer,
            Err((ask, on_upgrade)) => self.open(&ask, on_upgrade).await,
        };
        let answer = opened.unwrap_or_else(|refusal| refusal.response());
        if is_websocket { self.remember(key, answer).await } else { Ok(answer) }
    }

    async fn open(self: &Arc<Self>, ask: &Ask, on_upgrade: OnUpgrade) -> Result<Response<Body>, Refusal> {
        let (decision, permit) = self.permit(&ask.asked, &ask.action).await?;
        let header = session::header(&self.config, ask, &decision, permit.approval())?;
        let (place, orders) = self.enter(ask, header.session, Agreed::of(&permit))?;
        let keeping = self.keeping(&permit);
        let recording = self.begin(ask, &decision, (header, keeping.mode)).await?;
        if let Err(refusal) = self.decided(&ask.asked, Some(*recording.session())).await {
            relay::abandon(recording, Cause::Refused, &refusal.message).await;
            return Err(refusal);
        }
        match self.dial(ask, permit).await {
            Ok(opened) => {
                let response = ask.upgrade.switched(opened.agreed, &opened.headers, upstream::empty())?;
                let mut session = self.session(ask, recording, opened.agreed.speech, orders);
                (session.unwrapped, session.keeping) = (opened.translated, keeping);
                self.edges.tracker.spawn(run(session, opened.io, on_upgrade, (self.edges.stop.clone(), place)));
                Ok(response)
            }
            Err(Unopened::Answered(code, headers, body)) => {
                let detail = format!("the API server answered {code}");
                relay::abandon(recording, Cause::Refused, &detail).await;
                Ok(relayed(code, headers, body))
            }
            Err(Unopened::Failed(refusal)) => {
                relay::abandon(recording, Cause::UpstreamLost, &refusal.message).await;
                Err(refusal)
            }
        }
    }

    /// Begins the recording.
    pub(super) async fn begin(
        &self,
        ask: &Ask,
        decision: &Decision,
        (header, mode): (Header, Mode),
    ) -> Result<Recording, Refusal> {
        let recording = self.edges.spool.start_with(header, mode).await.map_err(|error| {
            tracing::error!(id = %ask.asked.id, %error, "a recording cannot be begun");
            Refusal::unrecorded()
        })?;
        tracing::info!(
            id = %ask.asked.id, session = %recording.session(), user = ask.asked.agent.user,
            target = ask.action.target(), rule = decision.rule, "session begun"
        );
        Ok(recording)
    }

    /// A place for one more session, unless the limits or rules that changed meanwhile leave none.
    pub(super) fn enter(&self, ask: &Ask, session: SessionId, agreed: Agreed) -> Result<(Place, Orders), Refusal> {
        let stream = Stream {
            session,
            action: ask.action.clone(),
            token: Secret::new(ask.asked.token.expose().clone()),
            agreed,
        };
        let entered = self.live.enter(stream).map_err(|full| {
            let (field, message) = match full {
                Full::All(most) => ("maxSessions", format!("{most} sessions are open")),
                Full::OfAgent(most) => {
                    ("maxSessionsPerAgent", format!("{} has {most} sessions open", ask.asked.agent.user))
                }
            };
            let message = format!("NOT EXECUTED. {message}, which is the most at a time; try again when one has ended");
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, message).cause(LIMIT, field).retry_after(5)
        })?;
        // Rules that changed before the session was known here have not met it.
        match self.objection_to(session) {
            None => Ok(entered),
            Some(order) => Err(Refusal::forbidden(format!("NOT EXECUTED. {}", order.message))),
        }
    }

    /// The session of a recording that is begun; what it keeps is for [`Gateway::keeping`] to say once that is known.
    pub(super) fn session(&self, ask: &Ask, recording: Recording, speech: Speech, orders: Orders) -> Session {
        let streams = ask.action.stream.as_ref().map(|stream| Streams {
            stdin: stream.stdin,
            stdout: stream.stdout,
            stderr: stream.stderr,
            tty: stream.tty,
        });
        Session {
            recording,
            speech,
            streams: streams.unwrap_or_default(),
            limits: self.config.limits,
            ports: ask.ports.clone(),
            keeping: Keeping::default(),
            grace: self.config.grace,
            orders,
            unwrapped: false,
        }
    }

    /// What the recording keeps of what was permitted.
    pub(super) fn keeping(&self, permit: &Permit) -> Keeping {
        let keeping = permit.keeping();
        Keeping { forwarded: keeping.forwarded.or(Some(self.config.keep_forwarded)), ..keeping }
    }

    /// Dials as the client asked, and where no WebSocket is known there, over SPDY.
    pub(super) async fn dial(&self, ask: &Ask, permit: Permit) -> Result<Opened, Unopened> {
        let opened = self.dial_with(&ask.upgrade, ask, permit.clone()).await;
        let refused = matches!(&opened, Err(Unopened::Answered(code, _, body)) if knows_no_websocket(*code, body));
        let Some((spdy, agreed)) = ask.upgrade.without_websocket().filter(|_| refused) else {
            return opened;
        };
        tracing::info!(id = %ask.asked.id, "the API server took no WebSocket; it is asked over SPDY");
        let opened = self.dial_with(&spdy, ask, permit).await?;
        if opened.agreed == spdy.favourite() || opened.agreed.speech == Speech::Forward {
            return Ok(Opened { agreed, translated: true, ..opened });
        }
        let message = "the API server speaks no version of the protocol that can be translated for this client";
        Err(Unopened::Failed(Refusal::new(StatusCode::BAD_GATEWAY, message)))
    }

    async fn dial_with(&self, upgrade: &Upgrade, ask: &Ask, permit: Permit) -> Result<Opened, Unopened> {
        let asked = &ask.asked;
        let key = nonce().map_err(Unopened::Failed)?;
        let ticket = self.ticket(asked, &ask.action, &permit).map_err(Unopened::Failed)?;
        let mut request = upgrade.upward(&uri(ask).map_err(Unopened::Failed)?, &key).map_err(Unopened::Failed)?;
        if let Ok(agent) = HeaderValue::from_str(&asked.user_agent) {
            request.headers_mut().insert(USER_AGENT, agent);
        }
        self.speak_for(asked, Some(&ticket), request.headers_mut()).map_err(Unopened::Failed)?;
        match self.edges.upstream.upgrade(permit, request).await {
            Ok(Switch::Done(head, io)) => {
                let headers = head.headers().clone();
                match upgrade.agreed(&headers, &key) {
                    Some(agreed) => Ok(Opened { agreed, headers, io, translated: false }),
                    None => Err(Unopened::Failed(Refusal::new(StatusCode::BAD_GATEWAY, NOT_ASKED_FOR))),
                }
            }
            Ok(Switch::Refused(response)) => {
                let (parts, body) = response.into_parts();
                let body = Limited::new(body, REFUSAL).collect().await.map(|body| body.to_bytes());
                Err(Unopened::Answered(parts.status, parts.headers, body.unwrap_or_default()))
            }
            Err(error) => Err(Unopened::Failed(unanswered(asked, &error))),
        }
    }

    /// Keeps a refusal for the SPDY attempt that follows it.
    async fn remember(&self, key: String, answer: Response<Body>) -> Result<Response<Body>, Refusal> {
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        // Always a body at hand: the gateway's own, or one collected from the API server.
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        // An API server, or something before it, that knows no WebSocket: the attempt over SPDY may do better.
        let no_websocket = matches!(parts.status, StatusCode::NOT_IMPLEMENTED | StatusCode::UPGRADE_REQUIRED);
        if !no_websocket && !body.is_empty() {
            self.refusals.put(key, parts.status, body.clone());
        }
        let mut response = status::json(parts.status, body);
        *response.headers_mut() = parts.headers;
        Ok(response)
    }
}

/// The session itself: it begins when the client has switched over, and holds its place until it ends.
async fn run(session: Session, server: Upgraded, on_upgrade: OnUpgrade, (stop, place): (CancellationToken, Place)) {
    match tokio::time::timeout(SWITCH, on_upgrade).await {
        Ok(Ok(client)) => session.run(TokioIo::new(client), TokioIo::new(server), stop).await,
        Ok(Err(_)) | Err(_) => {
            relay::abandon(session.recording, Cause::ClientGone, "the client did not take up the stream").await;
        }
    }
    drop(place);
}

/// Where the API server has the stream, written anew from what was decided.
fn uri(ask: &Ask) -> Result<String, Refusal> {
    let (api, action) = (&ask.api, &ask.action);
    let (Some(stream), Some(subresource)) = (&action.stream, &api.subresource) else {
        return Err(Refusal::bad_request("not a stream"));
    };
    let (Some(namespace), Some(name)) = (&api.namespace, &api.name) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "the path names no pod in a namespace"));
    };
    let mut query = describe::stream_query(stream);
    for port in &ask.ports {
        let separator = if query.is_empty() { "" } else { "&" };
        query.push_str(&format!("{separator}ports={port}"));
    }
    Ok(format!("/api/{}/namespaces/{namespace}/pods/{name}/{subresource}?{query}", api.version))
}

fn relayed(code: StatusCode, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let mut response = status::json(code, body);
    let kind = headers.get(CONTENT_TYPE).cloned();
    response.headers_mut().remove(CONTENT_TYPE);
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    for name in PASSED {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// Agent, pod and command: what a refused WebSocket and the SPDY attempt after it have in common.
fn fallback_key(action: &Action) -> String {
    crate::core::approval::Fingerprint::of_stream(action).to_string()
}
