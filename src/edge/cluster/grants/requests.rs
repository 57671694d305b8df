//! Grants that agents have just asked for and that the watch has not shown yet: a burst of requests must not be
//! faster than the cap. Kept in memory, by agent, for seconds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// After this long a request that never showed up was refused by somebody else.
const SHOWS_UP: Duration = Duration::from_secs(20);

/// What was asked for, by agent: names, and since when.
type Asked = HashMap<String, Vec<(String, Instant)>>;

/// The requests of the last seconds; clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests(Arc<Mutex<Asked>>);

impl Requests {
    /// Takes note of one more, when less than `room` wait to be shown; else says how many do.
    pub(super) fn admit(
        &self,
        user: &str,
        name: &str,
        room: usize,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<(), usize> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for names in asked.values_mut() {
            names.retain(|(name, since)| since.elapsed() < SHOWS_UP && !is_known(name));
        }
        asked.retain(|_, names| !names.is_empty());
        let waiting = asked.get(user).map_or(&[][..], Vec::as_slice);
        if waiting.iter().any(|(there, _)| there == name) {
            return Ok(());
        }
        if waiting.len() >= room {
            return Err(waiting.len());
        }
        asked.entry(user.to_owned()).or_default().push((name.to_owned(), Instant::now()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_fills_the_room_before_the_watch_shows_it_and_repeats_are_the_same() {
        let requests = Requests::default();
        assert_eq!(requests.admit("bot", "a", 2, |_| false), Ok(()));
        assert_eq!(requests.admit("bot", "a", 2, |_| false), Ok(()));
        assert_eq!(requests.admit("bot", "b", 2, |_| false), Ok(()));
        assert_eq!(requests.admit("bot", "c", 2, |_| false), Err(2));
        assert_eq!(requests.admit("other", "c", 2, |_| false), Ok(()), "another agent has its own room");
        // The watch has shown one: it now counts as known, and the room is smaller by it.
        assert_eq!(requests.admit("bot", "c", 1, |name| name == "a"), Err(1));
        assert_eq!(requests.admit("bot", "c", 0, |_| true), Err(0));
    }
}
