//! Makes recorded terminal output safe to show. Stored bytes are never changed; this is for display alone.
//!
//! Replaying is an attack surface: sequences can write the clipboard (OSC 52), hide links (OSC 8), or make the terminal
//! answer into the shell of whoever watches. Stripped are OSC, DCS, APC, PM and SOS strings, C1 controls in UTF-8, ENQ, and
//! the CSI sequences that ask for an answer. Cursor movement and colours stay. Byte-driven, works across any chunking.

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const ENQ: u8 = 0x05;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
/// First byte of C1 controls in UTF-8.
const C1_LEAD: u8 = 0xc2;
/// No real CSI sequence is longer.
const LONGEST_CSI: usize = 256;
/// A string that never ends may not swallow the rest of the recording.
const LONGEST_STRING: usize = 64 * 1024;

/// Cleans one stream.
#[derive(Debug, Default)]
pub struct Sanitizer {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Plain bytes.
    #[default]
    Ground,
    /// After ESC, with the intermediate bytes that followed.
    Escape(Vec<u8>),
    /// After ESC `[`, with everything since ESC.
    Csi(Vec<u8>),
    /// Inside a string that is dropped: its introducer decides what ends it.
    Text { osc: bool, length: usize, last: u8 },
    /// After the first byte of a C1 control in UTF-8.
    Lead,
}

impl Sanitizer {
    /// Appends what may be shown of these bytes. A sequence that is not complete yet is held back.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.state = step(std::mem::take(&mut self.state), *byte, out);
        }
    }
}

fn step(state: State, byte: u8, out: &mut Vec<u8>) -> State {
    match state {
        State::Ground => ground(byte, out),
        State::Escape(sequence) => escape(sequence, byte, out),
        State::Csi(sequence) => csi(sequence, byte, out),
        State::Text { osc, length, last } => text(osc, length, last, byte, out),
        State::Lead => lead(byte, out),
    }
}

fn ground(byte: u8, out: &mut Vec<u8>) -> State {
    match byte {
        ESC => return State::Escape(vec![ESC]),
        C1_LEAD => return State::Lead,
        ENQ => {}
        _ => out.push(byte),
    }
    State::Ground
}

fn escape(mut sequence: Vec<u8>, byte: u8, out: &mut Vec<u8>) -> State {
    match byte {
        ESC => State::Escape(vec![ESC]),
        CAN | SUB => State::Ground,
        b'[' if sequence.len() == 1 => {
            sequence.push(byte);
            State::Csi(sequence)
        }
        b']' if sequence.len() == 1 => State::Text { osc: true, length: 0, last: 0 },
        b'P' | b'_' | b'^' | b'X' if sequence.len() == 1 => State::Text { osc: false, length: 0, last: 0 },
        // DECID asks who the terminal is.
        b'Z' if sequence.len() == 1 => State::Ground,
        0x20..=0x2f if sequence.len() < LONGEST_CSI => {
            sequence.push(byte);
            State::Escape(sequence)
        }
        0x30..=0x7e => {
            sequence.push(byte);
            out.extend_from_slice(&sequence);
            State::Ground
        }
        _ => ground(byte, out),
    }
}

fn csi(mut sequence: Vec<u8>, byte: u8, out: &mut Vec<u8>) -> State {
    match byte {
        ESC => State::Escape(vec![ESC]),
        CAN | SUB => State::Ground,
        0x20..=0x3f => {
            if sequence.len() < LONGEST_CSI {
                sequence.push(byte);
            }
            State::Csi(sequence)
        }
        0x40..=0x7e => {
            if sequence.len() < LONGEST_CSI && !asks(&sequence, byte) {
                sequence.push(byte);
                out.extend_from_slice(&sequence);
            }
            State::Ground
        }
        // A control inside a sequence is carried out at once by terminals.
        0x00..=0x1f => {
            ground(byte, out);
            State::Csi(sequence)
        }
        0x7f..=0xff => ground(byte, out),
    }
}

/// True for sequences that make a terminal answer: device attributes and status, window reports, mode and version queries.
fn asks(sequence: &[u8], last: u8) -> bool {
    match last {
        b'c' | b'n' | b't' | b'x' => true,
        b'p' => sequence.contains(&b'$'),
        b'q' => sequence.contains(&b'>'),
        b'u' => sequence.contains(&b'?'),
        b'w' | b'y' => sequence.contains(&b'*') || sequence.contains(&b'\''),
        _ => false,
    }
}

fn text(osc: bool, length: usize, last: u8, byte: u8, out: &mut Vec<u8>) -> State {
    match byte {
        CAN | SUB => State::Ground,
        BEL if osc => State::Ground,
        b'\\' if last == ESC => State::Ground,
        0x9c if last == C1_LEAD => State::Ground,
        // An ESC that does not end the string begins another sequence.
        _ if last == ESC => escape(vec![ESC], byte, out),
        // A line end or too many bytes end it too, so that nothing can hide the rest of the recording from a reader.
        b'\n' => ground(byte, out),
        _ if length >= LONGEST_STRING => ground(byte, out),
        _ => State::Text { osc, length: length + 1, last: byte },
    }
}

fn lead(byte: u8, out: &mut Vec<u8>) -> State {
    match byte {
        0x90 | 0x98 | 0x9e | 0x9f => State::Text { osc: false, length: 0, last: 0 },
        0x9d => State::Text { osc: true, length: 0, last: 0 },
        0x9b => State::Csi(vec![ESC, b'[']),
        0x80..=0x9f => State::Ground,
        0xa0..=0xbf => {
            out.extend_from_slice(&[C1_LEAD, byte]);
            State::Ground
        }
        // No letter, as terminals show one. By itself it would become a C1 control with what follows a dropped sequence.
        _ => {
            out.extend_from_slice("\u{fffd}".as_bytes());
            ground(byte, out)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Sanitizer::default().push(bytes, &mut out);
        out
    }

    #[test]
    fn text_colours_and_cursor_movement_stay() {
        for kept in [
            "plain\r\n\ttext",
            "\x1b[31mred\x1b[0m",
            "\x1b[2J\x1b[10;5H",
            "\x1b[?25l",
            "\x1b7\x1b8",
            "\x1b(B",
            "é 漢字 §",
        ] {
            assert_eq!(clean(kept.as_bytes()), kept.as_bytes(), "{kept:?}");
        }
    }

    #[test]
    fn strings_and_questions_to_the_terminal_go() {
        for (input, shown) in [
            ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
            ("a\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
            ("a\x1bP+q544e\x1b\\b", "ab"),
            ("a\x1b_apc\x1b\\b\x1b^pm\x1b\\c\x1bXsos\x1b\\d", "abcd"),
            ("a\x1b[21tb\x1b[6nc\x1b[cd\x1b[>qe\x1b[?1$pf\x1bZg\x05h", "abcdefgh"),
            ("a\u{9d}52;c;x\u{9c}b\u{9b}6nc\u{85}d", "abcd"),
            ("a\x1b]0;no end\nb", "a\nb"),
            ("a\x1b]0;x\x1b[31mred", "a\x1b[31mred"),
        ] {
            assert_eq!(String::from_utf8(clean(input.as_bytes())).unwrap(), shown, "{input:?}");
        }
    }

    #[test]
    fn what_is_left_after_dropping_does_not_become_a_control() {
        for dropped in ["\x1b^y\x1b\\", "\x1b]0;t\x07", "\x05", "\x1b[6n", "\x1bZ", "\x1b\x18", "\x1b[\x1a"] {
            let bytes = [b"a\xc2", dropped.as_bytes(), b"\x9b31mb"].concat();
            assert_eq!(String::from_utf8_lossy(&clean(&bytes)), "a\u{fffd}\u{fffd}31mb", "{dropped:?}");
        }
    }

    #[test]
    fn an_endless_string_does_not_hide_what_follows() {
        let mut bytes = b"\x1b]".to_vec();
        bytes.extend_from_slice(&vec![b'x'; LONGEST_STRING]);
        bytes.extend_from_slice(b"seen");
        assert!(clean(&bytes).ends_with(b"seen"));
    }

    proptest! {
        #[test]
        fn any_chunking_shows_the_same(bytes in prop::collection::vec(prop_oneof![Just(ESC), Just(b']'), Just(b'['), Just(0xc2u8), any::<u8>()], 0..200), cut in any::<prop::sample::Index>()) {
            let at = cut.index(bytes.len() + 1);
            let (mut sanitizer, mut out) = (Sanitizer::default(), Vec::new());
            sanitizer.push(&bytes[..at], &mut out);
            sanitizer.push(&bytes[at..], &mut out);
            prop_assert_eq!(out, clean(&bytes));
        }

        #[test]
        fn no_introducer_and_no_c1_control_is_ever_shown(bytes in prop::collection::vec(prop_oneof![Just(ESC), Just(b']'), Just(b'P'), Just(b'X'), Just(b'\\'), Just(BEL), Just(C1_LEAD), Just(0x9b), any::<u8>()], 0..200)) {
            let shown = clean(&bytes);
            for pair in shown.windows(2) {
                prop_assert!(pair[0] != ESC || !b"]P_^XZ".contains(&pair[1]), "{:?}", shown);
                prop_assert!(pair[0] != C1_LEAD || !(0x80..=0x9f).contains(&pair[1]), "{:?}", shown);
            }
        }
    }
}
