//! The log: what an agent asked, what was decided and why, one [`Entry`] each, one line of canonical JSON each.
//!
//! [`entry`] owns the fields, [`bounded`] keeps a line below its limit, [`describe`] makes entries of actions, [`kubectl`]
//! writes a request as a person would have typed it, [`segment`] is how entries lie on the local disk until they are
//! shipped, [`layout`] where they lie in the store. Files and fsync are `edge::store::wal`. Tamper evidence over the log
//! is not here.

pub mod bounded;
pub mod describe;
pub mod entry;
pub mod kubectl;
pub mod layout;
pub mod schema;
pub mod segment;

pub use bounded::{Bounded, Text};
pub use entry::{Decided, Effect, Entry, EntryId, Kind, Outcome};

/// The format of an entry; readers refuse others.
pub const GENERATION: u8 = 1;
/// Most bytes of an entry's line, without its line feed: what a C2SP tlog-tiles entry can be.
pub const MAX_LINE: usize = 65_535;
