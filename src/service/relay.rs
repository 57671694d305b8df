//! One session between a client and the API server: terminate, record, write anew.
//!
//! One task owns a session: both connections, both decoders, the recording. What comes in is decoded,
//! recorded, and only then written to the other side, in canonical frames; both sides speak the same, WebSocket
//! (`messages.rs`) or SPDY (`frames.rs`; `ports.rs` for port-forward). A side is not read while the other one's buffer is full. Pings are answered
//! here, on each leg. Whatever ends the session, the recording is finished with the reason. It decides nothing and
//! dials nothing. Main type: [`Session`].

use crate::core::recording::keeping::Keeping;
use crate::core::recording::{Cause, CloseReason, Direction};
use crate::core::wire::channels::{Protocol, Streams};
use crate::core::wire::resize;
use crate::core::wire::spdy::{Frame, MAX_DATA};
use crate::edge::store::spool::Recording;
use ending::End;
pub use ending::{LINGER, Order, Orders};
use keep::Keep;
use leg::{Heard, Leg};
pub use limits::Limits;
use limits::Meter;
use lost::Lost;
use port_channels::PortChannels;
use ports::Ports;
use std::collections::VecDeque;
use std::time::Duration;
use table::Table;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use translate::Translator;
pub use translate::over_spdy;
pub use waiting::{OPENING, Waiting};

mod ending;
mod flow;
mod frames;
mod keep;
mod lane;
mod leg;
mod limits;
mod lost;
mod messages;
mod port_channels;
mod ports;
mod run;
mod table;
mod translate;
mod waiting;

/// How long a session goes on after shutdown was asked for.
pub const GRACE: Duration = Duration::from_secs(10);
/// Both sides are pinged this often, so that nothing in between takes a quiet session for a dead one.
pub const PING: Duration = Duration::from_secs(30);

/// A stream that was let through, with its recording begun.
pub struct Session {
    /// Where every byte goes before it goes on.
    pub recording: Recording,
    /// What both sides agreed to speak.
    pub speech: Speech,
    /// What the request asked for.
    pub streams: Streams,
    /// What it may take at most.
    pub limits: Limits,
    /// The ports that a port-forward named in its request.
    pub ports: Vec<u16>,
    /// What of it is kept.
    pub keeping: Keeping,
    /// How long the session goes on after `stop`.
    pub grace: Duration,
    /// Who may end it from outside.
    pub orders: Orders,
    /// The API server speaks SPDY where the client speaks WebSocket: a tunnel is unwrapped here, channel messages go
    /// through a translator.
    pub unwrapped: bool,
}

/// What both sides of a session speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// exec and attach over WebSocket: a message says its channel.
    Channels(Protocol),
    /// exec and attach over SPDY: a stream per channel.
    Spdy,
    /// port-forward over SPDY: two streams per connection.
    Forward,
    /// The same inside a WebSocket.
    ForwardTunnel,
    /// port-forward over WebSocket messages: two channels for each port of the request.
    ForwardChannels(Protocol),
}

/// What the bytes of a connection are cut into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    WebSocket,
    Spdy,
    Tunnel,
}

/// A session with both its legs.
struct Relay<C, U> {
    session: Session,
    client: Leg<C>,
    upstream: Leg<U>,
    sizes: resize::Reader,
    seen: Seen,
    meter: Meter,
    keep: Keep,
    lost: Lost,
    /// The streams of an exec or attach over SPDY.
    table: Table,
    /// The connections of a port-forward.
    ports: Ports,
    /// Its connections where each port of the request is one.
    channels: PortChannels,
    /// A frame of the client that waits for the API server to take its stream. Nothing is read from the client meanwhile.
    parked: Option<Frame>,
    /// What the client said before there was an API server to say it to. It comes before what is read.
    early: VecDeque<Heard>,
}

/// A client as it comes to a session.
struct Arrived<C> {
    leg: Leg<C>,
    /// What it has said while it waited for people.
    early: VecDeque<Heard>,
    /// The streams that it opened meanwhile over SPDY, and was told are taken.
    table: Table,
}

/// What has gone by.
#[derive(Default)]
struct Seen {
    /// The final status was passed on.
    status: bool,
    /// The client will write no more to the process.
    stdin_closed: bool,
    /// Messages not passed on because the API server would have ignored them.
    dropped: u64,
    /// A connection was refused for being one too many.
    crowded: bool,
    /// The session is coming to its end: its last words count towards no limit.
    ending: bool,
}

impl Session {
    /// Relays until either side ends the session, the recorder fails, or `stop` and its grace are over.
    /// Then finishes the recording.
    pub async fn run<C, U>(self, client: C, upstream: U, stop: CancellationToken)
    where
        C: AsyncRead + AsyncWrite + Send,
        U: AsyncRead + AsyncWrite + Send,
    {
        let client = Arrived { leg: self.welcome(client), early: VecDeque::new(), table: Table::default() };
        between(self, client, upstream, stop).await;
    }

    /// The leg to a client. What is one frame for it must be one for the API server: its limit holds for both.
    fn welcome<C: AsyncRead + AsyncWrite>(&self, client: C) -> Leg<C> {
        Leg::with_client(client, self.speech.framing(), self.speech.limit(self.limits.max_message))
    }
}

/// Runs a session between a client, with what it has said already, and an API server; where that one speaks SPDY and the
/// client channel messages, with a translator before it.
async fn between<C, U>(session: Session, client: Arrived<C>, upstream: U, stop: CancellationToken)
where
    C: AsyncRead + AsyncWrite + Send,
    U: AsyncRead + AsyncWrite + Send,
{
    let (framing, max) = (session.speech.framing(), session.limits.max_message);
    match (framing, session.speech, session.unwrapped) {
        (Framing::WebSocket, Speech::Channels(protocol) | Speech::ForwardChannels(protocol), true) => {
            let (translator, near) = Translator::before(upstream, protocol, &session);
            let relay = Relay::new(session, client, Leg::with_server(near, framing, max));
            // Both apart: few sessions are translated, and every session has the size of the largest way through here.
            tokio::join!(Box::pin(relay.run(stop)), Box::pin(translator.run()));
        }
        (framing, speech, unwrapped) => {
            let framing = if unwrapped && framing == Framing::Tunnel { Framing::Spdy } else { framing };
            let relay = Relay::new(session, client, Leg::with_server(upstream, framing, speech.limit(max)));
            relay.run(stop).await;
        }
    }
}

impl<C, U> Relay<C, U> {
    /// In a box: what a future is given it holds twice, and many wait at a time.
    fn new(session: Session, client: Arrived<C>, upstream: Leg<U>) -> Box<Self> {
        Box::new(Relay {
            keep: Keep::new(session.keeping, session.streams.tty && !session.speech.forwards()),
            lost: Lost::default(),
            session,
            client: client.leg,
            upstream,
            sizes: resize::Reader::default(),
            seen: Seen::default(),
            meter: Meter::started(),
            table: client.table,
            ports: Ports::default(),
            channels: PortChannels::default(),
            parked: None,
            early: client.early,
        })
    }
}

impl Speech {
    /// Whether connections are forwarded, rather than a command's streams.
    fn forwards(self) -> bool {
        matches!(self, Speech::Forward | Speech::ForwardTunnel)
    }

    /// The largest message or frame that is taken, where messages may have so many bytes.
    fn limit(self, max_message: usize) -> usize {
        if self.framing() == Framing::WebSocket { max_message } else { max_message.min(MAX_DATA) }
    }

    fn framing(self) -> Framing {
        match self {
            Speech::Channels(_) | Speech::ForwardChannels(_) => Framing::WebSocket,
            Speech::Spdy | Speech::Forward => Framing::Spdy,
            Speech::ForwardTunnel => Framing::Tunnel,
        }
    }
}

/// Ends the recording of a session that never got its second leg.
pub async fn abandon(recording: Recording, cause: Cause, detail: &str) {
    finish(recording, CloseReason { cause, detail: detail.to_owned() }).await;
}

async fn finish(recording: Recording, reason: CloseReason) {
    let session = recording.session().to_string();
    let cause = reason.cause;
    match recording.finish(reason).await {
        Ok(()) => tracing::info!(session, ?cause, "session ended"),
        Err(error) => {
            tracing::error!(session, %error, "the recording could not be finished; recovery will seal it");
        }
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::ToContainer => "client",
        Direction::ToClient => "API server",
    }
}
