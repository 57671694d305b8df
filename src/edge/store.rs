//! Where evidence is kept: a local spool that makes every event durable at once.

pub mod spool;
