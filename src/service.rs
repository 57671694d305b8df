//! Rooms that drive the core through the edges. They do not import each other, except the gateway its relay.

pub mod gateway;
pub mod health;
pub mod relay;
pub mod webhook;
