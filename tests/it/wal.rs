//! The log on a real disk: what it acknowledged is in the store in the end, whatever happens in between, and what it
//! cannot keep it refuses.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kustody::core::audit::describe::Stamp;
use kustody::core::audit::{Effect, Entry, EntryId, Kind, segment};
use kustody::edge::keys::generate;
use kustody::edge::store::spool::{self, Spool};
use kustody::edge::store::uploader::Uploader;
use kustody::edge::store::wal::{Config, Error, Wal};
use kustody::edge::store::{self, S3Config, Store, ledger};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::store::eventually;

/// An entry with a fresh id.
pub(crate) fn entry() -> Entry {
    let time = jiff::Timestamp::now();
    let stamp = Stamp { id: Uuid::now_v7().into(), time, latency_us: 1, cluster: "test", replica: "one" };
    Entry::blank(Kind::Review, Effect::Admitted, &stamp)
}

async fn spool(dir: &Path, quota: u64) -> Spool {
    let config = spool::Config { quota, free_space_floor: 0, ..spool::Config::new(dir) };
    Spool::open(config, Arc::new(generate().unwrap()), TaskTracker::new()).await.unwrap()
}

async fn directory(path: &Path) -> Store {
    let location = format!("file://{}", path.display()).parse().unwrap();
    Store::open(&store::Config { location, s3: S3Config::default() }).await.unwrap()
}

/// What lies in the log of a spool, shipped or not yet.
pub(crate) fn written(dir: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    for name in names(dir) {
        let bytes = fs::read(dir.join("log").join(name)).unwrap();
        entries.extend(segment::read(&bytes).lines.into_iter().map(|line| Entry::from_line(line).unwrap()));
    }
    entries
}

/// A spool, its log, and where they lie.
struct Stage {
    dir: PathBuf,
    tracker: TaskTracker,
    spool: Spool,
    wal: Wal,
}

impl Stage {
    async fn open(dir: &Path) -> Self {
        Self::with(dir, 1 << 30, Config::default()).await
    }

    async fn with(dir: &Path, quota: u64, config: Config) -> Self {
        let (spool, tracker) = (spool(dir, quota).await, TaskTracker::new());
        let wal = Wal::open(&spool, config, &tracker).await.unwrap();
        Stage { dir: dir.to_owned(), tracker, spool, wal }
    }

    async fn append(&self, count: usize) -> Vec<EntryId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.wal.append(&entry()).await.unwrap());
        }
        ids
    }

    /// Ends the writer, as a shutdown does: the segment is sealed when this returns.
    async fn close(self) -> Spool {
        self.wal.close().await;
        drop(self.wal);
        self.tracker.close();
        self.tracker.wait().await;
        self.spool
    }

    fn files(&self) -> Vec<String> {
        names(&self.dir)
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("log")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with("state"));
    names.sort();
    names
}

/// Ships what there is, as a shutdown does.
async fn ship(spool: &Spool, store: &Store) {
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    Uploader::new(spool.clone(), store.clone()).run(shutdown).await;
}

async fn shipped(store: &Store) -> Vec<Entry> {
    let places = ledger::segments(store, None).await.unwrap();
    let read = ledger::read(store, places).await.unwrap();
    assert!(read.iter().all(|segment| segment.unread == 0));
    read.into_iter().flat_map(|segment| segment.entries).collect()
}

fn ids(entries: &[Entry]) -> Vec<EntryId> {
    entries.iter().map(|entry| entry.id).collect()
}

/// Set in the process that is killed: the folder it logs into.
const VICTIM: &str = "KUSTODY_TEST_WAL";

/// Runs a test again in another process, which logs without end, and kills that one with SIGKILL when it has
/// acknowledged so many entries. Gives the ids of those it told of.
fn log_and_kill(test: &str, dir: &Path, after: usize) -> BTreeSet<EntryId> {
    let told = crate::spool::killed_after(test, (VICTIM, dir), "logged ", after);
    // A line torn by the end of the process is none.
    told.iter().filter_map(|id| id.parse().ok()).collect()
}

/// The other side of [`log_and_kill`]: never returns.
async fn log_and_never_end(dir: &str) -> ! {
    let config = Config { segment_size: 20_000, ..Config::default() };
    let stage = Stage::with(Path::new(dir), 1 << 30, config).await;
    for _ in 0..16 {
        let wal = stage.wal.clone();
        tokio::spawn(async move {
            loop {
                println!("logged {}", wal.append(&entry()).await.unwrap());
            }
        });
    }
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_entry_survives_kill_9_at_any_moment() {
    if let Ok(dir) = std::env::var(VICTIM) {
        log_and_never_end(&dir).await;
    }
    let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = directory(there.path()).await;
    let mut acknowledged = BTreeSet::new();
    // Five crashes of one spool, one after the other, at moments that have nothing to do with its segments.
    for round in 0..5 {
        let test = "wal::every_acknowledged_entry_survives_kill_9_at_any_moment";
        let after = 1 + Uuid::now_v7().as_u128() as usize % 400;
        acknowledged.extend(log_and_kill(test, dir.path(), after));
        if round % 2 == 1 {
            tear(dir.path());
        }
        let stage = Stage::open(dir.path()).await;
        assert!(stage.files().iter().all(|name| name.ends_with(".sealed")), "{:?}", stage.files());
        ship(&stage.close().await, &store).await;
        assert_eq!(names(dir.path()), Vec::<String>::new(), "dropped only when shipped, and then all");
    }
    let found = shipped(&store).await;
    assert!(found.iter().all(|entry| entry.kind == Kind::Review), "a torn end is no gap");
    let found: BTreeSet<EntryId> = ids(&found).into_iter().collect();
    assert!(
        acknowledged.is_subset(&found),
        "{} of {} lost",
        acknowledged.difference(&found).count(),
        acknowledged.len()
    );
    let places = ledger::segments(&store, None).await.unwrap();
    let numbers: Vec<u64> = places.iter().map(|place| place.number).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "numbers have no hole over restarts");
}

#[tokio::test]
async fn a_segment_is_longer_than_its_entries_while_it_grows_and_not_when_it_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await;
    stage.append(3).await;
    let growing = fs::read(dir.path().join("log/00000000.open")).unwrap();
    let found = segment::read(&growing);
    assert_eq!((found.lines.len(), found.gaps.len()), (3, 0));
    assert!(growing.len() > found.end && growing[found.end..].iter().all(|byte| *byte == 0));
    stage.close().await;
    let sealed = fs::read(dir.path().join("log/00000000.sealed")).unwrap();
    assert_eq!(sealed, growing[..found.end]);
}

/// Half an entry behind the last whole one, as a machine leaves it that lost its power.
fn tear(dir: &Path) {
    let open = names(dir).into_iter().find(|name| name.ends_with(".open"));
    let Some(open) = open else { return };
    let path = dir.join("log").join(open);
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(segment::read(&bytes).end);
    bytes.extend_from_slice(&[0, 0, 2, 0, 1, 2, 3, 4, b'{', b'"']);
    bytes.extend_from_slice(&[0; 100]);
    fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn shutdown_seals_and_the_uploader_ships_in_order() {
    let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = directory(there.path()).await;
    let stage = Stage::open(dir.path()).await;
    let acknowledged = stage.append(50).await;
    let wal = stage.wal.clone();
    let spool = stage.close().await;
    assert!(matches!(wal.append(&entry()).await, Err(Error::Closed)), "nothing is appended to a closed log");
    ship(&spool, &store).await;
    assert_eq!(ids(&shipped(&store).await), acknowledged);
    assert_eq!(spool.used(), 0, "what was shipped is off the account");
}

#[tokio::test]
async fn a_segment_is_shipped_when_it_is_old_without_anything_else_happening() {
    let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = directory(there.path()).await;
    let config = Config { segment_age: Duration::from_millis(300), ..Config::default() };
    let stage = Stage::with(dir.path(), 1 << 30, config).await;
    let shutdown = CancellationToken::new();
    tokio::spawn(Uploader::new(stage.spool.clone(), store.clone()).run(shutdown.clone()));
    let acknowledged = stage.append(3).await;
    eventually("shipped", async || (ids(&shipped(&store).await) == acknowledged).then_some(())).await;
    eventually("dropped", async || stage.files().is_empty().then_some(())).await;
    shutdown.cancel();
}

#[tokio::test]
async fn what_the_store_does_not_take_is_kept_and_shipped_later() {
    let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = directory(there.path()).await;
    // A file where a folder should be: the store cannot write.
    fs::write(there.path().join("log"), "").unwrap();
    let stage = Stage::open(dir.path()).await;
    let acknowledged = stage.append(5).await;
    let spool = stage.close().await;
    ship(&spool, &store).await;
    assert_eq!(names(dir.path()), ["00000000.sealed"]);
    fs::remove_file(there.path().join("log")).unwrap();
    ship(&spool, &store).await;
    assert_eq!(ids(&shipped(&store).await), acknowledged);
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_full_spool_refuses_entries_until_something_was_shipped() {
    let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = directory(there.path()).await;
    let config = Config { segment_size: 2_000, ..Config::default() };
    let stage = Stage::with(dir.path(), 10_000, config).await;
    let mut acknowledged = Vec::new();
    let refused = loop {
        match stage.wal.append(&entry()).await {
            Ok(id) => acknowledged.push(id),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Full(_)), "{refused}");
    assert!(acknowledged.len() > 5, "{}", acknowledged.len());
    ship(&stage.spool, &store).await;
    acknowledged.push(stage.wal.append(&entry()).await.unwrap());
    ship(&stage.close().await, &store).await;
    assert_eq!(ids(&shipped(&store).await), acknowledged);
}

#[tokio::test]
async fn two_replicas_never_meet_in_the_store() {
    let there = tempfile::tempdir().unwrap();
    let store = directory(there.path()).await;
    let mut acknowledged = BTreeSet::new();
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::open(dir.path()).await;
        acknowledged.extend(stage.append(10).await);
        ship(&stage.close().await, &store).await;
    }
    let found: BTreeSet<EntryId> = ids(&shipped(&store).await).into_iter().collect();
    assert_eq!(found, acknowledged);
}

#[tokio::test]
async fn a_segment_that_was_shipped_before_a_crash_is_recognised_and_another_one_is_kept() {
    let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = directory(there.path()).await;
    let stage = Stage::open(dir.path()).await;
    let acknowledged = stage.append(5).await;
    let spool = stage.close().await;
    let file = dir.path().join("log/00000000.sealed");
    let bytes = fs::read(&file).unwrap();
    ship(&spool, &store).await;
    fs::write(&file, &bytes).unwrap();
    ship(&spool, &store).await;
    assert!(!file.exists(), "the store has it already");
    // The same name with other entries in the store: nothing is overwritten, nothing is dropped.
    let key = ledger::segments(&store, None).await.unwrap().remove(0).key();
    fs::write(&file, &bytes).unwrap();
    fs::write(there.path().join(&key), zstd::bulk::compress(b"{}\n", 3).unwrap()).unwrap();
    ship(&spool, &store).await;
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert_eq!(acknowledged.len(), 5);
}

#[tokio::test]
async fn bytes_that_cannot_be_read_back_are_an_entry_themselves() {
    let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = directory(there.path()).await;
    let stage = Stage::open(dir.path()).await;
    let acknowledged = stage.append(5).await;
    let spool = stage.close().await;
    let file = dir.path().join("log/00000000.sealed");
    let mut bytes = fs::read(&file).unwrap();
    // Somewhere in the second entry.
    let line = entry().to_line().unwrap().len();
    let at = 44 + (8 + line) + 8 + line / 2;
    bytes[at] ^= 0xff;
    fs::write(&file, &bytes).unwrap();
    ship(&spool, &store).await;
    let found = shipped(&store).await;
    assert_eq!(found.len(), 5);
    assert_eq!((found[0].id, found[2].id), (acknowledged[0], acknowledged[2]));
    assert_eq!(found[1].kind, Kind::Gap);
    assert!(found[1].note.as_ref().unwrap().to_string().contains("could not be read back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_wait_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await;
    let alone = {
        let started = std::time::Instant::now();
        stage.append(100).await;
        started.elapsed()
    };
    let started = std::time::Instant::now();
    let many = (0..64).map(|_| {
        let wal = stage.wal.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                wal.append(&entry()).await.unwrap();
            }
        })
    });
    for task in many.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let together = started.elapsed();
    println!("100 one by one {alone:?}, 6400 from 64 tasks {together:?}");
    assert!(together < alone * 40, "6400 entries took {together:?}, 100 alone {alone:?}");
}
