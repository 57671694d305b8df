//! An API server that speaks no WebSocket, made to look like one that does: the channel messages of an exec or attach
//! on the one side, SPDY streams on the other.
//!
//! It stands between the relay and the API server, so that the relay records, limits and ends a session as any other;
//! what passes here has been recorded already. Half-close, sizes and status are translated, pings answered on each
//! side. It decides nothing. Forwarded connections need no translation: inside a WebSocket they are SPDY already.
//! Main type: [`Translator`].

use super::ending::LINGER;
use super::lane::Lane;
use super::leg::{Error, Heard, Leg};
use super::messages::tell;
use super::{Framing, PING, Speech};
use crate::core::wire::channels::{self, FromClient, Protocol, Streams};
use crate::core::wire::spdy::{Frame, Headers, MAX_DATA, StreamId};
use bytes::{Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

/// What may be on its way between the relay and the translator.
const PIPE: usize = 64 * 1024;
/// The longest status that is kept together.
const STATUS: usize = 64 * 1024;
/// How long after the status the process' last output may come; it comes before it, as far as anybody has seen.
const LAST: Duration = Duration::from_millis(500);

/// One exec or attach between a relay that speaks channel messages and an API server that speaks SPDY.
pub(super) struct Translator<U> {
    speech: Speech,
    protocol: Protocol,
    streams: Streams,
    /// To the relay, which takes this for the API server.
    near: Leg<DuplexStream>,
    far: Leg<U>,
    open: Vec<Open>,
    status: BytesMut,
    /// The status is known, and the session ends then at the latest.
    over: Option<Instant>,
}

/// The stream of a channel.
struct Open {
    channel: u8,
    lane: Lane,
}

/// Why it ends.
enum Done {
    /// The process has ended.
    Over,
    /// A side is gone, or said what nobody understands. There is nothing to tell.
    Lost,
}

impl From<Error> for Done {
    fn from(_: Error) -> Done {
        Done::Lost
    }
}

impl From<io::Error> for Done {
    fn from(_: io::Error) -> Done {
        Done::Lost
    }
}

/// The protocol over SPDY that means the same as one of the channel protocols.
pub fn over_spdy(protocol: Protocol) -> &'static str {
    // Over SPDY v5 is v4; what v1 is over WebSocket, without its faults, is v2.
    if protocol.succeeds_silently() { "v2.channel.k8s.io" } else { "v4.channel.k8s.io" }
}

impl<U: AsyncRead + AsyncWrite> Translator<U> {
    /// A translator before an API server, and the connection that a relay takes for one to it.
    pub(super) fn before(
        upstream: U,
        protocol: Protocol,
        streams: Streams,
        max_message: usize,
    ) -> (Self, DuplexStream) {
        let (relay, near) = duplex(PIPE);
        let translator = Translator {
            speech: Speech::Channels(protocol),
            protocol,
            streams,
            near: Leg::with_client(near, Framing::WebSocket, max_message),
            far: Leg::with_server(upstream, Framing::Spdy, MAX_DATA),
            open: Vec::new(),
            status: BytesMut::new(),
            over: None,
        };
        (translator, relay)
    }

    /// Translates until a side is gone or the process has ended.
    pub(super) async fn run(mut self) {
        self.open_streams();
        let done = match self.translate().await {
            Ok(never) => match never {},
            Err(done) => done,
        };
        if matches!(done, Done::Over) {
            self.near.writer.close(Some(1000), b"");
        }
        self.far.writer.close(None, b"");
        let farewell = async {
            let (near, far) = tokio::join!(self.near.part(), self.far.writer.shut());
            near.and(far)
        };
        match timeout(LINGER, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a side was gone before the translation ended"),
            Err(_) => tracing::debug!("a side did not take the last frames in time"),
        }
    }

    /// Opens every stream that the request asked for, in the order of clients; the API server waits for all.
    fn open_streams(&mut self) {
        let Streams { stdin, stdout, stderr, tty } = self.streams;
        let sizes = tty && !self.protocol.succeeds_silently();
        let wanted = [
            (channels::ERROR, "error", true),
            (channels::STDIN, "stdin", stdin),
            (channels::STDOUT, "stdout", stdout),
            (channels::STDERR, "stderr", stderr && !tty),
            (channels::RESIZE, "resize", sizes),
        ];
        let wanted = wanted.into_iter().filter(|(_, _, is_wanted)| *is_wanted);
        for (id, (channel, name, _)) in (1..).step_by(2).filter_map(StreamId::new).zip(wanted) {
            self.open.push(Open { channel, lane: Lane::open(id) });
            let headers = Headers::new([("streamtype", name.to_owned())]);
            self.far.writer.frame(&Frame::SynStream { stream: id, fin: false, headers });
        }
        // As the API server does: an empty message first, on the lowest channel that it writes.
        let first = if stdout { channels::STDOUT } else { channels::ERROR };
        tell(&mut self.near.writer, self.speech, first, Bytes::new());
    }

    async fn translate(&mut self) -> Result<std::convert::Infallible, Done> {
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.hear_far()?;
        loop {
            let all_taken = self.open.iter().all(|open| open.lane.taken);
            let (near, far) = (&mut self.near, &mut self.far);
            let read_near = all_taken && !far.writer.is_full() && !near.writer.is_flooded();
            let read_far = !near.writer.is_full() && !far.writer.is_flooded();
            let over = self.over;
            tokio::select! {
                done = near.writer.drain(), if near.writer.has_work() => done?,
                done = far.writer.drain(), if far.writer.has_work() => done?,
                read = near.reader.fill(), if read_near => match read? {
                    0 => return Err(Done::Lost),
                    _ => self.hear_near()?,
                },
                read = far.reader.fill(), if read_far => match read? {
                    0 => return Err(self.far_ended()),
                    _ => self.hear_far()?,
                },
                () = until(over) => return Err(Done::Over),
                _ = ping.tick() => far.writer.ping(),
            }
        }
    }

    fn hear_near(&mut self) -> Result<(), Done> {
        loop {
            match self.near.hear()? {
                None => return Ok(()),
                Some(Heard::Message(message)) => self.take_message(&message)?,
                Some(Heard::Closed { .. } | Heard::Frame(_)) => return Err(Done::Lost),
            }
        }
    }

    fn take_message(&mut self, message: &Bytes) -> Result<(), Done> {
        match self.protocol.from_client(self.streams, message).map_err(|_| Done::Lost)? {
            FromClient::Stdin(bytes) => self.send(channels::STDIN, bytes, false),
            FromClient::Resize(bytes) => self.send(channels::RESIZE, bytes, false),
            FromClient::HalfClose(channel) => self.send(channel, Bytes::new(), true),
            FromClient::Dropped { .. } => {}
        }
        Ok(())
    }

    /// Sends bytes in frames that are not too large.
    fn send(&mut self, channel: u8, mut bytes: Bytes, fin: bool) {
        let wanted = |open: &&mut Open| open.channel == channel && !open.lane.client_done;
        let Some(Open { lane, .. }) = self.open.iter_mut().find(wanted) else { return };
        lane.client_done = fin;
        let stream = lane.id;
        while bytes.len() > MAX_DATA {
            let piece = bytes.split_to(MAX_DATA);
            self.far.writer.frame(&Frame::Data { stream, fin: false, bytes: piece });
        }
        if fin || !bytes.is_empty() {
            self.far.writer.frame(&Frame::Data { stream, fin, bytes });
        }
    }

    fn hear_far(&mut self) -> Result<(), Done> {
        loop {
            match self.far.hear()? {
                None => return Ok(()),
                Some(Heard::Frame(Frame::GoAway { .. })) => return Err(self.far_ended()),
                Some(Heard::Frame(frame)) => self.take_frame(frame)?,
                Some(Heard::Message(_) | Heard::Closed { .. }) => return Err(Done::Lost),
            }
        }
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), Done> {
        match frame {
            Frame::SynReply { stream, fin, .. } => {
                if let Some(open) = self.find(stream) {
                    open.lane.taken = true;
                }
                if fin { self.take_bytes(stream, true, Bytes::new()) } else { Ok(()) }
            }
            Frame::Data { stream, fin, bytes } => self.take_bytes(stream, fin, bytes),
            Frame::RstStream { stream, .. } => {
                let Some(Open { lane, .. }) = self.find(stream) else { return Ok(()) };
                // A stream that is not taken leaves the process without it: the session is not what was asked for.
                let was_taken = std::mem::replace(&mut lane.taken, true);
                lane.client_done = true;
                if was_taken { Ok(()) } else { Err(Done::Lost) }
            }
            Frame::SynStream { .. }
            | Frame::Headers { .. }
            | Frame::Settings(_)
            | Frame::Ping(_)
            | Frame::GoAway { .. }
            | Frame::WindowUpdate { .. } => Ok(()),
        }
    }

    fn find(&mut self, stream: StreamId) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.lane.id == stream)
    }

    fn take_bytes(&mut self, stream: StreamId, fin: bool, bytes: Bytes) -> Result<(), Done> {
        let Some(channel) = self.find(stream).map(|open| open.channel) else { return Ok(()) };
        match channel {
            channels::STDOUT | channels::STDERR if !bytes.is_empty() => {
                tell(&mut self.near.writer, self.speech, channel, bytes);
            }
            channels::ERROR => {
                self.status.extend_from_slice(&bytes);
                if self.status.len() > STATUS {
                    return Err(Done::Lost);
                }
                if fin {
                    self.told_status();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Passes the status on; nothing where the process succeeded and the protocol says so by silence.
    fn told_status(&mut self) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(Instant::now() + LAST);
        let status = self.status.split().freeze();
        if !status.is_empty() {
            tell(&mut self.near.writer, self.speech, channels::ERROR, status);
        }
    }

    /// The API server hung up: in order where the status had come.
    fn far_ended(&mut self) -> Done {
        self.far.reader.ended = true;
        if !self.status.is_empty() {
            self.told_status();
        }
        if self.over.is_some() { Done::Over } else { Done::Lost }
    }
}

async fn until(over: Option<Instant>) {
    match over {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
