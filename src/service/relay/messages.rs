//! What the sides say: each frame or message is recorded, then queued for the other side. Here are the messages of the
//! channel protocols; `frames.rs` has the frames of SPDY.
//!
//! The order is the invariant: every `record` comes before the `frame` of the same bytes, and its error
//! leaves the function before that.

use super::ending::Notice;
use super::leg::{Error, Heard, Writer};
use super::{End, Relay, Speech, word};
use crate::core::recording::{Cause, Channel, Direction, EventKind};
use crate::core::wire::channels::{self, BadClose, FromClient, FromServer};
use crate::core::wire::spdy::Frame;
use crate::core::wire::websocket::Opcode;
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// The close code for what is not allowed.
const POLICY: u16 = 1008;
/// The longest reason in a close frame: a control frame's 125 bytes without the code.
const MAX_REASON: usize = 123;

impl<C: AsyncRead + AsyncWrite, U: AsyncRead + AsyncWrite> Relay<C, U> {
    /// Handles everything whole that the client has sent.
    pub(super) async fn hear_client(&mut self) -> Result<(), End> {
        loop {
            let heard = match self.parked.take().map(Heard::Frame).or_else(|| self.early.pop_front()) {
                Some(heard) => Ok(Some(heard)),
                None => self.client.hear(),
            };
            if matches!(heard, Ok(Some(_))) {
                self.meter.active();
            }
            match heard {
                Ok(None) => return Ok(()),
                Ok(Some(Heard::Closed { code, .. })) => {
                    let end = End::new(self.cause(Cause::ClientGone), "the client closed the session");
                    self.client.writer.close(code, b"");
                    return Err(end.client(None).upstream(code.or(Some(1000))));
                }
                Ok(Some(Heard::Message(message))) => self.client_message(&message).await?,
                Ok(Some(Heard::Frame(frame))) if self.table.must_wait(&frame) || self.ports.must_wait(&frame) => {
                    self.parked = Some(frame);
                    return Ok(());
                }
                Ok(Some(Heard::Frame(frame))) => self.client_frame(frame).await?,
                Err(error) => {
                    return Err(unacceptable(Direction::ToContainer, &error).client(Some(error.close_code())));
                }
            }
        }
    }

    /// Handles everything whole that the API server has sent.
    pub(super) async fn hear_server(&mut self) -> Result<(), End> {
        loop {
            let heard = self.upstream.hear();
            if matches!(heard, Ok(Some(_))) {
                self.meter.active();
            }
            match heard {
                Ok(None) => return Ok(()),
                Ok(Some(Heard::Closed { code, reason })) => {
                    self.client.writer.close(code, &reason);
                    self.upstream.writer.close(code, b"");
                    let silent = match self.session.speech {
                        Speech::Channels(protocol) => protocol.succeeds_silently(),
                        Speech::ForwardChannels(_) => true,
                        Speech::Spdy | Speech::Forward | Speech::ForwardTunnel => false,
                    };
                    let otherwise = if silent && code == Some(1000) { Cause::Completed } else { Cause::UpstreamLost };
                    let cause = self.cause(otherwise);
                    let detail = code.map_or_else(String::new, |code| format!("closed with code {code}"));
                    return Err(End::new(cause, detail).client(None).upstream(None).at_leisure());
                }
                Ok(Some(Heard::Message(message))) => self.server_message(&message).await?,
                Ok(Some(Heard::Frame(frame))) => self.server_frame(frame).await?,
                Err(error) => {
                    let end = unacceptable(Direction::ToClient, &error).client(Some(1011));
                    return Err(end.upstream(Some(error.close_code())));
                }
            }
        }
    }

    async fn client_message(&mut self, message: &Bytes) -> Result<(), End> {
        let protocol = match self.session.speech {
            Speech::Channels(protocol) => protocol,
            Speech::ForwardChannels(protocol) => return self.client_port_message(protocol, message).await,
            Speech::Spdy | Speech::Forward | Speech::ForwardTunnel => return Ok(()),
        };
        match protocol.from_client(self.session.streams, message).map_err(bad_close)? {
            FromClient::Stdin(_) if self.seen.stdin_closed => self.dropped(Some(channels::STDIN)).await,
            FromClient::Stdin(bytes) => {
                self.data(Channel::Stdin, Direction::ToContainer, &bytes).await?;
                self.tell_server(channels::STDIN, bytes);
                Ok(())
            }
            FromClient::Resize(bytes) => {
                let sizes = self.resized(&bytes).await?;
                if !sizes.is_empty() {
                    self.tell_server(channels::RESIZE, sizes);
                }
                Ok(())
            }
            FromClient::HalfClose(channel) => {
                self.seen.stdin_closed = true;
                let direction = Direction::ToContainer;
                self.record(EventKind::HalfClose { channel: Channel::Stdin, direction }).await?;
                self.tell_server(channels::CLOSE, Bytes::copy_from_slice(&[channel]));
                Ok(())
            }
            FromClient::Dropped { channel, .. } => self.dropped(channel).await,
        }
    }

    async fn server_message(&mut self, message: &Bytes) -> Result<(), End> {
        let protocol = match self.session.speech {
            Speech::Channels(protocol) => protocol,
            Speech::ForwardChannels(protocol) => return self.server_port_message(protocol, message).await,
            Speech::Spdy | Speech::Forward | Speech::ForwardTunnel => return Ok(()),
        };
        match protocol.from_server(message).map_err(bad_close)? {
            FromServer::Stdout(bytes) => {
                self.data(Channel::Stdout, Direction::ToClient, &bytes).await?;
                self.tell_client(channels::STDOUT, bytes);
            }
            FromServer::Stderr(bytes) => {
                self.data(Channel::Stderr, Direction::ToClient, &bytes).await?;
                self.tell_client(channels::STDERR, bytes);
            }
            FromServer::Status(bytes) => {
                if !bytes.is_empty() {
                    self.record(EventKind::Status { bytes: bytes.clone() }).await?;
                    self.seen.status = true;
                }
                self.tell_client(channels::ERROR, bytes);
            }
            FromServer::HalfClose(channel) => {
                if let Some(channel) = known(channel) {
                    let direction = Direction::ToClient;
                    self.record(EventKind::HalfClose { channel, direction }).await?;
                }
                self.tell_client(channels::CLOSE, Bytes::copy_from_slice(&[channel]));
            }
            FromServer::Unknown { channel, payload } => {
                let detail = format!("{} bytes on unknown channel {channel} not passed on", payload.len());
                self.record(EventKind::Marker { name: "dropped".into(), detail }).await?;
            }
            FromServer::Empty => {}
        }
        Ok(())
    }

    /// Records the sizes in a piece of the resize stream, and gives what goes on: the same ones, written anew.
    pub(super) async fn resized(&mut self, piece: &[u8]) -> Result<Bytes, End> {
        let mut out = BytesMut::new();
        for size in self.sizes.push(piece) {
            self.record(EventKind::Resize { cols: size.cols, rows: size.rows }).await?;
            out.extend_from_slice(size.to_json().as_bytes());
        }
        if self.sizes.is_lost() {
            self.without_effect("a resize channel that cannot be read").await?;
        }
        Ok(out.freeze())
    }

    async fn dropped(&mut self, channel: Option<u8>) -> Result<(), End> {
        let channel = channel.map_or_else(|| "no channel".to_owned(), |n| format!("channel {n}"));
        self.without_effect(&channel).await
    }

    /// Notes the first thing of the client that is not passed on; the rest are counted.
    pub(super) async fn without_effect(&mut self, place: &str) -> Result<(), End> {
        self.seen.dropped += 1;
        if self.seen.dropped > 1 {
            return Ok(());
        }
        let detail = format!("a message of the {} on {place} has no effect", word(Direction::ToContainer));
        self.record(EventKind::Marker { name: "dropped".into(), detail }).await
    }

    pub(super) async fn data(&mut self, channel: Channel, direction: Direction, bytes: &Bytes) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.record(EventKind::Data { channel, direction, bytes: bytes.clone() }).await
    }

    /// Records what is kept of an event; nothing of it goes on before.
    pub(super) async fn record(&mut self, event: EventKind) -> Result<(), End> {
        let at = self.session.recording.elapsed();
        for event in self.keep.take(at, event) {
            self.append(at, event).await?;
        }
        Ok(())
    }

    pub(super) async fn append(&mut self, at: Duration, event: EventKind) -> Result<(), End> {
        if !self.seen.ending && !self.meter.fits(&event, &self.session.limits) {
            let most = self.session.limits.recording;
            return Err(End::limit(&format!("its recording has reached {most} bytes, which is the most")));
        }
        let (recording, mode) = (&mut self.session.recording, self.session.keeping.mode);
        match self.lost.append(recording, mode, (at, event)).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(session = %self.session.recording.session(), %error, "recording failed");
                Err(End::recorder())
            }
        }
    }

    pub(super) fn tell_server(&mut self, channel: u8, bytes: Bytes) {
        tell(&mut self.upstream.writer, self.session.speech, channel, bytes);
    }

    pub(super) fn tell_client(&mut self, channel: u8, bytes: Bytes) {
        tell(&mut self.client.writer, self.session.speech, channel, bytes);
    }

    /// Gives the client a final word of Kustody's own: a status where there is a place for one.
    pub(super) fn tell_status(&mut self, notice: &Notice, status: Bytes) {
        match self.session.speech {
            Speech::Channels(_) => self.tell_client(channels::ERROR, status),
            Speech::Forward | Speech::ForwardTunnel => self.tell_connections(&notice.message),
            // An error channel can be anything's last word there; the close frame says why.
            Speech::ForwardChannels(_) => {
                self.client.writer.close(Some(POLICY), clip(&notice.message).as_bytes());
            }
            Speech::Spdy => {
                if let Some(stream) = self.table.of(Channel::Error) {
                    self.client.writer.frame(&Frame::Data { stream, fin: true, bytes: status });
                }
            }
        }
    }

    /// `otherwise`, unless the process had already given its final status.
    pub(super) fn cause(&self, otherwise: Cause) -> Cause {
        if self.seen.status { Cause::Completed } else { otherwise }
    }
}

/// Queues a message of a channel protocol.
pub(super) fn tell<T: AsyncWrite>(writer: &mut Writer<T>, speech: Speech, channel: u8, bytes: Bytes) {
    if let Speech::Channels(protocol) | Speech::ForwardChannels(protocol) = speech {
        let opcode = if protocol.is_text() { Opcode::Text } else { Opcode::Binary };
        writer.message(opcode, &[&[protocol.channel(channel)], &protocol.payload(bytes)]);
    }
}

/// A peer has sent what cannot be taken.
fn unacceptable(from: Direction, error: &Error) -> End {
    let detail = format!("the {}: {error}", word(from));
    if error.is_limit() { End::limit(&detail) } else { End::new(Cause::ProtocolError, detail) }
}

/// As much of a text as a close frame holds.
fn clip(text: &str) -> &str {
    let most = (0..=MAX_REASON.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    most.and_then(|end| text.get(..end)).unwrap_or_default()
}

fn bad_close(error: BadClose) -> End {
    End::new(Cause::ProtocolError, error.to_string()).client(Some(1002))
}

fn known(channel: u8) -> Option<Channel> {
    Channel::ALL.into_iter().find(|known| known.number() == channel && channel <= channels::RESIZE)
}
