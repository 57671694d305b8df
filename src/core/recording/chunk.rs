//! Chunks: the immutable objects that hold the events. A chunk is a fixed head and one zstd frame of CBOR events.
//!
//! The head is itself a zstd *skippable* frame, so plain `zstd -d` gives the events of a chunk. It carries the SHA-256
//! of the chunk before (of the header for the first), which makes the chunks of a session a chain.
//! [`Open`] collects events, [`Chain`] seals one chunk after another, [`Chunk::parse`] reads an object back.

use std::cell::RefCell;
use std::io::{self, Cursor};
use std::time::Duration;

use bytes::{Buf, Bytes};
use jiff::Timestamp;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::GENERATION;
use super::codec;
use super::digest::{self, Digest};
use super::event::{Event, EventKind, MAX_DATA};
use super::header::Header;
use super::layout::SessionId;
use super::manifest::{ChunkEntry, wall_clock};
use super::summary::Tally;

/// A chunk is closed when its events fill this many bytes.
pub const CLOSE_AT: usize = 1024 * 1024;
/// A chunk with events is closed at this age.
pub const CLOSE_AFTER: Duration = Duration::from_secs(2);
/// No chunk has more event bytes than this.
pub const MAX_PAYLOAD: usize = CLOSE_AT + MAX_DATA + 1024;
/// No object is larger, whatever is in it.
pub const MAX_OBJECT: usize = HEAD_LEN + MAX_PAYLOAD + MAX_PAYLOAD / 128;
/// Length of the head: 8 bytes of skippable frame, 96 of content.
pub const HEAD_LEN: usize = 104;
/// A zstd skippable frame begins with this (RFC 8878 section 3.1.2), little-endian `0x184D2A50`.
pub const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// The content of the head begins with this.
pub const MAGIC: [u8; 4] = *b"KREC";
const CONTENT_LEN: u32 = 96;
const LEVEL: i32 = 1;

/// The head of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The session.
    pub session: SessionId,
    /// The chunk's number, from zero.
    pub sequence: u64,
    /// SHA-256 of the chunk before, of `header.json` for the first.
    pub previous: Digest,
    /// Bytes of the events before compression.
    pub payload: u32,
    /// Number of events.
    pub events: u32,
    /// Time of the first event, in microseconds since the start.
    pub first_us: u64,
    /// Time of the last event.
    pub last_us: u64,
}

/// A chunk that still takes events.
#[derive(Debug)]
pub struct Open {
    sequence: u64,
    first_us: u64,
    last_us: u64,
    events: u32,
    payload: Vec<u8>,
    tally: Tally,
}

/// The state of a session's chain: what the next chunk has to carry.
#[derive(Debug, Clone)]
pub struct Chain {
    session: SessionId,
    started_at: Timestamp,
    previous: Digest,
    next: u64,
}

/// A closed chunk: the object and what the manifest will say of it.
#[derive(Debug)]
pub struct Sealed {
    /// The object's bytes.
    pub object: Vec<u8>,
    /// Its manifest entry.
    pub entry: ChunkEntry,
    /// Its totals.
    pub tally: Tally,
    /// The memory its events were in, for another chunk.
    pub payload: Vec<u8>,
}

/// A chunk that was read: its head and the bytes of its events.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The head.
    pub head: Head,
    payload: Bytes,
}

/// Why bytes are not a chunk, or events are not its events.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The head is not that of a chunk.
    #[error("not the head of a chunk: {0}")]
    Head(&'static str),
    /// The zstd frame is damaged, or its length is not the one in the head.
    #[error("the compressed events are damaged")]
    Frame,
    /// An event is not valid.
    #[error(transparent)]
    Event(#[from] codec::Error),
    /// Number or times of the events are not those in the head.
    #[error("the events are not those the head tells of")]
    Events,
    /// A chunk is sealed out of turn.
    #[error("chunk {0} is not the next one")]
    OutOfTurn(u64),
    /// Compression failed.
    #[error("the chunk cannot be compressed")]
    Compress(#[source] io::Error),
}

thread_local! {
    /// Its tables are as large as a chunk: whoever seals one after the other has them once.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

impl Open {
    /// A chunk whose first event comes at this time.
    pub fn new(sequence: u64, at: Duration) -> Self {
        Open::within(sequence, at, Vec::new())
    }

    /// The same, in memory that is there already.
    pub fn within(sequence: u64, at: Duration, mut payload: Vec<u8>) -> Self {
        payload.clear();
        let first_us = micros(at);
        Open { sequence, first_us, last_us: first_us, events: 0, payload, tally: Tally::default() }
    }

    /// Adds an event and gives its encoding. An earlier time than that of the event before counts as that one.
    /// On an error nothing is added.
    pub fn push(&mut self, at: Duration, kind: &EventKind) -> Result<&[u8], codec::Error> {
        let start = self.payload.len();
        let at = micros(at).max(self.last_us);
        codec::encode(Duration::from_micros(at - self.last_us), kind, &mut self.payload)?;
        self.last_us = at;
        self.events = self.events.saturating_add(1);
        self.tally.add(kind);
        Ok(self.payload.get(start..).unwrap_or_default())
    }

    /// The chunk's number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Time of the first event.
    pub fn first(&self) -> Duration {
        Duration::from_micros(self.first_us)
    }

    /// True when the chunk has reached its size.
    pub fn is_full(&self) -> bool {
        self.payload.len() >= CLOSE_AT
    }

    /// True when no event is in it.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }
}

impl Chain {
    /// The chain of a new session, over the bytes of its header object.
    pub fn new(header: &Header, link: Digest) -> Self {
        Chain { session: header.session, started_at: header.started_at, previous: link, next: 0 }
    }

    /// Takes note of a chunk that was sealed before.
    pub fn follow(&mut self, entry: &ChunkEntry) -> Result<(), Error> {
        if entry.sequence != self.next {
            return Err(Error::OutOfTurn(entry.sequence));
        }
        self.previous = entry.digest;
        self.next += 1;
        Ok(())
    }

    /// The number of the next chunk.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Compresses a chunk and links it.
    pub fn seal(&mut self, open: Open) -> Result<Sealed, Error> {
        self.seal_within(open, Vec::new())
    }

    /// The same, the object in memory that is there already.
    pub fn seal_within(&mut self, open: Open, mut object: Vec<u8>) -> Result<Sealed, Error> {
        if open.sequence != self.next {
            return Err(Error::OutOfTurn(open.sequence));
        }
        let payload = u32::try_from(open.payload.len()).map_err(|_| Error::Frame)?;
        let head = Head {
            session: self.session,
            sequence: open.sequence,
            previous: self.previous,
            payload,
            events: open.events,
            first_us: open.first_us,
            last_us: open.last_us,
        };
        object.clear();
        object.extend_from_slice(&head.to_bytes());
        let object = compress(&open.payload, object).map_err(Error::Compress)?;
        let entry = self.entry(&head, &object, &open.tally);
        self.follow(&entry)?;
        Ok(Sealed { object, entry, tally: open.tally, payload: open.payload })
    }

    /// Reads a chunk object that was sealed before, and links it.
    pub fn reopen(&mut self, object: Vec<u8>) -> Result<Sealed, Error> {
        let chunk = Chunk::parse(&object)?;
        if chunk.head.session != self.session || chunk.head.previous != self.previous {
            return Err(Error::Head("it does not continue the chain"));
        }
        let mut tally = Tally::default();
        for event in chunk.events() {
            tally.add(&event?.kind);
        }
        let entry = self.entry(&chunk.head, &object, &tally);
        self.follow(&entry)?;
        Ok(Sealed { object, entry, tally, payload: Vec::new() })
    }

    fn entry(&self, head: &Head, object: &[u8], tally: &Tally) -> ChunkEntry {
        ChunkEntry {
            sequence: head.sequence,
            digest: Digest::of(object),
            size: object.len() as u64,
            payload: u64::from(head.payload),
            events: u64::from(head.events),
            time: wall_clock(self.started_at, head.first_us),
            first_us: head.first_us,
            last_us: head.last_us,
            channels: tally.channels.clone(),
        }
    }
}

impl Chunk {
    /// Reads an object. The events themselves are checked by [`Chunk::events`].
    pub fn parse(object: &[u8]) -> Result<Self, Error> {
        let head = Head::parse(object)?;
        let frame = object.get(HEAD_LEN..).ok_or(Error::Frame)?;
        let length = usize::try_from(head.payload).map_err(|_| Error::Frame)?;
        let payload = zstd::bulk::decompress(frame, length).map_err(|_| Error::Frame)?;
        if payload.len() != length {
            return Err(Error::Frame);
        }
        Ok(Chunk { head, payload: payload.into() })
    }

    /// The events in order. After an error there are no more; number and times are checked against the head.
    pub fn events(&self) -> Events {
        Events { input: self.payload.clone(), at_us: self.head.first_us, seen: 0, head: self.head.clone(), done: false }
    }
}

/// The events of a chunk.
pub struct Events {
    input: Bytes,
    at_us: u64,
    seen: u32,
    head: Head,
    done: bool,
}

impl Events {
    fn step(&mut self) -> Result<Option<Event>, Error> {
        let Some((delta, kind)) = codec::decode(&mut self.input)? else {
            let fits = self.seen == self.head.events && self.at_us == self.head.last_us;
            return if fits { Ok(None) } else { Err(Error::Events) };
        };
        self.at_us = self.at_us.checked_add(micros(delta)).ok_or(Error::Events)?;
        self.seen = self.seen.checked_add(1).ok_or(Error::Events)?;
        if self.seen == 1 && self.at_us != self.head.first_us {
            return Err(Error::Events);
        }
        Ok(Some(Event { at: Duration::from_micros(self.at_us), kind }))
    }
}

impl Iterator for Events {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

impl Head {
    /// The bytes of the head.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.extend_from_slice(&SKIPPABLE);
        out.extend_from_slice(&CONTENT_LEN.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[GENERATION, 0, 0, 0]);
        out.extend_from_slice(self.session.as_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(self.previous.as_raw());
        out.extend_from_slice(&self.payload.to_be_bytes());
        out.extend_from_slice(&self.events.to_be_bytes());
        out.extend_from_slice(&self.first_us.to_be_bytes());
        out.extend_from_slice(&self.last_us.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        out
    }

    /// Reads the head at the front of an object.
    pub fn parse(object: &[u8]) -> Result<Self, Error> {
        let mut rest = object.get(..HEAD_LEN).ok_or(Error::Head("it is cut off"))?;
        if take::<4>(&mut rest) != SKIPPABLE || rest.get_u32_le() != CONTENT_LEN || take::<4>(&mut rest) != MAGIC {
            return Err(Error::Head("other magic"));
        }
        if take::<4>(&mut rest) != [GENERATION, 0, 0, 0] {
            return Err(Error::Head("a generation this version does not read"));
        }
        let session = uuid::Uuid::from_bytes(take::<16>(&mut rest));
        let head = Head {
            session: session.try_into().map_err(|_| Error::Head("no session id"))?,
            sequence: rest.get_u64(),
            previous: Digest::from_raw(take::<{ digest::LEN }>(&mut rest)),
            payload: rest.get_u32(),
            events: rest.get_u32(),
            first_us: rest.get_u64(),
            last_us: rest.get_u64(),
        };
        if take::<8>(&mut rest) != [0; 8] {
            return Err(Error::Head("reserved bytes are set"));
        }
        if usize::try_from(head.payload).map_or(true, |length| length > MAX_PAYLOAD) {
            return Err(Error::Head("more events than a chunk may hold"));
        }
        Ok(head)
    }
}

/// Takes `N` bytes off the front; the caller has checked the length.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut out = [0; N];
    rest.copy_to_slice(&mut out);
    out
}

/// Appends one zstd frame to an object.
fn compress(payload: &[u8], mut object: Vec<u8>) -> io::Result<Vec<u8>> {
    object.reserve(compress_bound(payload.len()));
    COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor = match compressor {
            Some(compressor) => compressor,
            none => none.insert(compressor_of_chunks()?),
        };
        let end = object.len() as u64;
        let mut rest = Cursor::new(object);
        rest.set_position(end);
        compressor.compress_to_buffer(payload, &mut rest)?;
        Ok(rest.into_inner())
    })
}

fn compressor_of_chunks() -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

fn micros(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
