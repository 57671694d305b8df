//! The two handshakes of a stream: what a client asks to be switched over to, the same asked of the API server in
//! Kustody's own words, and the 101 that answers the client. A client's transport is mirrored; an API server that
//! knows no WebSocket is asked again over SPDY.
//!
//! Of the protocols a client names, those that the relay speaks go up; the API server chooses.

use super::status::{self, Refusal};
use crate::core::action::StreamKind;
use crate::core::wire::channels::Protocol;
use crate::core::wire::handshake::{self, Handshake, STREAM_PROTOCOL, Wanted};
use crate::edge::net::upstream;
use crate::service::relay::{Speech, over_spdy};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, request};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const SPDY: HeaderValue = HeaderValue::from_static("SPDY/3.1");
const UPGRADED: HeaderValue = HeaderValue::from_static("Upgrade");
/// Headers of the API server's answer that are worth passing on.
pub(super) const PASSED: [HeaderName; 1] = [HeaderName::from_static("audit-id")];

/// What a client asks to be switched over to.
pub(super) struct Upgrade {
    transport: Transport,
    /// The protocols it named that are spoken here, in order; never empty.
    offers: Vec<Offered>,
}

/// A protocol that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    /// Its name; empty where the client named none at all.
    pub(super) name: &'static str,
    pub(super) speech: Speech,
}

/// How a client that is switched over speaks.
pub(super) enum Transport {
    /// With the `Sec-WebSocket-Accept` that answers the client.
    WebSocket {
        accept: String,
    },
    Spdy,
}

impl Upgrade {
    /// Reads the handshake of a client.
    pub(super) fn read(kind: StreamKind, parts: &request::Parts) -> Result<Upgrade, Refusal> {
        let (transport, names) = match handshake::wanted(&parts.headers) {
            Wanted::WebSocket => {
                let Handshake { accept, names } = Handshake::check(parts).map_err(refused)?;
                (Transport::WebSocket { accept }, names)
            }
            Wanted::Spdy => (Transport::Spdy, handshake::spdy(parts).map_err(refused)?),
            Wanted::Nothing => return Err(Refusal::bad_request("Upgrade request required")),
            Wanted::Other => {
                return Err(Refusal::bad_request("this upgrade is not supported; ask for a WebSocket or for SPDY/3.1"));
            }
        };
        let spoken = transport.spoken(kind);
        let known = |name: &str| spoken.iter().copied().find(|offered| offered.name == name);
        let offers: Vec<Offered> = match names.is_empty() {
            true => known("").into_iter().collect(),
            false => names.iter().filter(|name| !name.is_empty()).filter_map(|name| known(name)).collect(),
        };
        if offers.is_empty() {
            let names: Vec<&str> = spoken.iter().map(|offered| offered.name).filter(|name| !name.is_empty()).collect();
            let message = format!("none of the stream protocols is supported; offer one of {}", names.join(", "));
            return Err(Refusal::forbidden(message));
        }
        Ok(Upgrade { transport, offers })
    }

    /// What the client would like best.
    pub(super) fn favourite(&self) -> Offered {
        let none = Offered { name: "", speech: Speech::Spdy };
        self.offers.first().copied().unwrap_or(none)
    }

    /// The protocol of an exec or attach in which a client can be told something before the API server has chosen one:
    /// what it would like best, and over SPDY the version that API servers choose. None without a status to end with.
    pub(super) fn presumed(&self) -> Option<Offered> {
        let favourite = self.favourite();
        match favourite.speech {
            Speech::Channels(protocol) => (!protocol.succeeds_silently()).then_some(favourite),
            Speech::Spdy => self.offers.iter().copied().find(|offered| offered.name == V4),
            Speech::Forward | Speech::ForwardTunnel | Speech::ForwardChannels(_) => None,
        }
    }

    /// Offers this, and nothing else.
    pub(super) fn settle(&mut self, offered: Offered) {
        self.offers = vec![offered];
    }

    pub(super) fn is_websocket(&self) -> bool {
        matches!(self.transport, Transport::WebSocket { .. })
    }

    /// The same upgrade, asked of the API server. The key is a WebSocket's.
    pub(super) fn upward(&self, uri: &str, key: &str) -> Result<Request<upstream::Body>, Refusal> {
        let names = self.offers.iter().map(|offered| offered.name).filter(|name| !name.is_empty());
        let mut builder = Request::builder().uri(uri).header(CONNECTION, UPGRADED);
        match self.transport {
            Transport::WebSocket { .. } => {
                builder = builder
                    .header(UPGRADE, WEBSOCKET)
                    .header(SEC_WEBSOCKET_VERSION, "13")
                    .header(SEC_WEBSOCKET_KEY, key);
                let names: Vec<&str> = names.collect();
                if !names.is_empty() {
                    builder = builder.header(SEC_WEBSOCKET_PROTOCOL, names.join(", "));
                }
            }
            Transport::Spdy => {
                builder = builder.method(Method::POST).header(UPGRADE, SPDY);
                // On lines of their own: old servers do not read lists.
                builder = names.fold(builder, |builder, name| builder.header(STREAM_PROTOCOL, name));
            }
        }
        let request = builder.body(upstream::empty());
        request.map_err(|_| Refusal::bad_request("the pod cannot be named in a URL"))
    }

    /// What the API server's 101 agreed to, when that was offered and, for a WebSocket, the key was answered.
    pub(super) fn agreed(&self, headers: &HeaderMap, key: &str) -> Option<Offered> {
        let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let chosen = match self.transport {
            Transport::WebSocket { .. } => {
                (text(&SEC_WEBSOCKET_ACCEPT)? == handshake::accept(key)).then_some(())?;
                text(&SEC_WEBSOCKET_PROTOCOL).unwrap_or("")
            }
            Transport::Spdy => match text(&STREAM_PROTOCOL) {
                Some(name) => name,
                // A server that names none speaks the first version of whatever was asked for.
                None => return Some(Offered { name: "", ..self.favourite() }),
            },
        };
        self.offers.iter().copied().find(|offered| offered.name == chosen)
    }

    /// The same for an API server that knows no WebSocket, and what the client is then told was agreed: as the API
    /// server would have chosen. None where there is no such way.
    pub(super) fn without_websocket(&self) -> Option<(Upgrade, Offered)> {
        if !self.is_websocket() {
            return None;
        }
        let newest = self.offers.iter().find(|offered| offered.speech == Speech::Channels(Protocol::V5));
        let agreed = *newest.or(self.offers.first())?;
        let offered = match agreed.speech {
            Speech::Channels(protocol) => Offered { name: over_spdy(protocol), speech: Speech::Spdy },
            Speech::ForwardTunnel | Speech::ForwardChannels(_) => {
                Offered { name: PORT_FORWARD, speech: Speech::Forward }
            }
            Speech::Spdy | Speech::Forward => return None,
        };
        Some((Upgrade { transport: Transport::Spdy, offers: vec![offered] }, agreed))
    }

    /// The 101 for the client.
    pub(super) fn switched<B>(&self, agreed: Offered, headers: &HeaderMap, body: B) -> Result<Response<B>, Refusal> {
        self.transport.switched(agreed.name, headers, body)
    }
}

impl Transport {
    /// The 101 for a client, with the protocol that was agreed, if any was, and what is passed on of the API server's
    /// own headers.
    pub(super) fn switched<B>(&self, protocol: &str, headers: &HeaderMap, body: B) -> Result<Response<B>, Refusal> {
        let mut builder = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, UPGRADED);
        let naming = match self {
            Transport::WebSocket { accept } => {
                builder = builder.header(UPGRADE, WEBSOCKET).header(SEC_WEBSOCKET_ACCEPT, accept);
                SEC_WEBSOCKET_PROTOCOL
            }
            Transport::Spdy => {
                builder = builder.header(UPGRADE, SPDY);
                STREAM_PROTOCOL
            }
        };
        if !protocol.is_empty() {
            builder = builder.header(naming, protocol);
        }
        for name in PASSED {
            if let Some(value) = headers.get(&name) {
                builder = builder.header(name, value);
            }
        }
        let switched = builder.body(body);
        switched.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the stream could not be opened"))
    }

    /// The protocols that are spoken over this transport.
    fn spoken(&self, kind: StreamKind) -> Vec<Offered> {
        let over_spdy = |name| Offered { name, speech: Speech::Spdy };
        match (kind, self) {
            (StreamKind::Exec | StreamKind::Attach, Transport::WebSocket { .. }) => Protocol::ALL
                .map(|protocol| Offered { name: protocol.name(), speech: Speech::Channels(protocol) })
                .to_vec(),
            (StreamKind::Exec | StreamKind::Attach, Transport::Spdy) => {
                let mut all = REMOTE_COMMAND.map(over_spdy).to_vec();
                all.push(over_spdy(""));
                all
            }
            (StreamKind::PortForward, Transport::WebSocket { .. }) => {
                let channels = [Protocol::V4, Protocol::V4Base64, Protocol::Unnamed];
                let channels = channels
                    .map(|protocol| Offered { name: protocol.name(), speech: Speech::ForwardChannels(protocol) });
                let tunnel = Offered { name: "SPDY/3.1+portforward.k8s.io", speech: Speech::ForwardTunnel };
                std::iter::once(tunnel).chain(channels).collect()
            }
            (StreamKind::PortForward, Transport::Spdy) => {
                [PORT_FORWARD, ""].map(|name| Offered { name, speech: Speech::Forward }).to_vec()
            }
            (StreamKind::Proxy, _) => Vec::new(),
        }
    }
}

/// The versions of the remotecommand protocol over SPDY. The first, which has no number, is also what is spoken where
/// none is named.
const REMOTE_COMMAND: [&str; 5] = ["v5.channel.k8s.io", V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// The newest of them that container runtimes know; v5 is the same over SPDY.
const V4: &str = "v4.channel.k8s.io";

/// The one protocol of port-forward over SPDY.
const PORT_FORWARD: &str = "portforward.k8s.io";

/// Whether an answer instead of 101 says that no WebSocket is known there, by the API server or something before it:
/// one that is no `Status` of Kubernetes, or the one that means that the upgrade was lost on the way.
pub(super) fn knows_no_websocket(code: StatusCode, body: &[u8]) -> bool {
    let may_mean_it = matches!(
        code,
        StatusCode::BAD_REQUEST
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::UPGRADE_REQUIRED
            | StatusCode::NOT_IMPLEMENTED
    );
    let lost = |status: serde_json::Value| status.get("message").is_some_and(|told| told == "Upgrade request required");
    may_mean_it && status::parsed(body).is_none_or(lost)
}

/// A fresh `Sec-WebSocket-Key`.
pub(super) fn nonce() -> Result<String, Refusal> {
    let mut key = [0; 16];
    aws_lc_rs::rand::fill(&mut key)
        .map_err(|_| Refusal::unavailable("NOT EXECUTED. The system gives no random numbers"))?;
    Ok(STANDARD.encode(key))
}

fn refused(error: handshake::Error) -> Refusal {
    match error {
        handshake::Error::Method => Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error.to_string()),
        handshake::Error::Version | handshake::Error::Upgrade | handshake::Error::Key | handshake::Error::Body => {
            Refusal::bad_request(error.to_string())
        }
    }
}
