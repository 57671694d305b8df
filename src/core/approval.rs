//! Approvals: which action one fits ([`Fingerprint`]), what an approver is shown ([`exhibit`]), how it lives
//! ([`Approval`]), and the gateway's signed word that a stream was decided there ([`ticket`]).
//!
//! Pure: who keeps approvals and who waits for them is `edge/cluster/approvals.rs`. Kustody opens, expires and
//! consumes them; it never decides one.

pub mod exhibit;
pub mod fingerprint;
mod lifecycle;
pub mod normal;
pub mod ticket;

pub use exhibit::Exhibit;
pub use fingerprint::Fingerprint;
pub use lifecycle::{Approval, Choice, IDEMPOTENCY_WINDOW, State, Vote};
