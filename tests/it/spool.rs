//! The spool on a real disk: what it accepted is there after a crash, whole and provable, and what it cannot keep it
//! refuses.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kustody::core::keys::SigningKey;
use kustody::core::recording::header::{Header, SessionKind};
use kustody::core::recording::manifest::{Manifest, State};
use kustody::core::recording::{Cause, Channel, Direction, EventKind, SessionId, chunk::Chunk};
use kustody::edge::keys::generate;
use kustody::edge::store::spool::{Config, Error, Spool};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub(crate) fn header() -> Header {
    let session = SessionId::try_from(Uuid::now_v7()).unwrap();
    Header {
        generation: 1,
        session,
        started_at: session.timestamp(),
        kind: SessionKind::Exec,
        agent: Default::default(),
        class: "build-agents".into(),
        run: None,
        request: "r-1".into(),
        on_behalf_of: None,
        target: Default::default(),
        stream: Default::default(),
        decision: Default::default(),
        client: Default::default(),
        recorder: Default::default(),
    }
}

pub(crate) fn stdout(bytes: impl Into<Bytes>) -> EventKind {
    EventKind::Data { channel: Channel::Stdout, direction: Direction::ToClient, bytes: bytes.into() }
}

pub(crate) async fn open(dir: &Path, key: &Arc<SigningKey>) -> Spool {
    open_with(dir, key, 4 << 30).await
}

/// With room for so many bytes.
pub(crate) async fn open_with(dir: &Path, key: &Arc<SigningKey>, quota: u64) -> Spool {
    let config = Config { quota, free_space_floor: 0, ..Config::new(dir) };
    Spool::open(config, key.clone(), TaskTracker::new()).await.unwrap()
}

pub(crate) fn manifest(dir: &Path, session: &SessionId, key: &SigningKey) -> Manifest {
    let object = fs::read(dir.join(session.to_string()).join("manifest.json")).unwrap();
    Manifest::open(&object, &[key.public().clone()]).unwrap()
}

pub(crate) fn events(dir: &Path, session: &SessionId) -> Vec<EventKind> {
    let mut events = Vec::new();
    for sequence in 0.. {
        let path = dir.join(session.to_string()).join(format!("{sequence:08}.krec"));
        let Ok(object) = fs::read(path) else {
            return events;
        };
        events.extend(Chunk::parse(&object).unwrap().events().map(|event| event.unwrap().kind));
    }
    events
}

/// Set in the process that is killed: the folder it records into.
const VICTIM: &str = "KUSTODY_TEST_SPOOL";

/// Runs this test again in another process, which records and then hangs, and kills that one with SIGKILL as soon as
/// its last `append` has returned. Gives the session.
fn record_and_kill(test: &str, dir: &Path) -> SessionId {
    let mut told = killed_after(test, (VICTIM, dir), "recorded ", 1).into_iter();
    told.next().unwrap().parse().unwrap()
}

/// Runs a test again in another process, with the folder in this variable, and kills that one with SIGKILL when it has
/// told so many times, each on a line after `word`. Gives everything it told, also what was in the pipe still.
pub(crate) fn killed_after(test: &str, (name, dir): (&str, &Path), word: &str, times: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(name, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = lines.map(Result::unwrap).filter_map(|line| Some(line.rsplit_once(word)?.1.to_owned()));
    let mut all: Vec<String> = told.by_ref().take(times).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    all.extend(told);
    all
}

/// The other side of [`record_and_kill`]: never returns.
async fn record_and_hang(dir: &str, events: impl Iterator<Item = EventKind>) -> ! {
    let spool = open(Path::new(dir), &Arc::new(generate().unwrap())).await;
    let mut recording = spool.start(header()).await.unwrap();
    for event in events {
        recording.append(recording.elapsed(), event).await.unwrap();
    }
    println!("recorded {}", recording.session());
    std::future::pending().await
}

#[tokio::test]
async fn a_finished_session_is_sealed_with_its_reason_and_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let spool = open(dir.path(), &key).await;
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    recording.append(Duration::from_millis(5), stdout("hello\n")).await.unwrap();
    let status = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    let status = EventKind::Status { bytes: Bytes::from_static(status) };
    recording.append(Duration::from_millis(9), status).await.unwrap();
    recording.finish(Cause::Completed.into()).await.unwrap();

    let manifest = manifest(dir.path(), &session, &key);
    assert_eq!((manifest.state, manifest.reason.cause), (State::Complete, Cause::Completed));
    assert_eq!(manifest.exit.unwrap().code, Some(3));
    assert_eq!(manifest.chunks.len(), 2, "the exit status closes its chunk at once");
    assert_eq!(events(dir.path(), &session).len(), 3);
}

#[tokio::test]
async fn everything_appended_before_kill_9_is_recovered_and_sealed() {
    let event = |number: u32| stdout(number.to_le_bytes().repeat(300));
    if let Ok(dir) = std::env::var(VICTIM) {
        record_and_hang(&dir, (0..2000).map(event)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "spool::everything_appended_before_kill_9_is_recovered_and_sealed";
    let session = record_and_kill(name, dir.path());
    let key = Arc::new(generate().unwrap());
    let _spool = open(dir.path(), &key).await;

    let manifest = manifest(dir.path(), &session, &key);
    assert_eq!((manifest.state, manifest.reason.cause), (State::Recovered, Cause::RecoveredAfterCrash));
    assert_eq!(manifest.discarded_bytes, 0);
    let events = events(dir.path(), &session);
    assert_eq!(events.len(), 2000);
    assert!(events.iter().zip(0..).all(|(seen, number)| *seen == event(number)));
}

#[tokio::test]
async fn a_torn_tail_costs_the_torn_event_alone_and_is_told() {
    if let Ok(dir) = std::env::var(VICTIM) {
        record_and_hang(&dir, [stdout("kept"), stdout("torn away")].into_iter()).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = record_and_kill("spool::a_torn_tail_costs_the_torn_event_alone_and_is_told", dir.path());
    let journal = dir.path().join(session.to_string()).join("00000000.open");
    let bytes = fs::read(&journal).unwrap();
    fs::write(&journal, &bytes[..bytes.len() - 3]).unwrap();
    let key = Arc::new(generate().unwrap());
    let _spool = open(dir.path(), &key).await;

    assert_eq!(events(dir.path(), &session), [stdout("kept")]);
    assert!(manifest(dir.path(), &session, &key).discarded_bytes > 0);
}

/// A sealed session of three chunks, with its manifest removed: as if the crash came just before it was written.
async fn crashed_before_the_manifest(dir: &Path, key: &Arc<SigningKey>) -> (SessionId, PathBuf) {
    let spool = open(dir, key).await;
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    for number in 0..2u8 {
        recording.append(Duration::from_millis(1), stdout(vec![number])).await.unwrap();
        let status = EventKind::Status { bytes: Bytes::from_static(br#"{"status":"Success"}"#) };
        recording.append(Duration::from_millis(2), status).await.unwrap();
    }
    recording.finish(Cause::Completed.into()).await.unwrap();
    let folder = dir.join(session.to_string());
    fs::remove_file(folder.join("manifest.json")).unwrap();
    (session, folder)
}

#[tokio::test]
async fn a_crash_between_storing_a_chunk_and_noting_it_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let (session, folder) = crashed_before_the_manifest(dir.path(), &key).await;
    let chain = fs::read(folder.join("chain")).unwrap();
    fs::write(folder.join("chain"), &chain[..chain.len() - 40]).unwrap();
    fs::write(folder.join("00000003.krec.tmp"), "half a chunk").unwrap();
    let _spool = open(dir.path(), &key).await;
    let manifest = manifest(dir.path(), &session, &key);
    assert_eq!((manifest.chunks.len(), manifest.events), (3, 5));
    assert_eq!(manifest.exit.unwrap().code, Some(0));
    assert_eq!(events(dir.path(), &session).len(), 5);
}

#[tokio::test]
async fn chunks_that_were_shipped_before_a_crash_are_in_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let (session, folder) = crashed_before_the_manifest(dir.path(), &key).await;
    for shipped in ["00000000.krec", "00000001.krec"] {
        fs::remove_file(folder.join(shipped)).unwrap();
    }
    let _spool = open(dir.path(), &key).await;
    let manifest = manifest(dir.path(), &session, &key);
    assert_eq!((manifest.state, manifest.chunks.len(), manifest.events), (State::Recovered, 3, 5));
    assert_eq!(manifest.exit.unwrap().code, Some(0));
}

#[tokio::test]
async fn a_session_that_is_dropped_is_sealed_as_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let tracker = TaskTracker::new();
    let mut config = Config::new(dir.path());
    config.free_space_floor = 0;
    let spool = Spool::open(config, key.clone(), tracker.clone()).await.unwrap();
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    recording.append(Duration::ZERO, stdout("x")).await.unwrap();
    drop(recording);
    tracker.close();
    tracker.wait().await;
    assert_eq!(manifest(dir.path(), &session, &key).reason.cause, Cause::Interrupted);
    assert_eq!(events(dir.path(), &session), [stdout("x")]);
}

#[tokio::test]
async fn a_chunk_closes_two_seconds_after_its_first_event_while_the_session_runs() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let spool = open(dir.path(), &key).await;
    let mut recording = spool.start(header()).await.unwrap();
    recording.append(Duration::ZERO, stdout("x")).await.unwrap();
    let chunk = dir.path().join(recording.session().to_string()).join("00000000.krec");
    let started = std::time::Instant::now();
    while !chunk.exists() {
        assert!(started.elapsed() < Duration::from_secs(10), "no chunk after ten seconds");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(started.elapsed() > Duration::from_millis(1500));
    recording.finish(Cause::Completed.into()).await.unwrap();
}

#[tokio::test]
async fn a_full_spool_refuses_new_sessions_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let mut config = Config::new(dir.path());
    config.quota = 10;
    config.free_space_floor = 0;
    let spool = Spool::open(config, key.clone(), TaskTracker::new()).await.unwrap();
    let _first = spool.start(header()).await.unwrap();
    let refused = spool.start(header()).await;
    assert!(matches!(&refused, Err(Error::Full(why)) if why.contains("quota")));
}

#[tokio::test]
async fn a_running_session_waits_for_room_and_then_fails_without_losing_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let mut config = Config::new(dir.path());
    config.quota = 100_000;
    config.free_space_floor = 0;
    let spool = Spool::open(config, key.clone(), TaskTracker::new()).await.unwrap();
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    let mut state = 1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let noise: Vec<u8> = (0..1_200_000).map(|_| random()).collect();
    let started = std::time::Instant::now();
    let refused = recording.append(Duration::ZERO, stdout(noise)).await;
    assert!(matches!(&refused, Err(Error::Full(_))), "{refused:?}");
    assert!(started.elapsed() >= Duration::from_millis(900), "room may come: it waits for about a second");
    recording.finish(Cause::RecorderFailed.into()).await.unwrap();
    let kept: u64 = 2 * 512 * 1024;
    assert_eq!(manifest(dir.path(), &session, &key).channels[0].bytes, kept, "what fitted into the first chunk");
}

#[tokio::test]
async fn times_never_go_back_also_not_into_the_next_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let spool = open(dir.path(), &key).await;
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    let status = EventKind::Status { bytes: Bytes::from_static(b"{}") };
    recording.append(Duration::from_secs(9), status).await.unwrap();
    recording.append(Duration::from_secs(1), stdout("late")).await.unwrap();
    recording.finish(Cause::Completed.into()).await.unwrap();
    let manifest = manifest(dir.path(), &session, &key);
    assert_eq!(manifest.chunks.len(), 2);
    assert!(manifest.chunks.iter().all(|chunk| chunk.first_us == 9_000_000));
}

#[tokio::test]
async fn a_disk_below_its_floor_refuses_new_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.free_space_floor = u64::MAX;
    let spool = Spool::open(config, Arc::new(generate().unwrap()), TaskTracker::new()).await.unwrap();
    assert!(matches!(spool.start(header()).await, Err(Error::Full(why)) if why.contains("floor")));
}

#[tokio::test]
async fn two_processes_never_share_a_spool() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let _first = open(dir.path(), &key).await;
    let second = Spool::open(Config::new(dir.path()), key, TaskTracker::new()).await;
    assert!(matches!(second, Err(Error::Locked(_))));
}

#[tokio::test]
async fn long_data_is_split_and_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let spool = open(dir.path(), &key).await;
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    let long: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    recording.append(Duration::ZERO, stdout(long.clone())).await.unwrap();
    recording.finish(Cause::Completed.into()).await.unwrap();
    let mut seen = Vec::new();
    for event in events(dir.path(), &session) {
        if let EventKind::Data { bytes, .. } = event {
            seen.extend_from_slice(&bytes);
        }
    }
    assert!(seen == long);
}
