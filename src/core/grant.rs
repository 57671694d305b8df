//! Grants: time-boxed allowances that let held actions through without asking again.
//!
//! [`GrantSpec`] is what people and agents write, [`Grant`] how one lives, [`ActiveGrant`] one in force, which the
//! rules ask whether it covers an action: it turns a hold into an allowance, never a denial. [`check_request`] says
//! whether what an agent asks for is its to ask. Who keeps and counts grants is `edge/cluster/grants.rs`'s business.

mod active;
mod document;
mod lifecycle;
mod request;
mod roles;

pub use active::ActiveGrant;
pub use document::{AllowedAction, GrantSpec, Origin, RoleKind, RoleOfGrant, TemporaryBinding};
pub use lifecycle::{Grant, State};
pub use request::{NotItsToAsk, check_request, is_request};
pub use roles::{RoleRule, dangers};
