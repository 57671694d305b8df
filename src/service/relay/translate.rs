//! An API server that speaks no WebSocket, made to look like one that does: channel messages on the one side, SPDY
//! streams on the other.
//!
//! It stands between the relay and the API server, so that the relay records, limits and ends a session as any other;
//! what passes here has been recorded already. Pings are answered on each side. It decides nothing. What the messages of an
//! exec or attach mean is in `translate/command.rs`, those of a port-forward in `translate/ports.rs`; a tunnel needs no
//! translation, it is SPDY inside already. Main type: [`Translator`].

use super::ending::LINGER;
use super::lane::Lane;
use super::leg::{Error, Heard, Leg};
use super::messages::tell;
use super::{Framing, PING, Session, Speech};
use crate::core::wire::channels::{Protocol, Streams};
use crate::core::wire::spdy::{Frame, Headers, MAX_DATA, StreamId};
use bytes::{Bytes, BytesMut};
pub use command::over_spdy;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

mod command;
mod ports;

/// What may be on its way between the relay and the translator.
const PIPE: usize = 64 * 1024;

/// One session between a relay that speaks channel messages and an API server that speaks SPDY.
pub(super) struct Translator<U> {
    speech: Speech,
    protocol: Protocol,
    /// What an exec or attach asked for.
    streams: Streams,
    /// The ports of a port-forward.
    ports: Vec<u16>,
    /// To the relay, which takes this for the API server.
    near: Leg<DuplexStream>,
    far: Leg<U>,
    open: Vec<Open>,
    /// What has come of the final status.
    status: BytesMut,
    /// The end is known, and the session ends then at the latest.
    over: Option<Instant>,
}

/// The stream of a channel.
struct Open {
    channel: u8,
    lane: Lane,
}

/// Why it ends.
enum Done {
    /// The process, or every connection, has ended.
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

impl<U: AsyncRead + AsyncWrite> Translator<U> {
    /// A translator before an API server, and the connection that a relay takes for one to it.
    pub(super) fn before(upstream: U, protocol: Protocol, session: &Session) -> (Self, DuplexStream) {
        let (relay, near) = duplex(PIPE);
        let translator = Translator {
            speech: session.speech,
            protocol,
            streams: session.streams,
            ports: session.ports.clone(),
            near: Leg::with_client(near, Framing::WebSocket, session.limits.max_message),
            far: Leg::with_server(upstream, Framing::Spdy, MAX_DATA),
            open: Vec::new(),
            status: BytesMut::new(),
            over: None,
        };
        (translator, relay)
    }

    /// Translates until a side is gone, or the process or every connection has ended.
    pub(super) async fn run(mut self) {
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

    async fn translate(&mut self) -> Result<std::convert::Infallible, Done> {
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.forwards() {
            self.open_ports()?
        } else {
            self.open_streams()
        }
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

    fn take_message(&mut self, message: &Bytes) -> Result<(), Done> {
        if self.forwards() { self.take_for_port(message) } else { self.take_for_process(message) }
    }

    fn take_bytes(&mut self, stream: StreamId, fin: bool, bytes: Bytes) -> Result<(), Done> {
        if self.forwards() { self.take_of_port(stream, fin, bytes) } else { self.take_of_process(stream, fin, bytes) }
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), Done> {
        match frame {
            Frame::SynReply { stream, fin, .. } => {
                if let Some(open) = self.find(stream) {
                    open.lane.taken = true;
                }
                self.port_taken(stream);
                if fin { self.take_bytes(stream, true, Bytes::new()) } else { Ok(()) }
            }
            Frame::Data { stream, fin, bytes } => self.take_bytes(stream, fin, bytes),
            Frame::RstStream { stream, .. } => {
                let Some(Open { lane, .. }) = self.find(stream) else { return Ok(()) };
                // A stream that is not taken leaves the process without it: the session is not what was asked for.
                let was_taken = std::mem::replace(&mut lane.taken, true);
                (lane.client_done, lane.server_done) = (true, true);
                self.port_ended();
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

    /// Opens the stream of a channel.
    fn open<V: Into<Bytes>>(&mut self, channel: u8, headers: impl IntoIterator<Item = (&'static str, V)>) {
        let id = self.open.last().map_or(1, |open| open.lane.id.get() + 2);
        let Some(stream) = StreamId::new(id) else { return };
        self.open.push(Open { channel, lane: Lane::open(stream) });
        let headers = Headers::new(headers);
        self.far.writer.frame(&Frame::SynStream { stream, fin: false, headers });
    }

    /// Tells the relay, as the API server would.
    fn tell(&mut self, channel: u8, bytes: Bytes) {
        tell(&mut self.near.writer, self.speech, channel, bytes);
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

    fn find(&mut self, stream: StreamId) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.lane.id == stream)
    }

    fn forwards(&self) -> bool {
        matches!(self.speech, Speech::ForwardChannels(_))
    }

    /// The API server hung up: in order where the end was known.
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
