//! The evidence commands as a person runs them: the real binary against a store that a real spool and uploader filled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kustody::core::recording::header::{Agent, Header, Permission, Stream, Target};
use kustody::core::recording::{Cause, Channel, Direction, EventKind, SessionId};
use kustody::edge::keys;
use kustody::edge::store::uploader::Uploader;
use kustody::edge::store::{Config, S3Config, Store};
use tokio_util::sync::CancellationToken;

use crate::spool::{header, open, stdout};

/// A store in a directory with one finished session, and the key that signed it.
pub(crate) struct Evidence {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) session: SessionId,
}

pub(crate) fn exec_header() -> Header {
    Header {
        agent: Agent { user: "system:serviceaccount:agents:deployer".into(), ..Agent::default() },
        target: Target { cluster: "c".into(), namespace: "shop".into(), pod: "web-0".into(), container: None },
        stream: Stream { command: ["sh", "-c", "echo hi"].map(str::to_owned).into(), ..Stream::default() },
        decision: Permission { rule: "exec-recorded".into(), ..Permission::default() },
        ..header()
    }
}

async fn record() -> Evidence {
    let stderr = |bytes: &'static str| EventKind::Data {
        channel: Channel::Stderr,
        direction: Direction::ToClient,
        bytes: Bytes::from_static(bytes.as_bytes()),
    };
    let status = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    let events = [
        (10, stdout("to \x1b]52;c;eA==\x07stdout\n")),
        (20, stderr("to stderr\n")),
        (900, stdout("late\n")),
        (901, EventKind::Status { bytes: Bytes::from_static(status) }),
    ];
    recorded(exec_header(), events).await
}

/// A store with one finished session of these events, each with its milliseconds since the start.
pub(crate) async fn recorded(header: Header, events: impl IntoIterator<Item = (u64, EventKind)>) -> Evidence {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(keys::load_or_create(&dir.path().join("signing.key")).unwrap());
    let spool = open(&dir.path().join("spool"), &key).await;
    let mut recording = spool.start(header).await.unwrap();
    let session = *recording.session();
    for (ms, kind) in events {
        recording.append(Duration::from_millis(ms), kind).await.unwrap();
    }
    recording.finish(Cause::Completed.into()).await.unwrap();
    let location = format!("file://{}", dir.path().join("store").display()).parse().unwrap();
    let store = Store::open(&Config { location, s3: S3Config::default() }).await.unwrap();
    let done = CancellationToken::new();
    done.cancel();
    Uploader::new(spool, store).run(done).await;
    Evidence { dir, session }
}

impl Evidence {
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The command, with what it needs in its environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kustody"));
        command
            .args(arguments)
            .env("KUSTODY_STORE", format!("file://{}", self.dir.path().join("store").display()))
            .env("KUSTODY_PUBLIC_KEY", self.dir.path().join("signing.key.pub"));
        command
    }

    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.dir.path().join("store").join(self.session.key(name))
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn sessions_lists_who_did_what_and_how_it_ended() {
    let evidence = record().await;
    let table = text(&evidence.run(&["sessions"]).stdout);
    let row = table.lines().nth(1).unwrap();
    for part in [&evidence.session.to_string(), "agents:deployer", "shop/web-0", "sh -c 'echo hi'", "complete"] {
        assert!(row.contains(part), "{part} is missing in {table}");
    }
    assert!(row.trim_end().ends_with('3'), "{table}");
    let json: serde_json::Value = serde_json::from_slice(&evidence.run(&["sessions", "-o", "json"]).stdout).unwrap();
    assert_eq!(json[0]["exit"]["code"], 3);
    assert_eq!(json[0]["header"]["stream"]["command"][2], "echo hi");
    let none = text(&evidence.run(&["sessions", "--agent", "somebody-else"]).stdout);
    assert_eq!(none, "No sessions found.\n");
}

#[tokio::test]
async fn replay_shows_both_streams_and_the_exit_status() {
    let evidence = record().await;
    let id = evidence.session.to_string();
    let output = evidence.run(&["replay", &id[..13], "--no-wait"]);
    assert_eq!(text(&output.stdout), "to \x1b]52;c;eA==\x07stdout\nlate\n", "into a file goes what was recorded");
    assert_eq!(text(&output.stderr), "to stderr\nexit status: 3\n");
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn replay_keeps_the_recorded_pace() {
    let evidence = record().await;
    let id = evidence.session.to_string();
    let started = std::time::Instant::now();
    evidence.run(&["replay", &id]);
    assert!(started.elapsed() >= Duration::from_millis(890));
    let fast = std::time::Instant::now();
    evidence.run(&["replay", &id, "--speed", "100", "--idle-limit", "10ms"]);
    assert!(fast.elapsed() < started.elapsed());
}

#[tokio::test]
async fn replay_of_an_unknown_session_says_so() {
    let evidence = record().await;
    let output = evidence.run(&["replay", "ffffffff"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no session ffffffff"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn verify_passes_and_after_one_flipped_byte_names_the_object() {
    let evidence = record().await;
    let output = evidence.run(&["verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("1 proven, 0 unsealed, 0 broken."));
    for name in ["00000000.krec", "header.json", "manifest.json"] {
        let whole = fs::read(evidence.object(name)).unwrap();
        flip(&evidence.object(name));
        let output = evidence.run(&["verify"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(
            text(&output.stdout).contains(&format!("{}: ", evidence.session.key(name))),
            "{}",
            text(&output.stdout)
        );
        fs::write(evidence.object(name), whole).unwrap();
    }
    assert_eq!(evidence.run(&["verify"]).status.code(), Some(0));
}

#[tokio::test]
async fn verify_never_takes_an_unsealed_session_for_proven() {
    let evidence = record().await;
    fs::remove_file(evidence.object("manifest.json")).unwrap();
    let output = evidence.run(&["verify"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("0 proven, 1 unsealed, 0 broken."));
    assert_eq!(evidence.run(&["verify", "--require-sealed"]).status.code(), Some(1));
}

#[tokio::test]
async fn another_key_proves_nothing() {
    let evidence = record().await;
    let other = evidence.dir.path().join("other.key");
    keys::load_or_create(&other).unwrap();
    let path = format!("{}.pub", other.display());
    let output = evidence.run(&["verify", "--public-key", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("which was not given"), "{}", text(&output.stdout));
}
