//! Logs and watches for clients that ask for them as WebSockets: the same read as any other, forwarded as an ordinary
//! request, whose answer is cut into messages here.
//!
//! As the API server has it: a log is the bytes as they come, in binary messages or in base64, after one that is empty;
//! a watch is an event a message, in text. It asks for an `Origin` with a watch, here none is needed. What the client
//! says is not looked at. Source: k8s.io/apiserver `pkg/endpoints/handlers/watch.go`, `pkg/util/wsstream/stream.go`.

use super::status::Refusal;
use super::stream::SWITCH;
use super::upgrade::Transport;
use super::{Asked, Body, Gateway};
use crate::core::action::Action;
use crate::core::api_path::Kind;
use crate::core::wire::handshake::Handshake;
use crate::core::wire::websocket::{Decoder, Message, Opcode, Side, encode, encode_close};
use crate::edge::net::upstream::{self, Warrant};
use crate::service::relay::{LINGER, PING};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

/// The protocols of a log, by name; without one it is binary.
const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";
/// The largest message of a client, which has nothing to say.
const HEARD: usize = 64 * 1024;
/// The largest event of a watch; objects are smaller by far.
const EVENT: usize = 32 << 20;

/// What an answer is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    Base64,
    /// Text, a line each.
    Lines,
}

/// Why it ends: the close code that the client gets, or none where there is nobody to tell.
type End = Option<u16>;

impl Gateway {
    /// Reads what the request asks for, and switches the client over when there is something to read.
    pub(super) async fn read_over_websocket(
        self: &Arc<Self>,
        asked: &Arc<Asked>,
        kind: Kind,
        action: &Action,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (mut parts, body) = request.into_parts();
        let handshake = Handshake::check(&parts).map_err(|error| Refusal::bad_request(error.to_string()))?;
        let (form, protocol) = form(kind, &handshake.names)?;
        // What is cut into messages must be the text itself.
        parts.headers.remove(ACCEPT_ENCODING);
        let response = self.read(asked, action, Request::from_parts(parts, body)).await?;
        if response.status() != StatusCode::OK {
            return Ok(response);
        }
        let is_json =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        if form == Form::Lines && !is_json {
            let message = "a watch over a WebSocket is in JSON; ask for application/json";
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, message));
        }
        let transport = Transport::WebSocket { accept: handshake.accept };
        let switched = transport.switched(protocol.unwrap_or_default(), response.headers(), upstream::empty())?;
        let (body, stop) = (response.into_body(), self.edges.stop.clone());
        self.edges.tracker.spawn(async move {
            if let Ok(Ok(client)) = timeout(SWITCH, on_upgrade).await {
                pass(TokioIo::new(client), body, form, &stop).await;
            }
        });
        Ok(switched)
    }

    /// A read changes nothing: it may be under way while its entry is, and waits for it before it is answered.
    pub(super) async fn read(
        &self,
        asked: &Asked,
        action: &Action,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let (_, permit) = self.permit(asked, action).await?;
        let forwarded = self.forward(asked, request, Warrant::Permit(permit), None);
        let (written, forwarded) = tokio::join!(self.decided(asked, None), forwarded);
        written.and(forwarded)
    }
}

/// How the answer is cut, and the protocol that is agreed.
fn form(kind: Kind, names: &[String]) -> Result<(Form, Option<&str>), Refusal> {
    if kind == Kind::Watch {
        return match names {
            [] => Ok((Form::Lines, None)),
            [only] => Ok((Form::Lines, Some(only))),
            [_, _, ..] => Err(Refusal::forbidden("a watch over a WebSocket has at most one protocol")),
        };
    }
    let known = |name: &&String| matches!(name.as_str(), BINARY | BASE64);
    match names.iter().find(known) {
        Some(name) if name == BASE64 => Ok((Form::Base64, Some(name))),
        Some(name) => Ok((Form::Binary, Some(name))),
        None if names.is_empty() => Ok((Form::Binary, None)),
        None => Err(Refusal::forbidden(format!("none of the protocols is known; offer {BINARY} or {BASE64}"))),
    }
}

/// Passes the answer on until it ends, the client goes, or the process does.
async fn pass<C: AsyncRead + AsyncWrite + Send>(client: C, body: Body, form: Form, stop: &CancellationToken) {
    let (mut reader, mut writer) = tokio::io::split(client);
    let code = match told(&mut reader, &mut writer, body, form, stop).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    let Some(code) = code else { return };
    let mut out = BytesMut::new();
    encode_close(&mut out, Some(code), b"", None);
    let farewell = async {
        writer.write_all(&out).await?;
        writer.shutdown().await
    };
    if !matches!(timeout(LINGER, farewell).await, Ok(Ok(()))) {
        tracing::debug!("a reader was gone before its answer ended");
    }
}

async fn told<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut R,
    writer: &mut W,
    mut body: Body,
    form: Form,
    stop: &CancellationToken,
) -> Result<std::convert::Infallible, End> {
    let (mut decoder, mut out, mut line) = (Decoder::new(Side::Client, HEARD), BytesMut::new(), BytesMut::new());
    let mut ping = interval_at(Instant::now() + PING, PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if form != Form::Lines {
        cut(form, b"", &mut line, &mut out);
    }
    loop {
        writer.write_all_buf(&mut out).await.map_err(|_| None)?;
        writer.flush().await.map_err(|_| None)?;
        tokio::select! {
            frame = body.frame() => match frame {
                None => return Err(Some(1000)),
                Some(Err(_)) => return Err(Some(1011)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        cut(form, bytes.chunk(), &mut line, &mut out);
                    }
                    if line.len() > EVENT {
                        return Err(Some(1009));
                    }
                }
            },
            read = reader.read_buf(decoder.buffer()) => {
                if read.map_err(|_| None)? == 0 {
                    return Err(None);
                }
                let heard = hear(&mut decoder, &mut out);
                if heard.is_err() {
                    // What was asked before the end is answered before it.
                    writer.write_all_buf(&mut out).await.map_err(|_| None)?;
                }
                heard?;
            }
            _ = ping.tick() => encode(&mut out, Opcode::Ping, None, &[]),
            () = stop.cancelled() => return Err(Some(1001)),
        }
    }
}

/// Answers pings and sees the end; the rest of what a client says means nothing here.
fn hear(decoder: &mut Decoder, out: &mut BytesMut) -> Result<(), End> {
    loop {
        match decoder.next_message() {
            Ok(None) => return Ok(()),
            Ok(Some(Message::Ping(bytes))) => encode(out, Opcode::Pong, None, &[&bytes]),
            Ok(Some(Message::Close { .. })) => return Err(Some(1000)),
            Ok(Some(Message::Data(_) | Message::Pong(_))) => {}
            Err(error) => return Err(Some(error.close_code())),
        }
    }
}

/// Cuts bytes into messages; of a line that has not ended `line` keeps the beginning.
fn cut(form: Form, bytes: &[u8], line: &mut BytesMut, out: &mut BytesMut) {
    match form {
        Form::Binary => encode(out, Opcode::Binary, None, &[bytes]),
        Form::Base64 => encode(out, Opcode::Text, None, &[STANDARD.encode(bytes).as_bytes()]),
        Form::Lines => {
            for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    encode(out, Opcode::Text, None, &[&line.split()]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(form: Form, chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut line, mut out) = (BytesMut::new(), BytesMut::new());
        chunks.iter().for_each(|chunk| cut(form, chunk, &mut line, &mut out));
        let mut decoder = Decoder::new(Side::Server, EVENT);
        decoder.push(&out);
        let next = || decoder.next_message().expect("frames");
        std::iter::from_fn(next)
            .map(|message| if let Message::Data(bytes) = message { bytes.to_vec() } else { panic!("{message:?}") })
            .collect()
    }

    #[test]
    fn a_log_is_what_came_and_a_watch_an_event_a_message() {
        assert_eq!(messages(Form::Binary, &[b"a\nb", b"\xff"]), [b"a\nb".to_vec(), b"\xff".to_vec()]);
        assert_eq!(messages(Form::Base64, &[b"a\n"]), [b"YQo=".to_vec()]);
        let events = messages(Form::Lines, &[b"{\"one\"", b":1}\n{\"two\":2}\n{", b"\"three\":3}\n", b"{\"half"]);
        assert_eq!(events, [b"{\"one\":1}\n".to_vec(), b"{\"two\":2}\n".to_vec(), b"{\"three\":3}\n".to_vec()]);
    }

    #[test]
    fn protocols_are_chosen_as_the_api_server_does() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let chosen = |kind, offered: &[&str]| form(kind, &names(offered)).map(|(form, _)| form).ok();
        assert_eq!(chosen(Kind::Log, &[]), Some(Form::Binary));
        assert_eq!(chosen(Kind::Log, &["x", BASE64, BINARY]), Some(Form::Base64));
        assert_eq!(chosen(Kind::Log, &[BINARY]), Some(Form::Binary));
        assert_eq!(chosen(Kind::Log, &["v4.channel.k8s.io"]), None);
        assert_eq!(chosen(Kind::Watch, &[]), Some(Form::Lines));
        assert_eq!(chosen(Kind::Watch, &["a", "b"]), None);
    }
}
