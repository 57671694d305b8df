//! What a store was found to enforce. Some servers accept conditions and locks and ignore them, so nothing is believed
//! that was not tried; how it is tried is each store's own business.

use std::fmt;

use super::Retention;
use crate::core::recording::manifest::Worm;

/// The result of a probe. `false` means "not proved".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// Of two writers of one name, the second was refused.
    pub conditional_create: bool,
    /// Deleted or overwritten objects are kept as versions.
    pub versioning: bool,
    /// A locked object could not be deleted.
    pub object_lock: bool,
    /// New objects are locked without being asked for, by the bucket's default retention; its description.
    pub default_retention: Option<String>,
    /// What Kustody itself locks.
    pub retention: Retention,
}

impl ProbeReport {
    /// What manifests may claim: that what is stored is locked, and that locks hold.
    pub fn worm(&self) -> Worm {
        let is_locked = self.default_retention.is_some() || self.retention.recordings.is_some();
        if self.object_lock && is_locked { Worm::Verified } else { Worm::NotEnforced }
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |proved| if proved { "enforced" } else { "not enforced" };
        write!(
            f,
            "conditional create {}, versioning {}, object lock {}, default retention {}",
            word(self.conditional_create),
            if self.versioning { "on" } else { "off" },
            word(self.object_lock),
            self.default_retention.as_deref().unwrap_or("none"),
        )?;
        if self.retention.locks() { write!(f, ", locked when written ({})", self.retention) } else { Ok(()) }
    }
}
