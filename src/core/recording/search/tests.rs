//! What is found, and that it is found whichever way the bytes were cut.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::core::recording::codec::tests::any_kind;
use crate::core::recording::header::tests::header;

fn data(channel: Channel, bytes: &[u8]) -> EventKind {
    let direction = if channel == Channel::Stdin { Direction::ToContainer } else { Direction::ToClient };
    EventKind::Data { channel, direction, bytes: Bytes::copy_from_slice(bytes) }
}

fn hits(text: &str, tty: bool, kinds: &[EventKind]) -> Vec<(Place, String)> {
    let mut searcher = Searcher::new(Needle::new(text, false).unwrap(), &header(tty)).unwrap();
    let mut hits = Vec::new();
    for (kind, at) in kinds.iter().zip(0..) {
        searcher.push(&Event { at: Duration::from_secs(at), kind: kind.clone() }, &mut hits);
    }
    searcher.finish(&mut hits);
    hits.into_iter().map(|hit| (hit.place, hit.line)).collect()
}

fn on_screen(text: &str, parts: &[&[u8]]) -> Vec<String> {
    let kinds: Vec<EventKind> = parts.iter().map(|part| data(Channel::Stdout, part)).collect();
    hits(text, true, &kinds).into_iter().map(|(_, line)| line).collect()
}

#[test]
fn a_line_is_found_across_events_and_without_its_colours() {
    let kinds = [
        data(Channel::Stdout, b"first\nthe pass\x1b[3"),
        data(Channel::Stderr, b"password\n"),
        data(Channel::Stdout, b"1mword is\x1b[0m x\nlast"),
        data(Channel::Stdin, b"no newline, a password"),
    ];
    let stream = |channel, line: &str| (Place::Stream(channel), line.to_owned());
    assert_eq!(
        hits("password", false, &kinds),
        [
            stream(Channel::Stderr, "password"),
            stream(Channel::Stdout, "the password is x"),
            stream(Channel::Stdin, "no newline, a password")
        ]
    );
    assert_eq!(hits("Password", false, &kinds), []);
}

#[test]
fn what_was_visible_is_found_whichever_way_it_was_drawn() {
    assert_eq!(on_screen("password", &[b"\x1b[1;5Hword\x1b[1;1Hpass", b"\x1b[1;9Hx"]), ["passwordx"]);
    assert_eq!(on_screen("secret", &[b"$ s", b"e", b"c", b"r", b"e", b"t", b"s\r\n", b"$ "]), ["$ secrets"]);
    assert_eq!(on_screen("secret", &[b"secret\x1b[2J\x1b[H", b"gone"]), ["secret"], "also when it is wiped at once");
    assert_eq!(on_screen("secret", &[b"secret\r\nsecret\r\n"]).len(), 2);
    assert_eq!(on_screen("secret", &[b"secret\rsecret\rsecret"]).len(), 1, "drawn over itself it is still one");
}

#[test]
fn connections_are_searched_one_by_one_and_are_bounded() {
    let with = |connection, bytes: &[u8]| EventKind::ConnectionData {
        connection,
        direction: Direction::ToContainer,
        bytes: Bytes::copy_from_slice(bytes),
    };
    let mut kinds = vec![with(0, b"sec"), with(1, b"ret\n"), with(0, b"ret\n")];
    assert_eq!(hits("secret", false, &kinds), [(Place::Connection(0, Direction::ToContainer), "secret".to_owned())]);
    kinds.extend((0..5000).map(|number| with(number, b"no end")));
    assert_eq!(hits("secret", false, &kinds).len(), 1);
}

#[test]
fn a_line_without_end_is_searched_in_parts_that_overlap() {
    let kinds: Vec<EventKind> = (0..40).map(|_| data(Channel::Stdout, &[b'x'; 5000])).collect();
    for at in [13, 14, 27] {
        let mut kinds = kinds.clone();
        kinds.insert(at, data(Channel::Stdout, b"sec"));
        kinds.insert(at + 1, data(Channel::Stdout, b"ret"));
        let found = hits("xsecretx", false, &kinds);
        assert_eq!(found.len(), 1, "at {at}");
        assert!(found[0].1.len() < 1000 && found[0].1.ends_with('…'));
    }
}

#[test]
fn case_is_ignored_when_asked_and_odd_texts_are_refused() {
    let mut searcher = Searcher::new(Needle::new("GEHEIMß", true).unwrap(), &header(false)).unwrap();
    let mut found = Vec::new();
    searcher.push(&Event { at: Duration::ZERO, kind: data(Channel::Stdout, "İ geheimß\n".as_bytes()) }, &mut found);
    assert_eq!(found.len(), 1);
    assert!(Needle::new("", false).is_none() && Needle::new("a\nb", false).is_none());
}

proptest! {
    #[test]
    fn any_cut_of_a_stream_finds_the_same(
        bytes in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'\n'), Just(b'\r'), Just(0x1b), Just(b'['), Just(b'm')], 0..80),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        at.sort_unstable();
        let parts: Vec<EventKind> = at.windows(2).map(|pair| data(Channel::Stdout, &bytes[pair[0]..pair[1]])).collect();
        prop_assert_eq!(hits("ab", false, &parts), hits("ab", false, &[data(Channel::Stdout, &bytes)]));
    }

    #[test]
    fn any_session_can_be_searched(kinds in prop::collection::vec(any_kind(), 0..10), tty: bool) {
        for (_, line) in hits("a", tty, &kinds) {
            prop_assert!(line.contains('a') && !line.chars().any(|letter| letter.is_control() && letter != '\t'), "{:?}", line);
        }
    }
}
