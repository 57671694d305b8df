//! The opening handshakes, server's side, and the protocols named in them: WebSocket's and SPDY's.
//!
//! Strict where the API server is lax (it takes `Connection: NotUpgradeAtAll`): what is not a plain
//! RFC 6455 request is refused. Which subprotocol counts follows the API server: of several header
//! lines only the first is read, unless a bearer token was among them, and then all count. The token is
//! taken out and never passed on. Which of the names are spoken is not known here. Main types: [`Offer`], [`Handshake`].

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Version, request};

/// The prefix of the subprotocol that carries a bearer token.
pub const BEARER_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
/// The header in which protocols over SPDY are named, and the one that was chosen.
pub const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
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
    /// The subprotocols offered, in order.
    pub names: Vec<String>,
}

/// Why a handshake is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither GET nor, for SPDY, POST.
    #[error("a WebSocket is opened with GET, SPDY with POST or GET")]
    Method,
    /// Not HTTP/1.1.
    #[error("an upgrade needs HTTP/1.1")]
    Version,
    /// `Connection` or `Upgrade` is not what it must be.
    #[error("the Connection and Upgrade headers do not ask for a WebSocket or for SPDY/3.1")]
    Upgrade,
    /// `Sec-WebSocket-Version` is not 13 or `Sec-WebSocket-Key` is not 16 bytes in base64.
    #[error("the Sec-WebSocket-Key or Sec-WebSocket-Version header is missing or wrong")]
    Key,
    /// The request announces a body.
    #[error("an upgrade has no body")]
    Body,
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
        plain(request, Wanted::WebSocket, &[Method::GET])?;
        let headers = &request.headers;
        let key = only(headers, SEC_WEBSOCKET_KEY.as_str()).ok_or(Error::Key)?;
        let nonce = STANDARD.decode(key).map_err(|_| Error::Key)?;
        if nonce.len() != 16 || only(headers, SEC_WEBSOCKET_VERSION.as_str()) != Some("13") {
            return Err(Error::Key);
        }
        Ok(Handshake { accept: accept(key), names: Offer::read(headers).names })
    }
}

/// Checks a request that asks for SPDY/3.1, and gives the protocols it names, in order: each on a line of its own, or
/// several on one.
///
/// # Errors
/// The first rule it breaks.
pub fn spdy(request: &request::Parts) -> Result<Vec<String>, Error> {
    plain(request, Wanted::Spdy, &[Method::POST, Method::GET])?;
    let lines = request.headers.get_all(STREAM_PROTOCOL).iter();
    let names = lines.flat_map(|line| line.to_str().unwrap_or_default().split(',')).map(str::trim);
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// What holds for every upgrade.
fn plain(request: &request::Parts, upgrade: Wanted, methods: &[Method]) -> Result<(), Error> {
    let headers = &request.headers;
    if !methods.contains(&request.method) {
        return Err(Error::Method);
    }
    if request.version != Version::HTTP_11 {
        return Err(Error::Version);
    }
    if wanted(headers) != upgrade || !names_upgrade(headers) {
        return Err(Error::Upgrade);
    }
    let has_length = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if has_length || headers.contains_key(TRANSFER_ENCODING) { Err(Error::Body) } else { Ok(()) }
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
    use proptest::prelude::*;

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
        assert_eq!(handshake.names, ["v5.channel.k8s.io", "v4.channel.k8s.io"]);
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
    }

    #[test]
    fn spdy_is_asked_for_with_a_line_for_each_protocol_or_one_for_all() {
        let lines = [
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("content-length", "0"),
            ("x-stream-protocol-version", "v5.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io,v3.channel.k8s.io"),
        ];
        let mut parts = request(&lines);
        parts.method = Method::POST;
        let all = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io"].map(str::to_owned);
        assert_eq!(spdy(&parts), Ok(all.to_vec()));
        assert_eq!(spdy(&request(&lines[..2])), Ok(vec![]));
        parts.method = Method::PUT;
        assert_eq!(spdy(&parts), Err(Error::Method));
        assert_eq!(spdy(&request(&GOOD)), Err(Error::Upgrade));
        assert_eq!(spdy(&request(&[lines[0], lines[1], ("content-length", "1")])), Err(Error::Body));
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

    proptest! {
        #[test]
        fn protocols_and_a_token_are_read_as_they_were_offered(
            names in prop::collection::vec("[a-zA-Z0-9][a-zA-Z0-9.+/-]{0,20}", 0..5),
            token in prop::option::of("\\PC{1,30}"), at in any::<prop::sample::Index>(), spaced: bool,
        ) {
            let mut listed = names.clone();
            if let Some(token) = &token {
                listed.insert(at.index(names.len() + 1), format!("{BEARER_PREFIX}{}", URL_SAFE_NO_PAD.encode(token)));
            }
            let line = listed.join(if spaced { " , " } else { "," });
            let offer = Offer::read(&request(&[("sec-websocket-protocol", &line)]).headers);
            prop_assert_eq!(offer, Offer { names, bearer: token });
        }

        #[test]
        fn no_header_makes_an_upgrade_of_what_is_none(
            name in prop::sample::select(vec!["connection", "upgrade", "sec-websocket-version", "sec-websocket-key", "content-length", "transfer-encoding"]),
            value in "[ -~]{0,30}",
        ) {
            let mut headers: Vec<(&str, &str)> = GOOD.iter().copied().filter(|(known, _)| *known != name).collect();
            headers.push((name, &value));
            let parts = request(&headers);
            if let Ok(handshake) = Handshake::check(&parts) {
                prop_assert_eq!(handshake.names.len(), 2);
                prop_assert_eq!(wanted(&parts.headers), Wanted::WebSocket);
                prop_assert!(name != "content-length" || value == "0");
                prop_assert!(name != "transfer-encoding");
            }
        }
    }
}
