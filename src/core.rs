//! Pure rooms: no I/O, no clock, no async, no logging. Time is an argument.

pub mod api_path;
pub mod wire;
