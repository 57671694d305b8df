//! Bytes to frames and back: the protocols Kubernetes streams travel in.
//!
//! Every codec here is sans-I/O: it owns its buffer and its limits, takes bytes in any chunking and
//! gives frames. Nothing here opens a socket, reads a clock or decides anything.

/// Channel messages of `v4.channel.k8s.io` and `v5.channel.k8s.io`.
pub mod channels;
/// The WebSocket opening handshake: what a client must send and what it is answered.
pub mod handshake;
/// Terminal sizes as they travel on the resize channel.
pub mod resize;
/// WebSocket frames (RFC 6455), decoded strictly and encoded canonically.
pub mod websocket;
