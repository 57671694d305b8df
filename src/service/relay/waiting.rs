//! A client that has been switched over and waits for people, before anything is dialled: it is told what it waits for,
//! its pings are answered, and what it says is kept for later, up to a bound.
//!
//! Only clients with a terminal wait like this (`service/gateway/lobby.rs`); those over SPDY open their streams meanwhile
//! (`waiting/streams.rs`). Whoever goes away, or presses Ctrl-C, waits no more. What Kustody says here is a marker of the
//! recording, not output of the container. Main type: [`Waiting`].

use super::ending::{End, Notice};
use super::leg::{Heard, Leg};
use super::messages::tell;
use super::table::Table;
use super::{Arrived, PING, Session, Speech, between, finish};
use crate::core::recording::keeping::Keeping;
use crate::core::recording::{Cause, Channel, CloseReason, EventKind};
use crate::core::wire::channels::FromClient;
use crate::core::wire::spdy::{Frame, Headers};
use crate::edge::store::spool;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use streams::never_opened;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

mod streams;

/// How long a client may take to open its streams over SPDY, as long as at the API server. There is no place for an
/// answer before that.
pub const OPENING: Duration = Duration::from_secs(30);
/// What a waiting client may have sent; it is not read beyond that.
const EARLY: usize = 64 * 1024;
/// The same in messages and frames.
const EARLY_MESSAGES: usize = 1_024;
/// Ctrl-C, as a terminal sends it.
const INTERRUPT: u8 = 3;

/// A client that waits.
pub struct Waiting<C> {
    session: Session,
    client: Leg<C>,
    /// Its streams over SPDY.
    table: Table,
    /// What the client has sent, in order.
    early: VecDeque<Heard>,
    size: usize,
    /// What it is told as soon as there is a place for it.
    word: Option<Bytes>,
    /// It sent something that has no effect, and that is noted.
    noted: bool,
}

/// What the wait woke up for.
enum Turn<T> {
    Agreed(T),
    Read(io::Result<usize>),
    Written(io::Result<()>),
    Ping,
    Late,
    Ordered(End),
}

impl<C: AsyncRead + AsyncWrite + Send> Waiting<C> {
    /// Begins to wait, with the recording begun and what is spoken agreed with the client.
    pub fn new(client: C, session: Session) -> Self {
        let client = session.welcome(client);
        let (table, early) = (Table::default(), VecDeque::new());
        Waiting { session, client, table, early, size: 0, word: None, noted: false }
    }

    /// Tells the client something, on a line of its own, and notes it.
    ///
    /// # Errors
    /// When it cannot be recorded: nothing was said then.
    pub async fn say(&mut self, name: &str, line: &str) -> Result<(), spool::Error> {
        self.note(name, line).await?;
        self.word = Some(Bytes::from(format!("kustody: {line}\r\n")));
        self.speak();
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

    /// Waits for `agreed`, and until the client can be told what comes of it. `None`: the client went away, or somebody
    /// ended the session; its recording is finished.
    pub async fn until<T>(mut self, agreed: impl Future<Output = T> + Send) -> Option<(Self, T)> {
        let late = sleep_until(Instant::now() + OPENING);
        tokio::pin!(agreed, late);
        let mut answer = None;
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_settled = self.is_settled();
            if let Some(answer) = answer.take_if(|_| is_settled) {
                return Some((self, answer));
            }
            let has_room = self.size < EARLY && self.early.len() < EARLY_MESSAGES;
            let client = &mut self.client;
            let turn = tokio::select! {
                given = agreed.as_mut(), if answer.is_none() => Turn::Agreed(given),
                done = client.writer.drain(), if client.writer.has_work() => Turn::Written(done),
                read = client.reader.fill(), if has_room && !client.writer.is_flooded() => Turn::Read(read),
                _ = ping.tick() => Turn::Ping,
                () = late.as_mut(), if !is_settled => Turn::Late,
                order = self.session.orders.next() => Turn::Ordered(End::ordered(order)),
            };
            let ended = match turn {
                Turn::Agreed(given) => {
                    answer = Some(given);
                    Ok(())
                }
                Turn::Read(Ok(0)) => Err(gone("the client hung up while it waited")),
                Turn::Read(Ok(_)) => self.hear().await,
                Turn::Read(Err(error)) | Turn::Written(Err(error)) => Err(gone(&error.to_string())),
                Turn::Written(Ok(())) => Ok(()),
                Turn::Ping => {
                    self.client.writer.ping();
                    Ok(())
                }
                Turn::Late => Err(never_opened()),
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
        let client = Arrived { leg: self.client, early: self.early, table: self.table };
        between(session, client, upstream, stop).await;
    }

    /// Ends it with a `Status` for the client.
    pub async fn refuse(self, cause: Cause, detail: &str, status: Bytes) {
        let notice = Box::new(Notice { message: detail.to_owned(), status });
        self.end(End { notice: Some(notice), ..End::new(cause, detail) }).await;
    }

    /// Takes in what the client says.
    async fn hear(&mut self) -> Result<(), End> {
        loop {
            match self.client.hear() {
                Ok(None) => return Ok(()),
                Ok(Some(heard)) if self.interrupts(&heard) => return Err(gave_up()),
                Ok(Some(heard)) => self.take(heard).await?,
                Err(error) => {
                    let end = End::new(Cause::ProtocolError, format!("the client: {error}"));
                    return Err(end.client(Some(error.close_code())));
                }
            }
        }
    }

    fn interrupts(&self, heard: &Heard) -> bool {
        match (heard, self.session.speech) {
            (Heard::Message(message), Speech::Channels(protocol)) => {
                let said = protocol.from_client(self.session.streams, message);
                matches!(said, Ok(FromClient::Stdin(bytes)) if bytes.contains(&INTERRUPT))
            }
            (Heard::Frame(Frame::Data { stream, bytes, .. }), _) => {
                self.table.of(Channel::Stdin) == Some(*stream) && bytes.contains(&INTERRUPT)
            }
            _ => false,
        }
    }

    /// Keeps for the session what is not seen to here.
    async fn take(&mut self, heard: Heard) -> Result<(), End> {
        let kept = match heard {
            Heard::Closed { .. } | Heard::Frame(Frame::GoAway { .. }) => {
                return Err(gone("the client closed the session while it waited"));
            }
            Heard::Frame(Frame::SynStream { stream, fin, headers }) => return self.open(stream, fin, &headers).await,
            Heard::Frame(Frame::Data { stream, fin, bytes }) => {
                Heard::Frame(Frame::Data { stream, fin, bytes: self.kept(&bytes) })
            }
            // What they say has no effect on anything.
            Heard::Frame(Frame::Headers { stream, fin, .. }) => {
                Heard::Frame(Frame::Headers { stream, fin, headers: Headers::default() })
            }
            Heard::Frame(frame) => Heard::Frame(frame),
            Heard::Message(message) => Heard::Message(self.kept(&message)),
        };
        self.early.push_back(kept);
        Ok(())
    }

    /// A copy: a slice would keep all of the buffer that it was read into.
    fn kept(&mut self, bytes: &Bytes) -> Bytes {
        self.size += bytes.len();
        Bytes::copy_from_slice(bytes)
    }

    async fn end(mut self, mut end: End) {
        let mut noted = Ok(());
        if let Some(name) = end.marker {
            noted = self.note(name, &end.detail.clone()).await;
        }
        if let Some(notice) = end.notice.take() {
            noted = noted.and(self.record(EventKind::Status { bytes: notice.status.clone() }).await);
            self.tell_status(notice.status);
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

/// Without a word for it client-go takes a stream that ends for success.
fn gave_up() -> End {
    let end = End::new(Cause::ClientGone, "the client gave up waiting");
    end.notice("NOT EXECUTED. The client gave up waiting for approval", "Forbidden", 403)
}
