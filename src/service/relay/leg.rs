//! One side of a session: its connection, its decoders, and the frames waiting to leave.
//!
//! A leg speaks WebSocket, SPDY, or SPDY inside WebSocket. What only keeps a connection alive ends here: pings are
//! answered, SETTINGS and WINDOW_UPDATE, which nobody in Kubernetes heeds, are read and left.

use super::Framing;
use crate::core::wire::spdy::{self, Frame};
use crate::core::wire::websocket::{self, Message, Opcode, encode, encode_close};
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// How much is read at once, at most and at least: most sessions are quiet, and each holds what it reads into.
const READ: usize = 64 * 1024;
const SIP: usize = 1024;
/// A leg with this much waiting to leave is full: the other one is not read until it has drained.
const FULL: usize = 256 * 1024;
/// The status of a GOAWAY that is not an orderly end.
const INTERNAL_ERROR: u32 = 2;

pub(super) struct Leg<T> {
    pub(super) reader: Reader<T>,
    pub(super) writer: Writer<T>,
}

/// What a peer said, pings aside.
pub(super) enum Heard {
    /// A WebSocket message.
    Message(Bytes),
    /// A SPDY frame.
    Frame(Frame),
    /// A WebSocket close frame.
    Closed { code: Option<u16>, reason: Bytes },
}

/// What a peer said is not acceptable.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    WebSocket(#[from] websocket::Error),
    #[error("{0}")]
    Spdy(#[from] spdy::Error),
}

/// Which end of the connection the peer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Client,
    Server,
}

pub(super) struct Reader<T> {
    half: ReadHalf<T>,
    codec: Codec,
    /// How much is read next: twice as much after a read that took all it could, less after a small one.
    appetite: usize,
    /// The most that it was since the buffer is this one.
    held: usize,
    /// Nothing more is read: a close frame, the end, or an error was.
    pub(super) ended: bool,
}

enum Codec {
    WebSocket(websocket::Decoder),
    Spdy(spdy::Decoder),
    Tunnel(websocket::Decoder, spdy::Decoder),
}

pub(super) struct Writer<T> {
    half: WriteHalf<T>,
    out: BytesMut,
    framing: Framing,
    peer: Peer,
    encoder: spdy::Encoder,
    /// The largest stream id that was spoken of.
    last: u32,
    /// The id of the last ping.
    pinged: u32,
    unflushed: bool,
    closed: bool,
}

impl Error {
    /// Whether it was too large, rather than wrong.
    pub(super) fn is_limit(&self) -> bool {
        matches!(self, Error::WebSocket(websocket::Error::TooLarge(_)) | Error::Spdy(spdy::Error::TooLarge(_)))
    }

    /// The close code that tells the peer what was wrong.
    pub(super) fn close_code(&self) -> u16 {
        match self {
            Error::WebSocket(error) => error.close_code(),
            Error::Spdy(_) => 1002,
        }
    }
}

impl<T: AsyncRead + AsyncWrite> Leg<T> {
    /// The leg to the client.
    pub(super) fn with_client(io: T, framing: Framing, limit: usize) -> Self {
        Self::new(io, Peer::Client, framing, limit)
    }

    /// The leg to the API server.
    pub(super) fn with_server(io: T, framing: Framing, limit: usize) -> Self {
        Self::new(io, Peer::Server, framing, limit)
    }

    fn new(io: T, peer: Peer, framing: Framing, limit: usize) -> Self {
        let (read, write) = tokio::io::split(io);
        let (web, spdy) = match peer {
            Peer::Client => (websocket::Side::Client, spdy::Side::Client),
            Peer::Server => (websocket::Side::Server, spdy::Side::Server),
        };
        let codec = match framing {
            Framing::WebSocket => Codec::WebSocket(websocket::Decoder::new(web, limit)),
            Framing::Spdy => Codec::Spdy(spdy::Decoder::new(spdy, limit)),
            Framing::Tunnel => Codec::Tunnel(websocket::Decoder::new(web, limit), spdy::Decoder::new(spdy, limit)),
        };
        Leg {
            reader: Reader { half: read, codec, appetite: SIP, held: SIP, ended: false },
            writer: Writer {
                half: write,
                out: BytesMut::new(),
                framing,
                peer,
                encoder: spdy::Encoder::default(),
                last: 0,
                pinged: 0,
                unflushed: false,
                closed: false,
            },
        }
    }

    /// The next thing the peer has said; `None` when more bytes are needed.
    pub(super) fn hear(&mut self) -> Result<Option<Heard>, Error> {
        loop {
            let frame = match &mut self.reader.codec {
                Codec::WebSocket(_) => None,
                Codec::Spdy(decoder) | Codec::Tunnel(_, decoder) => decoder.next_frame()?,
            };
            if let Some(frame) = frame {
                match frame {
                    Frame::Ping(id) => self.writer.pong(id),
                    Frame::Settings(_) | Frame::WindowUpdate { .. } => {}
                    frame @ (Frame::SynStream { .. }
                    | Frame::SynReply { .. }
                    | Frame::RstStream { .. }
                    | Frame::GoAway { .. }
                    | Frame::Headers { .. }
                    | Frame::Data { .. }) => return Ok(Some(Heard::Frame(frame))),
                }
                continue;
            }
            let message = match &mut self.reader.codec {
                Codec::Spdy(_) => None,
                Codec::WebSocket(decoder) | Codec::Tunnel(decoder, _) => decoder.next_message()?,
            };
            match (message, &mut self.reader.codec) {
                (None, _) => return Ok(None),
                (Some(Message::Ping(bytes)), _) => self.writer.web(Opcode::Pong, &[&bytes]),
                (Some(Message::Pong(_)), _) => {}
                (Some(Message::Close { code, reason }), _) => return Ok(Some(Heard::Closed { code, reason })),
                (Some(Message::Data(bytes)), Codec::Tunnel(_, spdy)) => spdy.push(&bytes),
                (Some(Message::Data(bytes)), _) => return Ok(Some(Heard::Message(bytes))),
            }
        }
    }

    /// Sends what is queued, ends our side, and reads the other one to its end: a connection dropped
    /// with unread bytes is reset, and a reset may cost the peer what it has not read yet.
    pub(super) async fn part(&mut self) -> io::Result<()> {
        self.writer.shut().await?;
        let mut scrap = BytesMut::with_capacity(READ);
        while !self.reader.ended && self.reader.half.read_buf(&mut scrap).await? > 0 {
            scrap.clear();
        }
        Ok(())
    }
}

impl<T: AsyncRead> Reader<T> {
    /// Reads some bytes into the decoder; 0 is the end. Cancelling loses nothing.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        let buffer = match &mut self.codec {
            Codec::WebSocket(decoder) | Codec::Tunnel(decoder, _) => decoder.buffer(),
            Codec::Spdy(decoder) => decoder.buffer(),
        };
        if buffer.is_empty() && self.appetite == SIP && self.held > SIP {
            // What a busy moment needed is given back; a buffer remembers how large it was.
            *buffer = BytesMut::new();
            self.held = SIP;
        }
        buffer.reserve(self.appetite);
        let read = (&mut self.half).take(self.appetite as u64).read_buf(buffer).await?;
        self.appetite = match read {
            read if read >= self.appetite => READ.min(2 * self.appetite),
            read if read < self.appetite / 4 => SIP.max(self.appetite / 2),
            _ => self.appetite,
        };
        self.held = self.held.max(self.appetite);
        Ok(read)
    }

    /// Whether a frame or message has begun and is not complete.
    pub(super) fn is_midway(&self) -> bool {
        match &self.codec {
            Codec::WebSocket(decoder) => decoder.is_midway(),
            Codec::Spdy(decoder) => decoder.is_midway(),
            Codec::Tunnel(web, spdy) => web.is_midway() || spdy.is_midway(),
        }
    }
}

impl<T: AsyncWrite> Writer<T> {
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= FULL
    }

    /// Full of pongs even, because the peer asks and does not read.
    pub(super) fn is_flooded(&self) -> bool {
        self.out.len() >= 2 * FULL
    }

    pub(super) fn has_work(&self) -> bool {
        self.unflushed
    }

    /// Queues one WebSocket message.
    pub(super) fn message(&mut self, opcode: Opcode, parts: &[&[u8]]) {
        self.web(opcode, parts);
    }

    /// Queues one SPDY frame.
    pub(super) fn frame(&mut self, frame: &Frame) {
        if self.closed {
            return;
        }
        if let Frame::SynStream { stream, .. } | Frame::SynReply { stream, .. } = frame {
            self.last = self.last.max(stream.get());
        }
        if self.framing == Framing::Tunnel {
            let mut bytes = BytesMut::new();
            self.encoder.encode(frame, &mut bytes);
            self.web(Opcode::Binary, &[&bytes]);
        } else {
            self.encoder.encode(frame, &mut self.out);
            self.unflushed = true;
        }
    }

    /// Asks whether the peer is there. Whoever opens streams asks with odd ids.
    pub(super) fn ping(&mut self) {
        if self.framing == Framing::WebSocket {
            return self.web(Opcode::Ping, &[]);
        }
        let first = if self.peer == Peer::Server { 1 } else { 2 };
        self.pinged = if self.pinged == 0 { first } else { self.pinged.checked_add(2).unwrap_or(first) };
        self.frame(&Frame::Ping(self.pinged));
    }

    /// Queues the frames that end a connection, once.
    pub(super) fn close(&mut self, code: Option<u16>, reason: &[u8]) {
        if self.closed {
            return;
        }
        if self.framing != Framing::WebSocket {
            let status = if matches!(code, None | Some(1000)) { 0 } else { INTERNAL_ERROR };
            self.frame(&Frame::GoAway { last: self.last, status });
        }
        if self.framing != Framing::Spdy {
            let key = self.key();
            encode_close(&mut self.out, code, reason, key);
        }
        self.closed = true;
        self.unflushed = true;
    }

    /// Writes and flushes what is queued. Cancelling loses nothing.
    pub(super) async fn drain(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            if self.half.write_buf(&mut self.out).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.half.flush().await?;
        self.unflushed = false;
        Ok(())
    }

    /// Writes what is queued and ends the connection.
    pub(super) async fn shut(&mut self) -> io::Result<()> {
        self.drain().await?;
        self.half.shutdown().await
    }

    /// Answers a ping, unless it is the answer to one of ours.
    fn pong(&mut self, id: u32) {
        let theirs = u32::from(self.peer == Peer::Client);
        if id % 2 == theirs {
            self.frame(&Frame::Ping(id));
        }
    }

    /// Queues one WebSocket frame. After a close frame nothing is queued any more.
    fn web(&mut self, opcode: Opcode, parts: &[&[u8]]) {
        if self.closed {
            return;
        }
        let key = self.key();
        encode(&mut self.out, opcode, key, parts);
        self.unflushed = true;
    }

    fn key(&self) -> Option<[u8; 4]> {
        let masks = self.peer == Peer::Server;
        let mut key = [0; 4];
        // The key only has to be unpredictable to scripts behind caching proxies, of which there are
        // none inside TLS: without randomness a constant one does.
        let filled = masks && aws_lc_rs::rand::fill(&mut key).is_ok();
        if masks && !filled {
            key = [0x6b; 4];
        }
        masks.then_some(key)
    }
}
