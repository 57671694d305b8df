//! Pure rooms: no I/O, no clock, no async, no logging. Time is an argument.

/// One parser from an HTTP request line to what the API server would do with it.
pub mod api_path;
/// Bytes to frames and back: the protocols Kubernetes streams travel in.
pub mod wire;
