//! A port-forward: port number n of the request is channels 2n and 2n + 1 on the one side, a data and an error stream on the
//! other. Its connection begins at once and is over when the API server has closed both; the session ends with the last.
//!
//! A client of channel messages cannot half-close: what is closed here for it is what the API server has closed, and the
//! error streams, on which it has nothing to say.

use super::{Done, Translator};
use crate::core::wire::spdy::StreamId;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// The last channel of data: one of errors must follow it.
const LAST: u8 = 254;

impl<U: AsyncRead + AsyncWrite> Translator<U> {
    /// Opens the connection of each port, as client-go does, and repeats the port on its channels, as the API server does.
    pub(super) fn open_ports(&mut self) -> Result<(), Done> {
        let mut channels = (0..=LAST).step_by(2);
        for port in std::mem::take(&mut self.ports) {
            let data = channels.next().ok_or(Done::Lost)?;
            let error = data + 1;
            for (channel, purpose) in [(error, "error"), (data, "data")] {
                let request = (data / 2).to_string();
                let headers = [("streamtype", purpose.to_owned()), ("port", port.to_string()), ("requestid", request)];
                self.open(channel, headers);
            }
            for channel in [data, error] {
                self.tell(channel, Bytes::copy_from_slice(&port.to_le_bytes()));
            }
        }
        Ok(())
    }

    /// An error stream was taken: the client has nothing to say on it.
    pub(super) fn port_taken(&mut self, stream: StreamId) {
        let channel = self.find(stream).map(|open| open.channel).filter(|_| self.forwards());
        if let Some(channel) = channel.filter(|channel| channel % 2 == 1) {
            self.send(channel, Bytes::new(), true);
        }
    }

    pub(super) fn take_for_port(&mut self, message: &Bytes) -> Result<(), Done> {
        if let Some((channel, bytes)) = self.protocol.message(message).filter(|(channel, _)| channel % 2 == 0) {
            self.send(channel, bytes, false);
        }
        Ok(())
    }

    pub(super) fn take_of_port(&mut self, stream: StreamId, fin: bool, bytes: Bytes) -> Result<(), Done> {
        let Some(open) = self.find(stream).filter(|open| !open.lane.server_done) else { return Ok(()) };
        open.lane.server_done = fin;
        let channel = open.channel;
        if !bytes.is_empty() {
            self.tell(channel, bytes);
        }
        if fin {
            self.send(channel, Bytes::new(), true);
            self.port_ended();
        }
        Ok(())
    }

    /// Ends the session with its last connection.
    pub(super) fn port_ended(&mut self) {
        if self.forwards() && self.open.iter().all(|open| open.lane.server_done) {
            self.over.get_or_insert_with(Instant::now);
        }
    }
}
