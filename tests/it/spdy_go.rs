//! Kustody's SPDY decoder against spdystream's, the one that Kubernetes uses: `tests/spdy` asks it what it reads in
//! random and damaged streams, and the answers are checked in.
//!
//! The law: Kustody gives no frame that spdystream does not give, in the same order with the same content. It may stop
//! earlier, because it refuses what spdystream lets pass: other versions, lengths that do not fit, flags without
//! meaning, ids out of order, leftovers in header blocks; or waits, where a length announces more. That is safe, for nothing after an error is passed on and what
//! was passed on is written anew. Undamaged streams must be read to the end. `KUSTODY_SPDY_ANSWERS` names another file.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kustody::core::wire::spdy::{Decoder, Frame, Headers, MAX_DATA, Side};
use serde::Deserialize;
use std::fmt::Write;

#[derive(Deserialize)]
struct Answer {
    client: bool,
    bytes: String,
    frames: Vec<String>,
    error: String,
}

/// How reading ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// A frame has begun. Where its length lies, spdystream may have read on: it does not look at all lengths.
    Waits,
    Refused,
}

fn answers() -> Vec<Answer> {
    let file = std::env::var("KUSTODY_SPDY_ANSWERS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spdy/answers.json").to_owned());
    serde_json::from_slice(&std::fs::read(file).expect("answers")).expect("JSON")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// As `tests/spdy` writes them.
fn list(headers: &Headers) -> String {
    let mut lines: Vec<String> = headers.iter().map(|(name, value)| format!("{}={}", hex(name), hex(value))).collect();
    lines.sort();
    lines.join(",")
}

fn line(frame: &Frame) -> String {
    match frame {
        Frame::SynStream { stream, fin, headers } => format!("syn-stream {} {fin} {}", stream.get(), list(headers)),
        Frame::SynReply { stream, fin, headers } => format!("syn-reply {} {fin} {}", stream.get(), list(headers)),
        Frame::Headers { stream, fin, headers } => format!("headers {} {fin} {}", stream.get(), list(headers)),
        Frame::RstStream { stream, status } => format!("rst-stream {} {}", stream.get(), status.number()),
        Frame::Settings(settings) => format!("settings {}", settings.len()),
        Frame::Ping(id) => format!("ping {id}"),
        Frame::GoAway { last, status } => format!("go-away {last} {status}"),
        Frame::WindowUpdate { stream, delta } => format!("window-update {stream} {delta}"),
        Frame::Data { stream, fin, bytes } => format!("data {} {fin} {}", stream.get(), hex(bytes)),
    }
}

fn read(answer: &Answer) -> (Vec<String>, End) {
    let side = if answer.client { Side::Client } else { Side::Server };
    let mut decoder = Decoder::new(side, MAX_DATA);
    decoder.push(&STANDARD.decode(&answer.bytes).expect("base64"));
    let mut frames = Vec::new();
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(line(&frame)),
            Ok(None) if decoder.is_midway() => return (frames, End::Waits),
            Ok(None) => return (frames, End::Whole),
            Err(_) => return (frames, End::Refused),
        }
    }
}

#[test]
fn every_frame_is_one_that_spdystream_reads_too() {
    let answers = answers();
    let (mut whole, mut refused) = (0, 0);
    for answer in &answers {
        let (frames, end) = read(answer);
        let same = answer.frames.get(..frames.len()).is_some_and(|theirs| theirs == frames);
        assert!(same, "{}: {frames:?}, and spdystream {:?} {}", answer.bytes, answer.frames, answer.error);
        match end {
            End::Whole => {
                assert_eq!(frames, answer.frames, "{}: nothing is left out in silence", answer.bytes);
                whole += 1;
            }
            End::Waits => {}
            End::Refused => refused += 1,
        }
    }
    assert!(whole > answers.len() / 5 && refused > answers.len() / 5, "{whole} whole, {refused} refused");
}
