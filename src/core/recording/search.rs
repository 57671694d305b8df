//! Finds text in a session: on the screen of a terminal, whichever way it was put there, and in the lines of every stream,
//! also across the borders of events and chunks. Events in, hits out, in bounded memory.
//!
//! What is looked for, and what is shown of it, is text without control sequences. On a screen a hit is a line that has
//! the text once more than before something was printed on it, so that a line that is typed on is found once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::{Channel, Direction, Event, EventKind};
use super::export::text::Plain;
use super::header::Header;
use super::screen::Screen;

/// A line is cut here, and what was before is searched by itself.
const LONGEST_LINE: usize = 64 * 1024;
/// Connections that are followed at the same time.
const CONNECTIONS: usize = 256;

/// Where a text was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// On the terminal's screen.
    Screen,
    /// In one of the streams.
    Stream(Channel),
    /// On a connection of a port-forward.
    Connection(u32, Direction),
}

/// A line with the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// When: the beginning of the line, or when the text was whole on the screen.
    pub at: Duration,
    /// Where.
    pub place: Place,
    /// The line, without control characters, around the text when it is long.
    pub line: String,
}

/// Searches one session.
pub struct Searcher {
    needle: Needle,
    screen: Option<Screen>,
    /// A hit on the screen whose line may still be written on.
    open: Option<Hit>,
    streams: BTreeMap<Place, Lines>,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Needle {
    text: String,
    ignore_case: bool,
}

/// The line of a stream that has not ended yet.
#[derive(Debug)]
struct Lines {
    place: Place,
    plain: Plain,
    line: String,
    since: Duration,
}

impl Needle {
    /// `None` for an empty text, one with control characters, or one longer than a line.
    pub fn new(text: &str, ignore_case: bool) -> Option<Self> {
        let fits = !text.is_empty() && text.len() < LONGEST_LINE / 4 && !text.chars().any(char::is_control);
        let text = if ignore_case { text.to_lowercase() } else { text.to_owned() };
        fits.then_some(Needle { text, ignore_case })
    }

    /// How often the text is in a line.
    fn count(&self, line: &str) -> usize {
        if self.ignore_case {
            line.to_lowercase().matches(&self.text).count()
        } else {
            line.matches(&self.text).count()
        }
    }
}

impl Searcher {
    /// A search in the session of this header.
    ///
    /// # Errors
    /// When no screen can be made.
    pub fn new(needle: Needle, header: &Header) -> Result<Self, avt::InvalidSize> {
        let screen = if header.stream.tty { Some(Screen::new(header)?) } else { None };
        Ok(Searcher { needle, screen, open: None, streams: BTreeMap::new() })
    }

    /// Takes the next event and appends what was found.
    pub fn push(&mut self, event: &Event, hits: &mut Vec<Hit>) {
        if let Some(screen) = &mut self.screen {
            let (needle, open) = (&self.needle, &mut self.open);
            screen.push_watched(&event.kind, |before, line| {
                let same = |hit: &Hit| before.starts_with(&hit.line) && line.starts_with(&hit.line);
                if open.as_ref().is_some_and(|hit| !same(hit)) {
                    hits.extend(open.take());
                }
                if let Some(hit) = open {
                    line.clone_into(&mut hit.line);
                } else if needle.count(line) > needle.count(before) {
                    *open = Some(Hit { at: event.at, place: Place::Screen, line: line.to_owned() });
                }
            });
        }
        if let EventKind::ConnectionClosed { connection, .. } = event.kind {
            for direction in [Direction::ToContainer, Direction::ToClient] {
                self.end(Place::Connection(connection, direction), hits);
            }
        }
        if let Some((place, bytes)) = self.stream(&event.kind) {
            if self.streams.len() >= CONNECTIONS && !self.streams.contains_key(&place) {
                let oldest = self.streams.keys().next().copied();
                oldest.into_iter().for_each(|place| self.end(place, hits));
            }
            let lines = self.streams.entry(place).or_insert_with(|| Lines::new(place));
            let mut text = String::new();
            lines.plain.push(bytes, &mut text);
            lines.take(&text, event.at, &self.needle, hits);
        }
    }

    /// Appends what was found in lines that never ended.
    pub fn finish(&mut self, hits: &mut Vec<Hit>) {
        hits.extend(self.open.take());
        let places: Vec<Place> = self.streams.keys().copied().collect();
        places.into_iter().for_each(|place| self.end(place, hits));
    }

    fn end(&mut self, place: Place, hits: &mut Vec<Hit>) {
        if let Some(mut lines) = self.streams.remove(&place) {
            let mut text = String::new();
            lines.plain.finish(&mut text);
            lines.take(&(text + "\n"), lines.since, &self.needle, hits);
        }
    }

    /// The stream an event belongs to; what a terminal showed is searched on the screen alone.
    fn stream<'a>(&self, kind: &'a EventKind) -> Option<(Place, &'a [u8])> {
        if let EventKind::ConnectionData { connection, direction, bytes } = kind {
            return Some((Place::Connection(*connection, *direction), bytes));
        }
        let EventKind::Data { channel, bytes, .. } = kind else { return None };
        let is_searched = match channel {
            Channel::Stdin => true,
            Channel::Stdout | Channel::Stderr => self.screen.is_none(),
            Channel::Error | Channel::Resize | Channel::Control | Channel::Connection => false,
        };
        is_searched.then_some((Place::Stream(*channel), bytes))
    }
}

impl Lines {
    fn new(place: Place) -> Self {
        Lines { place, plain: Plain::default(), line: String::new(), since: Duration::ZERO }
    }

    fn take(&mut self, text: &str, at: Duration, needle: &Needle, hits: &mut Vec<Hit>) {
        for part in text.split_inclusive('\n') {
            if self.line.is_empty() {
                self.since = at;
            }
            self.line.push_str(part.trim_end_matches('\n'));
            let ended = part.ends_with('\n');
            if !ended && self.line.len() < LONGEST_LINE {
                continue;
            }
            let found = needle.count(&self.line) > 0;
            if found {
                hits.push(Hit { at: self.since, place: self.place, line: around(&self.line, needle) });
            }
            // Of a line that goes on, as much is kept as may be the beginning of the text, unless it was found.
            let keep = if ended || found { 0 } else { needle.text.len() * 4 };
            let from = self.line.ceil_char_boundary(self.line.len().saturating_sub(keep));
            self.line.drain(..from);
        }
    }
}

/// The text with some of the line around it.
fn around(line: &str, needle: &Needle) -> String {
    const AROUND: usize = 300;
    let at =
        line.find(&needle.text).or_else(|| line.to_lowercase().find(&needle.text)).unwrap_or_default().min(line.len());
    let from = line.floor_char_boundary(at.saturating_sub(AROUND));
    let to = line.ceil_char_boundary((at + needle.text.len() + AROUND).min(line.len()));
    let (begin, end) = (if from > 0 { "…" } else { "" }, if to < line.len() { "…" } else { "" });
    format!("{begin}{}{end}", line.get(from..to).unwrap_or_default())
}

#[cfg(test)]
mod tests;
