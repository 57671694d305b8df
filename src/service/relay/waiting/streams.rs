//! The streams of a client that waits: over SPDY it opens them one by one and goes no further before each is taken, so
//! Kustody takes them in the API server's place, by the same rules as in a session (`table.rs`).
//!
//! What the client is told has its place on them: the line on standard output as soon as that is open, the final status
//! when all are, since client-go reads none before. Over WebSocket there is nothing to open, and every channel is there.

use super::super::Speech;
use super::super::ending::End;
use super::super::leg::Heard;
use super::Waiting;
use crate::core::recording::{Cause, Channel};
use crate::core::wire::channels;
use crate::core::wire::spdy::{Frame, Headers, ResetStatus, StreamId};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

impl<C: AsyncRead + AsyncWrite + Send> Waiting<C> {
    /// Whether the client has a place for an answer.
    pub(super) fn is_settled(&self) -> bool {
        self.session.speech != Speech::Spdy || self.table.is_complete(self.session.streams)
    }

    /// Takes a stream in the API server's place.
    pub(super) async fn open(&mut self, stream: StreamId, fin: bool, headers: &Headers) -> Result<(), End> {
        if self.table.open(stream, headers, self.session.streams).is_none() {
            self.client.writer.frame(&Frame::RstStream { stream, status: ResetStatus::RefusedStream });
            if std::mem::replace(&mut self.noted, true) {
                return Ok(());
            }
            let noted = self.note("dropped", "a stream that was not asked for was not taken").await;
            return noted.map_err(|_| End::recorder());
        }
        if let Some(open) = self.table.find(stream) {
            open.lane.greeted = true;
        }
        self.client.writer.frame(&Frame::SynReply { stream, fin: false, headers: Headers::default() });
        self.speak();
        if fin {
            self.early.push_back(Heard::Frame(Frame::Data { stream, fin, bytes: Bytes::new() }));
        }
        Ok(())
    }

    /// Says what is to be said, if there is a place for it.
    pub(super) fn speak(&mut self) {
        let stdout = self.table.of(Channel::Stdout);
        if self.session.speech == Speech::Spdy && stdout.is_none() {
            return;
        }
        let Some(bytes) = self.word.take() else { return };
        match stdout {
            Some(stream) => self.client.writer.frame(&Frame::Data { stream, fin: false, bytes }),
            None => self.tell(channels::STDOUT, bytes),
        }
    }

    /// Gives the client its final word. Over SPDY nothing more comes on any stream: kubectl waits for that.
    pub(super) fn tell_status(&mut self, status: Bytes) {
        if self.session.speech != Speech::Spdy {
            return self.tell(channels::ERROR, status);
        }
        let error = self.table.of(Channel::Error);
        if let Some(stream) = error {
            self.client.writer.frame(&Frame::Data { stream, fin: true, bytes: status });
        }
        for (stream, _) in self.table.opened().filter(|(stream, _)| Some(*stream) != error) {
            self.client.writer.frame(&Frame::Data { stream, fin: true, bytes: Bytes::new() });
        }
    }
}

/// The end of a client that does not get that far.
pub(super) fn never_opened() -> End {
    let end = End::new(Cause::ProtocolError, "the client did not open the streams it asked for in time");
    end.notice("NOT EXECUTED. The client did not open the streams it asked for", "BadRequest", 400)
}
