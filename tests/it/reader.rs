//! `recordings-schema/reader.py`, which knows nothing of this code, reads what this code records, and notices what was
//! changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use kustody::core::recording::{Cause, Channel, Direction, EventKind};
use kustody::edge::keys::generate;
use kustody::edge::store::uploader::Uploader;
use kustody::edge::store::{Config, S3Config, Store};
use tokio_util::sync::CancellationToken;

use crate::spool::{header, open, stdout};

const UP: Direction = Direction::ToContainer;
const DOWN: Direction = Direction::ToClient;

fn read(folder: &Path, arguments: &[&str]) -> Output {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings-schema/reader.py");
    Command::new("python3").arg(reader).arg(folder).args(arguments).output().unwrap()
}

/// One event of every kind, and data of several chunks.
fn every_kind() -> Vec<EventKind> {
    let stdin = |bytes: &'static [u8]| EventKind::Data {
        channel: Channel::Stdin,
        direction: UP,
        bytes: Bytes::from_static(bytes),
    };
    let large: Vec<u8> = (0..1_500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    vec![
        stdin(b"\0\xff not text \xc3"),
        EventKind::HalfClose { channel: Channel::Stdin, direction: UP },
        EventKind::Resize { cols: 300, rows: 24 },
        stdout("out"),
        stdout(large),
        EventKind::Gap { channel: Channel::Stdout, direction: DOWN, bytes: 1 << 40, why: "tried".into() },
        EventKind::Input { bytes: 70_000 },
        EventKind::Marker { name: "approved".into(), detail: "by ünï".into() },
        EventKind::ConnectionOpened { connection: 70_000, port: 8080 },
        EventKind::ConnectionData { connection: 70_000, direction: DOWN, bytes: Bytes::from_static(b"answer") },
        EventKind::ConnectionHalfClose { connection: 70_000, direction: UP },
        EventKind::ConnectionError { connection: 70_000, bytes: Bytes::from_static(b"refused") },
        EventKind::ConnectionClosed {
            connection: 70_000,
            port: 8080,
            to_container: 1 << 33,
            to_client: 6,
            duration: Duration::from_secs(90),
        },
        EventKind::Status { bytes: Bytes::from_static(b"{}") },
    ]
}

/// A recording in a directory store; gives its folder, and what holds it.
async fn recorded() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir.path().join("spool"), &Arc::new(generate().unwrap())).await;
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    for (number, event) in (0..).zip(every_kind()) {
        recording.append(Duration::from_millis(number * 300), event).await.unwrap();
    }
    recording.finish(Cause::Completed.into()).await.unwrap();
    let root = dir.path().join("store");
    let location = format!("file://{}", root.display()).parse().unwrap();
    let store = Store::open(&Config { location, s3: S3Config::default() }).await.unwrap();
    let done = CancellationToken::new();
    done.cancel();
    Uploader::new(spool, store).run(done).await;
    let folder = root.join(session.key("header.json"));
    (dir, folder.parent().unwrap().to_owned())
}

#[tokio::test]
async fn the_reader_in_python_sees_every_event_as_it_was_recorded() {
    let (_dir, folder) = recorded().await;
    let told = read(&folder, &[]);
    assert!(told.status.success(), "{told:?}");
    let lines: Vec<serde_json::Value> =
        told.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    let expected = "data half-close resize data data data data gap input marker connection-opened connection-data \
                    connection-half-close connection-error connection-closed status close";
    assert_eq!(kinds.join(" "), expected);
    let line = |kind: &str| lines.iter().find(|line| line["kind"] == kind).unwrap();
    assert_eq!(line("data")["value"], STANDARD.encode(b"\0\xff not text \xc3"));
    assert_eq!(line("resize")["value"], serde_json::json!([300, 24]));
    assert_eq!(line("resize")["timeUs"], 600_000);
    assert_eq!(line("gap")["value"], serde_json::json!([1_u64 << 40, "tried"]));
    assert_eq!(line("marker")["value"][1], "by ünï");
    assert_eq!(line("connection-closed")["value"], serde_json::json!([70_000, 8080, 1_u64 << 33, 6, 90_000_000]));
    assert_eq!(line("close")["value"][0], "completed");
    assert_eq!(read(&folder, &["stdin"]).stdout, b"\0\xff not text \xc3");
    assert_eq!(read(&folder, &["stdout"]).stdout.len(), 1_500_003);
    assert_eq!(read(&folder, &["connection", "70000"]).stdout, b"answer");
}

#[tokio::test]
async fn the_reader_in_python_refuses_whatever_was_changed() {
    let (_dir, folder) = recorded().await;
    let refused = |what: &str| {
        let told = read(&folder, &["stdout"]);
        assert_eq!((told.status.code(), told.stdout.len()), (Some(1), 0), "{what}: {told:?}");
        assert!(told.stderr.starts_with(b"error: ") && told.stderr.iter().filter(|byte| **byte == b'\n').count() == 1);
    };
    for name in ["header.json", "00000000.krec", "00000001.krec"] {
        let (path, whole) = (folder.join(name), fs::read(folder.join(name)).unwrap());
        for at in [whole.len() / 3, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            refused(&format!("{name}, a byte at {at}"));
        }
        fs::remove_file(&path).unwrap();
        refused(&format!("{name}, removed"));
        fs::write(&path, whole).unwrap();
    }
    assert!(read(&folder, &["stdout"]).status.success());
}
