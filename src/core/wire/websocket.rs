//! WebSocket frames (RFC 6455): a strict decoder and a canonical encoder.
//!
//! The API server reads frames laxly (`golang.org/x/net/websocket`): continuation frames count as
//! messages of their own, opcodes and RSV bits are not looked at, a top bit in a length is dropped. A
//! gateway that agreed with RFC 6455 and passed such bytes on would record something else than the
//! container saw. So everything irregular is refused here, fragments of clients are put together, and
//! what goes on is written anew as one whole frame per message. Main types: [`Decoder`], [`Message`].

use bytes::{Bytes, BytesMut};
use encode::mask;

mod encode;

pub use encode::{encode, encode_close};

/// The largest message the API server takes (payload with its channel byte): 32 MiB.
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024;
/// The largest payload of a control frame, by RFC 6455 section 5.5.
pub const MAX_CONTROL: usize = 125;

/// Which side wrote the frames. Clients mask theirs, servers must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The frames come from a client: each must be masked.
    Client,
    /// The frames come from a server: none may be masked.
    Server,
}

/// What a frame is for; the low four bits of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with a fragmented message.
    Continuation,
    /// UTF-8 text. Kubernetes' channel protocols read it like binary.
    Text,
    /// Bytes.
    Binary,
    /// The sender is done.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
    /// Reserved by the RFC; always refused.
    Unknown(u8),
}

/// One whole message or control frame, in the order received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A data message, put together from its fragments.
    Data(Bytes),
    /// A ping; answer it with a pong of the same bytes.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// A close frame. `code` is `None` when its payload is empty.
    Close {
        /// The close code.
        code: Option<u16>,
        /// The reason text, not checked to be UTF-8.
        reason: Bytes,
    },
}

/// Why bytes are not acceptable as frames. All of them end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A reserved bit is set although no extension was agreed.
    #[error("reserved bits are set")]
    Reserved,
    /// An opcode nobody defined.
    #[error("opcode {0} is reserved")]
    Opcode(u8),
    /// The mask bit does not fit the side that wrote the frame.
    #[error("masking does not fit the sender")]
    Masking,
    /// The length is written longer than needed or has its top bit set.
    #[error("the length is not in its shortest form")]
    Length,
    /// A control frame is fragmented or longer than 125 bytes.
    #[error("a control frame is fragmented or too long")]
    Control,
    /// A continuation without a start, or a start inside a fragmented message.
    #[error("fragments are out of order")]
    Fragment,
    /// A message is larger than the limit.
    #[error("a message is larger than {0} bytes")]
    TooLarge(usize),
    /// A close frame with a one-byte payload or a code that must not be sent.
    #[error("the close frame is malformed")]
    Close,
}

impl Error {
    /// The close code that tells the peer what was wrong.
    pub fn close_code(self) -> u16 {
        match self {
            Error::TooLarge(_) => 1009,
            Error::Reserved
            | Error::Opcode(_)
            | Error::Masking
            | Error::Length
            | Error::Control
            | Error::Fragment
            | Error::Close => 1002,
        }
    }
}

/// Turns bytes into [`Message`]s. After an error or a close frame it gives nothing more.
#[derive(Debug)]
pub struct Decoder {
    side: Side,
    limit: usize,
    buffer: BytesMut,
    fragments: Option<BytesMut>,
    ended: Option<Result<(), Error>>,
}

struct Head {
    fin: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    length: usize,
    size: usize,
}

impl From<u8> for Opcode {
    fn from(bits: u8) -> Self {
        match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => Opcode::Unknown(other),
        }
    }
}

impl Opcode {
    fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
            Opcode::Unknown(bits) => bits & 0x0f,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

impl Decoder {
    /// A decoder of what `side` writes; messages larger than `limit` bytes are refused before they
    /// are buffered.
    pub fn new(side: Side, limit: usize) -> Self {
        Decoder { side, limit, buffer: BytesMut::new(), fragments: None, ended: None }
    }

    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer to read into directly. Only append to it.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether a frame or a fragmented message has begun and is not complete.
    pub fn is_midway(&self) -> bool {
        self.fragments.is_some() || !self.buffer.is_empty()
    }

    /// The next message, or `None` when more bytes are needed or a close frame was given.
    ///
    /// # Errors
    /// The first irregularity, and the same again at every later call.
    pub fn next_message(&mut self) -> Result<Option<Message>, Error> {
        loop {
            match self.ended {
                Some(Ok(())) => return Ok(None),
                Some(Err(error)) => return Err(error),
                None => {}
            }
            let step = self.next_frame();
            match step {
                Ok(None) => return Ok(None),
                Ok(Some((head, payload))) => match self.assemble(&head, payload) {
                    Ok(None) => {}
                    Ok(Some(message)) => {
                        if matches!(message, Message::Close { .. }) {
                            self.ended = Some(Ok(()));
                        }
                        return Ok(Some(message));
                    }
                    Err(error) => self.ended = Some(Err(error)),
                },
                Err(error) => self.ended = Some(Err(error)),
            }
        }
    }

    fn next_frame(&mut self) -> Result<Option<(Head, BytesMut)>, Error> {
        let Some(head) = self.head()? else {
            return Ok(None);
        };
        let whole = head.size + head.length;
        if self.buffer.len() < whole {
            // One allocation for the rest of the frame; `length` is within the limit already, and
            // growing by at most 64 KiB at a time keeps a lying header from costing memory.
            let missing = (whole - self.buffer.len()).min(64 * 1024);
            self.buffer.reserve(missing);
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(whole);
        let mut payload = frame.split_off(head.size);
        if let Some(key) = head.mask {
            mask(&mut payload, key);
        }
        Ok(Some((head, payload)))
    }

    fn head(&self) -> Result<Option<Head>, Error> {
        let [first, second, rest @ ..] = self.buffer.as_ref() else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Error::Reserved);
        }
        let opcode = Opcode::from(first & 0x0f);
        if let Opcode::Unknown(bits) = opcode {
            return Err(Error::Opcode(bits));
        }
        let fin = first & 0x80 != 0;
        let masked = second & 0x80 != 0;
        if masked != (self.side == Side::Client) {
            return Err(Error::Masking);
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!fin || usize::from(short) > MAX_CONTROL) {
            return Err(Error::Control);
        }
        let Some((length, taken)) = length(short, rest)? else {
            return Ok(None);
        };
        let held = match opcode {
            Opcode::Continuation => self.fragments.as_ref().ok_or(Error::Fragment)?.len(),
            Opcode::Text | Opcode::Binary if self.fragments.is_some() => {
                return Err(Error::Fragment);
            }
            Opcode::Text | Opcode::Binary | Opcode::Close | Opcode::Ping | Opcode::Pong | Opcode::Unknown(_) => 0,
        };
        let room = (self.limit - held.min(self.limit)) as u64;
        if !opcode.is_control() && length > room {
            return Err(Error::TooLarge(self.limit));
        }
        let length = usize::try_from(length).map_err(|_| Error::TooLarge(self.limit))?;
        let mut size = 2 + taken;
        let mut key = None;
        if masked {
            let Some(bytes) = rest.get(taken..taken + 4) else {
                return Ok(None);
            };
            key = <[u8; 4]>::try_from(bytes).ok();
            size += 4;
        }
        Ok(Some(Head { fin, opcode, mask: key, length, size }))
    }

    fn assemble(&mut self, head: &Head, payload: BytesMut) -> Result<Option<Message>, Error> {
        match head.opcode {
            Opcode::Ping => Ok(Some(Message::Ping(payload.freeze()))),
            Opcode::Pong => Ok(Some(Message::Pong(payload.freeze()))),
            Opcode::Close => close(payload.freeze()).map(Some),
            Opcode::Text | Opcode::Binary if head.fin => Ok(Some(Message::Data(payload.freeze()))),
            Opcode::Text | Opcode::Binary => {
                self.fragments = Some(payload);
                Ok(None)
            }
            Opcode::Continuation => {
                let mut whole = self.fragments.take().ok_or(Error::Fragment)?;
                whole.extend_from_slice(&payload);
                if head.fin {
                    return Ok(Some(Message::Data(whole.freeze())));
                }
                self.fragments = Some(whole);
                Ok(None)
            }
            Opcode::Unknown(bits) => Err(Error::Opcode(bits)),
        }
    }
}

fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, Error> {
    let (value, taken, least) = match short {
        126 => {
            let Some(bytes) = rest.first_chunk::<2>() else {
                return Ok(None);
            };
            (u64::from(u16::from_be_bytes(*bytes)), 2, 126)
        }
        127 => {
            let Some(bytes) = rest.first_chunk::<8>() else {
                return Ok(None);
            };
            (u64::from_be_bytes(*bytes), 8, 0x1_0000)
        }
        short => (u64::from(short), 0, 0),
    };
    if value < least || value >> 63 != 0 {
        return Err(Error::Length);
    }
    Ok(Some((value, taken)))
}

fn close(payload: Bytes) -> Result<Message, Error> {
    if payload.is_empty() {
        return Ok(Message::Close { code: None, reason: Bytes::new() });
    }
    let Some(code) = payload.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes)) else {
        return Err(Error::Close);
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Error::Close);
    }
    Ok(Message::Close { code: Some(code), reason: payload.slice(2..) })
}

#[cfg(test)]
mod tests;
