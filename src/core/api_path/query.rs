//! Reads query strings as Go and the API server read them, and refuses what Go would drop quietly.
//!
//! A raw `;` or a bad escape makes Go drop that one parameter, so that `dryRun=All;x=y` persists the
//! object: both are refused. Of repeated keys the first value counts. A boolean is false when it is
//! absent, `0` or any case of `false`, and true otherwise, the empty value included.

use super::{Refuse, segments::hex};

/// Decoded parameters in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads a query without its question mark.
    ///
    /// # Errors
    /// A raw semicolon, a bad escape, or text that is not UTF-8.
    pub fn parse(query: &str) -> Result<Query, Refuse> {
        if query.contains(';') {
            return Err(Refuse::query("a semicolon must be percent-encoded"));
        }
        let pairs = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                Ok((decode(key)?, decode(value)?))
            })
            .collect::<Result<_, Refuse>>()?;
        Ok(Query { pairs })
    }

    /// The first value of a key.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Every value of a key, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A boolean as the API server reads it.
    pub fn truth(&self, key: &str) -> bool {
        self.first(key).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

fn decode(text: &str) -> Result<String, Refuse> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let pair = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let (Some(high), Some(low)) = pair else {
                    return Err(Refuse::query("a percent sign is not followed by two hex digits"));
                };
                decoded.push(high << 4 | low);
            }
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| Refuse::query("it is not UTF-8"))
}
