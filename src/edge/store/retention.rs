//! How long the store may neither delete nor change an object: an Object Lock that is set on each object as it is
//! written, by its place. What the bucket's own default retention says holds for everything else.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::core::audit::layout::ROOT as LOG;
use crate::core::recording::layout::ROOT as RECORDINGS;

/// Longest lock, in days: a hundred years.
pub const LONGEST: usize = 36_500;

/// What is locked, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Who may lift a lock early.
    pub mode: Mode,
    /// Days that objects of recordings are locked.
    pub recordings: Option<u32>,
    /// Days that objects of the log are locked.
    pub log: Option<u32>,
}

/// Who may lift a lock early.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nobody, the owner of the account included.
    #[default]
    Compliance,
    /// Whoever has the right to bypass governance retention.
    Governance,
}

impl Retention {
    /// Whether anything is to be locked.
    #[must_use]
    pub fn locks(&self) -> bool {
        self.recordings.is_some() || self.log.is_some()
    }

    /// Until when an object that is written now is locked.
    #[must_use]
    pub fn until(&self, key: &str, now: Timestamp) -> Option<Timestamp> {
        let places = [(RECORDINGS, self.recordings), (LOG, self.log)];
        let (_, days) = places.into_iter().find(|(place, _)| key.starts_with(place))?;
        now.checked_add(SignedDuration::from_hours(24 * i64::from(days?))).ok()
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Compliance => "compliance",
            Mode::Governance => "governance",
        };
        let days = |days: Option<u32>| days.map_or("as the bucket says".to_owned(), |days| format!("{days} days"));
        write!(f, "{mode}, recordings {}, log {}", days(self.recordings), days(self.log))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_own_time_and_the_rest_none() {
        let retention = Retention { recordings: Some(90), log: Some(400), ..Retention::default() };
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        let days = |key| retention.until(key, now).map(|until| (until.as_second() - now.as_second()) / 86_400);
        assert_eq!(days("recordings/v1/date=2026-11-21/x/header.json"), Some(90));
        assert_eq!(days("log/v1/date=2026-11-21/x"), Some(400));
        assert_eq!(days("probe/x"), None);
        assert_eq!(Retention { log: None, ..retention }.until("log/v1/x", now), None);
        assert!(retention.locks() && !Retention::default().locks());
    }
}
