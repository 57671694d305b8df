//! Plain text: what the container wrote to both streams, without any control sequence, with LF as line end.
//!
//! No terminal is played: text that a full-screen program wrote over itself stands there more than once. Notes of the
//! recorder are lines in brackets.

use super::note;
use super::utf8::Decoder;
use crate::core::recording::event::{Channel, Event};
use crate::core::recording::sanitize::Sanitizer;

const ESC: char = '\u{1b}';

/// The encoder.
#[derive(Default)]
pub(super) struct Text {
    stdout: Plain,
    stderr: Plain,
    /// A line has begun and not ended.
    open: bool,
}

/// One stream without control sequences.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    sanitizer: Sanitizer,
    decoder: Decoder,
    state: State,
}

/// The sanitizer lets whole sequences through: ESC, intermediates and a final letter, or ESC `[`, parameters and a final.
#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Ground,
    /// After CR, which ends the line whether LF follows or not.
    Return,
    Escape,
    Csi,
}

impl Text {
    pub(super) fn push(&mut self, event: &Event, out: &mut Vec<u8>) {
        let mut text = String::new();
        if let Some((channel, bytes)) = event.kind.output() {
            let stream = if channel == Channel::Stdout { &mut self.stdout } else { &mut self.stderr };
            stream.push(bytes, &mut text);
        } else if let Some(note) = note(&event.kind) {
            if self.open {
                text.push('\n');
            }
            let letters = note.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
            text.extend(['['].into_iter().chain(letters).chain([']', '\n']));
        }
        self.open = text.chars().last().map_or(self.open, |last| last != '\n');
        out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let mut text = String::new();
        self.stdout.finish(&mut text);
        self.stderr.finish(&mut text);
        out.extend_from_slice(text.as_bytes());
    }
}

impl Plain {
    /// Appends the text of these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut String) {
        let mut clean = Vec::with_capacity(bytes.len());
        self.sanitizer.push(bytes, &mut clean);
        let mut text = String::with_capacity(clean.len());
        self.decoder.push(&clean, &mut text);
        for letter in text.chars() {
            self.state = step(self.state, letter, out);
        }
    }

    /// Appends what was held back.
    pub(crate) fn finish(&mut self, out: &mut String) {
        self.decoder.finish(out);
    }
}

fn step(state: State, letter: char, out: &mut String) -> State {
    match (state, letter) {
        // More of a line end that is written already.
        (State::Return, '\r') => State::Return,
        (State::Return, '\n') => State::Ground,
        (State::Return, letter) => step(State::Ground, letter, out),
        (State::Ground | State::Escape | State::Csi, ESC) => State::Escape,
        (State::Ground, '\r') => {
            out.push('\n');
            State::Return
        }
        (State::Ground, letter) => {
            if !letter.is_control() || matches!(letter, '\n' | '\t') {
                out.push(letter);
            }
            State::Ground
        }
        (State::Escape, '[') => State::Csi,
        (State::Escape, ' '..='/') => State::Escape,
        (State::Escape, _) => State::Ground,
        (State::Csi, '@'..='~') => State::Ground,
        (State::Csi, _) => State::Csi,
    }
}
