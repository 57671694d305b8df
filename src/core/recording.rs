//! What a recording is: events, chunks, the hash chain, the header before it and the signed manifest after it.
//!
//! All of it is bytes in, bytes out. The spool that makes events durable and the stores that keep the objects are
//! `edge::store`. The same facts for readers in other languages are written by [`schema`] to `recordings-schema/`.
//!
//! A session is a folder of immutable objects: `header.json`, `00000000.krec` and up, `manifest.json`.

pub mod chunk;
pub mod codec;
pub mod digest;
pub mod dsse;
pub mod echo;
pub mod event;
pub mod export;
pub mod header;
pub mod journal;
pub mod keeping;
pub mod layout;
pub mod manifest;
pub mod pane;
pub mod sanitize;
pub mod schema;
pub mod screen;
pub mod search;
pub mod summary;
pub mod transfer;
pub mod verify;

pub use digest::Digest;
pub use event::{Cause, Channel, CloseReason, Direction, Event, EventKind};
pub use header::{Header, SessionKind};
pub use layout::SessionId;
pub use manifest::Manifest;

/// The format this code writes. Every object names its generation; a reader refuses one it does not know.
pub const GENERATION: u8 = 1;
