//! Rules: who is an agent, what agents may do, and the one function that decides.
//!
//! [`document`] is what people write, [`PolicySnapshot`] what it compiles to (with every problem found at load),
//! [`decide()`] the total, pure function from a snapshot and [`Facts`] to a [`Decision`]. An allowing decision
//! carries a [`Permit`], which nothing else can make. No I/O, no clock: who watches the rules is
//! `edge/cluster/policies.rs`.

mod budget;
mod change;
mod class;
mod decide;
mod decision;
pub mod document;
mod evaluate;
mod explain;
mod export;
mod facts;
pub mod fixture;
mod ledger;
mod matcher;
mod path;
pub mod problems;
mod quantity;
mod rules;
mod snapshot;

pub use budget::{Counted, Limit, Per, Usage};
pub use class::Class;
pub use decide::decide;
pub use decision::{Decision, DecisionId, HoldTerms, Outcome, Permit};
pub use document::{ClassSpec, HoldMode, PolicySpec};
pub use explain::{Say, explain};
pub use export::{Agents, Export, export};
pub use facts::{Circumstances, Content, Facts};
pub use ledger::{Claim, Ledger};
pub use matcher::{Pattern, resource_matches};
pub use problems::{Problem, problems_of_class, problems_of_policy};
pub use snapshot::{Namespaces, PolicyHash, PolicySnapshot};
