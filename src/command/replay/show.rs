//! Shows events as they were: each stream to its own descriptor, the recorder's notes to standard error.

use std::io::{self, IsTerminal, Write};

use crate::command::output;
use crate::core::recording::export::note;
use crate::core::recording::sanitize::Sanitizer;
use crate::core::recording::{Channel, EventKind};

/// Where the streams go.
pub(in crate::command) struct Streams {
    stdout: Stream<io::Stdout>,
    stderr: Stream<io::Stderr>,
}

/// One stream, cleaned or not.
struct Stream<W> {
    to: W,
    sanitizer: Option<Sanitizer>,
}

impl Streams {
    /// For a session with or without a terminal; `raw` passes everything on.
    pub(in crate::command) fn new(tty: bool, raw: bool) -> Self {
        let clean = |terminal: bool| (!raw && (tty || terminal)).then(Sanitizer::default);
        let (stdout, stderr) = (io::stdout(), io::stderr());
        Streams {
            stdout: Stream { sanitizer: clean(stdout.is_terminal()), to: stdout },
            stderr: Stream { sanitizer: clean(stderr.is_terminal()), to: stderr },
        }
    }

    /// Takes note of an event that was shown in another way, so that a sequence that it began is understood when it ends.
    pub(in crate::command) fn pass(&mut self, kind: &EventKind) {
        let Some((channel, bytes)) = kind.output() else { return };
        let stream = if channel == Channel::Stderr { &mut self.stderr.sanitizer } else { &mut self.stdout.sanitizer };
        if let Some(sanitizer) = stream {
            sanitizer.push(bytes, &mut Vec::new());
        }
    }

    /// Shows one event at once.
    pub(in crate::command) fn show(&mut self, kind: &EventKind) -> io::Result<()> {
        if let Some(note) = note(kind) {
            return writeln!(self.stderr.to, "[{}]", output::plain(&note));
        }
        match kind.output() {
            Some((Channel::Stderr, bytes)) => self.stderr.write(bytes),
            Some((_, bytes)) => self.stdout.write(bytes),
            None => Ok(()),
        }
    }
}

impl<W: Write> Stream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sanitizer {
            None => self.to.write_all(bytes)?,
            Some(sanitizer) => {
                let mut shown = Vec::with_capacity(bytes.len());
                sanitizer.push(bytes, &mut shown);
                self.to.write_all(&shown)?;
            }
        }
        self.to.flush()
    }
}
