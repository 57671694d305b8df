//! The streams of an exec or attach over SPDY: which id is which channel, and who has said what about it.
//!
//! A client may open each stream that its request asked for, once. The API server's own reading is laxer: of two stdin
//! streams it takes the last, and it only counts how many came. What the table does not take is opened nowhere. Main
//! type: [`Table`].

use super::lane::Lane;
use crate::core::recording::Channel;
use crate::core::wire::channels::Streams;
use crate::core::wire::spdy::{Frame, Headers, StreamId};
use bytes::{Bytes, BytesMut};

/// The longest status that is kept together; what goes beyond is passed on in pieces.
const STATUS: usize = 64 * 1024;

/// The streams that were opened, in order; never more than there are channels.
#[derive(Default)]
pub(super) struct Table {
    open: Vec<Open>,
    /// What has come of the final status. It is recorded and passed on whole.
    status: BytesMut,
}

pub(super) struct Open {
    pub(super) lane: Lane,
    pub(super) channel: Channel,
}

impl Table {
    /// Opens a stream that its headers say the purpose of, if the request asked for one and it is the first.
    pub(super) fn open(&mut self, id: StreamId, headers: &Headers, asked: Streams) -> Option<Channel> {
        let channel = channel(headers.only("streamtype")?, asked)?;
        if self.open.iter().any(|open| open.channel == channel) {
            return None;
        }
        self.open.push(Open { lane: Lane::open(id), channel });
        Some(channel)
    }

    /// The stream of an id.
    pub(super) fn find(&mut self, id: StreamId) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.lane.id == id)
    }

    /// The stream of a channel.
    pub(super) fn of(&self, channel: Channel) -> Option<StreamId> {
        self.open.iter().find(|open| open.channel == channel).map(|open| open.lane.id)
    }

    /// The streams that are open, with the headers that open them, in order.
    pub(super) fn opened(&self) -> impl Iterator<Item = (StreamId, Headers)> {
        self.open.iter().map(|open| (open.lane.id, Headers::new([("streamtype", open.channel.name())])))
    }

    /// Whether every stream is open that a session with a terminal cannot do without.
    pub(super) fn is_complete(&self, asked: Streams) -> bool {
        let needed = [
            (Channel::Error, true),
            (Channel::Stdin, asked.stdin),
            (Channel::Stdout, asked.stdout),
            (Channel::Stderr, asked.stderr && !asked.tty),
            (Channel::Resize, asked.tty),
        ];
        needed.into_iter().all(|(channel, is_needed)| !is_needed || self.of(channel).is_some())
    }

    /// Whether a frame of the client must wait until the API server has taken its stream.
    pub(super) fn must_wait(&self, frame: &Frame) -> bool {
        self.open.iter().any(|open| open.lane.keeps_waiting(frame))
    }

    /// Keeps a piece of the final status, and gives out what has come when that is all, or too much.
    pub(super) fn status(&mut self, bytes: &[u8], is_last: bool) -> Option<Bytes> {
        self.status.extend_from_slice(bytes);
        (is_last || self.status.len() > STATUS).then(|| self.status.split().freeze())
    }
}

fn channel(name: &str, asked: Streams) -> Option<Channel> {
    match name {
        "error" => Some(Channel::Error),
        "stdin" if asked.stdin => Some(Channel::Stdin),
        "stdout" if asked.stdout => Some(Channel::Stdout),
        "stderr" if asked.stderr => Some(Channel::Stderr),
        "resize" if asked.tty => Some(Channel::Resize),
        _ => None,
    }
}
