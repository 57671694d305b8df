//! Splits a request path into decoded segments, and refuses every spelling that is not the usual one.
//!
//! The API server decodes first and splits then, so `/pods%2fweb%2fexec` runs an exec there. One
//! trailing slash is tolerated there and here; more, empty and dot segments, encoded slashes and
//! encoded unreserved characters are not.

use super::Refuse;

/// Decodes the segments between the slashes.
pub(super) fn split(path: &str) -> Result<Vec<String>, Refuse> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(Refuse::path("it does not begin with a slash"));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        // Only "/" itself; "//" has an empty segment.
        return if path.len() == 1 { Ok(Vec::new()) } else { Err(Refuse::path("it has an empty segment")) };
    }
    rest.split('/').map(segment).collect()
}

fn segment(encoded: &str) -> Result<String, Refuse> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let pair = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let (Some(high), Some(low)) = pair else {
                    return Err(Refuse::path("a percent sign is not followed by two hex digits"));
                };
                decoded.push(escaped(high << 4 | low)?);
            }
            byte if plain(byte) => decoded.push(byte),
            _ => {
                return Err(Refuse::path("it has a character that belongs percent-encoded"));
            }
        }
    }
    let Ok(text) = String::from_utf8(decoded) else {
        return Err(Refuse::path("it is not UTF-8"));
    };
    match text.as_str() {
        "" => Err(Refuse::path("it has an empty segment")),
        "." | ".." => Err(Refuse::path("it has a dot segment")),
        _ => Ok(text),
    }
}

fn escaped(byte: u8) -> Result<u8, Refuse> {
    match byte {
        b'/' | b'\\' => Err(Refuse::path("an encoded slash is a separator to the API server")),
        b'%' => Err(Refuse::path("an encoded percent sign")),
        0..=0x1f | 0x7f => Err(Refuse::path("an encoded control character")),
        byte if unreserved(byte) => Err(Refuse::path("a character is percent-encoded that is never written so")),
        byte => Ok(byte),
    }
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn plain(byte: u8) -> bool {
    unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
