//! Approvals: which action one fits ([`Fingerprint`]), how it lives ([`Approval`]), and the signed word of the
//! gateway that an action was decided there ([`ticket`]).
//!
//! Pure: who keeps approvals and who waits for them is `edge/cluster/approvals.rs`. Kustody opens, expires and
//! consumes them; it never decides one.

pub mod fingerprint;
mod lifecycle;

pub use fingerprint::Fingerprint;
pub use lifecycle::{Approval, Choice, IDEMPOTENCY_WINDOW, State, Vote};
