//! Channel messages of the remotecommand protocols over WebSocket: the first version, v4 and v5; v2 and v3 exist over
//! SPDY alone.
//!
//! A binary WebSocket message is one channel byte and its payload; the base64 variants write the channel as a digit and
//! the payload in base64; v5 adds a half-close signal of exactly two bytes, 255 and the channel. This file says what a
//! message means to the API server (seen on 1.35): what it would drop is [`FromClient::Dropped`] here and goes no
//! further. Main types: [`Protocol`], [`FromClient`], [`FromServer`].

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use bytes::Bytes;

/// The channel number of stdin.
pub const STDIN: u8 = 0;
/// The channel number of stdout.
pub const STDOUT: u8 = 1;
/// The channel number of stderr.
pub const STDERR: u8 = 2;
/// The channel number of the final status.
pub const ERROR: u8 = 3;
/// The channel number of terminal sizes.
pub const RESIZE: u8 = 4;
/// The v5 half-close signal.
pub const CLOSE: u8 = 255;

/// Go's decoder does not look at the bits behind the last whole byte.
const AS_GO: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// A remotecommand subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// No subprotocol at all: means `channel.k8s.io`.
    Unnamed,
    /// `channel.k8s.io`, the first version: a failure is text, success is silence.
    V1,
    /// `base64.channel.k8s.io`: the first version in base64.
    V1Base64,
    /// `v4.channel.k8s.io`: the final status is JSON; no half-close.
    V4,
    /// `v4.base64.channel.k8s.io`: v4 in base64.
    V4Base64,
    /// `v5.channel.k8s.io`: v4 with a half-close signal.
    V5,
}

/// The streams the request asked for; a message on any other is dropped by the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// The client may write to the process.
    pub stdin: bool,
    /// The client wants what the process writes to stdout.
    pub stdout: bool,
    /// The client wants what the process writes to stderr.
    pub stderr: bool,
    /// The process has a terminal, so sizes count.
    pub tty: bool,
}

/// What a message of a client means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromClient {
    /// Bytes for the process.
    Stdin(Bytes),
    /// A piece of the stream of terminal sizes, JSON.
    Resize(Bytes),
    /// Half-close of a stream the client writes (v5).
    HalfClose(u8),
    /// The API server would ignore it: an unknown channel, one of the server's, or one not asked for.
    Dropped {
        /// The channel byte; `None` when the message was empty.
        channel: Option<u8>,
        /// How many payload bytes it had.
        bytes: usize,
    },
}

/// What a message of the API server means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromServer {
    /// Bytes the process wrote to stdout.
    Stdout(Bytes),
    /// Bytes the process wrote to stderr.
    Stderr(Bytes),
    /// The final status, JSON.
    Status(Bytes),
    /// Half-close of a stream the server writes (v5).
    HalfClose(u8),
    /// A channel nobody defined; clients log and skip it.
    Unknown {
        /// The channel byte.
        channel: u8,
        /// Its payload.
        payload: Bytes,
    },
    /// A message without even a channel byte.
    Empty,
}

/// A v5 close signal that is not exactly `(255, known channel)`. The API server ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the close signal is malformed")]
pub struct BadClose;

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 6] =
        [Protocol::V5, Protocol::V4, Protocol::V4Base64, Protocol::V1, Protocol::V1Base64, Protocol::Unnamed];

    /// The name as it stands in `Sec-WebSocket-Protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Unnamed => "",
            Protocol::V1 => "channel.k8s.io",
            Protocol::V1Base64 => "base64.channel.k8s.io",
            Protocol::V4 => "v4.channel.k8s.io",
            Protocol::V4Base64 => "v4.base64.channel.k8s.io",
            Protocol::V5 => "v5.channel.k8s.io",
        }
    }

    /// Whether messages are text, in base64.
    pub fn is_text(self) -> bool {
        matches!(self, Protocol::V1Base64 | Protocol::V4Base64)
    }

    /// Whether a session that ends well ends without a status.
    pub fn succeeds_silently(self) -> bool {
        matches!(self, Protocol::Unnamed | Protocol::V1 | Protocol::V1Base64)
    }

    /// The payload of a message as it is written: to be put behind [`Protocol::channel`].
    pub fn payload(self, bytes: Bytes) -> Bytes {
        if self.is_text() { STANDARD.encode(bytes).into() } else { bytes }
    }

    /// The first byte of a message on a channel.
    pub fn channel(self, channel: u8) -> u8 {
        if self.is_text() { channel.saturating_add(b'0') } else { channel }
    }

    /// Channel and payload of a message of whichever use of the protocol; none where it would be dropped.
    pub fn message(self, message: &Bytes) -> Option<(u8, Bytes)> {
        self.open(message).ok()
    }

    /// Channel and payload of a message; none where the API server would drop it, with its first byte.
    fn open(self, message: &Bytes) -> Result<(u8, Bytes), Option<u8>> {
        let first = *message.first().ok_or(None)?;
        let payload = message.slice(1..);
        if !self.is_text() {
            return Ok((first, payload));
        }
        let channel = first.checked_sub(b'0').filter(|digit| *digit <= 9).ok_or(Some(first))?;
        // As Go reads base64: line ends inside do not count, everything else must be exact.
        let exact: Vec<u8> = payload.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        let decoded = AS_GO.decode(exact).map_err(|_| Some(first))?;
        Ok((channel, decoded.into()))
    }

    /// Reads a message of a client.
    ///
    /// # Errors
    /// A malformed v5 close signal.
    pub fn from_client(self, streams: Streams, message: &Bytes) -> Result<FromClient, BadClose> {
        let (channel, payload) = match self.open(message) {
            Ok(opened) => opened,
            Err(channel) => return Ok(FromClient::Dropped { channel, bytes: message.len().saturating_sub(1) }),
        };
        Ok(match (channel, self) {
            (STDIN, _) if streams.stdin => FromClient::Stdin(payload),
            (RESIZE, _) if streams.tty => FromClient::Resize(payload),
            (CLOSE, Protocol::V5) => match closed(&payload)? {
                STDIN if streams.stdin => FromClient::HalfClose(STDIN),
                // Harmless at the API server, and without effect.
                _ => FromClient::Dropped { channel: Some(CLOSE), bytes: 1 },
            },
            _ => FromClient::Dropped { channel: Some(channel), bytes: payload.len() },
        })
    }

    /// Reads a message of the API server.
    ///
    /// # Errors
    /// A malformed v5 close signal.
    pub fn from_server(self, message: &Bytes) -> Result<FromServer, BadClose> {
        let (channel, payload) = match self.open(message) {
            Ok(opened) => opened,
            Err(None) => return Ok(FromServer::Empty),
            Err(Some(channel)) => return Ok(FromServer::Unknown { channel, payload: message.slice(1..) }),
        };
        Ok(match (channel, self) {
            (STDOUT, _) => FromServer::Stdout(payload),
            (STDERR, _) => FromServer::Stderr(payload),
            (ERROR, _) => FromServer::Status(payload),
            (CLOSE, Protocol::V5) => FromServer::HalfClose(closed(&payload)?),
            _ => FromServer::Unknown { channel, payload },
        })
    }
}

fn closed(payload: &[u8]) -> Result<u8, BadClose> {
    match payload {
        [channel] if *channel <= RESIZE => Ok(*channel),
        _ => Err(BadClose),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: true };

    fn client(protocol: Protocol, streams: Streams, bytes: &[u8]) -> Result<FromClient, BadClose> {
        protocol.from_client(streams, &Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn the_close_signal_is_an_unknown_channel_to_v4() {
        assert_eq!(client(Protocol::V4, ALL, &[255, 0]), Ok(FromClient::Dropped { channel: Some(255), bytes: 1 }));
        assert_eq!(client(Protocol::V5, ALL, &[255, 0]), Ok(FromClient::HalfClose(0)));
    }

    #[test]
    fn malformed_close_signals_end_a_v5_session() {
        for bytes in [&[255][..], &[255, 0, 0], &[255, 0, b'x'], &[255, 9]] {
            assert_eq!(client(Protocol::V5, ALL, bytes), Err(BadClose));
        }
    }

    #[test]
    fn stdin_that_was_not_asked_for_is_dropped() {
        let none = Streams::default();
        for protocol in [Protocol::V4, Protocol::V5] {
            assert_eq!(client(protocol, none, b"\0id\n"), Ok(FromClient::Dropped { channel: Some(0), bytes: 3 }));
        }
        assert_eq!(client(Protocol::V5, none, &[255, 0]), Ok(FromClient::Dropped { channel: Some(255), bytes: 1 }));
    }

    #[test]
    fn the_channels_of_the_server_are_dropped_when_a_client_writes_them() {
        for channel in [1, 2, 3, 5, 9, 127, 200, 254] {
            assert_eq!(
                client(Protocol::V5, ALL, &[channel, b'x']),
                Ok(FromClient::Dropped { channel: Some(channel), bytes: 1 })
            );
        }
    }

    #[test]
    fn the_first_empty_message_of_the_server_is_stdout_without_bytes() {
        assert_eq!(Protocol::V5.from_server(&Bytes::from_static(&[1])), Ok(FromServer::Stdout(Bytes::new())));
        assert_eq!(Protocol::V4.from_server(&Bytes::new()), Ok(FromServer::Empty));
    }

    #[test]
    fn base64_is_read_as_strictly_as_the_api_server_does() {
        let read = |text: &str| client(Protocol::V4Base64, ALL, text.as_bytes());
        assert_eq!(read("0aWQK"), Ok(FromClient::Stdin(Bytes::from_static(b"id\n"))));
        assert_eq!(read("0aW\r\nQK"), Ok(FromClient::Stdin(Bytes::from_static(b"id\n"))));
        assert_eq!(read("0"), Ok(FromClient::Stdin(Bytes::new())));
        assert_eq!(read("0aR=="), Ok(FromClient::Stdin(Bytes::from_static(b"i"))), "bits behind the end");
        for dropped in ["0aW QK", "0aWQ", "0aWQ_", "0aQ==aQ==", "0aWQK!", ":aWQK", "xaWQK", "\0aWQK"] {
            assert!(matches!(read(dropped), Ok(FromClient::Dropped { .. })), "{dropped}");
        }
        assert!(matches!(read("0aWQ=="), Ok(FromClient::Dropped { .. })), "padding that is not needed");
        let both = (Protocol::V4Base64.channel(STDIN), Protocol::V4Base64.payload(Bytes::from_static(b"id\n")));
        assert_eq!(both, (b'0', Bytes::from_static(b"aWQK")));
    }

    proptest! {
        #[test]
        fn what_is_written_on_a_channel_is_read_on_it(bytes in prop::collection::vec(any::<u8>(), 0..64), channel in 0u8..5) {
            let bytes = Bytes::from(bytes);
            for protocol in Protocol::ALL {
                let message = Bytes::from([&[protocol.channel(channel)], &protocol.payload(bytes.clone())[..]].concat());
                prop_assert_eq!(protocol.message(&message), Some((channel, bytes.clone())));
                let from_client = match channel {
                    STDIN => FromClient::Stdin(bytes.clone()),
                    RESIZE => FromClient::Resize(bytes.clone()),
                    other => FromClient::Dropped { channel: Some(other), bytes: bytes.len() },
                };
                prop_assert_eq!(protocol.from_client(ALL, &message), Ok(from_client));
                let from_server = match channel {
                    STDOUT => FromServer::Stdout(bytes.clone()),
                    STDERR => FromServer::Stderr(bytes.clone()),
                    ERROR => FromServer::Status(bytes.clone()),
                    other => FromServer::Unknown { channel: other, payload: bytes.clone() },
                };
                prop_assert_eq!(protocol.from_server(&message), Ok(from_server));
            }
        }

        #[test]
        fn payloads_are_never_longer_than_the_message(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let message = Bytes::from(bytes);
            for protocol in Protocol::ALL {
                if let Ok(FromClient::Stdin(payload) | FromClient::Resize(payload)) =
                    protocol.from_client(ALL, &message)
                {
                    prop_assert!(payload.len() < message.len());
                    prop_assert!(protocol.is_text() || payload.len() + 1 == message.len());
                }
                prop_assert!(protocol.from_server(&message).is_ok() || protocol == Protocol::V5);
            }
        }
    }
}
