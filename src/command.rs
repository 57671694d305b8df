//! One file per sub-command: it builds edges and services, and nothing else.

pub mod generate;
pub mod output;
pub mod replay;
pub mod sessions;
pub mod store_args;
pub mod verify;
pub mod version;
