//! Which input of a terminal was shown: what is typed waits until the output brings it back, and what does not come back
//! is known by its length alone. That is how passwords stay out of recordings; no terminal tells when its echo is off.
//!
//! Control characters and escape sequences are no secrets and count as shown. A letter was shown when a piece or a line
//! of output begins with it, or holds all that was typed in one go. Once a typed line has ended and the output goes on
//! with a new line, only the whole of it counts, and not for long; and time ends every wait. A letter that unrelated output happens to begin with counts as shown; whatever
//! is found whole in the output is on record there anyway. Time is an argument. Main type: [`Echo`].

use std::collections::VecDeque;
use std::time::Duration;

/// After so long nobody waits for a letter to be shown.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The same where a line was typed to its end and the output has gone on with a new line: that may have been on its way.
const DOUBT: Duration = Duration::from_millis(250);
/// Most letters and controls that wait; before more, the oldest are given up.
const MOST: usize = 64 * 1024;
/// Most letters of one line of output that are looked at.
const LINE: usize = 4096;
/// Fewer letters than this, typed in one go, may be found within unrelated output by accident.
const RUN: usize = 3;
/// Longest line that counts as one drawn anew, as shells do that colour what is typed.
const REDRAWN: usize = 256;
/// Longest string sequence (OSC and the like), which terminals answer with.
const STRING: usize = 4096;

/// What became of typed bytes, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// These were shown.
    Shown(Vec<u8>),
    /// So many were not.
    Hidden(u64),
}

/// What was typed and is waited for. See the module.
#[derive(Debug, Default)]
pub struct Echo {
    waiting: VecDeque<Token>,
    /// Until when the first typed line that waits may come back, after the output went on without it.
    doubted: Option<Duration>,
    input: Scanner,
    output: Scanner,
}

/// One letter, which may be several bytes, or one byte of a control.
#[derive(Debug, Clone, Copy)]
struct Token {
    bytes: [u8; 4],
    length: u8,
    is_letter: bool,
    at: Duration,
}

impl Echo {
    /// Takes note of input; gives what is known of input by now.
    pub fn typed(&mut self, at: Duration, bytes: &[u8]) -> Vec<Typed> {
        let mut known = Vec::new();
        self.give_up(at, &mut known);
        let waiting = &mut self.waiting;
        self.input.scan(bytes, |token| waiting.push_back(Token { at, ..token }));
        while self.waiting.len() > MOST {
            self.pop(false, &mut known);
        }
        self.pass_controls(&mut known);
        known
    }

    /// Compares output with what waits; gives what is known of input by now.
    pub fn output(&mut self, at: Duration, bytes: &[u8]) -> Vec<Typed> {
        let mut known = Vec::new();
        self.give_up(at, &mut known);
        if self.waiting.is_empty() {
            self.output = Scanner::default();
            return known;
        }
        let mut tokens = Vec::new();
        self.output.scan(bytes, |token| tokens.push(token));
        let (mut line, mut redrawn, mut returned) = (Vec::new(), false, false);
        for token in &tokens {
            let is_end = token.is(b'\n');
            redrawn |= (returned && !is_end) || token.is(8) || token.is(0x1b);
            returned = token.is(b'\r');
            if is_end {
                let came_back = self.compare(&line, redrawn, &mut known);
                if !came_back && self.waiting.iter().any(Token::ends_line) {
                    self.doubted.get_or_insert(at.saturating_add(DOUBT));
                }
                (line, redrawn) = (Vec::new(), false);
            } else if token.is_letter && line.len() < LINE {
                line.push(token.letter());
            }
        }
        self.compare(&line, redrawn, &mut known);
        known
    }

    /// Whatever still waits was not shown.
    pub fn finish(&mut self) -> Vec<Typed> {
        let mut known = Vec::new();
        let waiting = &mut self.waiting;
        self.input.finish(|token| waiting.push_back(token));
        while !self.waiting.is_empty() {
            self.pop(false, &mut known);
        }
        known
    }

    /// One line of output, or a piece of one. Whether the end of a typed line was reached.
    fn compare(&mut self, line: &[[u8; 4]], redrawn: bool, known: &mut Vec<Typed>) -> bool {
        let (mut rest, mut ended) = (line, false);
        while let (Some((first, after)), Some(next)) = (rest.split_first(), self.waiting.front()) {
            if *first != next.letter() || self.doubted.is_some() {
                break;
            }
            self.pop(true, known);
            ended |= self.pass_controls(known);
            rest = after;
        }
        let run: Vec<_> = self.waiting.iter().take_while(|token| token.is_letter).map(Token::letter).collect();
        let is_telling = run.len() >= RUN || (redrawn && line.len() <= REDRAWN);
        let within = || is_telling && rest.windows(run.len()).any(|part| part == run);
        if !run.is_empty() && (rest.starts_with(&run) || within()) {
            for _ in run {
                self.pop(true, known);
            }
            ended |= self.pass_controls(known);
        }
        ended
    }

    fn give_up(&mut self, now: Duration, known: &mut Vec<Typed>) {
        if self.doubted.is_some_and(|until| until <= now) {
            let end = self.waiting.iter().position(Token::ends_line);
            for _ in 0..end.map_or(0, |end| end + 1) {
                self.pop(false, known);
            }
        }
        while self.waiting.front().is_some_and(|token| token.at.saturating_add(PATIENCE) <= now) {
            self.pop(false, known);
        }
        self.pass_controls(known);
    }

    /// Whether the end of a line was among them.
    fn pass_controls(&mut self, known: &mut Vec<Typed>) -> bool {
        let mut ended = false;
        while let Some(token) = self.waiting.front().filter(|token| !token.is_letter) {
            ended |= token.ends_line();
            self.pop(true, known);
        }
        ended
    }

    /// Lets go of what waits longest.
    fn pop(&mut self, shown: bool, known: &mut Vec<Typed>) {
        let Some(token) = self.waiting.pop_front() else { return };
        if token.ends_line() {
            self.doubted = None;
        }
        match (shown || !token.is_letter, known.last_mut()) {
            (true, Some(Typed::Shown(bytes))) => bytes.extend_from_slice(token.bytes()),
            (true, _) => known.push(Typed::Shown(token.bytes().to_vec())),
            (false, Some(Typed::Hidden(count))) => *count += u64::from(token.length),
            (false, _) => known.push(Typed::Hidden(u64::from(token.length))),
        }
    }
}

impl Token {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Unused bytes are zero, which is no part of a letter.
    fn letter(&self) -> [u8; 4] {
        self.bytes
    }

    fn is(&self, control: u8) -> bool {
        !self.is_letter && self.bytes[0] == control
    }

    /// Enter, and the keys that end a line otherwise: Ctrl-C, Ctrl-D, Ctrl-Z.
    fn ends_line(&self) -> bool {
        [b'\r', b'\n', 3, 4, 26].into_iter().any(|key| self.is(key))
    }
}

/// Tells letters from controls and escape sequences (ECMA-48), in any pieces.
#[derive(Debug, Default)]
struct Scanner {
    state: State,
    /// A letter that is not whole, and how many bytes it will have.
    partial: Vec<u8>,
    wanted: usize,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Ground,
    Escape,
    Sequence,
    Shifted,
    String(usize),
}

impl Scanner {
    fn scan(&mut self, bytes: &[u8], mut each: impl FnMut(Token)) {
        for byte in bytes {
            if !matches!(self.state, State::Ground) || *byte < 0x20 || *byte == 0x7f {
                self.finish(&mut each);
                each(token(&[*byte], false));
                self.state = self.state.after(*byte);
            } else {
                self.letter(*byte, &mut each);
            }
        }
    }

    /// Gives a letter that is not whole.
    fn finish(&mut self, mut each: impl FnMut(Token)) {
        for byte in std::mem::take(&mut self.partial) {
            each(token(&[byte], true));
        }
    }

    fn letter(&mut self, byte: u8, each: &mut impl FnMut(Token)) {
        if byte & 0xc0 != 0x80 || self.partial.is_empty() {
            self.finish(&mut *each);
            self.wanted = match byte {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => 1,
            };
        }
        self.partial.push(byte);
        if self.partial.len() >= self.wanted {
            each(token(&std::mem::take(&mut self.partial), true));
        }
    }
}

impl State {
    fn after(self, byte: u8) -> State {
        match (self, byte) {
            (State::Ground | State::Sequence | State::Shifted, 0x1b) => State::Escape,
            (State::Ground | State::Shifted, _) => State::Ground,
            (State::Escape, b'[') => State::Sequence,
            (State::Escape, b'O') => State::Shifted,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String(0),
            (State::Escape, 0x1b) => State::Escape,
            (State::Escape, _) => State::Ground,
            (State::Sequence, 0x20..=0x3f) => State::Sequence,
            (State::Sequence, _) => State::Ground,
            (State::String(_), 0x07) => State::Ground,
            // The backslash that ends it comes next.
            (State::String(_), 0x1b) => State::Escape,
            (State::String(length), _) if length < STRING => State::String(length + 1),
            (State::String(_), _) => State::Ground,
        }
    }
}

fn token(bytes: &[u8], is_letter: bool) -> Token {
    let mut whole = [0; 4];
    let length = bytes.len().min(whole.len());
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    Token { bytes: whole, length: u8::try_from(length).unwrap_or_default(), is_letter, at: Duration::ZERO }
}

#[cfg(test)]
mod tests;
