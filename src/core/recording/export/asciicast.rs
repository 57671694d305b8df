//! asciicast, versions 2 and 3, for the asciinema player and its like.
//!
//! Needs a size: a terminal's is the first it was told, everything else gets 80x24 and LF as CR LF. Standard input is
//! exported for terminals alone. Version 2 has absolute times in microseconds; version 3 has intervals in milliseconds,
//! rounded so that errors do not add up, and the exit status. Sources: docs.asciinema.org/manual/asciicast/v2 and v3.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::note;
use super::utf8::Decoder;
use crate::core::audit::kubectl;
use crate::core::recording::event::{Cause, Channel, Event, EventKind};
use crate::core::recording::header::Header;
use crate::core::recording::pane::Pane;
use crate::core::recording::screen::SIZE;
use crate::core::recording::summary::Exit;

/// The versions of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Absolute times.
    V2,
    /// Intervals, and the exit status.
    V3,
}

/// The encoder. The first line waits for the first event that is no resize, so that it has the size the terminal had.
pub(super) struct Cast {
    version: Version,
    head: Head,
    started: bool,
    size: (u16, u16),
    tty: bool,
    stdout: Pane,
    stderr: Pane,
    stdin: Decoder,
    last: Duration,
    /// Version 3: milliseconds of all intervals so far.
    written_ms: u128,
    exit: Option<i32>,
}

#[derive(Serialize)]
struct Head {
    version: u8,
    #[serde(flatten)]
    size: Size,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    title: String,
    kustody: Origin,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Size {
    V2 { width: u16, height: u16 },
    V3 { term: Term },
}

#[derive(Serialize)]
struct Term {
    cols: u16,
    rows: u16,
}

/// Where the recording comes from; other readers pass over it.
#[derive(Serialize)]
struct Origin {
    session: String,
    agent: String,
    cluster: String,
    namespace: String,
    pod: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<String>,
}

impl Cast {
    pub(super) fn new(version: Version, header: &Header, raw: bool) -> Self {
        let tty = header.stream.tty;
        Cast {
            version,
            head: Head::new(header),
            started: false,
            size: SIZE,
            tty,
            stdout: Pane::new(tty, raw),
            stderr: Pane::new(tty, raw),
            stdin: Decoder::default(),
            last: Duration::ZERO,
            written_ms: 0,
            exit: None,
        }
    }

    pub(super) fn push(&mut self, event: &Event, out: &mut Vec<u8>) {
        if let EventKind::Resize { cols, rows } = event.kind {
            return self.resize(event.at, (cols, rows), out);
        }
        if let Some(line) = note(&event.kind) {
            self.line(event.at, "m", &line, out);
        } else if let Some((channel, bytes)) = event.kind.output() {
            let pane = if channel == Channel::Stdout { &mut self.stdout } else { &mut self.stderr };
            let text = pane.push(bytes);
            self.text(event.at, "o", &text, out);
        } else if let EventKind::Data { channel: Channel::Stdin, bytes, .. } = &event.kind
            && self.tty
        {
            let mut text = String::new();
            self.stdin.push(bytes, &mut text);
            self.text(event.at, "i", &text, out);
        } else if let EventKind::Status { bytes } = &event.kind {
            self.exit = Exit::from_status(bytes).and_then(|exit| exit.code).or(self.exit);
        } else if let EventKind::Close { reason } = &event.kind
            && reason.cause != Cause::Completed
        {
            self.line(event.at, "m", &reason.to_string(), out);
        }
        self.last = self.last.max(event.at);
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let mut rest = self.stdout.finish() + &self.stderr.finish();
        self.text(self.last, "o", &rest, out);
        rest.clear();
        self.stdin.finish(&mut rest);
        self.text(self.last, "i", &rest, out);
        self.start(out);
        if let (Version::V3, Some(code)) = (self.version, self.exit) {
            self.line(self.last, "x", &code.to_string(), out);
        }
    }

    fn resize(&mut self, at: Duration, size: (u16, u16), out: &mut Vec<u8>) {
        let (cols, rows) = size;
        if cols == 0 || rows == 0 || size == self.size {
            return;
        }
        self.size = size;
        if self.started {
            self.line(at, "r", &format!("{cols}x{rows}"), out);
        }
    }

    fn text(&mut self, at: Duration, code: &str, text: &str, out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.line(at, code, text, out);
        }
    }

    fn line(&mut self, at: Duration, code: &str, data: &str, out: &mut Vec<u8>) {
        self.start(out);
        let time = match self.version {
            Version::V2 => format!("{}.{:06}", at.as_secs(), at.subsec_micros()),
            Version::V3 => {
                let millis = ((at.as_micros() + 500) / 1000).max(self.written_ms);
                let interval = millis - self.written_ms;
                self.written_ms = millis;
                format!("{}.{:03}", interval / 1000, interval % 1000)
            }
        };
        out.extend_from_slice(format!("[{time}, \"{code}\", {}]\n", Value::from(data)).as_bytes());
    }

    /// Writes the first line, once.
    fn start(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let (cols, rows) = self.size;
        (self.head.version, self.head.size) = match self.version {
            Version::V2 => (2, Size::V2 { width: cols, height: rows }),
            Version::V3 => (3, Size::V3 { term: Term { cols, rows } }),
        };
        // Strings and numbers alone: always serializable.
        let head = serde_json::to_string(&self.head).unwrap_or_default();
        out.extend_from_slice(format!("{head}\n").as_bytes());
    }
}

impl Head {
    fn new(header: &Header) -> Self {
        let target = &header.target;
        let command = (!header.stream.command.is_empty()).then(|| kubectl::shell_words(&header.stream.command));
        Head {
            version: 0,
            size: Size::V2 { width: 0, height: 0 },
            timestamp: header.started_at.as_second(),
            title: format!("{} in {}/{}", header.agent.user, target.namespace, target.pod),
            command,
            kustody: Origin {
                session: header.session.to_string(),
                agent: header.agent.user.clone(),
                cluster: target.cluster.clone(),
                namespace: target.namespace.clone(),
                pod: target.pod.clone(),
                container: target.container.clone(),
                approval: header.decision.approval.clone(),
            },
        }
    }
}
