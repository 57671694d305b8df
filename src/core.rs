//! Pure rooms: no I/O, no clock, no async, no logging. Time is an argument.

pub mod api_path;
pub mod wire;
pub mod action;
pub mod approval;
pub mod canonical;
pub mod policy;
