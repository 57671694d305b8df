use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const NOW: Duration = Duration::from_secs(5);

/// What came of input: shown bytes, and a dot for each hidden one.
fn dotted(known: Vec<Typed>) -> String {
    let mut text = Vec::new();
    for one in known {
        match one {
            Typed::Shown(bytes) => text.extend_from_slice(&bytes),
            Typed::Hidden(count) => text.extend(std::iter::repeat_n(b'.', usize::try_from(count).unwrap())),
        }
    }
    String::from_utf8(text).unwrap()
}

/// Plays keys (`<`) and output (`>`), a moment apart.
fn play(steps: &[(char, &str)]) -> String {
    let mut echo = Echo::default();
    let mut known = Vec::new();
    for (n, (side, text)) in (0..).zip(steps) {
        let at = NOW + Duration::from_millis(10) * n;
        known.extend(if *side == '<' { echo.typed(at, text.as_bytes()) } else { echo.output(at, text.as_bytes()) });
    }
    known.extend(echo.finish());
    dotted(known)
}

#[test]
fn what_comes_back_was_shown() {
    // A shell, key by key; pasted in one go; drawn anew in colours; typed ahead, with a prompt before it.
    assert_eq!(play(&[('<', "l"), ('>', "l"), ('<', "s"), ('>', "s"), ('<', "\r"), ('>', "\r\nfile\r\n$ ")]), "ls\r");
    assert_eq!(play(&[('<', "echo hä\r"), ('>', "echo hä\r\nhä\r\n")]), "echo hä\r");
    assert_eq!(play(&[('<', "l"), ('>', "\x1b[31ml"), ('<', "s"), ('>', "\x08\x1b[32mls\x1b[0m")]), "ls");
    assert_eq!(play(&[('<', "make all\r"), ('>', "done\r\n$ make all\r\n")]), "make all\r");
    assert_eq!(play(&[('<', "y\r"), ('>', "still busy\r\n"), ('>', "y\r\n")]), "y\r");
    assert_eq!(play(&[('<', "make all"), ('>', "done\r\n$ make all")]), "make all");
    assert_eq!(play(&[('<', "one\rtwo\r"), ('>', "one\r\ntwo\r\n")]), "one\rtwo\r");
}

#[test]
fn what_does_not_come_back_is_known_by_its_length() {
    // sudo, read -s, a password prompt that prints stars, a key that is a command to an editor.
    assert_eq!(play(&[('>', "Password: "), ('<', "hunter2\r"), ('>', "\r\nSorry, try again.\r\n")]), ".......\r");
    assert_eq!(play(&[('<', "s3cr\u{e9}t\r"), ('>', "welcome\r\n")]), ".......\r");
    let keys: Vec<_> = "hunter2".chars().flat_map(|key| [('<', key.to_string()), ('>', "*".to_owned())]).collect();
    let keys: Vec<_> = keys.iter().map(|(side, text)| (*side, text.as_str())).collect();
    assert_eq!(play(&keys), ".......");
    // A letter that the next line begins with is not shown by that.
    assert_eq!(play(&[('<', "hunter2\r"), ('>', "\r\nhello\r\n"), ('>', "hm\r\n")]), ".......\r");
    assert_eq!(play(&[('<', "dd"), ('>', "\x1b[2Knext line")]), "..");
}

#[test]
fn keys_that_are_no_letters_are_never_hidden() {
    let keys = "\x1b[A\x1b[200~\x1b[201~\x1bOP\t\x7f\x03\x1b]11;rgb:0000/0000/0000\x1b\\\x1bx";
    assert_eq!(play(&[('<', keys)]), keys);
    // They keep their place among letters.
    assert_eq!(play(&[('<', "ab\t"), ('<', "c\r"), ('>', "\r\n")]), "..\t.\r");
}

#[test]
fn nothing_waits_for_long() {
    let mut echo = Echo::default();
    assert_eq!(echo.typed(NOW, b"pw"), []);
    assert_eq!(echo.output(NOW + PATIENCE, b"pw"), [Typed::Hidden(2)]);
    assert_eq!(echo.typed(NOW, &vec![b'x'; MOST + 7]), [Typed::Hidden(7)]);
    assert_eq!(echo.finish(), [Typed::Hidden(MOST as u64)]);
}

proptest! {
    /// However it is cut and whatever comes back: every byte is accounted for, in its place, and a byte that is told is
    /// the one that was typed.
    #[test]
    fn every_byte_is_accounted_for_in_its_place(
        steps in vec((any::<bool>(), vec(prop_oneof![3 => 0x20u8..0x7f, 1 => any::<u8>()], 0..12), 0u64..1500), 0..30)
    ) {
        let (mut echo, mut known, mut typed, mut at) = (Echo::default(), Vec::new(), Vec::new(), NOW);
        for (is_input, bytes, later) in steps {
            at += Duration::from_millis(later);
            if is_input {
                typed.extend_from_slice(&bytes);
                known.extend(echo.typed(at, &bytes));
            } else {
                known.extend(echo.output(at, &bytes));
            }
        }
        known.extend(echo.finish());
        let mut place = 0;
        for one in known {
            match one {
                Typed::Shown(bytes) => {
                    prop_assert_eq!(&typed[place..place + bytes.len()], bytes.as_slice());
                    place += bytes.len();
                }
                Typed::Hidden(count) => place += usize::try_from(count).unwrap(),
            }
        }
        prop_assert_eq!(place, typed.len());
    }

    /// A terminal that shows what is typed, piece by piece, hides nothing.
    #[test]
    fn an_echo_of_each_piece_hides_nothing(pieces in vec("[a-zA-Z0-9 äöü/-]{1,12}\r?", 1..20)) {
        let mut steps = Vec::new();
        for piece in &pieces {
            steps.push(('<', piece.clone()));
            steps.push(('>', piece.replace('\r', "\r\n")));
        }
        let steps: Vec<_> = steps.iter().map(|(side, text)| (*side, text.as_str())).collect();
        prop_assert_eq!(play(&steps), pieces.concat());
    }

    /// One that shows nothing but the ends of lines tells no letter.
    #[test]
    fn a_silent_terminal_tells_no_letter(pieces in vec("[a-z]{1,12}\r?", 1..20)) {
        let mut steps = Vec::new();
        for piece in &pieces {
            steps.push(('<', piece.as_str()));
            steps.push(('>', if piece.ends_with('\r') { "\r\n" } else { "" }));
        }
        let told = play(&steps);
        prop_assert!(told.chars().all(|letter| letter == '.' || letter == '\r'), "{}", told);
    }
}
