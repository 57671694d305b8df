//! Opens an exec: decide, hold, begin the recording, dial, and only then switch the client over.
//!
//! The order is the point: by the time the API server hears of the command its recording is on the disk.
//! Whatever the API server answers instead of 101 goes to the client as it is.

use super::exec::{self, Exec};
use super::forward::unanswered;
use super::status::{self, Refusal};
use super::{Asked, Body, Gateway, describe};
use crate::core::action::Action;
use crate::core::api_path::ApiRequest;
use crate::core::policy::Permit;
use crate::core::recording::Cause;
use crate::core::wire::channels::{Protocol, Streams};
use crate::core::wire::handshake::{self, Handshake, Wanted};
use crate::edge::net::upstream::{self, Switch};
use crate::edge::store::spool::Recording;
use crate::service::relay::Session;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADED: HeaderValue = HeaderValue::from_static("Upgrade");
/// The longest body of a refusal that is read; the API server's are a few hundred bytes.
const REFUSAL: usize = 64 * 1024;
/// How long a client may take to go on after 101.
const SWITCH: Duration = Duration::from_secs(10);
/// Headers of the API server's 101 that are worth passing on.
const PASSED: [HeaderName; 1] = [HeaderName::from_static("audit-id")];

/// The API server's side of a stream that was opened.
struct Opened {
    protocol: Protocol,
    headers: HeaderMap,
    io: Upgraded,
}

/// How dialling the API server for a stream ended, when not in 101.
enum Unopened {
    Answered(StatusCode, HeaderMap, Bytes),
    Failed(Refusal),
}

impl Gateway {
    pub(super) async fn exec(
        self: &Arc<Self>,
        asked: &Asked,
        api: &ApiRequest,
        action: Action,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let key = fallback_key(&action);
        match handshake::wanted(request.headers()) {
            Wanted::WebSocket => {}
            Wanted::Nothing => return Err(Refusal::bad_request("Upgrade request required")),
            Wanted::Spdy => return self.refusals.take(&key).ok_or_else(spdy),
            Wanted::Other => return Err(Refusal::bad_request("this upgrade is not supported; exec needs a WebSocket")),
        }
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let handshake = Handshake::check(&parts).map_err(|error| match error {
            handshake::Error::Method => Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error.to_string()),
            handshake::Error::Protocol => Refusal::forbidden(error.to_string()),
            handshake::Error::Version | handshake::Error::Upgrade | handshake::Error::Key | handshake::Error::Body => {
                Refusal::bad_request(error.to_string())
            }
        })?;
        let exec = Exec { asked, api, action: &action, handshake };
        let opened = self.open(&exec, on_upgrade).await;
        let answer = opened.unwrap_or_else(|refusal| refusal.response());
        self.remember(key, answer).await
    }

    async fn open(self: &Arc<Self>, exec: &Exec<'_>, on_upgrade: OnUpgrade) -> Result<Response<Body>, Refusal> {
        let (decision, permit) = self.permit(exec.asked, exec.action).await?;
        let Ok(place) = Arc::clone(&self.sessions).try_acquire_owned() else {
            let message = "NOT EXECUTED. Too many recorded sessions are open; try again later";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(5));
        };
        let header = exec::header(&self.config, exec, &decision, &permit)?;
        let recording = self.edges.spool.start(header).await.map_err(|error| {
            tracing::error!(id = %exec.asked.id, %error, "a recording cannot be begun");
            Refusal::unavailable("NOT EXECUTED. This session cannot be recorded now; try again later")
        })?;
        tracing::info!(
            id = %exec.asked.id, session = %recording.session(), user = exec.asked.agent.user,
            target = exec.action.target(), rule = decision.rule, "session begun"
        );
        if let Err(refusal) = self.decided(exec.asked, Some(*recording.session())).await {
            self.session(exec.action, recording, Protocol::V5).abandon(Cause::Refused, &refusal.message).await;
            return Err(refusal);
        }
        match self.dial(exec, permit).await {
            Ok(opened) => {
                let response = switched(&exec.handshake, &opened)?;
                let session = self.session(exec.action, recording, opened.protocol);
                self.edges.tracker.spawn(run(session, opened.io, on_upgrade, (self.edges.stop.clone(), place)));
                Ok(response)
            }
            Err(Unopened::Answered(code, headers, body)) => {
                let detail = format!("the API server answered {code}");
                self.session(exec.action, recording, Protocol::V5).abandon(Cause::Refused, &detail).await;
                Ok(relayed(code, headers, body))
            }
            Err(Unopened::Failed(refusal)) => {
                let session = self.session(exec.action, recording, Protocol::V5);
                session.abandon(Cause::UpstreamLost, &refusal.message).await;
                Err(refusal)
            }
        }
    }

    fn session(&self, action: &Action, recording: Recording, protocol: Protocol) -> Session {
        let streams = action.stream.as_ref().map(|stream| Streams { stdin: stream.stdin, tty: stream.tty });
        Session {
            recording,
            protocol,
            streams: streams.unwrap_or_default(),
            max_message: self.config.max_message,
            grace: self.config.grace,
        }
    }

    async fn dial(&self, exec: &Exec<'_>, permit: Permit) -> Result<Opened, Unopened> {
        let (asked, handshake) = (exec.asked, &exec.handshake);
        let key = nonce().map_err(Unopened::Failed)?;
        let ticket = self.ticket(asked, exec.action, &permit).map_err(Unopened::Failed)?;
        let mut request = upward(exec, &key).map_err(Unopened::Failed)?;
        if let Ok(agent) = HeaderValue::from_str(&asked.user_agent) {
            request.headers_mut().insert(USER_AGENT, agent);
        }
        self.speak_for(asked, Some(&ticket), request.headers_mut()).map_err(Unopened::Failed)?;
        match self.edges.upstream.upgrade(permit, request).await {
            Ok(Switch::Done(head, io)) => {
                let headers = head.headers().clone();
                match agreed(&headers, handshake, &key) {
                    Some(protocol) => Ok(Opened { protocol, headers, io }),
                    None => Err(Unopened::Failed(Refusal::new(
                        StatusCode::BAD_GATEWAY,
                        "the API server agreed to a WebSocket that was not asked for",
                    ))),
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
        self.refusals.put(key, parts.status, body.clone());
        let mut response = status::json(parts.status, body);
        *response.headers_mut() = parts.headers;
        Ok(response)
    }
}

/// The session itself: it begins when the client has switched over, and holds its place until it ends.
async fn run(
    session: Session,
    server: Upgraded,
    on_upgrade: OnUpgrade,
    (stop, place): (CancellationToken, OwnedSemaphorePermit),
) {
    match tokio::time::timeout(SWITCH, on_upgrade).await {
        Ok(Ok(client)) => session.run(TokioIo::new(client), TokioIo::new(server), stop).await,
        Ok(Err(_)) | Err(_) => session.abandon(Cause::ClientGone, "the client did not take up the WebSocket").await,
    }
    drop(place);
}

/// The handshake with the API server: Kustody's own, for the protocols the client named.
fn upward(exec: &Exec<'_>, key: &str) -> Result<Request<upstream::Body>, Refusal> {
    let (api, handshake) = (exec.api, &exec.handshake);
    let stream = exec.action.stream.as_ref().ok_or_else(|| Refusal::bad_request("not a stream"))?;
    let (Some(namespace), Some(name)) = (&api.namespace, &api.name) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "the path names no pod in a namespace"));
    };
    let query = describe::exec_query(stream);
    let offer: Vec<&str> = handshake.protocols.iter().map(|protocol| protocol.name()).collect();
    Request::builder()
        .uri(format!("/api/{}/namespaces/{namespace}/pods/{name}/exec?{query}", api.version))
        .header(CONNECTION, UPGRADED)
        .header(UPGRADE, WEBSOCKET)
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(SEC_WEBSOCKET_PROTOCOL, offer.join(", "))
        .body(upstream::empty())
        .map_err(|_| Refusal::bad_request("the pod cannot be named in a URL"))
}

/// The protocol of the API server's 101, when it is one that was offered and the key was answered.
fn agreed(headers: &HeaderMap, handshake: &Handshake, key: &str) -> Option<Protocol> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    let protocol = Protocol::parse(text(&SEC_WEBSOCKET_PROTOCOL)?)?;
    let accepted = text(&SEC_WEBSOCKET_ACCEPT)? == handshake::accept(key);
    (accepted && handshake.protocols.contains(&protocol)).then_some(protocol)
}

fn switched(handshake: &Handshake, opened: &Opened) -> Result<Response<Body>, Refusal> {
    let mut builder = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, UPGRADED)
        .header(UPGRADE, WEBSOCKET)
        .header(SEC_WEBSOCKET_ACCEPT, &handshake.accept)
        .header(SEC_WEBSOCKET_PROTOCOL, opened.protocol.name());
    for name in PASSED {
        if let Some(value) = opened.headers.get(&name) {
            builder = builder.header(name, value);
        }
    }
    builder
        .body(upstream::empty())
        .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the WebSocket could not be opened"))
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

fn nonce() -> Result<String, Refusal> {
    let mut key = [0; 16];
    aws_lc_rs::rand::fill(&mut key)
        .map_err(|_| Refusal::unavailable("NOT EXECUTED. The system gives no random numbers"))?;
    Ok(STANDARD.encode(key))
}

/// Agent, pod and command: what a refused WebSocket and the SPDY attempt after it have in common.
fn fallback_key(action: &Action) -> String {
    crate::core::approval::Fingerprint::of_stream(action).to_string()
}

fn spdy() -> Refusal {
    Refusal::bad_request(
        "exec over SPDY is not supported through this gateway yet; use kubectl 1.30 or newer, which speaks WebSocket",
    )
}
