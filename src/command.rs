//! One file per sub-command: it builds edges and services, and nothing else.

pub mod version;
pub mod generate;
