//! The one vocabulary of what happened in a session: bytes with their channel and direction, half-closes, resizes, the
//! final status, markers, gaps and the close. Bytes are raw, never text.
//!
//! How events become bytes is [`super::codec`]; what makes them durable is `edge::store::spool`.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most bytes one data event carries; the spool splits longer ones.
pub const MAX_DATA: usize = 512 * 1024;
/// Most bytes of any text in an event.
pub const MAX_TEXT: usize = 64 * 1024;

/// One thing that happened, at a time counted from the start of the session on a monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Since the start of the session; kept to the microsecond.
    pub at: Duration,
    /// What happened.
    pub kind: EventKind,
}

/// What can happen in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// Bytes on a channel.
    Data {
        /// The channel they were on.
        channel: Channel,
        /// Which way they went.
        direction: Direction,
        /// The bytes, as they were; at most [`MAX_DATA`] in one stored event.
        bytes: Bytes,
    },
    /// One party will send no more on this channel.
    HalfClose {
        /// The channel that was closed.
        channel: Channel,
        /// The direction that carries nothing more.
        direction: Direction,
    },
    /// The terminal took another size.
    Resize {
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// The raw content of the error channel: a Kubernetes `Status` in JSON, which tells the exit code.
    Status {
        /// The JSON as it was sent.
        bytes: Bytes,
    },
    /// A note of the recorder: an approval, a policy hit, a reconnect, a degradation.
    Marker {
        /// What kind of note, in kebab case.
        name: String,
        /// Free text.
        detail: String,
    },
    /// The session ended; the last event of a recording that ended in order.
    Close {
        /// Why.
        reason: CloseReason,
    },
    /// A connection to a port of the pod begins (port-forward).
    ConnectionOpened {
        /// Its number in the session, from 1.
        connection: u32,
        /// The port.
        port: u16,
    },
    /// Bytes on a connection.
    ConnectionData {
        /// The number of the connection.
        connection: u32,
        /// Which way they went.
        direction: Direction,
        /// The bytes, at most [`MAX_DATA`] in one stored event.
        bytes: Bytes,
    },
    /// One party will send no more on a connection.
    ConnectionHalfClose {
        /// The number of the connection.
        connection: u32,
        /// The direction that carries nothing more.
        direction: Direction,
    },
    /// What went wrong with a connection, in the words of the node.
    ConnectionError {
        /// The number of the connection.
        connection: u32,
        /// Its text as it came, maybe in pieces.
        bytes: Bytes,
    },
    /// A connection is over, and what there was of it: also when its bytes were not kept.
    ConnectionClosed {
        /// The number of the connection.
        connection: u32,
        /// The port.
        port: u16,
        /// Bytes that went to the container.
        to_container: u64,
        /// Bytes that went to the client.
        to_client: u64,
        /// How long it was open; kept to the microsecond.
        duration: Duration,
    },
    /// So many bytes of standard input go by. What they were follows on the same channel, once it is known whether they are
    /// kept: as data, or within a gap.
    Input {
        /// How many.
        bytes: u64,
    },
    /// Bytes that went by without being kept.
    Gap {
        /// The channel they were on.
        channel: Channel,
        /// Which way they went.
        direction: Direction,
        /// How many.
        bytes: u64,
        /// Why they were not kept.
        why: String,
    },
}

/// A channel of a stream; the first five have the numbers Kubernetes gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Channel {
    /// Standard input.
    Stdin,
    /// Standard output; the whole terminal when there is one.
    Stdout,
    /// Standard error.
    Stderr,
    /// The channel of the final `Status`.
    Error,
    /// Terminal sizes.
    Resize,
    /// The recorder's own notes.
    Control,
    /// Connections of a port-forward.
    Connection,
}

/// Which way something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// From the client to the container.
    ToContainer,
    /// From the container to the client.
    ToClient,
}

/// Why a session ended: a cause to count by and a detail to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloseReason {
    /// The kind of end.
    pub cause: Cause,
    /// Free text, may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The kinds of end a session can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The command ended and its status was delivered.
    Completed,
    /// The upstream refused the stream; nothing was relayed.
    Refused,
    /// The client went away first.
    ClientGone,
    /// The connection to the cluster broke.
    UpstreamLost,
    /// A party broke the protocol.
    ProtocolError,
    /// A limit (idle, lifetime, size) was reached.
    Limit,
    /// The recorder could not keep up with its duty, so the session was cut.
    RecorderFailed,
    /// A person or a policy ended the session.
    Terminated,
    /// Kustody was shutting down.
    Shutdown,
    /// The session ended without saying why.
    Interrupted,
    /// Kustody crashed; the recording was sealed at the next start with everything that was seen.
    RecoveredAfterCrash,
}

impl EventKind {
    /// What the container wrote to its standard output or standard error, when that is what this event is.
    #[must_use]
    pub fn output(&self) -> Option<(Channel, &Bytes)> {
        let EventKind::Data { channel, direction: Direction::ToClient, bytes } = self else { return None };
        matches!(channel, Channel::Stdout | Channel::Stderr).then_some((*channel, bytes))
    }
}

impl EventKind {
    /// How many bytes of either side it holds.
    #[must_use]
    pub fn payload(&self) -> u64 {
        match self {
            EventKind::Data { bytes, .. }
            | EventKind::ConnectionData { bytes, .. }
            | EventKind::ConnectionError { bytes, .. }
            | EventKind::Status { bytes } => bytes.len() as u64,
            EventKind::HalfClose { .. }
            | EventKind::Resize { .. }
            | EventKind::Marker { .. }
            | EventKind::Close { .. }
            | EventKind::ConnectionOpened { .. }
            | EventKind::ConnectionHalfClose { .. }
            | EventKind::ConnectionClosed { .. }
            | EventKind::Input { .. }
            | EventKind::Gap { .. } => 0,
        }
    }
}

impl Channel {
    /// All channels, in the order of their numbers.
    pub const ALL: [Channel; 7] = [
        Channel::Stdin,
        Channel::Stdout,
        Channel::Stderr,
        Channel::Error,
        Channel::Resize,
        Channel::Control,
        Channel::Connection,
    ];

    /// The number in a stored event.
    pub fn number(self) -> u8 {
        match self {
            Channel::Stdin => 0,
            Channel::Stdout => 1,
            Channel::Stderr => 2,
            Channel::Error => 3,
            Channel::Resize => 4,
            Channel::Control => 5,
            Channel::Connection => 6,
        }
    }

    /// The channel of a number in a stored event.
    pub fn from_number(number: u64) -> Option<Self> {
        Channel::ALL.into_iter().find(|channel| u64::from(channel.number()) == number)
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Stdin => "stdin",
            Channel::Stdout => "stdout",
            Channel::Stderr => "stderr",
            Channel::Error => "error",
            Channel::Resize => "resize",
            Channel::Control => "control",
            Channel::Connection => "connection",
        }
    }
}

impl EventKind {
    /// The channel and direction the event belongs to.
    pub fn place(&self) -> (Channel, Direction) {
        match self {
            EventKind::Data { channel, direction, .. }
            | EventKind::HalfClose { channel, direction }
            | EventKind::Gap { channel, direction, .. } => (*channel, *direction),
            EventKind::ConnectionData { direction, .. } | EventKind::ConnectionHalfClose { direction, .. } => {
                (Channel::Connection, *direction)
            }
            EventKind::ConnectionError { .. } => (Channel::Error, Direction::ToClient),
            EventKind::ConnectionOpened { .. } | EventKind::ConnectionClosed { .. } => {
                (Channel::Control, Direction::ToClient)
            }
            EventKind::Resize { .. } => (Channel::Resize, Direction::ToContainer),
            EventKind::Input { .. } => (Channel::Stdin, Direction::ToContainer),
            EventKind::Status { .. } => (Channel::Error, Direction::ToClient),
            EventKind::Marker { .. } | EventKind::Close { .. } => (Channel::Control, Direction::ToClient),
        }
    }
}

impl CloseReason {
    /// A reason with a detail.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        CloseReason { cause, detail: detail.into() }
    }
}

impl From<Cause> for CloseReason {
    fn from(cause: Cause) -> Self {
        CloseReason { cause, detail: String::new() }
    }
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 11] = [
        Cause::Completed,
        Cause::Refused,
        Cause::ClientGone,
        Cause::UpstreamLost,
        Cause::ProtocolError,
        Cause::Limit,
        Cause::RecorderFailed,
        Cause::Terminated,
        Cause::Shutdown,
        Cause::Interrupted,
        Cause::RecoveredAfterCrash,
    ];

    /// The name in events and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Completed => "completed",
            Cause::Refused => "refused",
            Cause::ClientGone => "client-gone",
            Cause::UpstreamLost => "upstream-lost",
            Cause::ProtocolError => "protocol-error",
            Cause::Limit => "limit",
            Cause::RecorderFailed => "recorder-failed",
            Cause::Terminated => "terminated",
            Cause::Shutdown => "shutdown",
            Cause::Interrupted => "interrupted",
            Cause::RecoveredAfterCrash => "recovered-after-crash",
        }
    }

    /// The cause of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Cause::ALL.into_iter().find(|cause| cause.name() == name)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause.name())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}
