//! Rules: who is an agent, what agents may do, and the one function that decides.
//!
//! [`document`] is what people write, [`PolicySnapshot`] what it compiles to (with every problem found at load),
//! [`decide()`] the total, pure function from a snapshot and an action to a [`Decision`]. An allowing decision
//! carries a [`Permit`], which nothing else can make. No I/O, no clock: who watches the rules is
//! `edge/cluster/policies.rs`.

mod decide;
pub mod document;
mod matcher;
mod problems;
mod snapshot;

pub use decide::{Decision, DecisionId, HoldTerms, Outcome, Permit, decide};
pub use document::{ClassSpec, PolicySpec};
pub use problems::{Problem, problems_of_class, problems_of_policy};
pub use snapshot::{Class, PolicyHash, PolicySnapshot};
