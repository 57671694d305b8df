//! SPDY/3.1 frames as Kubernetes uses them: a strict decoder and a canonical encoder.
//!
//! What the peers run is `moby/spdystream`, which reads laxly: any version, lengths of fixed frames not looked at, unknown
//! flags ignored, leftovers of a header block kept for the next one. A gateway that read such bytes in another way would
//! record something else than the container saw, so everything irregular is refused here and what goes on is written
//! anew. There is no flow control: spdystream sends no WINDOW_UPDATE and ignores those it gets, so waiting for one would
//! wait for ever; back-pressure is TCP's. Source: SPDY draft 3.1; spdystream 0.5. Main types: [`Decoder`], [`Frame`].

use bytes::Bytes;

mod decode;
mod dictionary;
mod encode;
mod headers;

pub use decode::Decoder;
pub use encode::Encoder;
pub use headers::Headers;

/// The largest payload a frame can announce: its length has 24 bits.
pub const MAX_DATA: usize = (1 << 24) - 1;
/// The largest payload of a control frame that is taken; real ones are some tens of bytes.
pub const MAX_CONTROL: usize = 64 * 1024;
/// Most bytes a header block may inflate to.
pub const MAX_BLOCK: usize = 64 * 1024;
/// Most headers in a block; Kubernetes sends at most three.
pub const MAX_HEADERS: usize = 64;
/// The size of a frame's head.
const HEAD: usize = 8;
const FIN: u8 = 0x01;

/// Which side wrote the frames. Clients open streams, with odd ids; Kubernetes' servers open none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The frames come from a client.
    Client,
    /// The frames come from a server.
    Server,
}

/// The id of a stream: 31 bits, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetStatus {
    /// A generic error.
    ProtocolError,
    /// The stream does not exist.
    InvalidStream,
    /// The stream was not taken.
    RefusedStream,
    /// The version is not spoken.
    UnsupportedVersion,
    /// Whoever opened it wants it no more.
    Cancel,
    /// Something failed.
    InternalError,
    /// Too much was sent.
    FlowControlError,
    /// Any other number but 0.
    Unknown(u32),
}

/// What a control frame is, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    SynStream,
    SynReply,
    RstStream,
    Settings,
    Ping,
    GoAway,
    Headers,
    WindowUpdate,
    Unknown(u16),
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A client opens a stream.
    SynStream {
        /// Its id.
        stream: StreamId,
        /// The client will send nothing on it.
        fin: bool,
        /// What the stream is for.
        headers: Headers,
    },
    /// The server takes a stream.
    SynReply {
        /// The stream.
        stream: StreamId,
        /// The server will send nothing on it.
        fin: bool,
        /// Empty, from Kubernetes.
        headers: Headers,
    },
    /// A stream ends at once, in both directions.
    RstStream {
        /// The stream.
        stream: StreamId,
        /// Why.
        status: ResetStatus,
    },
    /// Settings of the connection: id with flags in its top byte, and value. Without effect in Kubernetes.
    Settings(Vec<(u32, u32)>),
    /// A ping, or the answer to one: clients ask with odd ids.
    Ping(u32),
    /// The sender takes no more streams, and is about to hang up.
    GoAway {
        /// The last stream that was taken; 0 for none.
        last: u32,
        /// 0 when all is well.
        status: u32,
    },
    /// More headers. Kubernetes has no use for them.
    Headers {
        /// The stream.
        stream: StreamId,
        /// The sender will send nothing more on it.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// More may be sent. Without effect in Kubernetes.
    WindowUpdate {
        /// The stream; 0 is the connection.
        stream: u32,
        /// By so many bytes.
        delta: u32,
    },
    /// Bytes on a stream.
    Data {
        /// The stream.
        stream: StreamId,
        /// The sender will send nothing more on it.
        fin: bool,
        /// The bytes, at most [`MAX_DATA`].
        bytes: Bytes,
    },
}

/// Why bytes are not acceptable as frames. All of them end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A control frame is of another version than 3.
    #[error("SPDY version {0} is not spoken")]
    Version(u16),
    /// A control frame of a type nobody defined.
    #[error("control frame type {0} is unknown")]
    Type(u16),
    /// A flag that has no meaning on this frame, or one that Kubernetes has no use for.
    #[error("flags {0:#04x} do not fit the frame")]
    Flags(u8),
    /// The length does not fit the type of the frame.
    #[error("the length does not fit the frame")]
    Length,
    /// A frame is larger than the limit.
    #[error("a frame is larger than {0} bytes")]
    TooLarge(usize),
    /// A stream id is 0, too large, of the wrong parity or not larger than those before it.
    #[error("stream id {0} is not acceptable")]
    Stream(u32),
    /// A status, ping id, priority, delta or association that must not be.
    #[error("a field of the frame holds a value that must not be")]
    Value,
    /// A header block does not inflate, inflates to too much, or is not a list of headers.
    #[error("a header block is malformed or too large")]
    Headers,
}

impl StreamId {
    /// The id of this number, unless it is 0 or has more than 31 bits.
    pub fn new(id: u32) -> Option<StreamId> {
        (id != 0 && id >> 31 == 0).then_some(StreamId(id))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for ResetStatus {
    type Error = Error;

    fn try_from(status: u32) -> Result<Self, Error> {
        Ok(match status {
            0 => return Err(Error::Value),
            1 => ResetStatus::ProtocolError,
            2 => ResetStatus::InvalidStream,
            3 => ResetStatus::RefusedStream,
            4 => ResetStatus::UnsupportedVersion,
            5 => ResetStatus::Cancel,
            6 => ResetStatus::InternalError,
            7 => ResetStatus::FlowControlError,
            other => ResetStatus::Unknown(other),
        })
    }
}

impl ResetStatus {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            ResetStatus::ProtocolError => 1,
            ResetStatus::InvalidStream => 2,
            ResetStatus::RefusedStream => 3,
            ResetStatus::UnsupportedVersion => 4,
            ResetStatus::Cancel => 5,
            ResetStatus::InternalError => 6,
            ResetStatus::FlowControlError => 7,
            ResetStatus::Unknown(number) => number,
        }
    }
}

impl From<u16> for Type {
    fn from(number: u16) -> Self {
        match number {
            1 => Type::SynStream,
            2 => Type::SynReply,
            3 => Type::RstStream,
            4 => Type::Settings,
            6 => Type::Ping,
            7 => Type::GoAway,
            8 => Type::Headers,
            9 => Type::WindowUpdate,
            other => Type::Unknown(other),
        }
    }
}

impl Type {
    fn number(self) -> u16 {
        match self {
            Type::SynStream => 1,
            Type::SynReply => 2,
            Type::RstStream => 3,
            Type::Settings => 4,
            Type::Ping => 6,
            Type::GoAway => 7,
            Type::Headers => 8,
            Type::WindowUpdate => 9,
            Type::Unknown(number) => number,
        }
    }
}

#[cfg(test)]
mod tests;
