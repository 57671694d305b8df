//! The WebSocket opening handshake, server's side, and the subprotocols in it.
//!
//! Strict where the API server is lax (it takes `Connection: NotUpgradeAtAll`): what is not a plain
//! RFC 6455 request is refused. Which subprotocol counts follows the API server: of several header
//! lines only the first is read, unless a bearer token was among them, and then all count. The token is
//! taken out and never passed on. Main types: [`Offer`], [`Handshake`].

use crate::core::wire::channels::Protocol;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Version, request};

/// The prefix of the subprotocol that carries a bearer token.
pub const BEARER_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a request wants to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No upgrade.
    Nothing,
    /// A WebSocket.
    WebSocket,
    /// SPDY/3.1.
    Spdy,
    /// Something else, or several things.
    Other,
}

/// The subprotocols a client named, without the bearer token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The names in force, in order.
    pub names: Vec<String>,
    /// The bearer token that stood among them.
    pub bearer: Option<String>,
}

/// A valid opening handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The value for `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The remotecommand protocols offered, in order; never empty.
    pub protocols: Vec<Protocol>,
}

/// Why a handshake is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not GET.
    #[error("a WebSocket is opened with GET")]
    Method,
    /// Not HTTP/1.1.
    #[error("a WebSocket needs HTTP/1.1")]
    Version,
    /// `Connection` or `Upgrade` is not what the RFC asks for.
    #[error("the Connection and Upgrade headers do not ask for a WebSocket")]
    Upgrade,
    /// `Sec-WebSocket-Version` is not 13 or `Sec-WebSocket-Key` is not 16 bytes in base64.
    #[error("the Sec-WebSocket-Key or Sec-WebSocket-Version header is missing or wrong")]
    Key,
    /// The request announces a body.
    #[error("a WebSocket handshake has no body")]
    Body,
    /// None of the subprotocols is spoken here.
    #[error("none of the WebSocket subprotocols is supported; offer v5.channel.k8s.io or v4.channel.k8s.io")]
    Protocol,
}

/// What the `Upgrade` header asks for. Two header lines or a list are [`Wanted::Other`].
pub fn wanted(headers: &HeaderMap) -> Wanted {
    let mut lines = headers.get_all(UPGRADE).iter();
    let (first, second) = (lines.next(), lines.next());
    let Some(line) = first else {
        return Wanted::Nothing;
    };
    if second.is_some() {
        return Wanted::Other;
    }
    match line.to_str().map(str::to_ascii_lowercase).as_deref() {
        Ok("websocket") => Wanted::WebSocket,
        Ok("spdy/3.1") => Wanted::Spdy,
        Ok(_) | Err(_) => Wanted::Other,
    }
}

impl Offer {
    /// Reads the subprotocols of a request.
    pub fn read(headers: &HeaderMap) -> Offer {
        let mut offer = Offer::default();
        let mut first_line = None;
        for line in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            for name in line.to_str().unwrap_or_default().split(',').map(str::trim) {
                match name.strip_prefix(BEARER_PREFIX) {
                    Some(token) => offer.bearer = bearer(token).or(offer.bearer.take()),
                    None if !name.is_empty() => offer.names.push(name.to_owned()),
                    None => {}
                }
            }
            first_line.get_or_insert(offer.names.len());
        }
        if offer.bearer.is_none() {
            offer.names.truncate(first_line.unwrap_or(0));
        }
        offer
    }
}

impl Handshake {
    /// Checks a request that asks for a WebSocket.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn check(request: &request::Parts) -> Result<Handshake, Error> {
        if request.method != Method::GET {
            return Err(Error::Method);
        }
        if request.version != Version::HTTP_11 {
            return Err(Error::Version);
        }
        let headers = &request.headers;
        if wanted(headers) != Wanted::WebSocket || !names_upgrade(headers) {
            return Err(Error::Upgrade);
        }
        if headers.contains_key(TRANSFER_ENCODING) || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
        {
            return Err(Error::Body);
        }
        let key = only(headers, SEC_WEBSOCKET_KEY.as_str()).ok_or(Error::Key)?;
        let nonce = STANDARD.decode(key).map_err(|_| Error::Key)?;
        if nonce.len() != 16 || only(headers, SEC_WEBSOCKET_VERSION.as_str()) != Some("13") {
            return Err(Error::Key);
        }
        let offer = Offer::read(headers);
        let protocols: Vec<Protocol> = offer.names.iter().filter_map(|n| Protocol::parse(n)).collect();
        if protocols.is_empty() {
            return Err(Error::Protocol);
        }
        Ok(Handshake { accept: accept(key), protocols })
    }
}

/// The `Sec-WebSocket-Accept` value that answers a key.
pub fn accept(key: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    STANDARD.encode(context.finish())
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

fn bearer(encoded: &str) -> Option<String> {
    let token = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(token).ok().filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn request(headers: &[(&str, &str)]) -> request::Parts {
        let mut builder = Request::builder().method("GET").uri("/");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("request").into_parts().0
    }

    const GOOD: [(&str, &str); 5] = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io"),
    ];

    #[test]
    fn the_example_of_the_rfc_is_answered_as_it_says() {
        let handshake = Handshake::check(&request(&GOOD)).expect("good");
        assert_eq!(handshake.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(handshake.protocols, [Protocol::V5, Protocol::V4]);
    }

    #[test]
    fn whatever_is_not_a_plain_handshake_is_refused() {
        let with = |name: &str, value: &str| {
            let mut headers: Vec<_> = GOOD.iter().copied().filter(|(n, _)| *n != name).collect();
            headers.push((name, value));
            Handshake::check(&request(&headers)).expect_err("refused")
        };
        assert_eq!(with("connection", "NotUpgradeAtAll"), Error::Upgrade);
        assert_eq!(with("upgrade", "websocket, SPDY/3.1"), Error::Upgrade);
        assert_eq!(with("sec-websocket-version", "8"), Error::Key);
        assert_eq!(with("sec-websocket-key", "c2hvcnQ="), Error::Key);
        assert_eq!(with("content-length", "5"), Error::Body);
        assert_eq!(with("transfer-encoding", "chunked"), Error::Body);
        assert_eq!(with("sec-websocket-protocol", "V5.channel.k8s.io"), Error::Protocol);
        assert_eq!(with("sec-websocket-protocol", "base64.channel.k8s.io"), Error::Protocol);
    }

    #[test]
    fn only_the_first_line_of_subprotocols_counts_unless_a_token_was_taken_out() {
        let name = "sec-websocket-protocol";
        let offer = Offer::read(&request(&[(name, "v4.channel.k8s.io"), (name, "v5.channel.k8s.io")]).headers);
        assert_eq!(offer.names, ["v4.channel.k8s.io"]);
        let token = format!("{BEARER_PREFIX}{}", URL_SAFE_NO_PAD.encode("s3cret"));
        let offer = Offer::read(&request(&[(name, &token), (name, "v5.channel.k8s.io")]).headers);
        assert_eq!(offer.names, ["v5.channel.k8s.io"]);
        assert_eq!(offer.bearer.as_deref(), Some("s3cret"));
    }
}
