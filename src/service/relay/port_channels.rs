//! port-forward over WebSocket messages, as Python, JavaScript and kube-rs clients speak it: port number n of the request
//! has data on channel 2n and errors on channel 2n + 1, and is one connection for the whole session.
//!
//! The API server begins each channel with a message that repeats the port in two bytes; it is passed on and is no data.
//! What a client says on an error channel, or on one that no port has, goes nowhere.

use super::flow::Flow;
use super::{End, Relay, Speech};
use crate::core::recording::{Direction, EventKind};
use crate::core::wire::channels::Protocol;
use bytes::Bytes;
use std::collections::BTreeSet;
use tokio::io::{AsyncRead, AsyncWrite};

/// The connections of a session, in the order of its ports.
#[derive(Default)]
pub(super) struct PortChannels {
    flows: Vec<Flow>,
    /// Channels on which the API server has repeated the port.
    greeted: BTreeSet<u8>,
}

impl PortChannels {
    /// The connections, at the end.
    pub(super) fn take(&mut self) -> Vec<Flow> {
        std::mem::take(&mut self.flows)
    }

    fn flow(&mut self, channel: u8) -> Option<&mut Flow> {
        self.flows.get_mut(usize::from(channel / 2))
    }
}

impl<C: AsyncRead + AsyncWrite, U: AsyncRead + AsyncWrite> Relay<C, U> {
    /// Begins the connections of the ports that the request named, where each is one.
    pub(super) async fn open_ports(&mut self) -> Result<(), End> {
        if !matches!(self.session.speech, Speech::ForwardChannels(_)) {
            return Ok(());
        }
        let at = self.session.recording.elapsed();
        for (number, port) in (1..).zip(self.session.ports.clone()) {
            let (flow, opened) = Flow::open(number, port, at);
            self.channels.flows.push(flow);
            self.record(opened).await?;
        }
        Ok(())
    }

    pub(super) async fn client_port_message(&mut self, protocol: Protocol, message: &Bytes) -> Result<(), End> {
        let keep = self.session.keeping.most_forwarded();
        let Some((channel, bytes)) = protocol.message(message).filter(|(channel, _)| channel % 2 == 0) else {
            return self.without_effect("a channel that is not the client\'s").await;
        };
        let Some(flow) = self.channels.flow(channel) else {
            return self.without_effect("a channel of no port").await;
        };
        if let Some(event) = flow.pass(Direction::ToContainer, &bytes, keep) {
            self.record(event).await?;
        }
        self.tell_server(channel, bytes);
        Ok(())
    }

    pub(super) async fn server_port_message(&mut self, protocol: Protocol, message: &Bytes) -> Result<(), End> {
        let keep = self.session.keeping.most_forwarded();
        let Some((channel, bytes)) = protocol.message(message) else {
            return Ok(());
        };
        let greets = self.channels.greeted.insert(channel);
        let number = u32::from(channel / 2) + 1;
        let event = match self.channels.flow(channel) {
            None => return Ok(()),
            Some(_) if greets || bytes.is_empty() => None,
            Some(flow) if channel % 2 == 0 => flow.pass(Direction::ToClient, &bytes, keep),
            Some(_) => Some(EventKind::ConnectionError { connection: number, bytes: bytes.clone() }),
        };
        if let Some(event) = event {
            self.record(event).await?;
        }
        self.tell_client(channel, bytes);
        Ok(())
    }
}
