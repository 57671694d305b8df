//! Where segments of the log lie in the store: `log/v1/date=2026-11-21/<log id>/<number>.ndjson.zst`.
//!
//! A log id belongs to one spool folder, so replicas never meet, and the numbers of a log have no hole: one that is
//! missing is a segment that is missing. The date is the UTC day on which the segment was begun.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use uuid::Uuid;

/// The folder of all segments of this generation, with its slash.
pub const ROOT: &str = "log/v1/";
const SUFFIX: &str = ".ndjson.zst";
const DAY: &str = "date=";

/// Names the log of one spool folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(Uuid);

/// One segment's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The day it was begun, UTC.
    pub day: Date,
    /// Its log.
    pub log: LogId,
    /// Its number in the log.
    pub number: u64,
}

impl LogId {
    /// The 16 bytes, as they stand in a segment's head.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl From<Uuid> for LogId {
    fn from(id: Uuid) -> Self {
        LogId(id)
    }
}

impl FromStr for LogId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(LogId)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The UTC day of a moment.
pub fn day(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// The folder of a day's segments, with its slash.
pub fn day_folder(day: Date) -> String {
    format!("{ROOT}{DAY}{day}/")
}

/// The day of such a folder.
pub fn folder_day(folder: &str) -> Option<Date> {
    folder.strip_prefix(ROOT)?.strip_prefix(DAY)?.strip_suffix('/')?.parse().ok()
}

impl Place {
    /// The key.
    pub fn key(&self) -> String {
        format!("{}{}/{:08}{SUFFIX}", day_folder(self.day), self.log, self.number)
    }

    /// Reads a key; `None` for any other, also for one written differently.
    pub fn of_key(key: &str) -> Option<Self> {
        let mut parts = key.strip_prefix(ROOT)?.split('/');
        let day = parts.next()?.strip_prefix(DAY)?.parse().ok()?;
        let log = parts.next()?.parse().ok()?;
        let number = parts.next()?.strip_suffix(SUFFIX)?.parse().ok()?;
        let place = Place { day, log, number };
        (place.key() == key).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_only_in_their_one_form() {
        let log: LogId = "019aa5c7-d3c0-7000-8000-000000000001".parse().unwrap();
        let time: Timestamp = "2026-11-21T23:59:59Z".parse().unwrap();
        let place = Place { day: day(time), log, number: 7 };
        assert_eq!(place.key(), format!("log/v1/date=2026-11-21/{log}/00000007.ndjson.zst"));
        assert_eq!(Place::of_key(&place.key()), Some(place));
        assert_eq!(folder_day(&day_folder(place.day)), Some(place.day));
        for other in [place.key().to_uppercase(), place.key().replace("0000000", ""), format!("{}x", place.key())] {
            assert_eq!(Place::of_key(&other), None, "{other}");
        }
    }
}
