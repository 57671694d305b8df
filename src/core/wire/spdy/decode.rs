//! Reads frames: owns its buffer and its limits, takes bytes in any chunking. After an error it gives nothing more.

use super::headers::Inflater;
use super::{Error, FIN, Frame, HEAD, MAX_CONTROL, MAX_DATA, ResetStatus, Side, StreamId, Type};
use bytes::{Bytes, BytesMut};

/// A flag of SETTINGS and of its entries; both are without effect.
const CLEAR_SETTINGS: u8 = 0x01;

/// Turns bytes into [`Frame`]s.
#[derive(Debug)]
pub struct Decoder {
    side: Side,
    limit: usize,
    buffer: BytesMut,
    inflater: Inflater,
    /// The largest stream id so far.
    last: u32,
    failed: Option<Error>,
}

enum Head {
    Data { stream: u32, fin: bool },
    Control { kind: Type, flags: u8 },
}

impl Decoder {
    /// A decoder of what `side` writes; data frames larger than `limit` bytes are refused before they are buffered.
    pub fn new(side: Side, limit: usize) -> Self {
        let limit = limit.min(MAX_DATA);
        Decoder { side, limit, buffer: BytesMut::new(), inflater: Inflater::default(), last: 0, failed: None }
    }

    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer to read into directly. Only append to it.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether a frame has begun and is not complete.
    pub fn is_midway(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The largest stream id that was opened, 0 before the first.
    pub fn last_stream(&self) -> u32 {
        self.last
    }

    /// The next frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// The first irregularity, and the same again at every later call.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let frame = self.read();
        self.failed = frame.as_ref().err().copied();
        frame
    }

    fn read(&mut self) -> Result<Option<Frame>, Error> {
        let Some((head, length)) = self.head()? else {
            return Ok(None);
        };
        let whole = HEAD + length;
        if self.buffer.len() < whole {
            // At most 64 KiB at a time, so that a lying length costs no memory.
            let missing = (whole - self.buffer.len()).min(64 * 1024);
            self.buffer.reserve(missing);
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(whole);
        let payload = frame.split_off(HEAD).freeze();
        match head {
            Head::Data { stream, fin } => {
                let stream = StreamId::new(stream).ok_or(Error::Stream(stream))?;
                Ok(Some(Frame::Data { stream, fin, bytes: payload }))
            }
            Head::Control { kind, flags } => self.control(kind, flags, &payload).map(Some),
        }
    }

    /// Everything that can be wrong with a head is found before its payload is waited for.
    fn head(&self) -> Result<Option<(Head, usize)>, Error> {
        let Some([a, b, c, d, flags, size @ ..]) = self.buffer.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let (word, flags) = (u32::from_be_bytes([*a, *b, *c, *d]), *flags);
        let length = size.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if word >> 31 == 0 {
            if flags & !FIN != 0 {
                return Err(Error::Flags(flags));
            }
            let stream = StreamId::new(word).ok_or(Error::Stream(word))?.get();
            let head = Head::Data { stream, fin: flags & FIN != 0 };
            return if length > self.limit { Err(Error::TooLarge(self.limit)) } else { Ok(Some((head, length))) };
        }
        let (version, kind) = (u16::from_be_bytes([a & 0x7f, *b]), Type::from(u16::from_be_bytes([*c, *d])));
        if version != 3 {
            return Err(Error::Version(version));
        }
        check(kind, flags, length)?;
        Ok(Some((Head::Control { kind, flags }, length)))
    }

    fn control(&mut self, kind: Type, flags: u8, payload: &Bytes) -> Result<Frame, Error> {
        let word = |at: usize| -> Result<u32, Error> {
            let bytes = payload.get(4 * at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(Error::Length)
        };
        let fin = flags & FIN != 0;
        let stream = |id: u32| StreamId::new(id).ok_or(Error::Stream(id));
        Ok(match kind {
            Type::SynStream => {
                let id = stream(word(0)?)?;
                let [associated @ .., _priority, slot] = payload.get(4..10).ok_or(Error::Length)? else {
                    return Err(Error::Length);
                };
                if self.side == Side::Server || id.get() % 2 == 0 || id.get() <= self.last {
                    return Err(Error::Stream(id.get()));
                }
                if associated != [0; 4] || *slot != 0 {
                    return Err(Error::Value);
                }
                let headers = self.inflater.read(payload.get(10..).unwrap_or_default())?;
                self.last = id.get();
                Frame::SynStream { stream: id, fin, headers }
            }
            Type::SynReply | Type::Headers => {
                let id = stream(word(0)?)?;
                let headers = self.inflater.read(payload.get(4..).unwrap_or_default())?;
                match (kind, self.side) {
                    (Type::SynReply, Side::Client) => return Err(Error::Stream(id.get())),
                    (Type::SynReply, _) => Frame::SynReply { stream: id, fin, headers },
                    _ => Frame::Headers { stream: id, fin, headers },
                }
            }
            Type::RstStream => Frame::RstStream { stream: stream(word(0)?)?, status: ResetStatus::try_from(word(1)?)? },
            Type::Settings => {
                let count = usize::try_from(word(0)?).map_err(|_| Error::Length)?;
                if count.checked_mul(8) != Some(payload.len() - 4) {
                    return Err(Error::Length);
                }
                let pair = |n: usize| Ok((word(1 + 2 * n)?, word(2 + 2 * n)?));
                Frame::Settings((0..count).map(pair).collect::<Result<_, Error>>()?)
            }
            Type::Ping => Frame::Ping(Some(word(0)?).filter(|id| *id != 0).ok_or(Error::Value)?),
            Type::GoAway => Frame::GoAway { last: word(0)?, status: word(1)? },
            Type::WindowUpdate => Frame::WindowUpdate { stream: word(0)?, delta: word(1)? },
            Type::Unknown(number) => return Err(Error::Type(number)),
        })
    }
}

/// Whether length and flags fit a control frame of this type.
fn check(kind: Type, flags: u8, length: usize) -> Result<(), Error> {
    let (allowed, least, most) = match kind {
        Type::SynStream => (FIN, 10, MAX_CONTROL),
        Type::SynReply | Type::Headers => (FIN, 4, MAX_CONTROL),
        Type::Settings => (CLEAR_SETTINGS, 4, MAX_CONTROL),
        Type::RstStream | Type::GoAway | Type::WindowUpdate => (0, 8, 8),
        Type::Ping => (0, 4, 4),
        Type::Unknown(number) => return Err(Error::Type(number)),
    };
    if flags & !allowed != 0 {
        return Err(Error::Flags(flags));
    }
    if length < least || (most == least && length > most) {
        return Err(Error::Length);
    }
    if length > most { Err(Error::TooLarge(most)) } else { Ok(()) }
}
