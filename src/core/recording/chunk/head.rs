//! The fixed head of a chunk: its bytes and back. Refuses any byte that is not as it was written.

use bytes::Buf;

use super::{Error, MAX_PAYLOAD};
use crate::core::recording::GENERATION;
use crate::core::recording::digest::{self, Digest};
use crate::core::recording::layout::SessionId;

/// Length of the head: 8 bytes of skippable frame, 96 of content.
pub const HEAD_LEN: usize = 104;
/// A zstd skippable frame begins with this (RFC 8878 section 3.1.2), little-endian `0x184D2A50`.
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// The content of the head begins with this.
const MAGIC: [u8; 4] = *b"KREC";
const CONTENT_LEN: u32 = 96;

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
