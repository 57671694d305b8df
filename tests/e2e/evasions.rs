//! Ways to slip something past a recorder: streams that two parsers read differently, and paths around pods/exec. Each
//! is recorded exactly as the container saw it, or refused; the container's own file says what it saw.

mod raw;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use kustody::core::wire::spdy::{Encoder, Frame, Headers, StreamId};

use crate::Test;
use crate::stage::Stage;
use crate::stage::run::{Run, eventually};
use crate::stage::story::{held, objects_of};
use raw::{Raw, bare_frame, frame, frame_of_length};

pub(super) const TESTS: &[Test] = &[
    ("evasions: however stdin is framed, the recording holds what the container saw", streams_are_recorded_as_seen),
    ("evasions: over SPDY the recording holds what the container saw", spdy_is_recorded_as_seen),
    ("evasions: no other path reaches a container or a node", other_paths_are_refused),
    ("a log and a watch over WebSocket say what they say over HTTP", reads_over_websocket),
];

const V4: &str = "Sec-WebSocket-Protocol: v4.channel.k8s.io";
const V5: &str = "Sec-WebSocket-Protocol: v5.channel.k8s.io";
const BASE64: &str = "Sec-WebSocket-Protocol: base64.channel.k8s.io";
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
/// Without FIN.
const BEGUN: u8 = 0x02;
const CONTINUED: u8 = 0x00;
const LAST: u8 = 0x80;

/// What must become of an evasion.
enum Fate {
    /// The container saw just this.
    Seen(&'static [u8]),
    /// The session ended, or never began; the container saw no more than this.
    Cut(&'static [u8]),
}
use Fate::{Cut, Seen};

/// One evasion.
struct Case {
    name: &'static str,
    protocol: &'static str,
    /// Sent behind the answer, each in a write of its own.
    writes: Vec<Vec<u8>>,
    fate: Fate,
}

fn case(name: &'static str, protocol: &'static str, writes: Vec<Vec<u8>>, fate: Fate) -> Case {
    Case { name, protocol, writes, fate }
}

/// A stdin message, whole.
fn stdin(payload: &[u8]) -> Vec<u8> {
    frame(BINARY, &[&[0], payload].concat())
}

/// The orderly end of stdin over v5.
fn over() -> Vec<u8> {
    frame(BINARY, &[255, 0])
}

/// Messages in pieces.
fn fragments() -> Vec<Case> {
    let split: Vec<Vec<u8>> = [stdin(b"split"), over()].concat().chunks(1).map(<[u8]>::to_vec).collect();
    let fragmented = || [frame(BEGUN, b"\0hel"), frame(CONTINUED, b"lo "), frame(LAST, b"there")].concat();
    vec![
        case("whole", V5, vec![stdin(b"whole"), over()], Seen(b"whole")),
        case("a message in fragments", V5, vec![fragmented(), over()], Seen(b"hello there")),
        case(
            "a continuation with a channel byte of its own",
            V5,
            vec![[frame(BEGUN, b"\0a"), frame(LAST, b"\0b"), over()].concat()],
            Seen(b"a\0b"),
        ),
        case(
            "a half-close hidden in a fragment",
            V5,
            vec![[frame(BEGUN, b"\0a"), frame(LAST, &[255, 0]), stdin(b"later"), over()].concat()],
            Seen(b"a\xff\0later"),
        ),
        case(
            "a ping between fragments",
            V5,
            vec![[frame(BEGUN, b"\0a"), frame(0x89, b"ping"), frame(LAST, b"b"), over()].concat()],
            Seen(b"ab"),
        ),
        case("a continuation of nothing", V5, vec![[frame(LAST, b"\0orphan"), over()].concat()], Cut(b"")),
        case(
            "a new message before the last is whole",
            V5,
            vec![[frame(BEGUN, b"\0a"), stdin(b"b"), over()].concat()],
            Cut(b""),
        ),
        case("every byte in a write of its own", V5, split, Seen(b"split")),
    ]
}

/// Frames whose head is not as it should be.
fn headers() -> Vec<Case> {
    let hello = |first: u8| vec![[frame(first, b"\0typed"), over()].concat()];
    vec![
        case("text instead of binary", V5, hello(TEXT), Seen(b"typed")),
        case("text that is no UTF-8", V5, vec![[frame(TEXT, b"\0\xff\xfe"), over()].concat()], Seen(b"\xff\xfe")),
        case("reserved data opcode 3", V5, hello(0x83), Cut(b"")),
        case("reserved data opcode 7", V5, hello(0x87), Cut(b"")),
        case("reserved control opcode 11", V5, hello(0x8b), Cut(b"")),
        case("reserved control opcode 15", V5, hello(0x8f), Cut(b"")),
        case("RSV1", V5, hello(0xc2), Cut(b"")),
        case("all RSV bits", V5, hello(0xf2), Cut(b"")),
        case(
            "a length with its top bit set",
            V5,
            vec![[frame_of_length(BINARY, 1 << 63 | 6, b"\0typed"), over()].concat()],
            Cut(b""),
        ),
        case(
            "a length that is longer than it need be",
            V5,
            vec![[frame_of_length(BINARY, 6, b"\0typed"), over()].concat()],
            Cut(b""),
        ),
        case("a frame larger than any may be", V5, vec![frame_of_length(BINARY, 1 << 40, b"\0typed")], Cut(b"")),
        case(
            "a frame without a mask",
            V5,
            vec![[stdin(b"first"), bare_frame(BINARY, b"\0typed")].concat()],
            Cut(b"first"),
        ),
        case("a control frame of 126 bytes", V5, vec![[frame(0x89, &[b'x'; 126]), over()].concat()], Cut(b"")),
    ]
}

/// Messages that mean nothing, end something, or come too late, and other encodings.
fn messages() -> Vec<Case> {
    vec![
        case(
            "half a frame, then nothing",
            V5,
            vec![[stdin(b"whole"), stdin(b"never finished")[..9].to_vec()].concat()],
            Cut(b"whole"),
        ),
        case(
            "messages of no effect",
            V5,
            vec![
                [
                    frame(BINARY, b""),
                    frame(BINARY, b"\x01x"),
                    frame(BINARY, b"\x09x"),
                    frame(BINARY, b"\xc8x"),
                    stdin(b"typed"),
                    over(),
                ]
                .concat(),
            ],
            Seen(b"typed"),
        ),
        case("half-close with data", V5, vec![[stdin(b"a"), frame(BINARY, b"\xff\0x"), over()].concat()], Cut(b"a")),
        case("half-close of nothing", V5, vec![[stdin(b"a"), frame(BINARY, b"\xff")].concat()], Cut(b"a")),
        case("input after its end", V5, vec![[stdin(b"a"), over(), stdin(b"b")].concat()], Seen(b"a")),
        case(
            "input after a close frame",
            V5,
            vec![[stdin(b"a"), frame(CLOSE, &[3, 232]), stdin(b"b")].concat()],
            Cut(b"a"),
        ),
        case(
            "NUL bytes and backspaces",
            V5,
            vec![stdin(b"a\0b\x08\x08\x7f\x1b[2K"), over()],
            Seen(b"a\0b\x08\x08\x7f\x1b[2K"),
        ),
        case("a last line without its end", V5, vec![stdin(b"one\ntwo"), over()], Seen(b"one\ntwo")),
        case(
            "v5's half-close on v4",
            V4,
            vec![[stdin(b"a"), over(), stdin(b"b"), frame(CLOSE, &[3, 232])].concat()],
            Cut(b"ab"),
        ),
        case("base64", BASE64, vec![[frame(TEXT, b"0dHlwZWQ="), frame(CLOSE, &[3, 232])].concat()], Cut(b"typed")),
        case(
            "base64 in a binary frame",
            BASE64,
            vec![[frame(BINARY, b"0dHlwZWQ="), frame(CLOSE, &[3, 232])].concat()],
            Cut(b"typed"),
        ),
        case(
            "base64 with line ends, and without padding",
            BASE64,
            vec![[frame(TEXT, b"0dHl\r\nwZWQ="), frame(TEXT, b"0dHlwZWQ"), frame(CLOSE, &[3, 232])].concat()],
            Cut(b"typed"),
        ),
    ]
}

/// The request of an exec whose process writes what it reads to a file.
fn exec(pod: &str, file: &str, flags: &str) -> String {
    let script = format!("cat>{file}");
    let script = script.replace('>', "%3E").replace('/', "%2F");
    format!("/api/v1/namespaces/shop/pods/{pod}/exec?command=sh&command=-c&command={script}&{flags}")
}

fn streams_are_recorded_as_seen(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let cases: Vec<Case> = [fragments(), headers(), messages()].into_iter().flatten().collect();
    for (number, case) in cases.iter().enumerate() {
        let target = exec(&pod, &file("ws", number), "stdin=true&stdout=true&stderr=true");
        let mut raw = Raw::connect(stage)?;
        let headers = [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            case.protocol,
        ];
        raw.ask(&format!("GET {target}"), &headers, b"")?;
        let (status, answer) = raw.answer()?;
        ensure!(status == 101, "{}: {answer}", case.name);
        for write in &case.writes {
            // The gateway may have cut the connection.
            if raw.say(write).is_err() {
                break;
            }
        }
        if case.name.starts_with("half a frame") {
            continue; // Dropped: the connection ends in the middle of a frame.
        }
        raw.until_it_ends().with_context(|| case.name.to_owned())?;
    }
    compare(stage, &pod, "ws", cases.iter().map(|case| (case.name, &case.fate)))
}

fn file(kind: &str, number: usize) -> String {
    format!("/tmp/evasion-{kind}-{number}")
}

/// Holds what the container saw against the recording and against what is expected.
fn compare<'a>(
    stage: &Stage,
    pod: &str,
    kind: &str,
    fates: impl Iterator<Item = (&'a str, &'a Fate)>,
) -> anyhow::Result<()> {
    let fates: Vec<_> = fates.enumerate().map(|(number, (name, fate))| (file(kind, number), name, fate)).collect();
    let sessions = eventually(Duration::from_secs(20), || {
        let found = sessions(stage)?;
        let missing = fates.iter().find(|(own, ..)| !found.contains_key(own));
        ensure!(missing.is_none(), "{}: there is no recording that ended", missing.map_or("", |(_, name, _)| name));
        Ok(found)
    })?;
    let (mut whole, mut all) = (0, 0);
    for (own, name, fate) in fates {
        let recorded = stdin_of(stage, sessions.get(&own).context("no session")?).with_context(|| name.to_owned())?;
        let same = eventually(Duration::from_secs(2), || {
            ensure!(in_container(stage, pod, &own)? == recorded);
            Ok(())
        });
        // Whoever ends a session loses what is still on its way to the process, with Kustody and without.
        let seen = if same.is_ok() { recorded.clone() } else { in_container(stage, pod, &own)? };
        ensure!(recorded.starts_with(&seen), "{name}: the container saw {seen:?}, the recording holds {recorded:?}");
        match fate {
            Seen(expected) => {
                ensure!(recorded == *expected, "{name}: the recording holds {:?}", lossy(&recorded));
                all += 1;
                whole += i32::from(seen == *expected);
            }
            Cut(most) => ensure!(most.starts_with(&seen), "{name}: the container saw {:?}", lossy(&seen)),
        }
    }
    ensure!(2 * whole >= all, "the container saw {whole} of {all} whole");
    Ok(())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a process of the container wrote to a file; nothing when it never ran.
fn in_container(stage: &Stage, pod: &str, file: &str) -> anyhow::Result<Vec<u8>> {
    let read = format!("base64 {file} 2>/dev/null || true");
    let text = stage.cluster.admin(&["exec", "-n", "shop", pod, "--", "sh", "-c", &read])?.out();
    Ok(STANDARD.decode(text.replace('\n', ""))?)
}

/// The sessions of these tests that have ended, by the file that their command writes.
fn sessions(stage: &Stage) -> anyhow::Result<BTreeMap<String, String>> {
    let listed = stage.run(&stage.people.approver, "kustody sessions --limit 200 -o json").ok()?;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout)?;
    let ended = listed.iter().filter(|one| one["state"] != "recording");
    let named = ended.filter_map(|one| {
        let command = one["header"]["stream"]["command"][2].as_str()?;
        let file = command.strip_prefix("cat>")?;
        Some((file.to_owned(), one["session"].as_str()?.to_owned()))
    });
    Ok(named.collect())
}

/// The stdin of a session, by the reader in Python, which checks it first.
fn stdin_of(stage: &Stage, session: &str) -> anyhow::Result<Vec<u8>> {
    let header = objects_of(&stage.s3.data_dir, session)?
        .into_iter()
        .find(|path| path.ends_with("header.json"))
        .context("the bucket holds no header of the session")?;
    let folder = header.parent().context("no folder")?.to_string_lossy().into_owned();
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings-schema/reader.py");
    Ok(Run::new(&["python3", &reader.to_string_lossy(), &folder, "stdin"]).ok()?.stdout)
}

/// A frame, where its stream has a number that streams may have.
type Written = Option<Frame>;

fn opened(stream: u32, name: &'static str) -> Written {
    let headers = Headers::new([("streamtype", name)]);
    Some(Frame::SynStream { stream: StreamId::new(stream)?, fin: false, headers })
}

fn data(stream: u32, bytes: &'static [u8], fin: bool) -> Written {
    Some(Frame::Data { stream: StreamId::new(stream)?, fin, bytes: bytes.into() })
}

fn headers_on(stream: u32) -> Written {
    Some(Frame::Headers { stream: StreamId::new(stream)?, fin: false, headers: Headers::new([("x", "y")]) })
}

/// A name, the flags of the query, what is sent, and what must become of it.
type SpdyCase = (&'static str, &'static str, Vec<Written>, Fate);

/// The streams that the request asks for, then these frames.
fn opened_and(more: Vec<Written>) -> Vec<Written> {
    let mut frames = vec![opened(1, "error"), opened(3, "stdin"), opened(5, "stdout"), opened(7, "stderr")];
    frames.extend(more);
    frames
}

fn spdy_cases() -> Vec<SpdyCase> {
    let all = "stdin=true&stdout=true&stderr=true";
    vec![
        ("in order", all, opened_and(vec![data(3, b"typed", true)]), Seen(b"typed")),
        (
            "data before anybody has taken the stream",
            all,
            vec![
                opened(1, "error"),
                opened(3, "stdin"),
                data(3, b"early", true),
                opened(5, "stdout"),
                opened(7, "stderr"),
            ],
            Seen(b"early"),
        ),
        (
            "a stdin that the query denies",
            "stdin=false&stdout=true&stderr=true",
            vec![opened(1, "error"), opened(3, "stdin"), opened(5, "stdout"), data(3, b"typed", true)],
            Cut(b""),
        ),
        (
            "a second stdin",
            all,
            vec![
                opened(1, "error"),
                opened(3, "stdin"),
                opened(5, "stdin"),
                opened(7, "stdout"),
                opened(9, "stderr"),
                data(5, b"second", true),
                data(3, b"first", true),
            ],
            Seen(b"first"),
        ),
        (
            "a second stdin in place of stderr",
            all,
            vec![
                opened(1, "error"),
                opened(3, "stdin"),
                opened(5, "stdout"),
                opened(7, "stdin"),
                data(7, b"second", true),
                opened(9, "stderr"),
                data(3, b"first", true),
            ],
            Seen(b"first"),
        ),
        ("headers on stdin", all, opened_and(vec![headers_on(3), data(3, b"typed", true)]), Seen(b"typed")),
        (
            "data on a stream that nobody opened",
            all,
            opened_and(vec![data(11, b"lost", false), data(3, b"typed", true)]),
            Seen(b"typed"),
        ),
        ("data after its end", all, opened_and(vec![data(3, b"a", true), data(3, b"b", true)]), Seen(b"a")),
    ]
}

fn spdy_is_recorded_as_seen(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let cases = spdy_cases();
    for (number, (name, flags, frames, _)) in cases.iter().enumerate() {
        let mut raw = Raw::connect(stage)?;
        let headers = ["Connection: Upgrade", "Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io"];
        raw.ask(&format!("POST {}", exec(&pod, &file("spdy", number), flags)), &headers, b"")?;
        let (status, answer) = raw.answer()?;
        ensure!(status == 101, "{name}: {answer}");
        let (mut encoder, mut out) = (Encoder::default(), bytes::BytesMut::new());
        for frame in frames {
            encoder.encode(frame.as_ref().context("a stream without a number")?, &mut out);
        }
        raw.say(&out)?;
        if matches!(cases[number].3, Seen(_)) {
            raw.until_it_ends().with_context(|| (*name).to_owned())?;
        } else {
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    compare(stage, &pod, "spdy", cases.iter().map(|(name, _, _, fate)| (*name, fate)))
}

/// What a server says over a WebSocket, message by message, until it ends or there were so many.
fn heard(stage: &Stage, target: &str, protocol: &str, most: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut raw = Raw::connect(stage)?;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let headers = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key, protocol];
    raw.ask(&format!("GET {target}"), headers.strip_suffix(&[""]).unwrap_or(&headers), b"")?;
    raw.messages(most)
}

fn reads_over_websocket(stage: &mut Stage) -> anyhow::Result<()> {
    let image = format!("--image={}", stage.cluster.image);
    let run = ["run", "teller", "-n", "shop", &image, "--image-pull-policy=Never", "--restart=Never", "--"];
    stage.cluster.admin(&[&run[..], &["sh", "-c", "echo one; echo two"]].concat())?;
    let done = "--for=jsonpath={.status.phase}=Succeeded";
    stage.cluster.admin(&["wait", "pod/teller", "-n", "shop", done, "--timeout=30s"])?;
    let log = "/api/v1/namespaces/shop/pods/teller/log";
    for (protocol, expected) in [
        ("", &b"one\ntwo\n"[..]),
        ("Sec-WebSocket-Protocol: binary.k8s.io", b"one\ntwo\n"),
        ("Sec-WebSocket-Protocol: base64.binary.k8s.io", b"b25lCnR3bwo="),
    ] {
        let all = heard(stage, log, protocol, usize::MAX)?;
        ensure!(all[0].is_empty() && all.concat() == expected, "{protocol}: {all:?}");
    }
    let watch = "/api/v1/namespaces/shop/pods?watch=true&fieldSelector=metadata.name%3Dteller&resourceVersion=0";
    let events = heard(stage, watch, "", 1)?;
    let event: serde_json::Value = serde_json::from_slice(&events[0])?;
    ensure!(event["type"] == "ADDED" && event["object"]["metadata"]["name"] == "teller", "{event}");
    stage.cluster.admin(&["delete", "pod", "teller", "-n", "shop", "--now"]).map(drop)
}

fn other_paths_are_refused(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let node = stage.cluster.admin(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?.out();
    let run = "command=touch&command=%2Ftmp%2Fevasion-path&stdout=true";
    let of_pod = format!("/api/v1/namespaces/shop/pods/{pod}");
    let of_node = format!("/api/v1/nodes/{node}/proxy");
    let upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        V5,
    ];
    let with = |line: &'static str| [&upgrade[..1], &[line], &upgrade[2..]].concat();
    let paths: Vec<(String, Vec<&str>)> = vec![
        (format!("GET {of_node}/exec/shop/{pod}/web?{run}"), upgrade.to_vec()),
        (format!("POST {of_node}/run/shop/{pod}/web?cmd=touch%20/tmp/evasion-path"), vec!["Content-Length: 0"]),
        (format!("GET {of_node}/attach/shop/{pod}/web?stdout=true"), upgrade.to_vec()),
        (format!("GET {of_node}/portForward/shop/{pod}?port=80"), upgrade.to_vec()),
        (format!("GET {of_node}/containerLogs/shop/{pod}/web"), vec![]),
        (format!("GET {of_node}/"), vec![]),
        (format!("GET {of_pod}/proxy/"), vec![]),
        (format!("GET {of_pod}:80/proxy/anything"), upgrade.to_vec()),
        ("GET /api/v1/namespaces/shop/services/web/proxy/".to_owned(), vec![]),
        ("GET /api/v1/namespaces/shop/services/https:web:443/proxy/".to_owned(), upgrade.to_vec()),
        (format!("GET /api/v1/namespaces/shop/pods%2f{pod}%2fexec?{run}"), upgrade.to_vec()),
        (format!("GET /api/v1/namespaces/shop/p%6fds/{pod}/exec?{run}"), upgrade.to_vec()),
        (format!("GET {of_pod}/./exec?{run}"), upgrade.to_vec()),
        (format!("GET /{of_pod}/exec?{run}"), upgrade.to_vec()),
        (format!("GET {of_pod}/exec?{run};x=1"), upgrade.to_vec()),
        (format!("POST {of_pod}/exec?{run}"), upgrade.to_vec()),
        (format!("GET {of_pod}/exec?{run}"), with("Upgrade: websocket, SPDY/3.1")),
        (format!("GET {of_pod}/exec?{run}"), with("Upgrade: h2c")),
        (format!("GET {of_pod}/exec?{run}"), [&upgrade[..4], &["Sec-WebSocket-Protocol: v9.channel.k8s.io"]].concat()),
        (format!("GET {of_pod}?{run}"), upgrade.to_vec()),
        (format!("CONNECT {of_pod}/exec?{run}"), vec![]),
        (format!("TRACE {of_pod}/exec?{run}"), vec![]),
        (format!("POST {of_pod}/exec?{run}"), vec!["Content-Length: 0"]),
    ];
    for (line, headers) in paths {
        let mut raw = Raw::connect(stage)?;
        raw.ask(&line, &headers, b"")?;
        if headers.is_empty() && (line.contains("services/") || line.contains("/proxy/") && line.contains("/pods/")) {
            // A pod's or a Service's proxy is a person's to allow; by default it waits for one.
            let id = held(stage).with_context(|| line.clone())?;
            stage.run_argv(&stage.people.approver, &["kustody", "deny", &id, "--reason", "a test"]).ok()?;
        }
        let (status, answer) = raw.answer().with_context(|| line.clone())?;
        let told = answer.contains("\"kind\":\"Status\"") && answer.contains("\"message\":\"");
        ensure!((400..500).contains(&status) && told, "{line}: {answer}");
    }
    let touched = in_container(stage, &pod, "/tmp/evasion-path")?;
    let listed = stage.cluster.admin(&["exec", "-n", "shop", &pod, "--", "ls", "/tmp"])?.out();
    ensure!(touched.is_empty() && !listed.contains("evasion-path"), "something ran: {listed}");
    Ok(())
}
