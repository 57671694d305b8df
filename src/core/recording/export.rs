//! Exports: a recording in the formats of other programs. Derived, never stored; bytes in, bytes out.
//!
//! An [`Encoder`] takes the events one after another and appends what they become, in bounded memory. What a person
//! will look at (asciicast, text) is sanitised unless asked otherwise, because playing a recording is an attack surface;
//! the raw streams are exact. Which files went through a `tar` stream is told by [`tar`].

pub mod asciicast;
mod ndjson;
pub mod tar;
pub(crate) mod text;
pub mod utf8;

use asciicast::Cast;
use text::Text;

use super::event::{Channel, Event, EventKind};
use super::header::Header;

/// The formats of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// What a terminal showed, for the asciinema player.
    Asciicast(asciicast::Version),
    /// What was shown, without control sequences.
    Text,
    /// Every event as a line of JSON.
    Ndjson,
    /// The bytes of one of the channels stdin, stdout and stderr.
    Stream(Channel),
}

/// Turns the events of one session into a format.
pub struct Encoder {
    inner: Inner,
    lost: u64,
}

enum Inner {
    Cast(Box<Cast>),
    Text(Box<Text>),
    Ndjson(jiff::Timestamp),
    Stream(Channel),
}

impl Encoder {
    /// An encoder for the session of this header. `raw` leaves terminal control sequences in an asciicast as they were.
    pub fn new(format: Format, header: &Header, raw: bool) -> Self {
        let inner = match format {
            Format::Asciicast(version) => Inner::Cast(Box::new(Cast::new(version, header, raw))),
            Format::Text => Inner::Text(Box::default()),
            Format::Ndjson => Inner::Ndjson(header.started_at),
            Format::Stream(channel) => Inner::Stream(channel),
        };
        Encoder { inner, lost: 0 }
    }

    /// Appends what an event becomes; events come in their order.
    pub fn push(&mut self, event: &Event, out: &mut Vec<u8>) {
        if let EventKind::Gap { channel, bytes, .. } = &event.kind {
            let other = matches!(&self.inner, Inner::Stream(wanted) if wanted != channel);
            self.lost = self.lost.saturating_add(if other { 0 } else { *bytes });
        }
        match &mut self.inner {
            Inner::Cast(cast) => cast.push(event, out),
            Inner::Text(text) => text.push(event, out),
            Inner::Ndjson(started_at) => ndjson::push(*started_at, event, out),
            Inner::Stream(wanted) => out.extend_from_slice(stream(*wanted, &event.kind)),
        }
    }

    /// Appends what is left when there are no more events.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match &mut self.inner {
            Inner::Cast(cast) => cast.finish(out),
            Inner::Text(text) => text.finish(out),
            Inner::Ndjson(_) | Inner::Stream(_) => {}
        }
    }

    /// Bytes of the exported channels that were never recorded.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// The bytes of an event when it is data of this channel.
fn stream(wanted: Channel, kind: &EventKind) -> &[u8] {
    if let EventKind::Data { channel, bytes, .. } = kind
        && *channel == wanted
    {
        return bytes;
    }
    &[]
}

/// What the recorder notes beside the streams, as a line for people; `None` for everything else. The text is as it was
/// recorded: whoever shows it escapes it.
pub fn note(kind: &EventKind) -> Option<String> {
    match kind {
        EventKind::Gap { channel, bytes, why, .. } => {
            Some(format!("{bytes} bytes of {} were not recorded: {why}", channel.name()))
        }
        EventKind::Marker { name, detail } if detail.is_empty() => Some(name.clone()),
        EventKind::Marker { name, detail } => Some(format!("{name}: {detail}")),
        EventKind::ConnectionOpened { connection, port } => {
            Some(format!("connection {connection} to port {port} opened"))
        }
        EventKind::ConnectionError { connection, bytes } => {
            Some(format!("connection {connection}: {}", String::from_utf8_lossy(bytes)))
        }
        EventKind::ConnectionClosed { connection, to_container, to_client, .. } => Some(format!(
            "connection {connection} closed: {to_container} bytes to the container, {to_client} to the client"
        )),
        EventKind::Data { .. }
        | EventKind::ConnectionData { .. }
        | EventKind::ConnectionHalfClose { .. }
        | EventKind::Input { .. }
        | EventKind::HalfClose { .. }
        | EventKind::Resize { .. }
        | EventKind::Status { .. }
        | EventKind::Close { .. } => None,
    }
}

#[cfg(test)]
mod tests;
