//! What people do with recordings, with the real binary against a real store: find them, look at them, export them.

use std::fs;

use bytes::Bytes;
use kustody::core::recording::header::{Header, SessionKind, Stream};
use kustody::core::recording::{Channel, Direction, EventKind};
use serde_json::Value;

use crate::evidence::{Evidence, exec_header, recorded, text};
use crate::spool::stdout;

pub(crate) fn data(channel: Channel, bytes: &[u8]) -> EventKind {
    let direction = if channel == Channel::Stdin { Direction::ToContainer } else { Direction::ToClient };
    EventKind::Data { channel, direction, bytes: Bytes::copy_from_slice(bytes) }
}

/// A shell on a terminal, resized once, with a hostile sequence and exit status 3.
pub(crate) async fn shell() -> Evidence {
    let header = Header {
        run: Some("run-7".into()),
        stream: Stream { command: vec!["sh".into()], tty: true, stdin: true, ..Stream::default() },
        ..exec_header()
    };
    let status = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    let events = [
        (1, EventKind::Resize { cols: 100, rows: 30 }),
        (100, stdout("$ ")),
        (1500, data(Channel::Stdin, b"ls\r")),
        (1501, stdout(&b"ls\r\n\x1b]52;c;eA==\x07\x1b[32mfile\x1b[0m\r\n\xe2\x82"[..])),
        (1600, stdout(&b"\xac\r\n"[..])),
        (1700, EventKind::Status { bytes: Bytes::from_static(status) }),
    ];
    recorded(header, events).await
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    text(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_asciicast_has_the_terminals_size_its_output_and_its_end() {
    let evidence = shell().await;
    let id = evidence.session.to_string();
    let file = evidence.dir.path().join("session.cast");
    let done = evidence.run(&["export", &id, "--format", "asciicast-v3", "-f", &file.to_string_lossy()]);
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    let lines = json_lines(&fs::read(&file).unwrap());
    assert_eq!(
        (&lines[0]["version"], &lines[0]["term"]["cols"], &lines[0]["term"]["rows"]),
        (&3.into(), &100.into(), &30.into())
    );
    assert_eq!((&lines[0]["kustody"]["session"], &lines[0]["command"]), (&id.clone().into(), &"sh".into()));
    let events: Vec<(&str, &str)> =
        lines[1..].iter().map(|line| (line[1].as_str().unwrap(), line[2].as_str().unwrap())).collect();
    assert_eq!(
        events,
        [("o", "$ "), ("i", "ls\r"), ("o", "ls\r\n\x1b[32mfile\x1b[0m\r\n"), ("o", "€\r\n"), ("x", "3")]
    );
    let seconds: f64 = lines[1..].iter().map(|line| line[0].as_f64().unwrap()).sum();
    assert!((seconds - 1.7).abs() < 0.002, "{seconds}");
    let raw = evidence.run(&["export", &id, "--format", "asciicast-v2", "--raw"]);
    assert!(text(&raw.stdout).contains("]52;c;eA=="), "--raw leaves everything");
}

#[tokio::test]
async fn streams_are_exact_text_is_plain_and_json_has_every_event() {
    let evidence = shell().await;
    let id = evidence.session.to_string();
    let export = |format: &str| evidence.run(&["export", &id, "--format", format]).stdout;
    assert_eq!(export("stdin"), b"ls\r");
    assert_eq!(export("stdout"), "$ ls\r\n\x1b]52;c;eA==\x07\x1b[32mfile\x1b[0m\r\n€\r\n".as_bytes());
    assert_eq!(export("stderr"), b"");
    assert_eq!(text(&export("text")), "$ ls\nfile\n€\n");
    let events = json_lines(&export("ndjson"));
    assert_eq!((events.len(), &events[0]["cols"], &events[2]["text"]), (7, &100.into(), &"ls\r".into()));
}

/// One file of an archive: header and content.
fn archived(name: &str, content: &[u8]) -> Vec<u8> {
    let header = |checksum: &str| {
        let size = format!("{:011o}", content.len());
        let fields = [(name, 100), ("0000644", 8), ("", 16), (&size, 12), ("", 12), (checksum, 8), ("0", 1), ("", 100)];
        let fields = fields.into_iter().chain([("ustar\x0000", 255)]);
        fields.map(|(text, length)| format!("{text:\0<length$}")).collect::<String>()
    };
    let sum: u32 = header("        ").bytes().map(u32::from).sum();
    let mut block = header(&format!("{sum:06o}\0 ")).into_bytes();
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

#[tokio::test]
async fn the_files_of_a_copy_are_listed_and_hostile_names_only_shown() {
    let archive =
        [archived("web/index.html", &[7; 2000]), archived("../\x1b]0;x\x07evil", b""), vec![0; 1024]].concat();
    let events = archive.chunks(700).enumerate().map(|(n, part)| (n as u64, data(Channel::Stdin, part)));
    let header = Header {
        stream: Stream { command: ["tar", "-xmf", "-", "-C", "/srv"].map(str::to_owned).into(), ..Stream::default() },
        ..exec_header()
    };
    let evidence = recorded(header, events).await;
    let id = evidence.session.to_string();
    let done = evidence.run(&["export", &id, "--format", "files"]);
    assert_eq!(
        text(&done.stdout),
        "-rw-r--r--         2000 web/index.html\n-rw-r--r--            0 ../\\u{1b}]0;x\\u{7}evil\n"
    );
    assert_eq!(
        text(&done.stderr),
        "2 entries, 2000 bytes, to the container; 1 lead out of the folder they are unpacked in\n"
    );
    let page = text(&evidence.run(&["show", &id]).stdout);
    assert!(page.contains("Files copied: 2 entries") && page.contains("2000 web/index.html"), "{page}");
    let none = shell().await;
    let done = none.run(&["export", &none.session.to_string(), "--format", "files"]);
    assert!(!done.status.success() && text(&done.stderr).contains("no tar archive"), "{done:?}");
}

#[tokio::test]
async fn the_connections_of_a_port_forward_become_files() {
    let with = |connection, direction, bytes: &'static [u8]| EventKind::ConnectionData {
        connection,
        direction,
        bytes: Bytes::from_static(bytes),
    };
    let (up, down) = (Direction::ToContainer, Direction::ToClient);
    let events = [
        (0, EventKind::ConnectionOpened { connection: 1, port: 80 }),
        (1, EventKind::ConnectionOpened { connection: 2, port: 443 }),
        (2, with(1, up, b"GET /")),
        (3, with(2, up, b"\x16\x03")),
        (4, with(1, down, b"200 ")),
        (5, with(1, down, b"OK")),
    ];
    let evidence = recorded(Header { kind: SessionKind::PortForward, ..exec_header() }, events).await;
    let id = evidence.session.to_string();
    let folder = evidence.dir.path().join("connections");
    let export = || evidence.run(&["export", &id, "--format", "files", "-f", &folder.to_string_lossy()]);
    let done = export();
    assert!(done.status.success(), "{done:?}");
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    assert_eq!(read("connection-1-port-80-to-container"), b"GET /");
    assert_eq!(read("connection-1-port-80-to-client"), b"200 OK");
    assert_eq!(read("connection-2-port-443-to-container"), b"\x16\x03");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
    assert!(!export().status.success(), "a folder that is there is left alone");
    let nowhere = evidence.run(&["export", &id, "--format", "files"]);
    assert!(text(&nowhere.stderr).contains("-f"), "{nowhere:?}");
}

#[tokio::test]
async fn a_session_is_shown_whole() {
    let evidence = shell().await;
    let id = evidence.session.to_string();
    let page = text(&evidence.run(&["show", &id[..13]]).stdout);
    for part in [
        "complete (completed)",
        "agents:deployer",
        "run-7",
        "shop/web-0",
        "rule exec-recorded",
        "Exit status:  3",
        "stdin",
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    let json: Value = serde_json::from_slice(&evidence.run(&["show", &id, "-o", "json"]).stdout).unwrap();
    assert_eq!(
        (&json["exit"]["code"], &json["header"]["run"], &json["events"]),
        (&3.into(), &"run-7".into(), &7.into())
    );
}

#[test]
fn show_needs_a_store_for_sessions_alone() {
    let told = |id: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kustody"));
        let done =
            command.args(["show", id]).env_remove("KUSTODY_STORE").env("KUBECONFIG", "/nowhere").output().unwrap();
        text(&done.stderr)
    };
    assert!(told("019aa5c7").contains("--store or KUSTODY_STORE"), "{}", told("019aa5c7"));
    assert!(told("apr-0194190e4cfd").contains("cannot connect to the cluster"), "{}", told("apr-0194190e4cfd"));
}

#[tokio::test]
async fn sessions_are_found_by_who_where_what_and_when() {
    let evidence = shell().await;
    let id = format!("{}\n", evidence.session);
    let started = evidence.session.timestamp();
    let found = |arguments: &[&str]| text(&evidence.run(&[&["sessions", "-o", "name"], arguments].concat()).stdout);
    let (before, after) = (
        (started - jiff::SignedDuration::from_secs(1)).to_string(),
        (started + jiff::SignedDuration::from_secs(1)).to_string(),
    );
    for taken in [
        &["--run", "run-7", "--agent", "deployer", "-n", "shop", "--pod", "web-0", "--command", "sh"][..],
        &["--pod", "web-*", "--state", "complete", "--since", "1h"],
        &["--since", &before, "--until", &after],
    ] {
        assert_eq!(found(taken), id, "{taken:?}");
    }
    for left in [
        &["--run", "run-8"][..],
        &["-n", "shopping"],
        &["--pod", "web"],
        &["--command", "bash"],
        &["--state", "running"],
        &["--since", &after],
        &["--until", &before],
        &["--limit", "0"],
    ] {
        assert_eq!(found(left), "", "{left:?}");
    }
}

#[tokio::test]
async fn text_is_found_on_screens_and_in_streams_with_session_time_and_line() {
    let evidence = shell().await;
    let id = evidence.session.to_string();
    let done = evidence.run(&["search", "file"]);
    assert_eq!(text(&done.stdout), format!("{id}  1.501s  screen  file\n"));
    assert!(done.status.success());
    let typed = evidence.run(&["search", "LS", "-i", "-o", "json"]);
    let typed = json_lines(&typed.stdout);
    let found: Vec<(&Value, &Value)> = typed.iter().map(|hit| (&hit["channel"], &hit["line"])).collect();
    assert_eq!(found, [(&"stdin".into(), &"ls".into()), (&"screen".into(), &"$ ls".into())]);
    assert_eq!(text(&evidence.run(&["search", "€", "--run", "run-7", "-o", "name"]).stdout), format!("{id}\n"));
    let wide = text(&evidence.run(&["search", "€", "-o", "wide"]).stdout);
    assert!(wide.contains("agents:deployer") && wide.contains("shop/web-0"), "{wide}");
    for none in [&["search", "nowhere"][..], &["search", "file", "-n", "other"], &["search", ""]] {
        let done = evidence.run(none);
        assert_eq!((done.status.code(), text(&done.stdout)), (Some(1), String::new()), "{none:?}");
    }
}

#[tokio::test]
async fn a_search_that_could_not_read_everything_fails_and_says_so() {
    let evidence = shell().await;
    fs::write(evidence.object("00000001.krec"), "damaged").unwrap();
    let done = evidence.run(&["search", "file"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("chunk 1"), "{done:?}");
}

#[tokio::test]
async fn a_damaged_or_missing_chunk_ends_an_export_with_an_error() {
    let evidence = shell().await;
    let id = evidence.session.to_string();
    fs::remove_file(evidence.object("00000000.krec")).unwrap();
    let done = evidence.run(&["export", &id, "--format", "text"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("chunk 0") && text(&done.stderr).contains("kustody verify"), "{done:?}");
}

#[tokio::test]
async fn a_replay_reads_what_it_shows_and_nothing_before_it_is_needed() {
    // A status closes its chunk, so each word has one of its own.
    let status = || EventKind::Status { bytes: Bytes::from_static(br#"{"status":"Success"}"#) };
    let words = [(0, stdout("one ")), (1, status()), (1000, stdout("two ")), (1001, status()), (2000, stdout("three"))];
    let evidence = recorded(exec_header(), words).await;
    let id = evidence.session.to_string();
    let replay = |options: &[&str]| evidence.run(&[&["replay", &id, "--no-wait"], options].concat());
    fs::rename(evidence.object("00000002.krec"), evidence.dir.path().join("last")).unwrap();
    let first = replay(&[]);
    assert_eq!((first.status.code(), text(&first.stdout).as_str()), (Some(1), "one two "));
    fs::rename(evidence.dir.path().join("last"), evidence.object("00000002.krec")).unwrap();
    fs::remove_file(evidence.object("00000000.krec")).unwrap();
    assert_eq!(text(&replay(&["--from", "500ms"]).stdout), "two three");
    assert_eq!(text(&replay(&["--from", "1.5s"]).stdout), "three");
    fs::remove_file(evidence.object("manifest.json")).unwrap();
    let unsealed = replay(&["--from", "1.5s"]);
    assert_eq!(text(&unsealed.stdout), "three", "without a manifest the chunks' own heads tell the times");
    assert!(text(&unsealed.stderr).contains("still recording"), "{unsealed:?}");
}
