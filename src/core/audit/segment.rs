//! How entries lie on the local disk until they are shipped: a head, then frames of length, CRC-32 and one line each.
//!
//! Local to one spool and deleted when the segment is in the store; never uploaded, so not part of the published format.
//! [`read`] gives back every whole line, whatever lies between them: a torn end is cut, damage in the middle is told
//! as a [`Gap`]. In the store a segment is [`object`]: the same lines, each ended by a line feed, as one zstd frame.

use std::io::Read;

use bytes::Buf;
use jiff::Timestamp;

use super::MAX_LINE;
use super::layout::{LogId, Place, day};

/// Length of the head.
pub const HEAD_LEN: usize = 44;
/// Length of what stands before each line.
pub const PREFIX_LEN: usize = 8;
/// Most bytes a segment in the store is unpacked to.
pub const MAX_UNPACKED: u64 = 256 << 20;
const MAGIC: [u8; 8] = *b"KLOGSEG1";
/// Entries are text of few kinds: more than this saves little.
const LEVEL: i32 = 3;

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its log.
    pub log: LogId,
    /// Its number in the log.
    pub number: u64,
    /// When it was begun, in microseconds since 1970.
    pub begun: i64,
}

/// What was read of a segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Every line that is whole, in order.
    pub lines: Vec<&'a [u8]>,
    /// Bytes that are no frame and have whole frames behind them.
    pub gaps: Vec<Gap>,
    /// Where the last whole frame ends; what lies behind it was never acknowledged.
    pub end: usize,
}

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// How many lines were read before it.
    pub after: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// Why an object of the store is no segment.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No zstd frame, or one that is too large.
    #[error("a log segment cannot be unpacked")]
    Zstd(#[source] std::io::Error),
    /// More than [`MAX_UNPACKED`].
    #[error("a log segment unpacks to more than {MAX_UNPACKED} bytes")]
    TooLarge,
}

impl Head {
    /// The bytes of a head.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(self.log.as_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.begun.to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out
    }

    /// Reads the head of a segment; `None` when it is not whole.
    pub fn read(segment: &[u8]) -> Option<Self> {
        let head = segment.get(..HEAD_LEN)?;
        let (mut body, mut sum) = head.split_at_checked(HEAD_LEN - 4)?;
        if crc32fast::hash(body) != sum.get_u32() || !body.starts_with(&MAGIC) {
            return None;
        }
        body.advance(MAGIC.len());
        let mut log = [0; 16];
        body.copy_to_slice(&mut log);
        let (number, begun) = (body.get_u64(), body.get_i64());
        Some(Head { log: uuid::Uuid::from_bytes(log).into(), number, begun })
    }

    /// Where the segment lies in the store.
    pub fn place(&self) -> Place {
        let begun = Timestamp::from_microsecond(self.begun).unwrap_or(Timestamp::UNIX_EPOCH);
        Place { day: day(begun), log: self.log, number: self.number }
    }
}

/// What stands before a line. The sum is over length and line, so that zeros are no frame.
pub fn prefix(line: &[u8]) -> [u8; PREFIX_LEN] {
    let length = u32::try_from(line.len()).unwrap_or(u32::MAX).to_be_bytes();
    let [a, b, c, d] = length;
    let [e, f, g, h] = sum(length, line).to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

fn sum(length: [u8; 4], line: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(line);
    hasher.finalize()
}

/// The line of the frame that begins here, when it is whole.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (wanted, rest) = rest.split_first_chunk::<4>()?;
    let line = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let sound = !line.is_empty() && line.len() <= MAX_LINE && sum(*length, line) == u32::from_be_bytes(*wanted);
    sound.then_some(line)
}

/// Reads every whole line behind the head.
pub fn read(segment: &[u8]) -> Segment<'_> {
    let mut found = Segment { lines: Vec::new(), gaps: Vec::new(), end: HEAD_LEN.min(segment.len()) };
    let mut at = found.end;
    while let Some(rest) = segment.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some(line) = frame(rest) {
            if at > found.end {
                found.gaps.push(Gap { after: found.lines.len(), bytes: at - found.end });
            }
            found.lines.push(line);
            at += PREFIX_LEN + line.len();
            found.end = at;
        } else {
            // A line's bytes never look like a prefix: JSON text has no zero bytes, and a length has two.
            at += 1;
        }
    }
    found
}

/// The object of the store: lines ended by line feeds, as one zstd frame. Equal lines give equal bytes.
///
/// # Errors
/// When the compressor fails.
pub fn object<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    zstd::bulk::compress(&text, LEVEL).map_err(Error::Zstd)
}

/// The lines of an object of the store, one after the other, each with its line feed.
///
/// # Errors
/// When it is no zstd frame, or too large.
pub fn unpack(object: &[u8]) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(object).map_err(Error::Zstd)?;
    decoder.take(MAX_UNPACKED + 1).read_to_end(&mut text).map_err(Error::Zstd)?;
    if text.len() as u64 > MAX_UNPACKED { Err(Error::TooLarge) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Head {
        let log = uuid::Uuid::from_u128(0x019a_a5c7_d3c0_7000_8000_0000_0000_0001).into();
        Head { log, number: 3, begun: 1_763_717_927_872_000 }
    }

    fn segment(lines: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = head().bytes();
        for line in lines {
            bytes.extend_from_slice(&prefix(line));
            bytes.extend_from_slice(line);
        }
        bytes
    }

    fn lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec("\\{[a-z\",:]{0,40}\\}".prop_map(String::into_bytes), 1..12)
    }

    #[test]
    fn a_head_is_read_back_and_names_its_place() {
        assert_eq!(Head::read(&head().bytes()), Some(head()));
        assert!(head().place().key().starts_with("log/v1/date=2025-11-21/"));
    }

    #[test]
    fn zeros_of_a_file_that_grew_are_no_frames() {
        let line = b"{}".to_vec();
        let mut bytes = segment(std::slice::from_ref(&line));
        let end = bytes.len();
        bytes.extend_from_slice(&[0; 4096]);
        assert_eq!(read(&bytes), Segment { lines: vec![&line], gaps: vec![], end });
    }

    proptest! {
        #[test]
        fn a_torn_end_is_cut_at_the_last_whole_line(lines in lines(), cut in 0usize..200) {
            let whole = segment(&lines);
            let bytes = &whole[..whole.len().saturating_sub(cut).max(HEAD_LEN)];
            let found = read(bytes);
            prop_assert!(found.gaps.is_empty());
            prop_assert!(found.lines.iter().zip(&lines).all(|(read, line)| read == line));
            let kept: usize = lines.iter().map(|line| PREFIX_LEN + line.len()).scan(HEAD_LEN, |end, len| { *end += len; Some(*end) })
                .take_while(|end| *end <= bytes.len()).count();
            prop_assert_eq!(found.lines.len(), kept);
        }

        #[test]
        fn damage_in_the_middle_loses_no_line_but_the_damaged_and_is_told(lines in lines(), at in any::<prop::sample::Index>()) {
            let mut bytes = segment(&lines);
            let at = HEAD_LEN + at.index(bytes.len() - HEAD_LEN);
            bytes[at] ^= 0x55;
            let found = read(&bytes);
            prop_assert_eq!(found.lines.len(), lines.len() - 1);
            let lost: usize = found.gaps.iter().map(|gap| gap.bytes).sum::<usize>() + bytes.len() - found.end;
            let read: usize = found.lines.iter().map(|line| PREFIX_LEN + line.len()).sum();
            prop_assert_eq!(lost + read + HEAD_LEN, bytes.len());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Head::read(&bytes).is_none_or(|head| bytes.starts_with(&head.bytes())));
            drop(read(&bytes));
            drop(unpack(&bytes));
        }

        #[test]
        fn what_the_store_holds_is_the_lines(lines in lines()) {
            let object = object(lines.iter().map(Vec::as_slice)).unwrap();
            let text = unpack(&object).unwrap();
            let read: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
            prop_assert_eq!(read, lines.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
