//! What a container may put into a recording, and what shows, exports and searches it: terminal output and archives.

use std::time::Duration;

use bytes::Bytes;
use kustody::core::recording::chunk::{Chain, Chunk, HEAD_LEN, Open};
use kustody::core::recording::export::asciicast::Version;
use kustody::core::recording::export::tar::Lister;
use kustody::core::recording::export::{Encoder, Format};
use kustody::core::recording::screen::Screen;
use kustody::core::recording::search::{Needle, Searcher};
use kustody::core::recording::{Channel, Direction, Event, EventKind, Header};

fn header(tty: bool) -> Header {
    let json = format!(
        r#"{{"generation":1,"session":"019aa5c7-d3c0-7000-8000-000000000001","startedAt":"2025-11-21T09:38:47Z","kind":"exec",
        "agent":{{"user":"a"}},"class":"c","request":"r","target":{{"cluster":"c","namespace":"n","pod":"p"}},
        "stream":{{"tty":{tty},"stdin":true,"stdout":true,"stderr":true}},
        "decision":{{"id":"","policy":"","rule":"","policyHash":""}},"client":{{"address":""}},
        "recorder":{{"version":"","replica":""}}}}"#
    );
    Header::from_json(json.as_bytes()).expect("header")
}

pub(crate) fn outputs() -> Vec<Vec<u8>> {
    let parts: [&[u8]; 6] = [
        b"$ ls -l\r\n\x1b[1;34mfolder\x1b[0m\tfile\r\n\x1b]0;title\x07\x1b[?2004h",
        b"\x1b[?1049h\x1b[2J\x1b[3;10r\x1b[5;5Htext\x1b[L\x1b[2M\x1b[3P\x1b[4@\x1bM\x1bD\x1b7\x1b[99;99H\x1b8\x1b[?6h\x1b[?1049l",
        "漢字 é\u{301} 😀 \u{200d}\u{fe0f}\x1b[4h\x1b[20X\x1b[3g\x1bH\t\t\x1b[5b\x1b[65535A\x1b[2;3S\x1b[9T".as_bytes(),
        b"10%\r20%\r\x1b[K\x08\x08x\x1b(0lqqk\x1b(B\x0e\x0f\x1b#8\x1bc\x1b[!p",
        b"\x1b[38;2;1;2;3m\x1b[48;5;200;7;9m\x1b[8;30;100t\x1b[?7l\x1b[?25l\x1b[1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17m",
        b"\xff\xfe\xc2\x9b31m\xe2\x82\x1bP+q\x1b\\\x1b_x\x1b\\\x1b^y\x1b\\",
    ];
    let all = parts.concat();
    parts.into_iter().map(<[u8]>::to_vec).chain([all.repeat(3), all]).collect()
}

/// Terminal output in pieces, with resizes between them: everything that looks at it gets to its end, and what is meant
/// for people has nothing that a terminal obeys.
pub(crate) fn show(input: &[u8]) {
    let resize = |piece: &[u8]| EventKind::Resize {
        cols: piece.first().map_or(0, |byte| u16::from(*byte) % 90),
        rows: piece.last().map_or(0, |byte| u16::from(*byte) % 40),
    };
    let data = |piece: &[u8]| EventKind::Data {
        channel: Channel::Stdout,
        direction: Direction::ToClient,
        bytes: Bytes::copy_from_slice(piece),
    };
    let kinds: Vec<EventKind> = input.chunks(97).flat_map(|piece| [data(piece), resize(piece)]).collect();
    for tty in [true, false] {
        let header = header(tty);
        let mut screen = Screen::new(&header).expect("screen");
        let needle = Needle::new("e", false).expect("needle");
        let mut searcher = Searcher::new(needle, &header).expect("searcher");
        let formats = [Format::Text, Format::Asciicast(Version::V2), Format::Asciicast(Version::V3), Format::Ndjson];
        let mut encoders = formats.map(|format| (Encoder::new(format, &header, false), Vec::new()));
        let mut hits = Vec::new();
        for kind in &kinds {
            let event = Event { at: Duration::ZERO, kind: kind.clone() };
            screen.push(kind);
            searcher.push(&event, &mut hits);
            encoders.iter_mut().for_each(|(encoder, out)| encoder.push(&event, out));
        }
        searcher.finish(&mut hits);
        assert!(
            hits.iter()
                .all(|hit| hit.line.contains('e')
                    && !hit.line.chars().any(|letter| letter.is_control() && letter != '\t'))
        );
        encoders.iter_mut().for_each(|(encoder, out)| encoder.finish(out));
        for (number, (_, out)) in encoders.iter().enumerate() {
            let text = std::str::from_utf8(out).expect("UTF-8");
            assert!(
                !text.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t' | '\u{7f}')),
                "{text:?}"
            );
            if number > 0 {
                text.lines().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).expect("JSON")));
            }
        }
        let (cols, rows) = screen.size();
        let mut again = avt::Terminal::new(cols, rows).expect("terminal");
        again.feed(screen.dump());
    }
}

pub(crate) fn archives() -> Vec<Vec<u8>> {
    let file = |name: &str, kind: &str, size: usize, body: &str| {
        let header = |checksum: &str| {
            let size = format!("{size:011o}");
            let fields =
                [(name, 100), ("0000644", 8), ("", 16), (&size, 12), ("", 12), (checksum, 8), (kind, 1), ("x", 100)];
            let fields = fields.into_iter().chain([("ustar\x0000", 88), ("prefix", 167)]);
            fields.map(|(text, length)| format!("{text:\0<length$}")).collect::<String>()
        };
        let sum: u32 = header("        ").bytes().map(u32::from).sum();
        let padded = body.len().next_multiple_of(512);
        format!("{}{body:\0<padded$}", header(&format!("{sum:06o}\0 "))).into_bytes()
    };
    let pax = "23 path=another/name\nx\n13 size=0017\n";
    vec![
        [file("a", "0", 5, "12345"), file("b/", "5", 0, ""), file("l", "2", 0, ""), vec![0; 1024]].concat(),
        [file("././@LongLink", "L", 7, "longer\0"), file("x", "0", 0, ""), vec![0; 1024]].concat(),
        [file("pax", "x", pax.len(), pax), file("x", "0", 0, &"c".repeat(17)), vec![0; 1024]].concat(),
    ]
}

/// The files of an archive do not depend on the chunking, and their names can be shown.
pub(crate) fn list(input: &[u8]) {
    let listed = |length: usize| {
        let (mut lister, mut found) = (Lister::default(), Vec::new());
        input.chunks(length.max(1)).for_each(|piece| lister.push(piece, &mut found));
        (found, lister.standing())
    };
    let whole = listed(input.len());
    assert_eq!(whole, listed(7));
    for entry in &whole.0 {
        assert!(!entry.to_string().chars().any(char::is_control));
    }
}

/// Chunks of a few events each.
pub(crate) fn chunks() -> Vec<Vec<u8>> {
    let header = header(true);
    let mut chain = Chain::new(&header, Header::link(b"header"));
    let pieces = outputs();
    let mut sealed = |(number, piece): (u64, &Vec<u8>)| {
        let mut open = Open::new(number, Duration::from_micros(number));
        let bytes = Bytes::copy_from_slice(piece);
        let data = EventKind::Data { channel: Channel::Stdout, direction: Direction::ToClient, bytes: bytes.clone() };
        let marker = EventKind::Marker { name: "m".into(), detail: "d".repeat(30) };
        for kind in [data, EventKind::Resize { cols: 80, rows: 24 }, marker, EventKind::Status { bytes }] {
            open.push(Duration::from_millis(number), &kind).expect("event");
        }
        chain.seal(open).expect("chunk").object
    };
    (0..).zip(&pieces).map(&mut sealed).collect()
}

/// What is read of a chunk is within its head, and its head is written as it was.
pub(crate) fn read_chunk(input: &[u8]) {
    let Ok(chunk) = Chunk::parse(input) else { return };
    assert_eq!(chunk.head.to_bytes(), input[..HEAD_LEN]);
    let events: Vec<_> = chunk.events().collect();
    let whole = events.iter().filter(|event| event.is_ok()).count();
    assert!(events.len() - whole <= 1, "after an error there are no more");
    if whole == events.len() {
        assert_eq!(whole, chunk.head.events as usize);
        let last = events.into_iter().filter_map(Result::ok).next_back();
        assert!(last.is_none_or(|event| event.at == Duration::from_micros(chunk.head.last_us)));
    }
}
