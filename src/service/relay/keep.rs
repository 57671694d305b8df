//! What of a session becomes part of its recording, as the rules want it: input whole, as a digest or as its length, and
//! what a terminal does not show as its length. Every event goes through here on its way to the recording; the bytes
//! themselves go on unchanged. Main type: [`Keep`].

use crate::core::recording::echo::{Echo, Typed};
use crate::core::recording::keeping::{Hidden, Keeping, Stdin};
use crate::core::recording::{Channel, Digest, Direction, EventKind};
use aws_lc_rs::digest::Context;
use bytes::Bytes;
use std::time::Duration;

const UNSEEN: &str = "typed into a terminal that did not show it";
const COUNTED: &str = "the rules keep the length of standard input alone";
const DIGESTED: &str = "the rules keep a digest of standard input";

/// See the module.
pub(super) struct Keep {
    way: Way,
}

/// What happens to standard input.
enum Way {
    Whole,
    /// Waits for the terminal to show it.
    Shown(Box<Echo>),
    /// Only so many bytes, and maybe what they come to.
    Counted(u64, Option<Box<Context>>),
}

impl Keep {
    pub(super) fn new(keeping: Keeping, tty: bool) -> Keep {
        let way = match (keeping.stdin, keeping.hidden) {
            (Stdin::Length, _) => Way::Counted(0, None),
            (Stdin::Digest, _) => Way::Counted(0, Some(Box::new(Digest::begin()))),
            (Stdin::Whole, Hidden::Length) if tty => Way::Shown(Box::default()),
            (Stdin::Whole, Hidden::Length | Hidden::Whole) => Way::Whole,
        };
        Keep { way }
    }

    /// What is recorded before the bytes of `event` go on, in this order.
    pub(super) fn take(&mut self, at: Duration, event: EventKind) -> Vec<EventKind> {
        match (&mut self.way, event) {
            (Way::Shown(echo), EventKind::Data { channel: Channel::Stdin, bytes, .. }) => {
                let mut events = vec![EventKind::Input { bytes: bytes.len() as u64 }];
                events.extend(echo.typed(at, &bytes).into_iter().map(input));
                events
            }
            (Way::Shown(echo), EventKind::Data { channel: Channel::Stdout, direction, bytes }) => {
                // Typed before it was shown.
                let mut events: Vec<_> = echo.output(at, &bytes).into_iter().map(input).collect();
                events.push(EventKind::Data { channel: Channel::Stdout, direction, bytes });
                events
            }
            (Way::Counted(total, context), EventKind::Data { channel: Channel::Stdin, bytes, .. }) => {
                if let Some(context) = context {
                    context.update(&bytes);
                }
                let length = bytes.len() as u64;
                *total = total.saturating_add(length);
                vec![EventKind::Input { bytes: length }]
            }
            (_, event @ EventKind::HalfClose { channel: Channel::Stdin, direction: Direction::ToContainer }) => {
                let mut events = self.finish();
                events.push(event);
                events
            }
            (_, event) => vec![event],
        }
    }

    /// What is left to record when no more input comes; nothing the second time.
    pub(super) fn finish(&mut self) -> Vec<EventKind> {
        match &mut self.way {
            Way::Whole => Vec::new(),
            Way::Shown(echo) => echo.finish().into_iter().map(input).collect(),
            Way::Counted(total, context) => {
                let (total, digest) = (std::mem::take(total), context.take());
                let why = if digest.is_some() { DIGESTED } else { COUNTED };
                let lost = (total > 0).then(|| gap(total, why));
                lost.into_iter().chain(digest.map(|context| told(*context, total))).collect()
            }
        }
    }
}

fn told(context: Context, total: u64) -> EventKind {
    let detail = format!("sha256:{} over {total} bytes", Digest::finish(context));
    EventKind::Marker { name: "stdin-digest".to_owned(), detail }
}

fn input(typed: Typed) -> EventKind {
    match typed {
        Typed::Shown(bytes) => {
            EventKind::Data { channel: Channel::Stdin, direction: Direction::ToContainer, bytes: Bytes::from(bytes) }
        }
        Typed::Hidden(bytes) => gap(bytes, UNSEEN),
    }
}

fn gap(bytes: u64, why: &str) -> EventKind {
    let (channel, direction) = (Channel::Stdin, Direction::ToContainer);
    EventKind::Gap { channel, direction, bytes, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdin(text: &'static str) -> EventKind {
        let bytes = Bytes::from_static(text.as_bytes());
        EventKind::Data { channel: Channel::Stdin, direction: Direction::ToContainer, bytes }
    }

    fn stdout(text: &'static str) -> EventKind {
        let bytes = Bytes::from_static(text.as_bytes());
        EventKind::Data { channel: Channel::Stdout, direction: Direction::ToClient, bytes }
    }

    fn taken(keep: &mut Keep, events: impl IntoIterator<Item = EventKind>) -> Vec<EventKind> {
        let mut taken: Vec<_> = events.into_iter().flat_map(|event| keep.take(Duration::ZERO, event)).collect();
        taken.extend(keep.finish());
        taken
    }

    #[test]
    fn a_terminal_keeps_what_it_showed_and_counts_the_rest() {
        let mut keep = Keep::new(Keeping::default(), true);
        let events = [stdin("su\r"), stdout("su\r\nPassword: "), stdin("hunter2\r"), stdout("\r\n# ")];
        let expected = [
            EventKind::Input { bytes: 3 },
            stdin("su\r"),
            stdout("su\r\nPassword: "),
            EventKind::Input { bytes: 8 },
            stdout("\r\n# "),
            gap(7, UNSEEN),
            stdin("\r"),
        ];
        assert_eq!(taken(&mut keep, events), expected);
    }

    #[test]
    fn without_a_terminal_or_where_the_rules_want_it_every_byte_is_kept() {
        let all = || [stdin("secret\n"), stdout("ok")];
        assert_eq!(taken(&mut Keep::new(Keeping::default(), false), all()), all());
        let keeping = Keeping { hidden: Hidden::Whole, ..Keeping::default() };
        assert_eq!(taken(&mut Keep::new(keeping, true), all()), all());
    }

    #[test]
    fn a_digest_is_of_all_input_and_comes_before_its_end() {
        let mut keep = Keep::new(Keeping { stdin: Stdin::Digest, ..Keeping::default() }, false);
        let end = EventKind::HalfClose { channel: Channel::Stdin, direction: Direction::ToContainer };
        let events = taken(&mut keep, [stdin("ab"), stdin("c"), end.clone()]);
        let detail = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad over 3 bytes";
        let marker = EventKind::Marker { name: "stdin-digest".to_owned(), detail: detail.to_owned() };
        let (two, one) = (EventKind::Input { bytes: 2 }, EventKind::Input { bytes: 1 });
        assert_eq!(events, [two, one, gap(3, DIGESTED), marker, end]);
        let mut keep = Keep::new(Keeping { stdin: Stdin::Length, ..Keeping::default() }, true);
        let events = taken(&mut keep, [stdin("abc"), stdout("abc")]);
        assert_eq!(events, [EventKind::Input { bytes: 3 }, stdout("abc"), gap(3, COUNTED)]);
    }
}
