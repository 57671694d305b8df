//! Kustody keeps custody of what AI agents do to Kubernetes. This is the map, in reading order.
//!
//! | room | what lives there | start with |
//! |---|---|---|
//! | [`core`] | pure: what is asked, what the rules say, how bytes become frames and frames evidence | [`core::action`], [`core::policy`] |
//! | [`edge`] | everything that touches the world: the cluster, the store, the network, keys | [`edge::cluster`], [`edge::store`] |
//! | [`service`] | what drives the core through the edges: webhook, gateway, relay, health | [`service::webhook`], [`service::gateway`] |
//! | [`config`] | what is valid: the configuration file, read and checked | [`config::Config`] |
//! | [`command`] | one file per sub-command: builds edges and services, and nothing else | [`command::serve`] |
//! | [`cli`] | what was typed, and how the process ends | [`cli::Cli`] |
//!
//! Arrows point down only: `command → service → edge → core`. Services do not import each other, except the gateway
//! its relay; core imports only core. `tests/it/layers.rs` reads every `use` line and fails on a wrong arrow. Why things
//! are as they are: `src/decisions.md`.
//!
//! One held delete: `edge::net::listen` → [`service::webhook`] reads the review → [`core::admission`] makes an
//! [`core::action::Action`] → [`core::policy::decide`] says hold → [`core::approval`] fingerprints it →
//! [`edge::cluster::approvals`] opens an ApprovalRequest and the call parks on a watch of it → a person approves → decided
//! again, now with the approval → consumed → answered.
//!
//! One exec: `edge::net::listen` → [`service::gateway`] identifies the agent and reads the path → decided → a
//! [`core::policy::Permit`] → [`edge::store::spool`] opens the recording → [`edge::net::upstream`] dials with the
//! permit → [`service::relay`] records, then forwards, until it ends and is sealed → the uploader ships it.

pub mod cli;
pub mod command;
pub mod config;
pub mod core;
pub mod edge;
pub mod service;
