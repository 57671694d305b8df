//! A client that has been switched over and waits for people, before anything is dialled: it is told what it waits for,
//! its pings are answered, and what it types is kept for later, up to a bound.
//!
//! Only WebSocket clients with a terminal wait like this (`service/gateway/lobby.rs`). Whoever goes away, or presses
//! Ctrl-C, waits no more. What Kustody says here is a marker of the recording, not output of the container. Main type:
//! [`Waiting`].

use super::ending::{End, Notice};
use super::leg::{Heard, Leg};
use super::messages::tell;
use super::{Framing, PING, Session, Speech, between, finish};
use crate::core::recording::keeping::Keeping;
use crate::core::recording::{Cause, CloseReason, EventKind};
use crate::core::wire::channels::{self, FromClient, Protocol};
use crate::edge::store::spool;
use bytes::Bytes;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

/// What a waiting client may have sent; it is not read beyond that.
const EARLY: usize = 64 * 1024;
/// The same in messages.
const EARLY_MESSAGES: usize = 1_024;
/// Ctrl-C, as a terminal sends it.
const INTERRUPT: u8 = 3;

/// A client that waits.
pub struct Waiting<C> {
    session: Session,
    protocol: Protocol,
    client: Leg<C>,
    /// What the client has sent, in order.
    early: Vec<Bytes>,
    size: usize,
}

/// What the wait woke up for.
enum Turn<T> {
    Agreed(T),
    Read(io::Result<usize>),
    Written(io::Result<()>),
    Ping,
    Ordered(End),
}

impl<C: AsyncRead + AsyncWrite + Send> Waiting<C> {
    /// Begins to wait, with the recording begun and the protocol agreed with the client.
    pub fn new(client: C, mut session: Session, protocol: Protocol) -> Self {
        session.speech = Speech::Channels(protocol);
        let client = Leg::with_client(client, Framing::WebSocket, session.limits.max_message);
        Waiting { session, protocol, client, early: Vec::new(), size: 0 }
    }

    /// Tells the client something, on a line of its own, and notes it.
    ///
    /// # Errors
    /// When it cannot be recorded: nothing was said then.
    pub async fn say(&mut self, name: &str, line: &str) -> Result<(), spool::Error> {
        self.note(name, line).await?;
        let bytes = Bytes::from(format!("kustody: {line}\r\n"));
        self.tell(channels::STDOUT, bytes);
        Ok(())
    }

    /// What the recording keeps from here on, now that people have agreed to it.
    pub fn keep(&mut self, keeping: Keeping) {
        self.session.keeping = keeping;
    }

    /// Notes something in the recording.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn note(&mut self, name: &str, detail: &str) -> Result<(), spool::Error> {
        let marker = EventKind::Marker { name: name.to_owned(), detail: detail.to_owned() };
        self.record(marker).await
    }

    /// Waits for `agreed`. `None`: the client went away, or somebody ended the session; its recording is finished.
    pub async fn until<T>(mut self, agreed: impl Future<Output = T> + Send) -> Option<(Self, T)> {
        tokio::pin!(agreed);
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.size < EARLY && self.early.len() < EARLY_MESSAGES;
            let client = &mut self.client;
            let turn = tokio::select! {
                answer = agreed.as_mut() => Turn::Agreed(answer),
                done = client.writer.drain(), if client.writer.has_work() => Turn::Written(done),
                read = client.reader.fill(), if has_room && !client.writer.is_flooded() => Turn::Read(read),
                _ = ping.tick() => Turn::Ping,
                order = self.session.orders.next() => Turn::Ordered(End::ordered(order)),
            };
            let ended = match turn {
                Turn::Agreed(answer) => return Some((self, answer)),
                Turn::Read(Ok(0)) => Err(gone("the client hung up while it waited")),
                Turn::Read(Ok(_)) => self.hear(),
                Turn::Read(Err(error)) | Turn::Written(Err(error)) => Err(gone(&error.to_string())),
                Turn::Written(Ok(())) => Ok(()),
                Turn::Ping => {
                    self.client.writer.ping();
                    Ok(())
                }
                Turn::Ordered(end) => Err(end),
            };
            if let Err(end) = ended {
                self.end(end).await;
                return None;
            }
        }
    }

    /// Goes on as a session with the API server's side; what the client has sent meanwhile comes first. `unwrapped` is
    /// that of the session.
    pub async fn go_on<U>(self, upstream: U, unwrapped: bool, stop: CancellationToken)
    where
        U: AsyncRead + AsyncWrite + Send,
    {
        let session = Session { unwrapped, ..self.session };
        between(session, (self.client, self.early), upstream, stop).await;
    }

    /// Ends it with a `Status` for the client.
    pub async fn refuse(self, cause: Cause, detail: &str, status: Bytes) {
        let notice = Box::new(Notice { message: detail.to_owned(), status });
        self.end(End { notice: Some(notice), ..End::new(cause, detail) }).await;
    }

    /// Takes in what the client says.
    fn hear(&mut self) -> Result<(), End> {
        loop {
            match self.client.hear() {
                Ok(None) => return Ok(()),
                Ok(Some(Heard::Message(message))) => {
                    if let Ok(FromClient::Stdin(bytes)) = self.protocol.from_client(self.session.streams, &message)
                        && bytes.contains(&INTERRUPT)
                    {
                        return Err(gone("the client gave up waiting").client(Some(1000)));
                    }
                    self.size += message.len();
                    self.early.push(message);
                }
                Ok(Some(Heard::Closed { .. })) => return Err(gone("the client closed the session while it waited")),
                // Frames are SPDY's.
                Ok(Some(Heard::Frame(_))) => {}
                Err(error) => {
                    let end = End::new(Cause::ProtocolError, format!("the client: {error}"));
                    return Err(end.client(Some(error.close_code())));
                }
            }
        }
    }

    async fn end(mut self, mut end: End) {
        let mut noted = Ok(());
        if let Some(name) = end.marker {
            noted = self.note(name, &end.detail.clone()).await;
        }
        if let Some(notice) = end.notice.take() {
            noted = noted.and(self.record(EventKind::Status { bytes: notice.status.clone() }).await);
            self.tell(channels::ERROR, notice.status);
            end.client = Some(1000);
        }
        if noted.is_err() {
            end.cause = Cause::RecorderFailed;
        }
        if end.client.is_some() {
            self.client.writer.close(end.client, b"");
        }
        if timeout(end.linger, self.client.part()).await.is_err() {
            tracing::debug!("the client did not take the last bytes in time");
        }
        finish(self.session.recording, CloseReason { cause: end.cause, detail: end.detail }).await;
    }

    async fn record(&mut self, event: EventKind) -> Result<(), spool::Error> {
        let at = self.session.recording.elapsed();
        self.session.recording.append(at, event).await
    }

    fn tell(&mut self, channel: u8, bytes: Bytes) {
        tell(&mut self.client.writer, self.session.speech, channel, bytes);
    }
}

fn gone(why: &str) -> End {
    End::new(Cause::ClientGone, why).client(None)
}
