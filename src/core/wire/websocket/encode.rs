//! Writes frames in their one canonical form: whole, in the shortest length, masked when a client writes.

use super::{MAX_CONTROL, Opcode};
use bytes::BytesMut;

const MAX_HEADER: usize = 14;

/// Writes one whole, unfragmented frame. `payload` is the concatenation of `parts`, so that a channel
/// byte can go before bytes that are shared. `key` is given exactly when a client writes.
pub fn encode(out: &mut BytesMut, opcode: Opcode, key: Option<[u8; 4]>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(MAX_HEADER + length);
    let bit = if key.is_some() { 0x80 } else { 0 };
    out.extend_from_slice(&[0x80 | opcode.bits()]);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.extend_from_slice(&[bit | short]),
        (_, Ok(medium)) => {
            out.extend_from_slice(&[bit | 126]);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[bit | 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if let Some(key) = key {
        out.extend_from_slice(&key);
    }
    let start = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    if let (Some(key), Some(payload)) = (key, out.get_mut(start..)) {
        mask(payload, key);
    }
}

/// Writes a close frame; without a code its payload is empty. The reason is cut to what fits.
pub fn encode_close(out: &mut BytesMut, code: Option<u16>, reason: &[u8], key: Option<[u8; 4]>) {
    let code = code.map(u16::to_be_bytes);
    let reason = reason.get(..reason.len().min(MAX_CONTROL - 2)).unwrap_or_default();
    match &code {
        Some(code) => encode(out, Opcode::Close, key, &[code, reason]),
        None => encode(out, Opcode::Close, key, &[]),
    }
}

/// Masks or unmasks bytes in place, a word at a time.
pub(super) fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        if let Ok(array) = <[u8; 8]>::try_from(&*word) {
            word.copy_from_slice(&(u64::from_ne_bytes(array) ^ wide).to_ne_bytes());
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}
