//! One forwarded connection: its number and port, what has gone through it, and how much of that is kept.
//!
//! How many bytes passed is always recorded; the bytes themselves up to a limit in each direction. Main type: [`Flow`].

use crate::core::recording::{Channel, Direction, EventKind};
use bytes::Bytes;
use std::time::Duration;

pub(super) struct Flow {
    number: u32,
    port: u16,
    opened: Duration,
    to_container: Way,
    to_client: Way,
    closed: bool,
}

#[derive(Default)]
struct Way {
    passed: u64,
    kept: u64,
    done: bool,
}

impl Flow {
    /// A connection that begins, and the event that says so.
    pub(super) fn open(number: u32, port: u16, at: Duration) -> (Flow, EventKind) {
        let ways = (Way::default(), Way::default());
        let flow = Flow { number, port, opened: at, to_container: ways.0, to_client: ways.1, closed: false };
        (flow, EventKind::ConnectionOpened { connection: number, port })
    }

    /// Counts bytes, and gives the event for those that are kept.
    pub(super) fn pass(&mut self, direction: Direction, bytes: &Bytes, keep: u64) -> Option<EventKind> {
        let way = self.way(direction);
        let length = bytes.len() as u64;
        let room = length.min(keep.saturating_sub(way.kept));
        way.passed = way.passed.saturating_add(length);
        way.kept = way.kept.saturating_add(room);
        let kept = bytes.slice(..usize::try_from(room).unwrap_or(bytes.len()).min(bytes.len()));
        let connection = self.number;
        (!kept.is_empty()).then_some(EventKind::ConnectionData { connection, direction, bytes: kept })
    }

    /// Nothing more comes in a direction; an event the first time.
    pub(super) fn half_close(&mut self, direction: Direction) -> Option<EventKind> {
        let first = !std::mem::replace(&mut self.way(direction).done, true);
        first.then_some(EventKind::ConnectionHalfClose { connection: self.number, direction })
    }

    /// Both directions are over.
    pub(super) fn is_over(&self) -> bool {
        self.to_container.done && self.to_client.done
    }

    /// The events that account for a connection at its end, once: what was not kept, and what there was.
    pub(super) fn close(&mut self, at: Duration) -> Vec<EventKind> {
        if std::mem::replace(&mut self.closed, true) {
            return Vec::new();
        }
        let mut events = Vec::new();
        for (direction, way) in [(Direction::ToContainer, &self.to_container), (Direction::ToClient, &self.to_client)] {
            let bytes = way.passed - way.kept;
            if bytes > 0 {
                let why = format!("of connection {} {} bytes are kept", self.number, way.kept);
                events.push(EventKind::Gap { channel: Channel::Connection, direction, bytes, why });
            }
        }
        events.push(EventKind::ConnectionClosed {
            connection: self.number,
            port: self.port,
            to_container: self.to_container.passed,
            to_client: self.to_client.passed,
            duration: at.saturating_sub(self.opened),
        });
        events
    }

    fn way(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::ToContainer => &mut self.to_container,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(event: Option<EventKind>) -> usize {
        let Some(EventKind::ConnectionData { bytes, .. }) = event else { return 0 };
        bytes.len()
    }

    #[test]
    fn what_passes_is_counted_and_kept_up_to_the_limit() {
        let (mut flow, _) = Flow::open(4, 80, Duration::from_secs(1));
        let ten = Bytes::from_static(b"0123456789");
        let kept = [0; 3].map(|_| bytes_of(flow.pass(Direction::ToClient, &ten, 15)));
        assert_eq!(kept, [10, 5, 0]);
        assert_eq!(bytes_of(flow.pass(Direction::ToContainer, &ten, 0)), 0);
        let events = flow.close(Duration::from_secs(3));
        assert!(matches!(&events[0], EventKind::Gap { direction: Direction::ToContainer, bytes: 10, .. }));
        assert!(matches!(&events[1], EventKind::Gap { direction: Direction::ToClient, bytes: 15, .. }));
        let closed = EventKind::ConnectionClosed {
            connection: 4,
            port: 80,
            to_container: 10,
            to_client: 30,
            duration: Duration::from_secs(2),
        };
        assert_eq!(events[2], closed);
        assert_eq!(flow.close(Duration::from_secs(4)), []);
    }
}
