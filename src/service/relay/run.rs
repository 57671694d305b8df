//! The loop of a session: waits for whichever side is ready, and takes the session to its end.

use super::ending::LEISURE;
use super::leg::Leg;
use super::{End, Order, PING, Relay, Speech, finish};
use crate::core::recording::{Cause, CloseReason, EventKind};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

/// What the loop woke up for.
enum Turn {
    ClientRead(io::Result<usize>),
    ServerRead(io::Result<usize>),
    ClientWritten(io::Result<()>),
    ServerWritten(io::Result<()>),
    Ping,
    Stop,
    Due,
    Ordered(Order),
}

impl<C, U> Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Send,
    U: AsyncRead + AsyncWrite + Send,
{
    pub(super) async fn run(mut self: Box<Self>, stop: CancellationToken) {
        let end = match self.relay(&stop).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        Box::pin(self.end(end, &stop)).await;
    }

    async fn relay(&mut self, stop: &CancellationToken) -> Result<std::convert::Infallible, End> {
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = None;
        let due = tokio::time::sleep_until(self.due(deadline));
        tokio::pin!(due);
        self.begin().await?;
        loop {
            let (client, upstream) = (&mut self.client, &mut self.upstream);
            let read_client = self.parked.is_none() && !upstream.writer.is_full() && !client.writer.is_flooded();
            let read_server = !client.writer.is_full() && !upstream.writer.is_flooded();
            let turn = tokio::select! {
                done = client.writer.drain(), if client.writer.has_work() => Turn::ClientWritten(done),
                done = upstream.writer.drain(), if upstream.writer.has_work() => Turn::ServerWritten(done),
                read = client.reader.fill(), if read_client => Turn::ClientRead(read),
                read = upstream.reader.fill(), if read_server => Turn::ServerRead(read),
                _ = ping.tick() => Turn::Ping,
                () = stop.cancelled(), if deadline.is_none() => Turn::Stop,
                () = due.as_mut() => Turn::Due,
                order = self.session.orders.next() => Turn::Ordered(order),
            };
            match turn {
                Turn::ClientRead(Ok(0)) => return Err(self.client_ended("the client hung up")),
                Turn::ClientRead(Ok(_)) => self.hear_client().await?,
                Turn::ClientRead(Err(error)) => return Err(self.client_ended(&error.to_string())),
                Turn::ServerRead(Ok(0)) => {
                    self.last_words().await?;
                    return Err(self.server_ended("the API server hung up"));
                }
                Turn::ServerRead(Ok(_)) => {
                    self.hear_server().await?;
                    if self.parked.is_some() {
                        self.hear_client().await?;
                    }
                }
                Turn::ServerRead(Err(error)) => return Err(self.server_ended(&error.to_string())),
                Turn::ClientWritten(Ok(())) | Turn::ServerWritten(Ok(())) => {}
                Turn::ClientWritten(Err(error)) => {
                    return Err(self.client_ended(&error.to_string()));
                }
                Turn::ServerWritten(Err(error)) => {
                    return Err(self.server_ended(&error.to_string()));
                }
                Turn::Ping => {
                    self.client.writer.ping();
                    self.upstream.writer.ping();
                }
                Turn::Stop | Turn::Due => {
                    if stop.is_cancelled() {
                        deadline.get_or_insert(Instant::now() + self.session.grace);
                    }
                    self.check_time(deadline)?;
                    // Set anew here, not with every frame.
                    due.as_mut().reset(self.due(deadline));
                }
                Turn::Ordered(order) => return Err(End::ordered(order)),
            }
        }
    }

    /// Hears what was said before both sides were there: while the client waited, and together with the handshakes.
    async fn begin(&mut self) -> Result<(), End> {
        self.open_ports().await?;
        self.open_streams();
        self.hear_client().await?;
        self.hear_server().await
    }

    /// When to look at the time next.
    fn due(&self, deadline: Option<Instant>) -> Instant {
        let due = self.meter.due(&self.session.limits);
        deadline.map_or(due, |deadline| due.min(deadline))
    }

    fn check_time(&self, deadline: Option<Instant>) -> Result<(), End> {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(End::shutdown());
        }
        self.meter.over(&self.session.limits).map_or(Ok(()), |why| Err(End::limit(&why)))
    }

    fn client_ended(&mut self, why: &str) -> End {
        self.client.reader.ended = true;
        let midway = if self.client.reader.is_midway() { " in the middle of a frame" } else { "" };
        End::new(self.cause(Cause::ClientGone), format!("{why}{midway}")).client(None)
    }

    fn server_ended(&mut self, why: &str) -> End {
        self.upstream.reader.ended = true;
        End::new(self.cause(Cause::UpstreamLost), why).client(None).upstream(None).at_leisure()
    }

    /// Records and tells the client why it ends, where the process said nothing.
    async fn give_notice(&mut self, end: &mut End) -> Result<(), End> {
        let mut noted = Ok(());
        if let Some(name) = end.marker {
            noted = self.record(EventKind::Marker { name: name.to_owned(), detail: end.detail.clone() }).await;
        }
        if let Some(notice) = end.notice.as_ref().filter(|_| !self.seen.status) {
            let bytes = notice.status.clone();
            if end.cause != Cause::RecorderFailed {
                noted = noted.and(self.record(EventKind::Status { bytes: bytes.clone() }).await);
            }
            self.tell_status(notice, bytes);
            if matches!(self.session.speech, Speech::Channels(_)) {
                // With any other code client-go drops the status that came before.
                end.client = Some(1000);
            }
        }
        noted
    }

    /// The last events: of connections, of input, of what was lost.
    async fn account(&mut self) -> Result<(), End> {
        self.close_connections().await?;
        let at = self.session.recording.elapsed();
        for event in self.keep.finish() {
            self.append(at, event).await?;
        }
        self.lost.settle(&mut self.session.recording).await.map_err(|_| End::recorder())
    }

    /// Tells both sides, lets the last bytes leave, and finishes the recording. The client's last bytes
    /// go first: what it waits for is not kept back by the rest. The recording does not wait for a client that stalls.
    async fn end(mut self: Box<Self>, mut end: End, stop: &CancellationToken) {
        self.seen.ending = true;
        if self.give_notice(&mut end).await.is_err() {
            end.cause = Cause::RecorderFailed;
        }
        if end.client.is_some() {
            self.client.writer.close(end.client, b"");
        }
        if end.upstream.is_some() {
            self.upstream.writer.close(end.upstream, b"");
        }
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let farewell = async {
            let (to_client, to_server) = tokio::join!(client.part(), upstream.part());
            to_client.and(to_server)
        };
        let parted = timeout(end.linger, farewell).await;
        match &parted {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a side was gone before the session ended"),
            Err(_) => tracing::debug!("a side did not take the last bytes in time"),
        }
        if self.seen.dropped > 1 {
            let detail = format!("{} messages of the client had no effect", self.seen.dropped);
            if self.record(EventKind::Marker { name: "dropped".into(), detail }).await.is_err() {
                end.cause = Cause::RecorderFailed;
            }
        }
        if self.account().await.is_err() {
            end.cause = Cause::RecorderFailed;
        }
        let Relay { session, client, upstream, .. } = *self;
        drop(upstream);
        let stalled = Some(client).filter(|_| parted.is_err() && end.at_leisure);
        finish(session.recording, CloseReason { cause: end.cause, detail: end.detail }).await;
        if let Some(client) = stalled {
            leave_to_read(client, session.grace, stop).await;
        }
    }
}

/// Keeps the connection to a client that has not read the last bytes yet; when Kustody ends, for its grace.
async fn leave_to_read<C: AsyncRead + AsyncWrite>(mut client: Leg<C>, grace: Duration, stop: &CancellationToken) {
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        parted = timeout(LEISURE, client.part()) => if !matches!(parted, Ok(Ok(()))) {
            tracing::debug!("a client did not take the last bytes");
        },
        () = stopped => {}
    }
}
