//! One SPDY stream of a session: how far it is open, in each direction. Main type: [`Lane`].

use crate::core::recording::Direction;
use crate::core::wire::spdy::{Frame, StreamId};

pub(super) struct Lane {
    pub(super) id: StreamId,
    /// The API server has taken it. Before that it may drop what it is sent.
    pub(super) taken: bool,
    /// The client was told so already, by Kustody, while it waited for people.
    pub(super) greeted: bool,
    /// The client sends nothing more on it.
    pub(super) client_done: bool,
    /// The API server sends nothing more on it.
    pub(super) server_done: bool,
}

impl Lane {
    pub(super) fn open(id: StreamId) -> Lane {
        Lane { id, taken: false, greeted: false, client_done: false, server_done: false }
    }

    /// Whether nothing more comes in a direction.
    pub(super) fn done(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::ToContainer => &mut self.client_done,
            Direction::ToClient => &mut self.server_done,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.client_done && self.server_done
    }

    /// Whether a frame of the client must wait until the API server has taken this stream.
    pub(super) fn keeps_waiting(&self, frame: &Frame) -> bool {
        matches!(frame, Frame::Data { stream, .. } if *stream == self.id && !self.taken)
    }
}
