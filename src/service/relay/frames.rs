//! exec and attach over SPDY: what one frame means for the session.
//!
//! Both legs use the client's stream ids. A stream that is opened here is opened there under its name alone; nothing is
//! sent on it before the API server has taken it. As with messages, every `record` comes before the frame of the same
//! bytes, and its error leaves the function before that.

use super::{End, Relay};
use crate::core::recording::summary::Exit;
use crate::core::recording::{Cause, Channel, Direction, EventKind};
use crate::core::wire::spdy::{Frame, Headers, ResetStatus, StreamId};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

impl<C: AsyncRead + AsyncWrite, U: AsyncRead + AsyncWrite> Relay<C, U> {
    pub(super) async fn client_frame(&mut self, frame: Frame) -> Result<(), End> {
        if self.session.speech.forwards() {
            return self.client_forwards(frame).await;
        }
        match frame {
            Frame::SynStream { stream, fin, headers } => self.client_opens(stream, fin, &headers).await,
            Frame::Data { stream, fin, bytes } => self.client_sends(stream, fin, bytes).await,
            Frame::RstStream { stream, status } => self.client_resets(stream, status).await,
            Frame::GoAway { .. } => {
                let end = End::new(self.cause(Cause::ClientGone), "the client closed the session");
                Err(end.client(None))
            }
            // Would block the connection at the API server for good.
            Frame::Headers { .. } => self.without_effect("a stream's headers").await,
            Frame::SynReply { .. } | Frame::Settings(_) | Frame::Ping(_) | Frame::WindowUpdate { .. } => Ok(()),
        }
    }

    /// Opens the streams that the client opened while it waited for people.
    pub(super) fn open_streams(&mut self) {
        for (stream, headers) in self.table.opened() {
            self.upstream.writer.frame(&Frame::SynStream { stream, fin: false, headers });
        }
    }

    pub(super) async fn server_frame(&mut self, frame: Frame) -> Result<(), End> {
        if self.session.speech.forwards() {
            return self.server_forwards(frame).await;
        }
        match frame {
            Frame::SynReply { stream, fin, .. } => {
                let Some(open) = self.table.find(stream) else {
                    return Ok(());
                };
                open.lane.taken = true;
                if !open.lane.greeted {
                    self.client.writer.frame(&Frame::SynReply { stream, fin, headers: Headers::default() });
                }
                if fin { self.server_sends(stream, true, Bytes::new()).await } else { Ok(()) }
            }
            Frame::Data { stream, fin, bytes } => self.server_sends(stream, fin, bytes).await,
            Frame::RstStream { stream, status } => self.server_resets(stream, status).await,
            Frame::GoAway { .. } => {
                self.last_words().await?;
                let cause = self.cause(Cause::UpstreamLost);
                Err(End::new(cause, "the API server closed the session").upstream(None).at_leisure())
            }
            Frame::SynStream { .. }
            | Frame::Headers { .. }
            | Frame::Settings(_)
            | Frame::Ping(_)
            | Frame::WindowUpdate { .. } => Ok(()),
        }
    }

    /// Passes on what has come of a status that the API server did not finish.
    pub(super) async fn last_words(&mut self) -> Result<(), End> {
        let (Some(stream), Some(status)) = (self.table.of(Channel::Error), self.table.status(&[], true)) else {
            return Ok(());
        };
        self.status(stream, false, status).await
    }

    async fn client_opens(&mut self, stream: StreamId, fin: bool, headers: &Headers) -> Result<(), End> {
        let Some(channel) = self.table.open(stream, headers, self.session.streams) else {
            self.client.writer.frame(&Frame::RstStream { stream, status: ResetStatus::RefusedStream });
            return self.without_effect("a stream that was not asked for").await;
        };
        if fin {
            self.half_close(stream, Direction::ToContainer).await?;
        }
        let headers = Headers::new([("streamtype", channel.name())]);
        self.upstream.writer.frame(&Frame::SynStream { stream, fin, headers });
        Ok(())
    }

    async fn client_sends(&mut self, stream: StreamId, fin: bool, bytes: Bytes) -> Result<(), End> {
        let Some((channel, false)) = self.table.find(stream).map(|open| (open.channel, open.lane.client_done)) else {
            return self.without_effect("a stream that is closed").await;
        };
        let bytes = match channel {
            Channel::Stdin => {
                self.data(channel, Direction::ToContainer, &bytes).await?;
                bytes
            }
            Channel::Resize => self.resized(&bytes).await?,
            Channel::Stdout | Channel::Stderr | Channel::Error | Channel::Control | Channel::Connection => {
                if !bytes.is_empty() {
                    self.without_effect(channel.name()).await?;
                }
                Bytes::new()
            }
        };
        if fin {
            self.half_close(stream, Direction::ToContainer).await?;
        }
        if fin || !bytes.is_empty() {
            self.upstream.writer.frame(&Frame::Data { stream, fin, bytes });
        }
        Ok(())
    }

    async fn client_resets(&mut self, stream: StreamId, status: ResetStatus) -> Result<(), End> {
        if self.table.find(stream).is_none() {
            return Ok(());
        }
        self.half_close(stream, Direction::ToContainer).await?;
        if let Some(open) = self.table.find(stream) {
            open.lane.server_done = true;
        }
        self.upstream.writer.frame(&Frame::RstStream { stream, status });
        Ok(())
    }

    async fn server_sends(&mut self, stream: StreamId, fin: bool, bytes: Bytes) -> Result<(), End> {
        let Some((channel, false)) = self.table.find(stream).map(|open| (open.channel, open.lane.server_done)) else {
            return Ok(());
        };
        match channel {
            Channel::Stdout | Channel::Stderr => self.data(channel, Direction::ToClient, &bytes).await?,
            Channel::Error => {
                return match self.table.status(&bytes, fin) {
                    Some(status) => self.status(stream, fin, status).await,
                    None => Ok(()),
                };
            }
            Channel::Stdin | Channel::Resize | Channel::Control | Channel::Connection if !bytes.is_empty() => {
                let detail = format!("{} bytes of the API server on {} not passed on", bytes.len(), channel.name());
                self.record(EventKind::Marker { name: "dropped".into(), detail }).await?;
            }
            Channel::Stdin | Channel::Resize | Channel::Control | Channel::Connection => {}
        }
        if fin {
            self.half_close(stream, Direction::ToClient).await?;
        }
        let bytes = if matches!(channel, Channel::Stdout | Channel::Stderr) { bytes } else { Bytes::new() };
        if fin || !bytes.is_empty() {
            self.client.writer.frame(&Frame::Data { stream, fin, bytes });
        }
        Ok(())
    }

    async fn server_resets(&mut self, stream: StreamId, status: ResetStatus) -> Result<(), End> {
        let Some((channel, was_taken)) = self.table.find(stream).map(|open| (open.channel, open.lane.taken)) else {
            return Ok(());
        };
        if channel == Channel::Error {
            self.last_words().await?;
        }
        self.half_close(stream, Direction::ToClient).await?;
        if let Some(open) = self.table.find(stream) {
            // What waits for it to be taken waits no longer; there is nobody to send it to.
            (open.lane.taken, open.lane.client_done) = (true, true);
        }
        if !was_taken {
            let detail = format!("the API server did not take {}", channel.name());
            self.record(EventKind::Marker { name: "refused".into(), detail }).await?;
        }
        self.client.writer.frame(&Frame::RstStream { stream, status });
        Ok(())
    }

    /// Records and passes on what has come of the final status; with `fin` that is all of it. Empty means success to
    /// clients of the first three versions.
    async fn status(&mut self, stream: StreamId, fin: bool, bytes: Bytes) -> Result<(), End> {
        if !bytes.is_empty() {
            self.record(EventKind::Status { bytes: bytes.clone() }).await?;
        }
        if fin {
            self.half_close(stream, Direction::ToClient).await?;
        }
        self.seen.status |= fin || Exit::from_status(&bytes).is_some();
        if fin || !bytes.is_empty() {
            self.client.writer.frame(&Frame::Data { stream, fin, bytes });
        }
        Ok(())
    }

    /// Records, once, that nothing more comes on a stream in a direction.
    async fn half_close(&mut self, stream: StreamId, direction: Direction) -> Result<(), End> {
        let Some(open) = self.table.find(stream) else {
            return Ok(());
        };
        if std::mem::replace(open.lane.done(direction), true) {
            return Ok(());
        }
        let channel = open.channel;
        self.record(EventKind::HalfClose { channel, direction }).await
    }
}
