//! Rooms that touch the world: the cluster, the object store, the network, keys, the clock.

pub mod budgets;
pub mod cluster;
pub mod keys;
pub mod net;
pub mod open_files;
pub mod store;
pub mod telemetry;
