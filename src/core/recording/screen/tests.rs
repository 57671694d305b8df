//! What a person would have seen.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::core::recording::codec::tests::any_kind;
use crate::core::recording::event::Direction;
use crate::core::recording::header::tests::header;

fn out(bytes: &[u8]) -> EventKind {
    EventKind::Data { channel: Channel::Stdout, direction: Direction::ToClient, bytes: Bytes::copy_from_slice(bytes) }
}

fn screen(tty: bool) -> Screen {
    Screen::new(&header(tty)).unwrap()
}

fn printed(screen: &mut Screen, bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    screen.push_watched(&out(bytes), |_, line| lines.push(line.to_owned()));
    lines
}

#[test]
fn words_put_together_by_cursor_movement_are_seen() {
    let mut screen = screen(true);
    assert_eq!(printed(&mut screen, b"\x1b[1;5Hword\x1b[1;1Hpass"), ["    word", "password"]);
    assert_eq!(printed(&mut screen, b"\r\x1b[2K\x7fgone"), ["gone"]);
}

#[test]
fn a_wrapped_line_is_one_line_and_letters_by_themselves_make_words() {
    let mut screen = screen(true);
    screen.push(&EventKind::Resize { cols: 5, rows: 4 });
    assert_eq!(printed(&mut screen, b"abcdefgh").last().unwrap(), "abcdefgh");
    for byte in b"\r\nxyz" {
        screen.push(&out(&[*byte]));
    }
    assert_eq!(screen.line(), "xyz");
}

#[test]
fn a_dump_shows_the_same_screen_again() {
    let mut first = screen(false);
    first.push(&out(b"one\n\x1b[31mtwo"));
    let mut second = Terminal::new(80, 24).unwrap();
    second.feed(first.dump());
    assert_eq!(second.screen().text(), first.text_lines());
    assert_eq!(first.text_lines()[..2], ["one", "two"]);
}

#[test]
fn a_huge_screen_is_not_followed() {
    let mut screen = screen(true);
    screen.push(&EventKind::Resize { cols: u16::MAX, rows: u16::MAX });
    assert_eq!(screen.size(), (500, 300));
    screen.push(&EventKind::Resize { cols: 0, rows: 9 });
    assert_eq!(screen.size(), (500, 300));
}

proptest! {
    #[test]
    fn any_session_can_be_followed(
        events in prop::collection::vec(any_kind(), 0..10),
        bytes in prop::collection::vec(prop_oneof![Just(0x1bu8), Just(b'['), Just(b';'), Just(b'9'), Just(b'H'), Just(b'L'), Just(b'r'), Just(b'h'), Just(b'?'), 0x20u8..0x7f, any::<u8>()], 0..600),
        size in (1u16..30, 1u16..12),
    ) {
        let mut screen = screen(true);
        screen.push(&EventKind::Resize { cols: size.0, rows: size.1 });
        for part in bytes.chunks(100) {
            screen.push_watched(&out(part), |_, line| assert!(!line.contains('\u{1b}')));
            screen.push(&EventKind::Resize { cols: size.1, rows: size.0 });
        }
        events.iter().for_each(|kind| screen.push_watched(kind, |_, _| ()));
        let mut again = Terminal::new(screen.size().0, screen.size().1).unwrap();
        again.feed(screen.dump());
    }
}
