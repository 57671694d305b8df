//! Events as a CBOR sequence (RFC 8742): each is `[delta_us, kind, place, value]`, in the one shortest form.
//!
//! Written by hand because the grammar is tiny and must be exact: definite lengths, shortest integers, nothing else is
//! accepted, so an event has one encoding. `place` is twice the channel number, plus one when it goes to the client.
//! Laws, property-tested: decode ∘ encode = identity; arbitrary bytes never panic nor allocate beyond their length.

use std::time::Duration;

use bytes::{Buf, Bytes};

use super::event::{Cause, Channel, CloseReason, Direction, EventKind, MAX_DATA, MAX_TEXT};

mod connection;

/// CBOR major types that occur.
const UINT: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const NULL: u8 = 0xf6;

/// The kinds of event by number.
pub const KIND_DATA: u64 = 0;
/// See [`EventKind::HalfClose`].
pub const KIND_HALF_CLOSE: u64 = 1;
/// See [`EventKind::Resize`].
pub const KIND_RESIZE: u64 = 2;
/// See [`EventKind::Status`].
pub const KIND_STATUS: u64 = 3;
/// See [`EventKind::Marker`].
pub const KIND_MARKER: u64 = 4;
/// See [`EventKind::Close`].
pub const KIND_CLOSE: u64 = 5;
/// See [`EventKind::Gap`].
pub const KIND_GAP: u64 = 6;

/// See [`EventKind::ConnectionOpened`].
pub const KIND_CONNECTION_OPENED: u64 = 7;
/// See [`EventKind::ConnectionData`].
pub const KIND_CONNECTION_DATA: u64 = 8;
/// See [`EventKind::ConnectionHalfClose`].
pub const KIND_CONNECTION_HALF_CLOSE: u64 = 9;
/// See [`EventKind::ConnectionError`].
pub const KIND_CONNECTION_ERROR: u64 = 10;
/// See [`EventKind::ConnectionClosed`].
pub const KIND_CONNECTION_CLOSED: u64 = 11;
/// See [`EventKind::Input`].
pub const KIND_INPUT: u64 = 12;

/// Why bytes are not an event, or an event cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end inside an event.
    #[error("an event is cut off")]
    Truncated,
    /// The bytes are not an event of this generation.
    #[error("not a valid event: {0}")]
    Invalid(&'static str),
    /// The event is larger than a stored event may be.
    #[error("an event is too large")]
    TooLarge,
}

/// Appends one event; `delta` is counted from the event before it. On an error nothing is appended.
pub fn encode(delta: Duration, kind: &EventKind, out: &mut Vec<u8>) -> Result<(), Error> {
    check_size(kind)?;
    let delta = u64::try_from(delta.as_micros()).map_err(|_| Error::TooLarge)?;
    let (channel, direction) = kind.place();
    out.push(ARRAY << 5 | 4);
    put_head(UINT, delta, out);
    put_head(UINT, kind_number(kind), out);
    put_head(UINT, place_number(channel, direction), out);
    match kind {
        EventKind::Data { bytes, .. } | EventKind::Status { bytes } => put_string(BYTES, bytes, out),
        EventKind::HalfClose { .. } => out.push(NULL),
        EventKind::Resize { cols, rows } => {
            out.push(ARRAY << 5 | 2);
            put_head(UINT, u64::from(*cols), out);
            put_head(UINT, u64::from(*rows), out);
        }
        EventKind::Marker { name, detail } => put_texts(name, detail, out),
        EventKind::Input { bytes } => put_head(UINT, *bytes, out),
        EventKind::ConnectionOpened { .. }
        | EventKind::ConnectionData { .. }
        | EventKind::ConnectionHalfClose { .. }
        | EventKind::ConnectionError { .. }
        | EventKind::ConnectionClosed { .. } => connection::write(kind, out),
        EventKind::Close { reason } => put_texts(reason.cause.name(), &reason.detail, out),
        EventKind::Gap { bytes, why, .. } => {
            out.push(ARRAY << 5 | 2);
            put_head(UINT, *bytes, out);
            put_string(TEXT, why.as_bytes(), out);
        }
    }
    Ok(())
}

/// Takes one event off the front of the bytes; `None` when there are none left. Payloads are slices of the input.
pub fn decode(input: &mut Bytes) -> Result<Option<(Duration, EventKind)>, Error> {
    if input.is_empty() {
        return Ok(None);
    }
    expect_array(input, 4)?;
    let delta = Duration::from_micros(take_uint(input)?);
    let kind = take_uint(input)?;
    let place = take_uint(input)?;
    let (channel, direction) = read_place(place)?;
    let event = match kind {
        KIND_DATA => EventKind::Data { channel, direction, bytes: take_string(input, BYTES, MAX_DATA)? },
        KIND_HALF_CLOSE => take_null(input).map(|()| EventKind::HalfClose { channel, direction })?,
        KIND_RESIZE => take_resize(input)?,
        KIND_STATUS => EventKind::Status { bytes: take_string(input, BYTES, MAX_DATA)? },
        KIND_MARKER => {
            let (name, detail) = take_texts(input)?;
            EventKind::Marker { name, detail }
        }
        KIND_CLOSE => {
            let (cause, detail) = take_texts(input)?;
            let cause = Cause::from_name(&cause).ok_or(Error::Invalid("unknown cause"))?;
            EventKind::Close { reason: CloseReason { cause, detail } }
        }
        KIND_GAP => {
            expect_array(input, 2)?;
            EventKind::Gap { channel, direction, bytes: take_uint(input)?, why: take_text(input)? }
        }
        KIND_INPUT => EventKind::Input { bytes: take_uint(input)? },
        KIND_CONNECTION_OPENED..=KIND_CONNECTION_CLOSED => connection::read(kind, direction, input)?,
        _ => return Err(Error::Invalid("unknown kind")),
    };
    if event.place() != (channel, direction) {
        return Err(Error::Invalid("kind and channel do not fit"));
    }
    Ok(Some((delta, event)))
}

/// The number of a channel and direction in a stored event.
pub fn place_number(channel: Channel, direction: Direction) -> u64 {
    u64::from(channel.number()) * 2 + u64::from(direction == Direction::ToClient)
}

fn read_place(place: u64) -> Result<(Channel, Direction), Error> {
    let channel = Channel::from_number(place / 2).ok_or(Error::Invalid("unknown channel"))?;
    let direction = if place % 2 == 1 { Direction::ToClient } else { Direction::ToContainer };
    Ok((channel, direction))
}

fn kind_number(kind: &EventKind) -> u64 {
    match kind {
        EventKind::Data { .. } => KIND_DATA,
        EventKind::HalfClose { .. } => KIND_HALF_CLOSE,
        EventKind::Resize { .. } => KIND_RESIZE,
        EventKind::Status { .. } => KIND_STATUS,
        EventKind::Marker { .. } => KIND_MARKER,
        EventKind::Close { .. } => KIND_CLOSE,
        EventKind::Gap { .. } => KIND_GAP,
        EventKind::Input { .. } => KIND_INPUT,
        EventKind::ConnectionOpened { .. } => KIND_CONNECTION_OPENED,
        EventKind::ConnectionData { .. } => KIND_CONNECTION_DATA,
        EventKind::ConnectionHalfClose { .. } => KIND_CONNECTION_HALF_CLOSE,
        EventKind::ConnectionError { .. } => KIND_CONNECTION_ERROR,
        EventKind::ConnectionClosed { .. } => KIND_CONNECTION_CLOSED,
    }
}

fn check_size(kind: &EventKind) -> Result<(), Error> {
    let fits = match kind {
        EventKind::Data { bytes, .. }
        | EventKind::Status { bytes }
        | EventKind::ConnectionData { bytes, .. }
        | EventKind::ConnectionError { bytes, .. } => bytes.len() <= MAX_DATA,
        EventKind::ConnectionClosed { duration, .. } => u64::try_from(duration.as_micros()).is_ok(),
        EventKind::ConnectionOpened { .. } | EventKind::ConnectionHalfClose { .. } => true,
        EventKind::Marker { name, detail } => name.len() <= MAX_TEXT && detail.len() <= MAX_TEXT,
        EventKind::Close { reason } => reason.detail.len() <= MAX_TEXT,
        EventKind::Gap { why, .. } => why.len() <= MAX_TEXT,
        EventKind::HalfClose { .. } | EventKind::Resize { .. } | EventKind::Input { .. } => true,
    };
    if fits { Ok(()) } else { Err(Error::TooLarge) }
}

fn put_head(major: u8, value: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    if let Ok(byte) = u8::try_from(value) {
        if byte < 24 {
            out.push(major | byte);
        } else {
            out.extend_from_slice(&[major | 24, byte]);
        }
    } else if let Ok(short) = u16::try_from(value) {
        out.push(major | 25);
        out.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(value) {
        out.push(major | 26);
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

fn put_string(major: u8, bytes: &[u8], out: &mut Vec<u8>) {
    put_head(major, bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_texts(first: &str, second: &str, out: &mut Vec<u8>) {
    out.push(ARRAY << 5 | 2);
    put_string(TEXT, first.as_bytes(), out);
    put_string(TEXT, second.as_bytes(), out);
}

/// Takes a CBOR head and gives its major type and value, refusing any but the shortest form.
fn take_head(input: &mut Bytes) -> Result<(u8, u64), Error> {
    let first = input.try_get_u8().map_err(|_| Error::Truncated)?;
    let (value, least) = match first & 0x1f {
        small @ 0..=23 => (u64::from(small), 0),
        24 => (u64::from(input.try_get_u8().map_err(|_| Error::Truncated)?), 24),
        25 => (u64::from(input.try_get_u16().map_err(|_| Error::Truncated)?), 1 << 8),
        26 => (u64::from(input.try_get_u32().map_err(|_| Error::Truncated)?), 1 << 16),
        27 => (input.try_get_u64().map_err(|_| Error::Truncated)?, 1 << 32),
        _ => return Err(Error::Invalid("indefinite length")),
    };
    if value < least {
        return Err(Error::Invalid("not the shortest form"));
    }
    Ok((first >> 5, value))
}

fn take(input: &mut Bytes, major: u8) -> Result<u64, Error> {
    let (found, value) = take_head(input)?;
    if found == major { Ok(value) } else { Err(Error::Invalid("unexpected type")) }
}

fn take_uint(input: &mut Bytes) -> Result<u64, Error> {
    take(input, UINT)
}

fn expect_array(input: &mut Bytes, length: u64) -> Result<(), Error> {
    if take(input, ARRAY)? == length { Ok(()) } else { Err(Error::Invalid("unexpected array length")) }
}

fn take_null(input: &mut Bytes) -> Result<(), Error> {
    if input.try_get_u8().map_err(|_| Error::Truncated)? == NULL {
        Ok(())
    } else {
        Err(Error::Invalid("unexpected type"))
    }
}

fn take_string(input: &mut Bytes, major: u8, limit: usize) -> Result<Bytes, Error> {
    let length = usize::try_from(take(input, major)?).map_err(|_| Error::TooLarge)?;
    if length > limit {
        return Err(Error::TooLarge);
    }
    if length > input.len() {
        return Err(Error::Truncated);
    }
    Ok(input.split_to(length))
}

fn take_text(input: &mut Bytes) -> Result<String, Error> {
    let bytes = take_string(input, TEXT, MAX_TEXT)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Invalid("text is not UTF-8"))
}

fn take_texts(input: &mut Bytes) -> Result<(String, String), Error> {
    expect_array(input, 2)?;
    Ok((take_text(input)?, take_text(input)?))
}

fn take_resize(input: &mut Bytes) -> Result<EventKind, Error> {
    expect_array(input, 2)?;
    Ok(EventKind::Resize { cols: take_u16(input)?, rows: take_u16(input)? })
}

fn take_u16(input: &mut Bytes) -> Result<u16, Error> {
    u16::try_from(take_uint(input)?).map_err(|_| Error::TooLarge)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_kind() -> impl Strategy<Value = EventKind> {
        let place = || {
            (0usize..7, any::<bool>()).prop_map(|(number, out)| {
                let direction = if out { Direction::ToClient } else { Direction::ToContainer };
                (Channel::ALL[number], direction)
            })
        };
        let bytes = || vec(any::<u8>(), 0..600).prop_map(Bytes::from);
        prop_oneof![
            4 => (place(), bytes()).prop_map(|((channel, direction), bytes)| EventKind::Data { channel, direction, bytes }),
            1 => place().prop_map(|(channel, direction)| EventKind::HalfClose { channel, direction }),
            1 => any::<(u16, u16)>().prop_map(|(cols, rows)| EventKind::Resize { cols, rows }),
            1 => bytes().prop_map(|bytes| EventKind::Status { bytes }),
            1 => any::<u64>().prop_map(|bytes| EventKind::Input { bytes }),
            1 => (".*", ".*").prop_map(|(name, detail)| EventKind::Marker { name, detail }),
            2 => (any::<(u32, bool)>(), bytes()).prop_map(|((connection, out), bytes)| EventKind::ConnectionData {
                connection,
                direction: if out { Direction::ToClient } else { Direction::ToContainer },
                bytes
            }),
            1 => any::<(u32, bool)>().prop_map(|(connection, out)| EventKind::ConnectionHalfClose {
                connection,
                direction: if out { Direction::ToClient } else { Direction::ToContainer },
            }),
            1 => (any::<u32>(), bytes()).prop_map(|(connection, bytes)| EventKind::ConnectionError { connection, bytes }),
            1 => any::<(u32, u16)>().prop_map(|(connection, port)| EventKind::ConnectionOpened { connection, port }),
            1 => any::<(u32, u16, u64, u64, u64)>().prop_map(|(connection, port, to_container, to_client, us)| {
                let duration = Duration::from_micros(us);
                EventKind::ConnectionClosed { connection, port, to_container, to_client, duration }
            }),
            1 => (0usize..11, ".*").prop_map(|(n, detail)| EventKind::Close { reason: CloseReason::new(Cause::ALL[n], detail) }),
            1 => (place(), any::<u64>(), ".*").prop_map(|((channel, direction), bytes, why)| EventKind::Gap { channel, direction, bytes, why }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(events in vec((any::<u64>(), any_kind()), 0..8)) {
            let mut out = Vec::new();
            for (delta, kind) in &events {
                encode(Duration::from_micros(*delta), kind, &mut out).unwrap();
            }
            let mut input = Bytes::from(out);
            for (delta, kind) in events {
                prop_assert_eq!(decode(&mut input).unwrap(), Some((Duration::from_micros(delta), kind)));
            }
            prop_assert_eq!(decode(&mut input), Ok(None));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_an_accepted_event_has_one_encoding(bytes in vec(any::<u8>(), 0..200)) {
            let mut input = Bytes::from(bytes.clone());
            while let Ok(Some((delta, kind))) = decode(&mut input) {
                let mut again = Vec::new();
                encode(delta, &kind, &mut again).unwrap();
                let end = bytes.len() - input.len();
                prop_assert_eq!(&bytes[end - again.len()..end], again.as_slice());
            }
        }

        #[test]
        fn a_cut_event_is_truncated_and_not_something_else(kind in any_kind(), delta: u64, cut in 0.0f64..1.0) {
            let mut out = Vec::new();
            encode(Duration::from_micros(delta), &kind, &mut out).unwrap();
            out.truncate(((out.len() as f64) * cut) as usize);
            let expected = if out.is_empty() { Ok(None) } else { Err(Error::Truncated) };
            prop_assert_eq!(decode(&mut Bytes::from(out)), expected);
        }
    }

    #[test]
    fn the_bytes_on_disk_are_these() {
        let mut out = Vec::new();
        let kind = EventKind::Data {
            channel: Channel::Stdout,
            direction: Direction::ToClient,
            bytes: Bytes::from_static(b"hi"),
        };
        encode(Duration::from_micros(1000), &kind, &mut out).unwrap();
        assert_eq!(out, [0x84, 0x19, 0x03, 0xe8, 0x00, 0x03, 0x42, b'h', b'i']);
    }

    #[test]
    fn oversized_events_are_refused_and_leave_nothing_behind() {
        let mut out = vec![1];
        let kind = EventKind::Status { bytes: Bytes::from(vec![0; MAX_DATA + 1]) };
        assert_eq!(encode(Duration::ZERO, &kind, &mut out), Err(Error::TooLarge));
        assert_eq!(out, [1]);
        let length_beyond_limit = [0x84, 0, 0, 3, 0x5a, 0x7f, 0xff, 0xff, 0xff];
        assert_eq!(decode(&mut Bytes::copy_from_slice(&length_beyond_limit)), Err(Error::TooLarge));
    }
}
