//! port-forward over SPDY, plain or in a WebSocket tunnel: each connection is an error and a data stream.
//!
//! Streams are paired by `requestid`, or where a client sends none by their ids. The pair must name one port: the API
//! server goes by the data stream's alone. As elsewhere, every `record` comes before the frame of the same bytes.

use super::flow::Flow;
use super::lane::Lane;
use super::{End, Relay};
use crate::core::recording::{Cause, Direction, EventKind};
use crate::core::wire::port;
use crate::core::wire::spdy::{Frame, Headers, ResetStatus, StreamId};
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// The longest `requestid` that is taken; real ones are small numbers.
const LONGEST_ID: usize = 64;

/// The connections of a session that are not over.
#[derive(Default)]
pub(super) struct Ports {
    open: Vec<Connection>,
    begun: u32,
}

struct Connection {
    flow: Option<Flow>,
    number: u32,
    port: u16,
    request: Option<String>,
    error: Option<Lane>,
    data: Option<Lane>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Error,
    Data,
}

/// What the headers of a stream ask for.
struct Wish {
    purpose: Purpose,
    port: u16,
    request: Option<String>,
}

impl Wish {
    fn read(headers: &Headers) -> Option<Wish> {
        let purpose = match headers.only("streamtype")? {
            "error" => Purpose::Error,
            "data" => Purpose::Data,
            _ => return None,
        };
        let port = port(headers.only("port")?)?;
        let request = match headers.has("requestid") {
            true => Some(headers.only("requestid").filter(|id| id.len() <= LONGEST_ID)?.to_owned()),
            false => None,
        };
        Some(Wish { purpose, port, request })
    }

    fn headers(&self) -> Headers {
        let purpose = if self.purpose == Purpose::Error { "error" } else { "data" };
        let mut pairs = vec![("streamtype", purpose.to_owned()), ("port", self.port.to_string())];
        pairs.extend(self.request.clone().map(|id| ("requestid", id)));
        Headers::new(pairs)
    }
}

impl Connection {
    fn lane(&mut self, purpose: Purpose) -> &mut Option<Lane> {
        match purpose {
            Purpose::Error => &mut self.error,
            Purpose::Data => &mut self.data,
        }
    }

    /// Whether this is the other half of the connection that a stream is for.
    fn pairs(&self, id: StreamId, wish: &Wish) -> bool {
        match (&wish.request, &self.request) {
            (Some(asked), Some(own)) => asked == own,
            (None, None) => {
                let error = self.error.as_ref();
                wish.purpose == Purpose::Data && error.is_some_and(|lane| lane.id.get() + 2 == id.get())
            }
            _ => false,
        }
    }

    fn is_over(&self) -> bool {
        let over = |lane: &Option<Lane>| lane.as_ref().is_none_or(Lane::is_over);
        over(&self.error) && over(&self.data)
    }
}

impl Ports {
    /// Whether a frame of the client must wait until the API server has taken its stream.
    pub(super) fn must_wait(&self, frame: &Frame) -> bool {
        let lanes = self.open.iter().flat_map(|open| [&open.error, &open.data]);
        lanes.flatten().any(|lane| lane.keeps_waiting(frame))
    }

    /// Whether a stream would be one connection too many.
    fn is_full_for(&self, id: StreamId, wish: &Wish, most: usize) -> bool {
        self.open.len() >= most && !self.open.iter().any(|open| open.pairs(id, wish))
    }

    /// Places a stream; gives its connection.
    fn place(&mut self, id: StreamId, wish: &Wish) -> Option<&mut Connection> {
        let at = match self.open.iter().position(|open| open.pairs(id, wish)) {
            Some(at) => at,
            None => {
                self.begun += 1;
                let (number, port, request) = (self.begun, wish.port, wish.request.clone());
                self.open.push(Connection { flow: None, number, port, request, error: None, data: None });
                self.open.len() - 1
            }
        };
        let connection = self.open.get_mut(at)?;
        if connection.port != wish.port || connection.lane(wish.purpose).is_some() {
            return None;
        }
        *connection.lane(wish.purpose) = Some(Lane::open(id));
        Some(connection)
    }

    fn find(&mut self, id: StreamId) -> Option<(&mut Connection, Purpose)> {
        let is = |lane: &Option<Lane>| lane.as_ref().is_some_and(|lane| lane.id == id);
        let open = self.open.iter_mut().find(|open| is(&open.error) || is(&open.data))?;
        let purpose = if is(&open.error) { Purpose::Error } else { Purpose::Data };
        Some((open, purpose))
    }
}

impl<C: AsyncRead + AsyncWrite, U: AsyncRead + AsyncWrite> Relay<C, U> {
    pub(super) async fn client_forwards(&mut self, frame: Frame) -> Result<(), End> {
        match frame {
            Frame::SynStream { stream, fin, headers } => self.client_connects(stream, fin, &headers).await,
            Frame::Data { stream, fin, bytes } => self.passes(Direction::ToContainer, stream, fin, bytes).await,
            Frame::RstStream { stream, status } => self.breaks(Direction::ToContainer, stream, status).await,
            Frame::GoAway { .. } => Err(End::new(Cause::Completed, "the client closed the session").client(None)),
            Frame::Headers { .. } => self.without_effect("a stream's headers").await,
            Frame::SynReply { .. } | Frame::Settings(_) | Frame::Ping(_) | Frame::WindowUpdate { .. } => Ok(()),
        }
    }

    pub(super) async fn server_forwards(&mut self, frame: Frame) -> Result<(), End> {
        match frame {
            Frame::SynReply { stream, fin, .. } => {
                let Some((connection, purpose)) = self.ports.find(stream) else {
                    return Ok(());
                };
                if let Some(lane) = connection.lane(purpose) {
                    lane.taken = true;
                }
                self.client.writer.frame(&Frame::SynReply { stream, fin: false, headers: Headers::default() });
                if fin { self.passes(Direction::ToClient, stream, true, Bytes::new()).await } else { Ok(()) }
            }
            Frame::Data { stream, fin, bytes } => self.passes(Direction::ToClient, stream, fin, bytes).await,
            Frame::RstStream { stream, status } => self.breaks(Direction::ToClient, stream, status).await,
            Frame::GoAway { .. } => {
                Err(End::new(Cause::UpstreamLost, "the API server closed the session").upstream(None).at_leisure())
            }
            Frame::SynStream { .. }
            | Frame::Headers { .. }
            | Frame::Settings(_)
            | Frame::Ping(_)
            | Frame::WindowUpdate { .. } => Ok(()),
        }
    }

    /// Accounts for the connections that are open when the session ends.
    pub(super) async fn close_connections(&mut self) -> Result<(), End> {
        let at = self.session.recording.elapsed();
        let flows = std::mem::take(&mut self.ports.open).into_iter().filter_map(|open| open.flow);
        let flows = flows.chain(self.channels.take());
        for event in flows.flat_map(|mut flow| flow.close(at)) {
            self.record(event).await?;
        }
        Ok(())
    }

    async fn client_connects(&mut self, stream: StreamId, fin: bool, headers: &Headers) -> Result<(), End> {
        let at = self.session.recording.elapsed();
        let wish = Wish::read(headers);
        let most = self.session.limits.connections;
        if wish.as_ref().is_some_and(|wish| self.ports.is_full_for(stream, wish, most)) {
            self.client.writer.frame(&Frame::RstStream { stream, status: ResetStatus::RefusedStream });
            return self.crowded().await;
        }
        let placed = wish.as_ref().and_then(|wish| self.ports.place(stream, wish));
        let (Some(wish), Some(connection)) = (&wish, placed) else {
            self.client.writer.frame(&Frame::RstStream { stream, status: ResetStatus::RefusedStream });
            return self.without_effect("a stream that fits no connection").await;
        };
        let opened = (wish.purpose == Purpose::Data).then(|| Flow::open(connection.number, connection.port, at));
        if let Some((flow, event)) = opened {
            connection.flow = Some(flow);
            self.record(event).await?;
        }
        self.upstream.writer.frame(&Frame::SynStream { stream, fin: false, headers: wish.headers() });
        if fin { self.passes(Direction::ToContainer, stream, true, Bytes::new()).await } else { Ok(()) }
    }

    /// Notes, once, that there are as many connections as may be.
    async fn crowded(&mut self) -> Result<(), End> {
        if std::mem::replace(&mut self.seen.crowded, true) {
            return Ok(());
        }
        let detail = format!("connections beyond {} at a time are refused", self.session.limits.connections);
        self.record(EventKind::Marker { name: "limit".into(), detail }).await
    }

    /// Tells the client on the error streams of its connections why they end. kubectl prints that.
    pub(super) fn tell_connections(&mut self, message: &str) {
        let lanes = self.ports.open.iter().filter_map(|open| open.error.as_ref());
        let open: Vec<StreamId> = lanes.filter(|lane| lane.taken && !lane.server_done).map(|lane| lane.id).collect();
        for stream in open {
            let bytes = Bytes::copy_from_slice(message.as_bytes());
            self.client.writer.frame(&Frame::Data { stream, fin: true, bytes });
        }
    }

    async fn passes(&mut self, direction: Direction, stream: StreamId, fin: bool, bytes: Bytes) -> Result<(), End> {
        let keep = self.session.keeping.most_forwarded();
        let Some((connection, purpose)) = self.ports.find(stream) else {
            return Ok(());
        };
        let done = connection.lane(purpose).as_mut().map(|lane| lane.done(direction));
        if done.as_deref() != Some(&false) {
            return Ok(());
        }
        let mut events = Vec::new();
        // Clients have nothing to say on an error stream.
        let nothing = purpose == Purpose::Error && direction == Direction::ToContainer;
        let bytes = if nothing { Bytes::new() } else { bytes };
        match (purpose, &mut connection.flow) {
            (Purpose::Data, Some(flow)) => events.extend(flow.pass(direction, &bytes, keep)),
            (Purpose::Error, _) if !bytes.is_empty() => {
                events.push(EventKind::ConnectionError { connection: connection.number, bytes: bytes.clone() });
            }
            (Purpose::Error | Purpose::Data, _) => {}
        }
        if fin {
            events.extend(self.ports.finish(stream, &[direction], self.session.recording.elapsed()));
        }
        for event in events {
            self.record(event).await?;
        }
        if fin || !bytes.is_empty() {
            let frame = Frame::Data { stream, fin, bytes };
            match direction {
                Direction::ToContainer => self.upstream.writer.frame(&frame),
                Direction::ToClient => self.client.writer.frame(&frame),
            }
        }
        Ok(())
    }

    async fn breaks(&mut self, direction: Direction, stream: StreamId, status: ResetStatus) -> Result<(), End> {
        if self.ports.find(stream).is_none() {
            return Ok(());
        }
        let both =
            [direction, if direction == Direction::ToClient { Direction::ToContainer } else { Direction::ToClient }];
        for event in self.ports.finish(stream, &both, self.session.recording.elapsed()) {
            self.record(event).await?;
        }
        let frame = Frame::RstStream { stream, status };
        match direction {
            Direction::ToContainer => self.upstream.writer.frame(&frame),
            Direction::ToClient => self.client.writer.frame(&frame),
        }
        Ok(())
    }
}

impl Ports {
    /// Ends directions of a stream; gives the events that says, and forgets a connection that is over.
    fn finish(&mut self, stream: StreamId, directions: &[Direction], at: Duration) -> Vec<EventKind> {
        let mut events = Vec::new();
        if let Some((connection, purpose)) = self.find(stream) {
            for direction in directions {
                if let Some(lane) = connection.lane(purpose) {
                    *lane.done(*direction) = true;
                    lane.taken |= directions.len() > 1;
                }
                if let (Purpose::Data, Some(flow)) = (purpose, &mut connection.flow) {
                    events.extend(flow.half_close(*direction));
                    if flow.is_over() {
                        events.extend(flow.close(at));
                    }
                }
            }
        }
        self.open.retain(|open| !open.is_over());
        events
    }
}
