//! The journal: how the events of the chunk that is still open lie in the spool, so that every one of them survives a
//! crash, not only closed chunks. A small head, then records of length, CRC-32 and the event's CBOR.
//!
//! Local to one spool and deleted when its chunk is sealed; never uploaded, so not part of the published format.
//! Files and fsync are `edge::store::spool`.

use std::time::Duration;

use bytes::{Buf, Bytes};

use super::chunk::{MAX_PAYLOAD, Open};
use super::layout::SessionId;
use super::{GENERATION, codec};

/// Length of the head.
pub const HEAD_LEN: usize = 44;
/// Length of what stands before each event.
pub const PREFIX_LEN: usize = 8;
const MAGIC: [u8; 4] = *b"KJNL";

/// What a journal gave back after a crash.
#[derive(Debug)]
pub struct Recovered {
    /// The chunk with every event that was whole.
    pub open: Open,
    /// Bytes at the end that were not a whole event.
    pub discarded: u64,
}

/// The head of a chunk's journal, checksummed.
pub fn head(session: SessionId, open: &Open) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[GENERATION, 0, 0, 0]);
    out.extend_from_slice(session.as_bytes());
    out.extend_from_slice(&open.sequence().to_be_bytes());
    out.extend_from_slice(&u64::try_from(open.first().as_micros()).unwrap_or(u64::MAX).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

/// What stands before an event's bytes.
pub fn prefix(event: &[u8]) -> [u8; PREFIX_LEN] {
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes();
    let sum = crc32fast::hash(event).to_be_bytes();
    let [a, b, c, d] = length;
    let [e, f, g, h] = sum;
    [a, b, c, d, e, f, g, h]
}

/// Reads a journal up to its last whole event. `None` when the head itself is not whole or not this session's.
pub fn recover(session: SessionId, journal: &[u8]) -> Option<Recovered> {
    let (head, mut rest) = journal.split_at_checked(HEAD_LEN)?;
    let (mut body, mut sum) = head.split_at_checked(HEAD_LEN - 4)?;
    if crc32fast::hash(body) != sum.get_u32() || !body.starts_with(&MAGIC) {
        return None;
    }
    body.advance(MAGIC.len());
    if body.get_u32() != u32::from(GENERATION) << 24 || !body.starts_with(session.as_bytes()) {
        return None;
    }
    body.advance(16);
    let sequence = body.get_u64();
    let mut open = Open::new(sequence, Duration::from_micros(body.get_u64()));
    let mut at = open.first();
    while let Some(record) = next_record(&mut rest) {
        let mut input = Bytes::copy_from_slice(record);
        let Ok(Some((delta, kind))) = codec::decode(&mut input) else {
            break;
        };
        at = at.saturating_add(delta);
        if !input.is_empty() || open.push(at, &kind).is_err() {
            break;
        }
        rest.advance(PREFIX_LEN + record.len());
    }
    Some(Recovered { open, discarded: rest.len() as u64 })
}

/// The event bytes of the record at the front, if it is whole. Takes nothing.
fn next_record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (mut prefix, body) = rest.split_at_checked(PREFIX_LEN)?;
    let length = usize::try_from(prefix.get_u32()).ok().filter(|length| (1..=MAX_PAYLOAD).contains(length))?;
    let event = body.get(..length)?;
    (crc32fast::hash(event) == prefix.get_u32()).then_some(event)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::codec::tests::any_kind;
    use super::super::event::EventKind;
    use super::*;

    fn session() -> SessionId {
        "019aa5c7-d3c0-7000-8000-000000000001".parse().unwrap()
    }

    fn write(events: &[(u64, EventKind)]) -> (Vec<u8>, Open) {
        let mut open = Open::new(3, Duration::from_micros(events.first().map_or(0, |e| e.0)));
        let mut journal = head(session(), &open);
        let mut at = 0;
        for (delta, kind) in events {
            at += delta;
            let event = open.push(Duration::from_micros(at), kind).unwrap();
            journal.extend_from_slice(&prefix(event));
            journal.extend_from_slice(event);
        }
        (journal, open)
    }

    proptest! {
        #[test]
        fn a_whole_journal_gives_back_the_chunk(events in vec((0u64..1_000_000, any_kind()), 0..8)) {
            let (journal, open) = write(&events);
            let recovered = recover(session(), &journal).unwrap();
            prop_assert_eq!(recovered.discarded, 0);
            prop_assert_eq!(format!("{:?}", recovered.open), format!("{open:?}"));
        }

        #[test]
        fn a_torn_tail_costs_only_the_torn_event(events in vec((0u64..1_000_000, any_kind()), 1..8), torn in 1usize..9, junk in vec(any::<u8>(), 0..9)) {
            let (whole, _) = write(&events[..events.len() - 1]);
            let (mut journal, _) = write(&events);
            journal.truncate((journal.len() - torn).max(whole.len()));
            journal.extend_from_slice(&junk);
            // Junk that happens to be what was torn off makes the event whole again.
            prop_assume!(!journal.starts_with(&write(&events).0));
            let recovered = recover(session(), &journal).unwrap();
            let (_, open) = write(&events[..events.len() - 1]);
            prop_assert_eq!(recovered.discarded as usize, journal.len() - whole.len());
            prop_assert_eq!(recovered.open.is_empty(), open.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(recover(session(), &bytes).is_none());
            let mut journal = head(session(), &Open::new(0, Duration::ZERO));
            journal.extend_from_slice(&bytes);
            prop_assert!(recover(session(), &journal).is_some());
        }
    }

    #[test]
    fn a_journal_of_another_session_is_refused() {
        let (journal, _) = write(&[]);
        let other = "019aa5c7-d3c0-7000-8000-000000000002".parse().unwrap();
        assert!(recover(other, &journal).is_none());
    }
}
