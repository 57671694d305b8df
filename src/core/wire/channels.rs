//! Channel messages of the remotecommand protocols `v4.channel.k8s.io` and `v5.channel.k8s.io`.
//!
//! A binary WebSocket message is one channel byte and its payload; v5 adds a half-close signal of
//! exactly two bytes, 255 and the channel. This file says what a message means to the API server (seen
//! on 1.35): what it would drop is [`FromClient::Dropped`] here and goes no further. The base64
//! variants are not spoken. Main types: [`Protocol`], [`FromClient`], [`FromServer`].

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

/// A remotecommand subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `v4.channel.k8s.io`: no half-close.
    V4,
    /// `v5.channel.k8s.io`: v4 with a half-close signal.
    V5,
}

/// The streams the request asked for; a message on any other is dropped by the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// The client may write to the process.
    pub stdin: bool,
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
    /// The protocol of this name; names are case-sensitive.
    pub fn parse(name: &str) -> Option<Protocol> {
        match name {
            "v4.channel.k8s.io" => Some(Protocol::V4),
            "v5.channel.k8s.io" => Some(Protocol::V5),
            _ => None,
        }
    }

    /// The name as it stands in `Sec-WebSocket-Protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::V4 => "v4.channel.k8s.io",
            Protocol::V5 => "v5.channel.k8s.io",
        }
    }

    /// Reads a message of a client.
    ///
    /// # Errors
    /// A malformed v5 close signal.
    pub fn from_client(self, streams: Streams, message: &Bytes) -> Result<FromClient, BadClose> {
        let Some(&channel) = message.first() else {
            return Ok(FromClient::Dropped { channel: None, bytes: 0 });
        };
        let payload = message.slice(1..);
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
        let Some(&channel) = message.first() else {
            return Ok(FromServer::Empty);
        };
        let payload = message.slice(1..);
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

    const ALL: Streams = Streams { stdin: true, tty: true };

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

    proptest! {
        #[test]
        fn payloads_are_never_longer_than_the_message(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let message = Bytes::from(bytes);
            for protocol in [Protocol::V4, Protocol::V5] {
                if let Ok(FromClient::Stdin(payload) | FromClient::Resize(payload)) =
                    protocol.from_client(ALL, &message)
                {
                    prop_assert_eq!(payload.len() + 1, message.len());
                }
                prop_assert!(protocol.from_server(&message).is_ok() || protocol == Protocol::V5);
            }
        }
    }
}
