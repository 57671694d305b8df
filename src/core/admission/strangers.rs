//! Identities that no class claims and that nobody has called known: a bounded list of whoever was seen. Pure; who
//! fills it is `service/webhook/observe.rs`, who shows it is the replica's report. Main type: [`Strangers`].

use crate::core::action::Identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// So many are kept by name; past them only the count grows.
const MOST: usize = 64;
/// Longest text kept of a name, a group or an action, in characters.
const LONGEST: usize = 128;
/// Most groups kept of one.
const GROUPS: usize = 8;

/// Somebody seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranger {
    /// The groups, as far as they say something.
    pub groups: Vec<String>,
    /// What was done first: `CREATE v1/configmaps`.
    pub first: String,
}

/// Everybody seen, by user name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strangers {
    seen: BTreeMap<String, Stranger>,
    /// How many requests came from others, when the list was full.
    more: u64,
}

impl Strangers {
    /// Notes one request; `true` where its identity is new and was noted.
    pub fn note(&mut self, identity: &Identity, action: &str) -> bool {
        let user = clip(&identity.user);
        if self.seen.contains_key(&user) {
            return false;
        }
        if self.seen.len() >= MOST {
            self.more = self.more.saturating_add(1);
            return false;
        }
        let telling = identity.groups.iter().filter(|group| *group != "system:authenticated");
        let groups = telling.take(GROUPS).map(|group| clip(group)).collect();
        self.seen.insert(user, Stranger { groups, first: clip(action) });
        true
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Everybody, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stranger)> {
        self.seen.iter().map(|(user, stranger)| (user.as_str(), stranger))
    }

    /// Takes over whom another replica saw.
    pub fn merge(&mut self, other: &Self) {
        for (user, stranger) in &other.seen {
            if self.seen.contains_key(user) || self.seen.len() < MOST {
                self.seen.entry(user.clone()).or_insert_with(|| stranger.clone());
            } else {
                self.more = self.more.saturating_add(1);
            }
        }
        self.more = self.more.saturating_add(other.more);
    }
}

fn clip(text: &str) -> String {
    text.chars().take(LONGEST).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(user: &str) -> Identity {
        Identity {
            user: user.to_owned(),
            groups: vec!["system:authenticated".into(), "ops".into()],
            ..Identity::default()
        }
    }

    #[test]
    fn each_is_noted_once_and_the_list_is_bounded() {
        let mut strangers = Strangers::default();
        assert!(strangers.note(&identity("dana"), "CREATE v1/pods"));
        assert!(!strangers.note(&identity("dana"), "DELETE v1/pods"));
        for number in 0..1000 {
            strangers.note(&identity(&format!("{number}{}", "x".repeat(1000))), "CREATE v1/pods");
        }
        assert_eq!(strangers.iter().count(), MOST);
        let (_, dana) = strangers.iter().find(|(user, _)| *user == "dana").unwrap();
        assert_eq!((dana.groups.as_slice(), dana.first.as_str()), (&["ops".to_owned()][..], "CREATE v1/pods"));
        assert!(serde_json::to_vec(&strangers).unwrap().len() < 64 * 1024);
    }
}
