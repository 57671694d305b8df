//! Bytes to frames and back: the protocols Kubernetes streams travel in.
//!
//! Every codec here is sans-I/O: it owns its buffer and its limits, takes bytes in any chunking and
//! gives frames. Nothing here opens a socket, reads a clock or decides anything.

pub mod channels;
pub mod handshake;
pub mod resize;
pub mod spdy;
pub mod websocket;
