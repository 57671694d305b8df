//! One side of a session: its connection, its frame decoder, and the frames waiting to leave.

use crate::core::wire::websocket::{Decoder, Opcode, Side, encode, encode_close};
use bytes::BytesMut;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// How much is read at once.
const READ: usize = 64 * 1024;
/// A leg with this much waiting to leave is full: the other one is not read until it has drained.
const FULL: usize = 256 * 1024;

pub(super) struct Leg<T> {
    pub(super) reader: Reader<T>,
    pub(super) writer: Writer<T>,
}

pub(super) struct Reader<T> {
    half: ReadHalf<T>,
    pub(super) decoder: Decoder,
    /// Nothing more is read: a close frame, the end, or an error was.
    pub(super) ended: bool,
}

pub(super) struct Writer<T> {
    half: WriteHalf<T>,
    out: BytesMut,
    masks: bool,
    unflushed: bool,
    closed: bool,
}

impl<T: AsyncRead + AsyncWrite> Leg<T> {
    /// The leg to the client: its frames are masked, ours are not.
    pub(super) fn with_client(io: T, limit: usize) -> Self {
        Self::new(io, Side::Client, limit)
    }

    /// The leg to the API server: our frames are masked, its are not.
    pub(super) fn with_server(io: T, limit: usize) -> Self {
        Self::new(io, Side::Server, limit)
    }

    fn new(io: T, peer: Side, limit: usize) -> Self {
        let (read, write) = tokio::io::split(io);
        Leg {
            reader: Reader { half: read, decoder: Decoder::new(peer, limit), ended: false },
            writer: Writer {
                half: write,
                out: BytesMut::new(),
                masks: peer == Side::Server,
                unflushed: false,
                closed: false,
            },
        }
    }
}

impl<T: AsyncRead + AsyncWrite> Leg<T> {
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
        let buffer = self.decoder.buffer();
        buffer.reserve(READ);
        self.half.read_buf(buffer).await
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

    /// Queues one frame. After a close frame nothing is queued any more.
    pub(super) fn frame(&mut self, opcode: Opcode, parts: &[&[u8]]) {
        if self.closed {
            return;
        }
        let key = self.key();
        encode(&mut self.out, opcode, key, parts);
        self.unflushed = true;
    }

    /// Queues a close frame, once.
    pub(super) fn close(&mut self, code: Option<u16>, reason: &[u8]) {
        if self.closed {
            return;
        }
        let key = self.key();
        encode_close(&mut self.out, code, reason, key);
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

    fn key(&self) -> Option<[u8; 4]> {
        let mut key = [0; 4];
        // The key only has to be unpredictable to scripts behind caching proxies, of which there are
        // none inside TLS: without randomness a constant one does.
        let filled = self.masks && aws_lc_rs::rand::fill(&mut key).is_ok();
        if self.masks && !filled {
            key = [0x6b; 4];
        }
        self.masks.then_some(key)
    }
}
