//! Exports of whole sessions, and the laws: any split of the data gives the same, nothing panics.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use std::time::Duration;

use super::asciicast::Version;
use super::*;
use crate::core::recording::codec::tests::any_kind;
use crate::core::recording::event::{Cause, CloseReason, Direction};
use crate::core::recording::header::tests::header;

fn data(channel: Channel, bytes: &[u8]) -> EventKind {
    let direction = if channel == Channel::Stdin { Direction::ToContainer } else { Direction::ToClient };
    EventKind::Data { channel, direction, bytes: Bytes::copy_from_slice(bytes) }
}

fn exported(format: Format, tty: bool, events: &[(u64, EventKind)]) -> Vec<u8> {
    let mut encoder = Encoder::new(format, &header(tty), false);
    let mut out = Vec::new();
    for (us, kind) in events {
        encoder.push(&Event { at: Duration::from_micros(*us), kind: kind.clone() }, &mut out);
    }
    encoder.finish(&mut out);
    out
}

fn lines(format: Format, tty: bool, events: &[(u64, EventKind)]) -> Vec<Value> {
    let text = String::from_utf8(exported(format, tty, events)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const V2: Format = Format::Asciicast(Version::V2);
const V3: Format = Format::Asciicast(Version::V3);

fn session() -> Vec<(u64, EventKind)> {
    let status = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    vec![
        (10, EventKind::Resize { cols: 120, rows: 40 }),
        (1_000_400, data(Channel::Stdin, b"ls\r")),
        (1_000_800, data(Channel::Stdout, b"a\n\xe2\x82")),
        (1_001_200, data(Channel::Stdout, b"\xac \x1b]52;c;eA==\x07\x1b[31mred")),
        (1_001_600, EventKind::Resize { cols: 100, rows: 30 }),
        (1_002_000, EventKind::Marker { name: "dropped".into(), detail: "a frame".into() }),
        (1_002_400, EventKind::Status { bytes: Bytes::from_static(status) }),
        (1_002_400, EventKind::Close { reason: Cause::Completed.into() }),
    ]
}

#[test]
fn version_2_has_the_terminals_size_absolute_times_and_sanitised_text() {
    let lines = lines(V2, true, &session());
    assert_eq!((&lines[0]["version"], &lines[0]["width"], &lines[0]["height"]), (&2.into(), &120.into(), &40.into()));
    assert_eq!(lines[0]["kustody"]["session"], "019aa5c7-d3c0-7000-8000-000000000001");
    assert_eq!(
        lines[1..],
        [
            serde_json::json!([1.0004, "i", "ls\r"]),
            serde_json::json!([1.0008, "o", "a\n"]),
            serde_json::json!([1.0012, "o", "€ \u{1b}[31mred"]),
            serde_json::json!([1.0016, "r", "100x30"]),
            serde_json::json!([1.002, "m", "dropped: a frame"]),
        ]
    );
}

#[test]
fn version_3_has_intervals_that_do_not_drift_and_the_exit_status_last() {
    let lines = lines(V3, true, &session());
    assert_eq!((&lines[0]["term"]["cols"], &lines[0]["term"]["rows"]), (&120.into(), &40.into()));
    let intervals: Vec<f64> = lines[1..].iter().map(|line| line[0].as_f64().unwrap()).collect();
    assert_eq!(intervals, [1.0, 0.001, 0.0, 0.001, 0.0, 0.0]);
    assert_eq!(lines.last().unwrap(), &serde_json::json!([0.0, "x", "3"]));
}

#[test]
fn without_a_terminal_both_streams_are_shown_on_80x24_and_lines_return() {
    let events = [
        (0, data(Channel::Stdin, b"never shown")),
        (1, data(Channel::Stdout, b"a\nb\r\n")),
        (2, data(Channel::Stderr, b"c\n")),
        (3, EventKind::Close { reason: CloseReason::new(Cause::Limit, "idle") }),
    ];
    let lines = lines(V2, false, &events);
    assert_eq!((&lines[0]["width"], &lines[0]["height"]), (&80.into(), &24.into()));
    let shown: Vec<&Value> = lines[1..].iter().map(|line| &line[2]).collect();
    assert_eq!(shown, ["a\r\nb\r\n", "c\r\n", "limit: idle"]);
}

#[test]
fn text_has_no_control_sequences_and_keeps_every_word() {
    let events = [
        (0, data(Channel::Stdout, b"\x1b[1;31mred\x1b[0m\r\r\n10%\r20%\r\nt\x1b]0;title\x07\x1b(Bx\x08y")),
        (
            1,
            EventKind::Gap {
                channel: Channel::Stdout,
                direction: Direction::ToClient,
                bytes: 7,
                why: "full\x1b[".into(),
            },
        ),
        (2, data(Channel::Stderr, b"error\xff\n")),
    ];
    let text = String::from_utf8(exported(Format::Text, true, &events)).unwrap();
    assert_eq!(text, "red\n10%\n20%\ntxy\n[7 bytes of stdout were not recorded: full []\nerror\u{fffd}\n");
}

#[test]
fn a_stream_is_exact_and_what_was_lost_of_it_is_counted() {
    let gap = |channel| EventKind::Gap { channel, direction: Direction::ToClient, bytes: 5, why: String::new() };
    let mut encoder = Encoder::new(Format::Stream(Channel::Stderr), &header(false), false);
    let mut out = Vec::new();
    for kind in
        [data(Channel::Stdout, b"no"), gap(Channel::Stdout), data(Channel::Stderr, b"\xff\x1b]"), gap(Channel::Stderr)]
    {
        encoder.push(&Event { at: Duration::ZERO, kind }, &mut out);
    }
    encoder.finish(&mut out);
    assert_eq!((out.as_slice(), encoder.lost()), (b"\xff\x1b]".as_slice(), 5));
}

#[test]
fn ndjson_has_every_event_and_shows_nothing_that_a_terminal_obeys() {
    let mut events = session();
    events.push((1_002_500, data(Channel::Stdout, "\u{9b}31m".as_bytes())));
    let lines = lines(Format::Ndjson, true, &events);
    assert_eq!(lines.len(), events.len());
    assert_eq!(
        lines[1],
        serde_json::json!({"atUs": 1_000_400, "time": "2025-11-21T09:38:48.8724Z", "event": "data", "channel": "stdin", "direction": "toContainer", "text": "ls\r"})
    );
    assert_eq!(lines[2]["base64"], "YQrigg==");
    assert_eq!(lines[8]["base64"], "wpszMW0=");
    assert_eq!(lines[7]["reason"]["cause"], "completed");
}

/// The same events with every piece of data cut at random places.
fn cut(events: &[(u64, EventKind)], cuts: &[prop::sample::Index]) -> Vec<(u64, EventKind)> {
    let mut out = Vec::new();
    for (at, kind) in events {
        let EventKind::Data { channel, bytes, .. } = kind else {
            out.push((*at, kind.clone()));
            continue;
        };
        let mut places: Vec<usize> =
            cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        places.sort_unstable();
        out.extend(places.windows(2).map(|pair| (*at, data(*channel, &bytes[pair[0]..pair[1]]))));
    }
    out
}

/// Per code and time, the text.
fn played(format: Format, tty: bool, events: &[(u64, EventKind)]) -> Vec<(String, String, String)> {
    let mut played: Vec<(String, String, String)> = Vec::new();
    let mut now = 0.0;
    for line in &lines(format, tty, events)[1..] {
        let time = line[0].as_f64().unwrap();
        now = if format == V3 { now + time } else { time };
        let (at, code, text) = (format!("{now:.4}"), line[1].as_str().unwrap(), line[2].as_str().unwrap());
        match played.last_mut() {
            Some((last, same, before)) if *last == at && same == code => before.push_str(text),
            _ => played.push((at, code.into(), text.into())),
        }
    }
    played
}

fn pieces() -> impl Strategy<Value = Vec<(u64, EventKind)>> {
    let byte = prop_oneof![
        Just(b'\n'),
        Just(b'\r'),
        Just(0x1b),
        Just(b'['),
        Just(b'm'),
        Just(0xe2),
        Just(0x82),
        Just(0xac),
        any::<u8>()
    ];
    let piece = (0usize..3, prop::collection::vec(byte, 0..30));
    prop::collection::vec(piece, 0..12).prop_map(|pieces| {
        let numbered = pieces.into_iter().zip(1u64..);
        numbered.map(|((channel, bytes), n)| (n * 1_000_700, data(Channel::ALL[channel], &bytes))).collect()
    })
}

proptest! {
    #[test]
    fn any_split_of_the_data_exports_the_same(events in pieces(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4), tty: bool) {
        let again = cut(&events, &cuts);
        for format in [Format::Text, Format::Stream(Channel::Stdout), Format::Stream(Channel::Stdin)] {
            prop_assert_eq!(exported(format, tty, &events), exported(format, tty, &again));
        }
        for format in [V2, V3] {
            prop_assert_eq!(played(format, tty, &events), played(format, tty, &again));
        }
    }

    #[test]
    fn any_events_export_to_valid_lines(events in prop::collection::vec((0u64..1 << 40, any_kind()), 0..12), tty: bool) {
        for format in [V2, V3, Format::Ndjson] {
            lines(format, tty, &events);
        }
        let text = String::from_utf8(exported(Format::Text, tty, &events)).unwrap();
        prop_assert!(!text.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t')), "{:?}", text);
    }
}
