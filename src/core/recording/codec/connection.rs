//! The values of events about connections of a port-forward.

use std::time::Duration;

use bytes::Bytes;

use super::{
    ARRAY, BYTES, Error, KIND_CONNECTION_DATA, KIND_CONNECTION_ERROR, KIND_CONNECTION_HALF_CLOSE,
    KIND_CONNECTION_OPENED, UINT, expect_array, put_head, put_string, take_string, take_u16, take_uint,
};
use crate::core::recording::event::{Direction, EventKind, MAX_DATA};

/// Writes the value; nothing for events of other kinds.
pub(super) fn write(kind: &EventKind, out: &mut Vec<u8>) {
    match kind {
        EventKind::ConnectionOpened { connection, port } => {
            put_uints(&[u64::from(*connection), u64::from(*port)], out);
        }
        EventKind::ConnectionData { connection, bytes, .. } | EventKind::ConnectionError { connection, bytes } => {
            out.push(ARRAY << 5 | 2);
            put_head(UINT, u64::from(*connection), out);
            put_string(BYTES, bytes, out);
        }
        EventKind::ConnectionHalfClose { connection, .. } => put_head(UINT, u64::from(*connection), out),
        EventKind::ConnectionClosed { connection, port, to_container, to_client, duration } => {
            let duration = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            put_uints(&[u64::from(*connection), u64::from(*port), *to_container, *to_client, duration], out);
        }
        EventKind::Data { .. }
        | EventKind::HalfClose { .. }
        | EventKind::Resize { .. }
        | EventKind::Status { .. }
        | EventKind::Marker { .. }
        | EventKind::Close { .. }
        | EventKind::Input { .. }
        | EventKind::Gap { .. } => {}
    }
}

/// Reads the value of an event of one of these kinds.
pub(super) fn read(kind: u64, direction: Direction, input: &mut Bytes) -> Result<EventKind, Error> {
    Ok(match kind {
        KIND_CONNECTION_OPENED => {
            expect_array(input, 2)?;
            EventKind::ConnectionOpened { connection: take_u32(input)?, port: take_u16(input)? }
        }
        KIND_CONNECTION_DATA => {
            expect_array(input, 2)?;
            let connection = take_u32(input)?;
            EventKind::ConnectionData { connection, direction, bytes: take_string(input, BYTES, MAX_DATA)? }
        }
        KIND_CONNECTION_HALF_CLOSE => EventKind::ConnectionHalfClose { connection: take_u32(input)?, direction },
        KIND_CONNECTION_ERROR => {
            expect_array(input, 2)?;
            EventKind::ConnectionError { connection: take_u32(input)?, bytes: take_string(input, BYTES, MAX_DATA)? }
        }
        _ => {
            expect_array(input, 5)?;
            EventKind::ConnectionClosed {
                connection: take_u32(input)?,
                port: take_u16(input)?,
                to_container: take_uint(input)?,
                to_client: take_uint(input)?,
                duration: Duration::from_micros(take_uint(input)?),
            }
        }
    })
}

fn put_uints(values: &[u64], out: &mut Vec<u8>) {
    put_head(ARRAY, values.len() as u64, out);
    values.iter().for_each(|value| put_head(UINT, *value, out));
}

fn take_u32(input: &mut Bytes) -> Result<u32, Error> {
    u32::try_from(take_uint(input)?).map_err(|_| Error::TooLarge)
}
