//! An exec or attach: stdin, stdout, stderr, sizes and the final status are a channel on the one side and a stream on the
//! other. Half-close is translated; the end of the error stream is the status, and the session ends soon after.

use super::{Done, Translator};
use crate::core::wire::channels::{self, FromClient, Protocol, Streams};
use crate::core::wire::spdy::StreamId;
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// The longest status that is kept together.
const STATUS: usize = 64 * 1024;
/// How long after the status the process' last output may come; it comes before it, as far as anybody has seen.
const LAST: Duration = Duration::from_millis(500);

/// The protocol over SPDY that means the same as one of the channel protocols.
pub fn over_spdy(protocol: Protocol) -> &'static str {
    // Over SPDY v5 is v4; what v1 is over WebSocket, without its faults, is v2.
    if protocol.succeeds_silently() { "v2.channel.k8s.io" } else { "v4.channel.k8s.io" }
}

impl<U: AsyncRead + AsyncWrite> Translator<U> {
    /// Opens every stream that the request asked for, in the order of clients; the API server waits for all.
    pub(super) fn open_streams(&mut self) {
        let Streams { stdin, stdout, stderr, tty } = self.streams;
        let sizes = tty && !self.protocol.succeeds_silently();
        let wanted = [
            (channels::ERROR, "error", true),
            (channels::STDIN, "stdin", stdin),
            (channels::STDOUT, "stdout", stdout),
            (channels::STDERR, "stderr", stderr && !tty),
            (channels::RESIZE, "resize", sizes),
        ];
        for (channel, name, _) in wanted.into_iter().filter(|(_, _, is_wanted)| *is_wanted) {
            self.open(channel, [("streamtype", name)]);
        }
        // As the API server does: an empty message first, on the lowest channel that it writes.
        self.tell(if stdout { channels::STDOUT } else { channels::ERROR }, Bytes::new());
    }

    pub(super) fn take_for_process(&mut self, message: &Bytes) -> Result<(), Done> {
        match self.protocol.from_client(self.streams, message).map_err(|_| Done::Lost)? {
            FromClient::Stdin(bytes) => self.send(channels::STDIN, bytes, false),
            FromClient::Resize(bytes) => self.send(channels::RESIZE, bytes, false),
            FromClient::HalfClose(channel) => self.send(channel, Bytes::new(), true),
            FromClient::Dropped { .. } => {}
        }
        Ok(())
    }

    pub(super) fn take_of_process(&mut self, stream: StreamId, fin: bool, bytes: Bytes) -> Result<(), Done> {
        let Some(channel) = self.find(stream).map(|open| open.channel) else { return Ok(()) };
        match channel {
            channels::STDOUT | channels::STDERR if !bytes.is_empty() => {
                self.tell(channel, bytes);
            }
            channels::ERROR => {
                self.status.extend_from_slice(&bytes);
                if self.status.len() > STATUS {
                    return Err(Done::Lost);
                }
                if fin {
                    self.told_status();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Passes the status on; nothing where the process succeeded and the protocol says so by silence.
    pub(super) fn told_status(&mut self) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(Instant::now() + LAST);
        let status = self.status.split().freeze();
        if !status.is_empty() {
            self.tell(channels::ERROR, status);
        }
    }
}
