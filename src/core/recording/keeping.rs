//! What of a session its recording keeps. Plain data: rules say it (`core::policy`), the relay obeys.
//!
//! How many bytes went by is on record in every case; this is about the bytes themselves. Where several say something
//! about the same session, what keeps more is in force: each type is ordered from less to more.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of standard input is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Stdin {
    /// How many bytes there were, and when.
    Length,
    /// That, and one SHA-256 over all of it at the end.
    Digest,
    /// Every byte.
    #[default]
    Whole,
}

/// How much is kept of what is typed into a terminal that does not show it: passwords, mostly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Hidden {
    /// How many bytes there were, and when.
    #[default]
    Length,
    /// Every byte.
    Whole,
}

/// What happens to a session while the spool has no room for its recording.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// It goes on, and a gap in the recording says how much went by.
    BestEffort,
    /// It is stalled for a moment and then ended; new ones are refused.
    #[default]
    Strict,
}

/// What of one session is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Of standard input.
    pub stdin: Stdin,
    /// Of what is typed unseen.
    pub hidden: Hidden,
    /// Bytes of each forwarded connection, in each direction; none given: what the configuration says.
    pub forwarded: Option<u64>,
    /// Whether it goes on unrecorded.
    pub mode: Mode,
}

impl Keeping {
    /// Most bytes of each forwarded connection that are kept, in each direction.
    #[must_use]
    pub fn most_forwarded(&self) -> u64 {
        self.forwarded.unwrap_or(u64::MAX)
    }
}

/// What rules have said so far; what none speaks of is as in [`Keeping::default`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Of standard input.
    pub stdin: Option<Stdin>,
    /// Of what is typed unseen.
    pub hidden: Option<Hidden>,
    /// Bytes of each forwarded connection, in each direction.
    pub forwarded: Option<u64>,
    /// Whether it goes on unrecorded.
    pub mode: Option<Mode>,
}

impl Wishes {
    /// Everything: what holds where a rule that says something cannot be evaluated.
    pub const EVERYTHING: Wishes = Wishes {
        stdin: Some(Stdin::Whole),
        hidden: Some(Hidden::Whole),
        forwarded: Some(u64::MAX),
        mode: Some(Mode::Strict),
    };

    /// Both taken together: of each what keeps more.
    #[must_use]
    pub fn and(self, other: Wishes) -> Wishes {
        Wishes {
            stdin: self.stdin.max(other.stdin),
            hidden: self.hidden.max(other.hidden),
            forwarded: self.forwarded.max(other.forwarded),
            mode: self.mode.max(other.mode),
        }
    }

    /// What is kept then.
    #[must_use]
    pub fn keeping(self) -> Keeping {
        Keeping {
            stdin: self.stdin.unwrap_or_default(),
            hidden: self.hidden.unwrap_or_default(),
            forwarded: self.forwarded,
            mode: self.mode.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_wishes_what_keeps_more_holds_and_silence_says_nothing() {
        let less = Wishes { stdin: Some(Stdin::Length), forwarded: Some(0), ..Wishes::default() };
        let more = Wishes { stdin: Some(Stdin::Digest), mode: Some(Mode::BestEffort), ..Wishes::default() };
        let both = less.and(more).keeping();
        assert_eq!(both, more.and(less).keeping());
        let wanted =
            Keeping { stdin: Stdin::Digest, hidden: Hidden::Length, forwarded: Some(0), mode: Mode::BestEffort };
        assert_eq!(both, wanted);
        assert_eq!(Wishes::default().keeping(), Keeping::default());
        assert_eq!(less.and(Wishes::EVERYTHING), Wishes::EVERYTHING);
    }
}
