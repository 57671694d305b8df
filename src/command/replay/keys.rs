//! What a person types during a replay: bytes of a terminal in, wishes out.

/// A wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Pause,
    Step,
    /// By so many seconds.
    Seek(i64),
    Faster,
    Slower,
    Quit,
}

/// Reads keys; arrow keys may come in pieces.
#[derive(Debug, Default)]
pub(super) enum Reader {
    #[default]
    Ground,
    Escape,
    Sequence,
}

impl Reader {
    /// The wish that a byte completes.
    pub(super) fn push(&mut self, byte: u8) -> Option<Key> {
        let state = std::mem::take(self);
        match (state, byte) {
            (_, 0x1b) => {
                *self = Reader::Escape;
                None
            }
            (Reader::Escape, b'[' | b'O') => {
                *self = Reader::Sequence;
                None
            }
            (Reader::Sequence, b'C') => Some(Key::Seek(5)),
            (Reader::Sequence, b'D') => Some(Key::Seek(-5)),
            (Reader::Sequence, b'A') => Some(Key::Seek(60)),
            (Reader::Sequence, b'B') => Some(Key::Seek(-60)),
            (Reader::Sequence, 0x20..=0x3f) => {
                *self = Reader::Sequence;
                None
            }
            (Reader::Sequence | Reader::Escape, _) => None,
            (Reader::Ground, byte) => letter(byte),
        }
    }
}

fn letter(byte: u8) -> Option<Key> {
    Some(match byte {
        b' ' => Key::Pause,
        b'.' => Key::Step,
        b']' => Key::Seek(5),
        b'[' => Key::Seek(-5),
        b'}' => Key::Seek(60),
        b'{' => Key::Seek(-60),
        b'+' | b'=' => Key::Faster,
        b'-' | b'_' => Key::Slower,
        // Ctrl-C is a signal; Ctrl-D is the end of what is typed.
        b'q' | b'Q' | 0x04 => Key::Quit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_arrows_are_wishes_and_everything_else_is_nothing() {
        let mut reader = Reader::default();
        let typed = b" .\x1b[C\x1bOD\x1b[1;5A{}x\x1b[<0;1;1M\x1bq+-q";
        let keys: Vec<Key> = typed.iter().filter_map(|byte| reader.push(*byte)).collect();
        let seek = Key::Seek;
        assert_eq!(
            keys,
            [
                Key::Pause,
                Key::Step,
                seek(5),
                seek(-5),
                seek(60),
                seek(-60),
                seek(60),
                Key::Faster,
                Key::Slower,
                Key::Quit
            ]
        );
    }
}
