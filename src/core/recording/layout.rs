//! Where the objects of a session lie: `recordings/v1/date=2026-11-21/<session id>/…`.
//!
//! The date is the UTC day inside the session id (a UUID version 7), so an id alone is enough to find its objects.
//! Owns the names; reads and writes nothing.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The folder of all recordings of this generation, with its slash.
pub const ROOT: &str = "recordings/v1/";
/// Written before the upstream is dialled.
pub const HEADER: &str = "header.json";
/// Written and signed when the session ends.
pub const MANIFEST: &str = "manifest.json";
/// The ending of a chunk's name.
pub const CHUNK_SUFFIX: &str = ".krec";

/// Names one recorded session: a UUID version 7, so that ids sort by start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Uuid", into = "Uuid")]
#[schemars(with = "String", extend("format" = "uuid"))]
pub struct SessionId(Uuid);

/// Why a text is not a session id.
#[derive(Debug, thiserror::Error)]
#[error("not a session id (a UUID version 7 is expected)")]
pub struct NotASessionId;

impl SessionId {
    /// The 16 bytes of the id, as they stand in a chunk's head.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// When the id was made, to the millisecond.
    pub fn timestamp(&self) -> Timestamp {
        let millis = self.0.get_timestamp().map_or(0, |stamp| {
            let (seconds, nanos) = stamp.to_unix();
            seconds.saturating_mul(1000).saturating_add(u64::from(nanos / 1_000_000))
        });
        i64::try_from(millis).ok().and_then(|m| Timestamp::from_millisecond(m).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The folder of this session's objects, with its slash.
    pub fn folder(&self) -> String {
        let day = self.timestamp().to_zoned(TimeZone::UTC).date();
        format!("{ROOT}date={day}/{self}/")
    }

    /// The key of one of this session's objects.
    pub fn key(&self, object: &str) -> String {
        self.folder() + object
    }
}

/// The name of a chunk: eight decimal digits (more when they are needed) and `.krec`.
pub fn chunk_name(sequence: u64) -> String {
    format!("{sequence:08}{CHUNK_SUFFIX}")
}

/// The sequence number in a chunk's name; `None` for any other name, also for a number written differently.
pub fn chunk_sequence(name: &str) -> Option<u64> {
    let sequence = name.strip_suffix(CHUNK_SUFFIX)?.parse().ok()?;
    (chunk_name(sequence) == name).then_some(sequence)
}

impl TryFrom<Uuid> for SessionId {
    type Error = NotASessionId;

    fn try_from(id: Uuid) -> Result<Self, NotASessionId> {
        if id.get_version_num() == 7 { Ok(SessionId(id)) } else { Err(NotASessionId) }
    }
}

impl From<SessionId> for Uuid {
    fn from(id: SessionId) -> Uuid {
        id.0
    }
}

impl FromStr for SessionId {
    type Err = NotASessionId;

    /// Takes only the hyphenated lower-case form, the one in which folders are named.
    fn from_str(text: &str) -> Result<Self, NotASessionId> {
        let id = SessionId::try_from(Uuid::try_parse(text).map_err(|_| NotASessionId)?)?;
        if id.to_string() == text { Ok(id) } else { Err(NotASessionId) }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_alone_names_the_folder() {
        let id: SessionId = "019aa5c7-d3c0-7000-8000-000000000001".parse().unwrap();
        assert_eq!(id.timestamp().to_string(), "2025-11-21T09:38:47.872Z");
        assert_eq!(id.key(HEADER), format!("recordings/v1/date=2025-11-21/{id}/header.json"));
    }

    #[test]
    fn other_uuids_and_other_spellings_are_refused() {
        for text in [
            "",
            "x",
            "3f0e5f9e-5a0c-4a4e-9b38-0d7c2a1b9f10",
            "019AA5C7-D3C0-7000-8000-000000000001",
            "019aa5c7d3c070008000000000000001",
        ] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn chunk_names_are_read_back_only_in_their_one_form() {
        assert_eq!(chunk_name(7), "00000007.krec");
        assert_eq!(chunk_sequence(&chunk_name(123_456_789)), Some(123_456_789));
        for name in ["7.krec", "+0000007.krec", "00000007", "000000007.krec", "header.json"] {
            assert_eq!(chunk_sequence(name), None, "{name}");
        }
    }
}
