//! What is known of requests as they come in: which belong together, how often the same was asked today, and how
//! many are being opened right now.
//!
//! One user command is often many requests: those of one agent and run that come shortly after each other share a
//! group, which people decide at once. Kept in memory by each replica from the one watch; two replicas that see the
//! first requests of a command at the same moment may begin two groups. Time is an argument.

use crate::core::canonical;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// A request within this time after the last one, or after the last use of one, belongs to its group.
pub const GROUP_WINDOW: SignedDuration = SignedDuration::from_secs(30);
/// No group takes requests for longer than this.
const GROUP_AGE: SignedDuration = SignedDuration::from_mins(15);
/// Most agents and runs whose last group is remembered.
const GROUPS_LIMIT: usize = 4096;
/// Most different questions counted in a day.
const COUNTS_LIMIT: usize = 16_384;
/// Most requests of a day told apart.
const SEEN_LIMIT: usize = 65_536;

/// A request, as far as others are compared with it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Name of the ApprovalRequest.
    pub id: &'a str,
    /// User name of the agent.
    pub user: &'a str,
    /// What it wants, in words: operation, resource and target.
    pub wish: &'a str,
    /// When it was opened.
    pub opened_at: Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Intake {
    groups: BTreeMap<(String, Option<String>), Group>,
    /// By user and name; how many calls are at it.
    opening: BTreeMap<String, BTreeMap<String, usize>>,
    day: i64,
    seen: BTreeSet<String>,
    counts: BTreeMap<(String, String), u32>,
}

#[derive(Debug)]
struct Group {
    name: String,
    first: Timestamp,
    last: Timestamp,
}

impl Intake {
    /// The group a new request of `user` in `run` belongs to. `seed` names it where it is the first of one.
    pub fn group(&mut self, user: &str, run: Option<&str>, seed: &str, now: Timestamp) -> String {
        let key = (user.to_owned(), run.map(str::to_owned));
        if let Some(group) = self.groups.get_mut(&key).filter(|group| group.takes(now)) {
            group.last = group.last.max(now);
            return group.name.clone();
        }
        let text = format!("{user}\0{run:?}\0{seed}\0{now}");
        let digest = canonical::sha256_hex(text.as_bytes());
        let name = format!("grp-{}", digest.get(..8).unwrap_or(&digest));
        self.remember(key, Group { name: name.clone(), first: now, last: now });
        name
    }

    /// Takes note that a request of a group was opened or used at `at`, by whichever replica.
    pub fn note_group(&mut self, user: &str, run: Option<&str>, name: &str, at: Timestamp) {
        if name.is_empty() {
            return;
        }
        let key = (user.to_owned(), run.map(str::to_owned));
        match self.groups.get_mut(&key) {
            Some(group) if group.name == name => {
                group.last = group.last.max(at);
                group.first = group.first.min(at);
            }
            Some(group) if group.last >= at => {}
            Some(_) | None => self.remember(key, Group { name: name.to_owned(), first: at, last: at }),
        }
    }

    /// Counts a request, once each, when it was opened on the day (UTC) of `now`.
    pub fn count(&mut self, entry: &Entry<'_>, now: Timestamp) {
        let today = day(now);
        if self.day != today {
            self.day = today;
            self.seen.clear();
            self.counts.clear();
        }
        let key = (entry.user.to_owned(), entry.wish.to_owned());
        let is_known = self.counts.contains_key(&key);
        let has_room = self.seen.len() < SEEN_LIMIT && (is_known || self.counts.len() < COUNTS_LIMIT);
        if day(entry.opened_at) == today && has_room && self.seen.insert(entry.id.to_owned()) {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    /// How often `user` has asked for `wish` today.
    #[must_use]
    pub fn asked(&self, user: &str, wish: &str, now: Timestamp) -> u32 {
        if self.day != day(now) {
            return 0;
        }
        self.counts.get(&(user.to_owned(), wish.to_owned())).copied().unwrap_or_default()
    }

    /// Begins to open the request `id` of `user`, unless with the `open` ones there would be more than `most`. Calls
    /// that open the same one at the same time count once.
    pub fn begin(&mut self, user: &str, id: &str, open: usize, most: usize) -> bool {
        let own = self.opening.get(user);
        let is_begun = own.is_some_and(|own| own.contains_key(id));
        if !is_begun && open + own.map_or(0, BTreeMap::len) >= most {
            return false;
        }
        *self.opening.entry(user.to_owned()).or_default().entry(id.to_owned()).or_default() += 1;
        true
    }

    /// The request that was begun is open, or will not be.
    pub fn end(&mut self, user: &str, id: &str) {
        let Some(own) = self.opening.get_mut(user) else { return };
        match own.get_mut(id) {
            Some(calls) if *calls > 1 => *calls -= 1,
            Some(_) | None => drop(own.remove(id)),
        }
        if own.is_empty() {
            self.opening.remove(user);
        }
    }

    fn remember(&mut self, key: (String, Option<String>), group: Group) {
        if self.groups.len() >= GROUPS_LIMIT && !self.groups.contains_key(&key) {
            let now = group.last;
            self.groups.retain(|_, group| group.takes(now));
            if self.groups.len() >= GROUPS_LIMIT {
                self.groups.clear();
            }
        }
        self.groups.insert(key, group);
    }
}

/// Days since the epoch.
fn day(at: Timestamp) -> i64 {
    at.as_second().div_euclid(86_400)
}

impl Group {
    fn takes(&self, now: Timestamp) -> bool {
        now.duration_since(self.last) <= GROUP_WINDOW && now.duration_since(self.first) <= GROUP_AGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn requests_of_one_run_shortly_after_each_other_share_a_group() {
        let mut intake = Intake::default();
        let first = intake.group("a", Some("r"), "1", at(0));
        assert_eq!(intake.group("a", Some("r"), "2", at(20)), first);
        assert_eq!(intake.group("a", Some("r"), "3", at(49)), first, "the window begins anew with each");
        assert_ne!(intake.group("a", Some("s"), "4", at(50)), first, "another run");
        assert_ne!(intake.group("b", Some("r"), "5", at(50)), first, "another agent");
        assert_ne!(intake.group("a", Some("r"), "6", at(100)), first, "long after");
    }

    #[test]
    fn no_group_takes_requests_for_ever() {
        let mut intake = Intake::default();
        let first = intake.group("a", None, "x", at(0));
        let last = (1..40).map(|n| intake.group("a", None, "x", at(n * 25))).last().unwrap();
        assert_ne!(last, first);
    }

    #[test]
    fn a_group_that_another_replica_began_is_joined_and_its_use_keeps_it_open() {
        let mut intake = Intake::default();
        intake.note_group("a", None, "grp-1", at(0));
        assert_eq!(intake.group("a", None, "x", at(5)), "grp-1");
        intake.note_group("a", None, "grp-1", at(200));
        assert_eq!(intake.group("a", None, "x", at(210)), "grp-1");
    }

    #[test]
    fn the_same_wish_is_counted_once_for_each_request_of_a_day() {
        let mut intake = Intake::default();
        let wish = "DELETE pods n/p";
        let mut count = |id, second| intake.count(&Entry { id, user: "a", wish, opened_at: at(second) }, at(second));
        count("1", 10);
        count("2", 11);
        count("2", 11);
        assert_eq!(intake.asked("a", wish, at(13)), 2);
        assert_eq!(intake.asked("a", "DELETE pods n/q", at(13)), 0);
        assert_eq!(intake.asked("a", wish, at(86_401)), 0, "a new day");
    }

    #[test]
    fn what_is_being_opened_counts_against_the_cap() {
        let mut intake = Intake::default();
        assert!(intake.begin("a", "1", 1, 3) && intake.begin("a", "2", 1, 3) && !intake.begin("a", "3", 1, 3));
        intake.end("a", "1");
        assert!(intake.begin("a", "3", 1, 3) && intake.begin("b", "1", 0, 3));
    }

    #[test]
    fn many_calls_that_open_one_request_count_as_one() {
        let mut intake = Intake::default();
        assert!((0..100).all(|_| intake.begin("a", "same", 0, 2)));
        assert!(intake.begin("a", "other", 0, 2) && !intake.begin("a", "third", 0, 2));
        (0..99).for_each(|_| intake.end("a", "same"));
        assert!(!intake.begin("a", "third", 0, 2), "one call is still at it");
        intake.end("a", "same");
        assert!(intake.begin("a", "third", 0, 2));
    }
}
