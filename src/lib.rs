//! Kustody keeps custody of what AI agents do to Kubernetes. This is the map, in reading order.
//!
//! Arrows point down only: `command → service → edge → core`. Services do not import each other,
//! core imports only core; `tests/it/layers.rs` reads every `use` line and fails on a wrong arrow.

/// What was typed, and how the process ends.
pub mod cli;
/// One file per sub-command: builds edges and services, and nothing else.
pub mod command;
/// What is valid: the configuration file, read and checked.
pub mod config;
/// Pure: what is asked, what the rules say, how bytes become frames and frames become evidence.
pub mod core;
/// Everything that touches the world: the cluster, the store, the network, keys, the clock.
pub mod edge;
/// What drives the core through the edges: the webhook, the gateway, the relay.
pub mod service;
