//! Approvals: which action one fits ([`Fingerprint`]), what an approver is shown ([`exhibit`]) and what would follow
//! ([`blast`]), which requests belong together ([`intake`]), how one lives ([`Approval`]), what became of an object created
//! suspended ([`Release`]), and the gateway's signed
//! word that a stream was decided there ([`ticket`]).
//!
//! Pure: who keeps approvals and who waits for them is `edge/cluster/approvals.rs`. Kustody opens, expires and
//! consumes them; it never decides one.

pub mod blast;
pub mod exhibit;
pub mod fingerprint;
pub mod intake;
mod lifecycle;
pub mod normal;
mod release;
pub mod ticket;

pub use exhibit::Exhibit;
pub use fingerprint::Fingerprint;
pub use lifecycle::{Approval, Because, Choice, IDEMPOTENCY_WINDOW, State, Supersedes, Vote};
pub use release::{Release, Released, Suspended};
