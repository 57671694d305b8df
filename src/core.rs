//! Pure rooms: no I/O, no clock, no async, no logging. Time is an argument.

pub mod action;
pub mod admission;
pub mod api_path;
pub mod approval;
pub mod audit;
pub mod canonical;
pub mod expression;
pub mod grant;
pub mod keys;
pub mod policy;
pub mod recording;
pub mod wire;
