//! What one message means for the session: record it, then queue it for the other side.
//!
//! The order is the invariant: every `record` comes before the `frame` of the same bytes, and its error
//! leaves the function before that.

use super::{End, Relay, word};
use crate::core::recording::{Cause, Channel, Direction, EventKind};
use crate::core::wire::channels::{self, BadClose, FromClient, FromServer};
use crate::core::wire::websocket::{Message, Opcode};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

impl<C: AsyncRead + AsyncWrite, U: AsyncRead + AsyncWrite> Relay<C, U> {
    /// Handles every whole message the client has sent.
    pub(super) async fn hear_client(&mut self) -> Result<(), End> {
        loop {
            match self.client.reader.decoder.next_message() {
                Ok(None) => return Ok(()),
                Ok(Some(Message::Ping(bytes))) => self.client.writer.frame(Opcode::Pong, &[&bytes]),
                Ok(Some(Message::Pong(_))) => {}
                Ok(Some(Message::Close { code, .. })) => {
                    let end = End::new(self.cause(Cause::ClientGone), "the client closed the session");
                    self.client.writer.close(code, b"");
                    return Err(end.client(None).upstream(code.or(Some(1000))));
                }
                Ok(Some(Message::Data(message))) => self.client_message(&message).await?,
                Err(error) => {
                    let detail = format!("the client: {error}");
                    return Err(End::new(Cause::ProtocolError, detail).client(Some(error.close_code())));
                }
            }
        }
    }

    /// Handles every whole message the API server has sent.
    pub(super) async fn hear_server(&mut self) -> Result<(), End> {
        loop {
            match self.upstream.reader.decoder.next_message() {
                Ok(None) => return Ok(()),
                Ok(Some(Message::Ping(bytes))) => self.upstream.writer.frame(Opcode::Pong, &[&bytes]),
                Ok(Some(Message::Pong(_))) => {}
                Ok(Some(Message::Close { code, reason })) => {
                    self.client.writer.close(code, &reason);
                    self.upstream.writer.close(code, b"");
                    let cause = self.cause(Cause::UpstreamLost);
                    let detail = code.map_or_else(String::new, |code| format!("closed with code {code}"));
                    return Err(End::new(cause, detail).client(None).upstream(None));
                }
                Ok(Some(Message::Data(message))) => self.server_message(&message).await?,
                Err(error) => {
                    let detail = format!("the API server: {error}");
                    let end = End::new(Cause::ProtocolError, detail).client(Some(1011));
                    return Err(end.upstream(Some(error.close_code())));
                }
            }
        }
    }

    async fn client_message(&mut self, message: &Bytes) -> Result<(), End> {
        let session = &self.session;
        let meaning = session.protocol.from_client(session.streams, message).map_err(bad_close)?;
        match meaning {
            FromClient::Stdin(_) if self.seen.stdin_closed => self.dropped(Some(channels::STDIN)).await,
            FromClient::Stdin(bytes) => {
                self.data(Channel::Stdin, Direction::ToContainer, &bytes).await?;
                self.tell_server(&[&[channels::STDIN], &bytes]);
                Ok(())
            }
            FromClient::Resize(bytes) => {
                for size in self.sizes.push(&bytes) {
                    self.record(EventKind::Resize { cols: size.cols, rows: size.rows }).await?;
                }
                self.tell_server(&[&[channels::RESIZE], &bytes]);
                Ok(())
            }
            FromClient::HalfClose(channel) => {
                self.seen.stdin_closed = true;
                let direction = Direction::ToContainer;
                self.record(EventKind::HalfClose { channel: Channel::Stdin, direction }).await?;
                self.tell_server(&[&[channels::CLOSE, channel]]);
                Ok(())
            }
            FromClient::Dropped { channel, .. } => self.dropped(channel).await,
        }
    }

    async fn server_message(&mut self, message: &Bytes) -> Result<(), End> {
        match self.session.protocol.from_server(message).map_err(bad_close)? {
            FromServer::Stdout(bytes) => {
                self.data(Channel::Stdout, Direction::ToClient, &bytes).await?;
                self.tell_client(&[&[channels::STDOUT], &bytes]);
            }
            FromServer::Stderr(bytes) => {
                self.data(Channel::Stderr, Direction::ToClient, &bytes).await?;
                self.tell_client(&[&[channels::STDERR], &bytes]);
            }
            FromServer::Status(bytes) => {
                if !bytes.is_empty() {
                    self.record(EventKind::Status { bytes: bytes.clone() }).await?;
                    self.seen.status = true;
                }
                self.tell_client(&[&[channels::ERROR], &bytes]);
            }
            FromServer::HalfClose(channel) => {
                if let Some(channel) = known(channel) {
                    let direction = Direction::ToClient;
                    self.record(EventKind::HalfClose { channel, direction }).await?;
                }
                self.tell_client(&[&[channels::CLOSE, channel]]);
            }
            FromServer::Unknown { channel, payload } => {
                let detail = format!("{} bytes on unknown channel {channel} not passed on", payload.len());
                self.record(EventKind::Marker { name: "dropped".into(), detail }).await?;
            }
            FromServer::Empty => {}
        }
        Ok(())
    }

    /// Notes the first message that is not passed on; the rest are counted.
    async fn dropped(&mut self, channel: Option<u8>) -> Result<(), End> {
        self.seen.dropped += 1;
        if self.seen.dropped > 1 {
            return Ok(());
        }
        let channel = channel.map_or_else(|| "no channel".to_owned(), |n| format!("channel {n}"));
        let detail = format!("a message of the {} on {channel} has no effect", word(Direction::ToContainer));
        self.record(EventKind::Marker { name: "dropped".into(), detail }).await
    }

    async fn data(&mut self, channel: Channel, direction: Direction, bytes: &Bytes) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.record(EventKind::Data { channel, direction, bytes: bytes.clone() }).await
    }

    pub(super) async fn record(&mut self, event: EventKind) -> Result<(), End> {
        let at = self.session.recording.elapsed();
        match self.session.recording.append(at, event).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(session = %self.session.recording.session(), %error, "recording failed");
                Err(End::recorder())
            }
        }
    }

    fn tell_server(&mut self, parts: &[&[u8]]) {
        self.upstream.writer.frame(Opcode::Binary, parts);
    }

    pub(super) fn tell_client(&mut self, parts: &[&[u8]]) {
        self.client.writer.frame(Opcode::Binary, parts);
    }

    /// `otherwise`, unless the process had already given its final status.
    pub(super) fn cause(&self, otherwise: Cause) -> Cause {
        if self.seen.status { Cause::Completed } else { otherwise }
    }
}

fn bad_close(error: BadClose) -> End {
    End::new(Cause::ProtocolError, error.to_string()).client(Some(1002))
}

fn known(channel: u8) -> Option<Channel> {
    Channel::ALL.into_iter().find(|known| known.number() == channel && *known != Channel::Control)
}
