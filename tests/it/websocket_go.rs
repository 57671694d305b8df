//! Kustody's WebSocket decoder and channel messages against the code that Kubernetes itself runs: `tests/websocket` asks
//! it what it reads in random and damaged streams, and the answers are checked in.
//!
//! The law: regular frames mean the same to both, and whatever Kustody reads otherwise is one of the named classes below.
//! Each is safe for one reason: Kustody ends the connection and opens its own, so the other side sees nothing but what
//! Kustody read, recorded and wrote anew, one whole frame a message. Then it does not matter who is right, only that
//! nothing passes unread. `KUSTODY_WEBSOCKET_ANSWERS` names another file.
//!
//! What a client sends, where `golang.org/x/net/websocket` and `wsstream` read more (RFC 6455 is on Kustody's side):
//! - fragments: Go takes each for a message with a channel of its own, also one that continues nothing. Kustody puts them
//!   together as their sender meant them. With each made a message of its own, the two agree again.
//! - reserved bits, opcodes, lengths that are not the shortest, long or unfinished control frames: Go does not look.
//!   Kustody ends the session there.
//! - cut off: of a frame that the connection's end cuts, Go gives the first part, and obeys the head of a close frame.
//!   Kustody gives, and passes on, nothing.
//! - sizes without a terminal: read by Go and without effect; dropped.
//! - sizes after their channel was closed: `(255, 4)` makes Go drop them. Kustody drops the signal and passes the sizes on.
//!
//! What a server sends, where client-go and `gorilla/websocket` read less or more:
//! - text, empty message: end kubectl's session. Kustody takes text like bytes, so does its client; the empty one goes nowhere.
//! - lengths, close frames of one byte: gorilla takes them, as it does a close signal of no known channel. Kustody ends.
//! - parts of a message: gorilla gives parts of one, or of the first fragments of one, before all of it has come.

mod reading;

use kustody::core::recording::summary::Exit;
use kustody::core::wire::channels::{RESIZE, STDERR, STDOUT};
use kustody::core::wire::websocket::Error;
use reading::{Answer, End, Read, beginnings, decoded, read, unfragmented};
use std::collections::BTreeMap;

/// The classes that a case of a client's bytes belongs to.
fn client_case(answer: &Answer) -> Vec<&'static str> {
    let sent = answer.sent();
    let ours = read(answer, &unfragmented(&sent));
    let mut theirs = decoded(&answer.read);
    let mut classes = Vec::new();
    let mut note = |applies: bool, class: &'static str| classes.extend(applies.then_some(class));
    let whole = read(answer, &sent);
    note(whole.channels != ours.channels || whole.end != ours.end, "fragments");
    if answer.reader == "channels" && !answer.tty {
        note(theirs.remove(&RESIZE).is_some(), "sizes without a terminal");
    }
    note(!ours.late_sizes.is_empty(), "sizes after their channel was closed");
    let ended = answer.end == "ended";
    // Of a close frame Go reads the head alone.
    let last = beginnings(&sent).pop().and_then(|at| sent.get(at..)).unwrap_or_default();
    let closes = ended && ours.end == End::Midway && matches!(last, [first, _, ..] if first & 0x0f == 8);
    note(closes, "cut off");
    match ours.end {
        End::Midway if closes => assert_eq!(ours.channels, theirs, "{}", answer.bytes),
        End::Open | End::Midway => {
            assert_eq!(ours.channels, theirs, "{}", answer.bytes);
            assert!(!ended, "{}: nobody ended it", answer.bytes);
            let (mut closed, mut ours_closed) = (answer.closed.clone(), ours.closed.clone());
            closed.sort_unstable();
            ours_closed.sort_unstable();
            ours_closed.dedup();
            assert_eq!(ours_closed, closed, "{}", answer.bytes);
            note(!answer.late.is_empty(), "cut off");
            assert!(answer.late.is_empty() || ours.end == End::Midway, "{}", answer.bytes);
        }
        End::Closed(_) | End::BadClose => {
            assert_eq!(ours.channels, theirs, "{}", answer.bytes);
            assert!(ended, "{}: both end it", answer.bytes);
        }
        End::Refused(Error::Masking | Error::TooLarge(_) | Error::Close) => {
            assert_eq!(ours.channels, theirs, "{}: Go refuses that, too", answer.bytes);
        }
        End::Refused(error) => {
            for (channel, messages) in &ours.channels {
                let same = theirs.get(channel).is_some_and(|theirs| theirs.starts_with(messages));
                assert!(same, "{}: {messages:?}, and Go {theirs:?}", answer.bytes);
            }
            note(true, lax(error));
        }
        End::Empty => unreachable!("a client's empty message is dropped"),
    }
    classes
}

/// What Go does not look at.
fn lax(error: Error) -> &'static str {
    match error {
        Error::Reserved => "reserved bits",
        Error::Opcode(_) => "opcodes",
        Error::Length => "lengths",
        Error::Control => "control frames",
        Error::Masking | Error::Fragment | Error::TooLarge(_) | Error::Close => {
            unreachable!("{error}: Go refuses that, too")
        }
    }
}

/// The classes that a case belongs to in which gorilla reads: both ends of a tunnel, and kubectl's executor.
fn gorilla_case(answer: &Answer) -> Vec<&'static str> {
    let sent = answer.sent();
    let text = beginnings(&sent).into_iter().find(|at| sent.get(*at).is_some_and(|first| first & 0x0f == 1));
    let ours = read(answer, sent.get(..text.unwrap_or(sent.len())).expect("before it"));
    let is_tunnel = answer.reader != "executor";
    let wanted: &[u8] = if is_tunnel { &[0] } else { &[STDOUT, STDERR] };
    let (mut same, mut begins) = (true, true);
    for channel in wanted {
        let theirs = decoded(&answer.read).remove(channel).unwrap_or_default().concat();
        same &= ours.all(*channel) == theirs;
        begins &= theirs.starts_with(&ours.all(*channel));
    }
    assert!(begins, "{}: {:?}, and gorilla {:?}", answer.bytes, ours.channels, answer.read);
    let equal = |class| {
        assert!(same, "{}: {:?}, and gorilla {:?}", answer.bytes, ours.channels, answer.read);
        class
    };
    let class = match ours.end {
        End::Open if text.is_some() => equal(Some("text")),
        End::Empty => equal(Some("empty message")),
        End::Open => equal(None),
        End::Closed(code) if same || !ours.midway => {
            check_end(answer, &ours, code);
            equal(None)
        }
        End::Closed(_) | End::Midway | End::Refused(Error::TooLarge(_)) => (!same).then_some("parts of a message"),
        End::Refused(Error::Length) => Some("lengths at gorilla"),
        End::Refused(Error::Close) => Some("close frames at gorilla"),
        End::Refused(_) => {
            assert!(!answer.end.is_empty(), "{}: gorilla refuses that, too", answer.bytes);
            (!same).then_some("parts of a message")
        }
        End::BadClose => Some("close signals at kubectl"),
    };
    class.into_iter().collect()
}

/// kubectl's exit code is the recording's, where the session was closed in order.
fn check_end(answer: &Answer, ours: &Read, code: Option<u16>) {
    if answer.reader != "executor" || code != Some(1000) {
        return;
    }
    let exit = Exit::from_status(&ours.all(3)).and_then(|exit| exit.code);
    let told = answer.end.strip_prefix("exit ").and_then(|code| code.parse().ok());
    assert_eq!(exit.filter(|code| *code != 0), told, "{}: {}", answer.bytes, answer.end);
}

#[test]
fn whatever_go_reads_otherwise_is_of_a_known_kind() {
    let file = std::env::var("KUSTODY_WEBSOCKET_ANSWERS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/websocket/answers.json").to_owned());
    let answers: Vec<Answer> = serde_json::from_slice(&std::fs::read(file).expect("answers")).expect("JSON");
    let mut counts = BTreeMap::<&str, usize>::new();
    for answer in &answers {
        let is_wsstream = matches!(answer.reader.as_str(), "channels" | "ports");
        let classes = if is_wsstream { client_case(answer) } else { gorilla_case(answer) };
        let same = if classes.is_empty() { vec!["same"] } else { classes };
        same.into_iter().for_each(|class| *counts.entry(class).or_default() += 1);
    }
    let known = [
        "close frames at gorilla",
        "close signals at kubectl",
        "control frames",
        "cut off",
        "empty message",
        "fragments",
        "lengths",
        "lengths at gorilla",
        "opcodes",
        "parts of a message",
        "reserved bits",
        "same",
        "sizes after their channel was closed",
        "sizes without a terminal",
        "text",
    ];
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), known, "{counts:?}");
    assert!(counts["same"] > answers.len() / 3, "{counts:?}");
}
