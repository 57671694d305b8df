//! The stores and the uploader, against a directory always and against a real S3 server when `KUSTODY_S3_INFO` names
//! the `s3.json` that `tests/cluster s3 up` wrote. What is asked of both is the same code.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kustody::core::recording::layout::chunk_name;
use kustody::core::recording::manifest::{Manifest, Worm};
use kustody::core::recording::{Cause, SessionId, chunk::Chunk};
use kustody::edge::keys::generate;
use kustody::edge::store::retention::{Mode, Retention};
use kustody::edge::store::uploader::Uploader;
use kustody::edge::store::{Config, Error, Put, S3Config, Store};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::spool::{header, open, stdout};

fn directory(path: &Path) -> Config {
    Config { location: format!("file://{}", path.display()).parse().unwrap(), s3: S3Config::default() }
}

/// The S3 server of the test cluster, under a prefix of this test's own; `None`, said aloud, when there is none.
pub(crate) fn s3(dir: &Path) -> Option<Config> {
    let Ok(path) = std::env::var("KUSTODY_S3_INFO") else {
        eprintln!("no S3 server: KUSTODY_S3_INFO is not set (tests/cluster s3 up)");
        return None;
    };
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let text = |name: &str| info.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    for (name, field) in [("access", "access_key"), ("secret", "secret_key")] {
        std::fs::write(dir.join(name), text(field)).unwrap();
    }
    let ca_file = Some(text("ca_file")).filter(|path| !path.is_empty()).map(Into::into);
    Some(Config {
        location: format!("s3://{}/it-{}", text("bucket"), Uuid::now_v7()).parse().unwrap(),
        s3: S3Config {
            endpoint: Some(text("endpoint")),
            region: Some(text("region")),
            path_style: true,
            ca_file,
            access_key_file: Some(dir.join("access")),
            secret_key_file: Some(dir.join("secret")),
            ..S3Config::default()
        },
    })
}

pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(15), "{what}: not within 15 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn keeps_the_store_contract(store: &Store) {
    let body = Bytes::from_static(b"0123456789");
    assert_eq!(store.put_if_absent("a/b/one", body.clone()).await.unwrap(), Put::Created);
    assert_eq!(store.put_if_absent("a/b/one", Bytes::from_static(b"other")).await.unwrap(), Put::Exists);
    assert_eq!(store.put_if_absent("a/two", Bytes::from_static(b"2")).await.unwrap(), Put::Created);
    assert_eq!(store.get("a/b/one").await.unwrap(), body);
    assert_eq!(store.get_range("a/b/one", 2..5).await.unwrap(), "234");
    assert_eq!(store.head("a/b/one").await.unwrap(), Some(10));
    assert_eq!(store.head("a/none").await.unwrap(), None);
    assert!(matches!(store.get("a/none").await, Err(Error::NotFound(_))));
    let keys: Vec<_> = store.list("a/").await.unwrap().into_iter().map(|object| (object.key, object.size)).collect();
    assert_eq!(keys, [("a/b/one".to_owned(), 10), ("a/two".to_owned(), 1)]);
    assert_eq!(store.list_folders("a/").await.unwrap(), ["a/b/"]);
    assert!(store.list_folders("nothing/").await.unwrap().is_empty());
    assert!(matches!(store.get("../etc/passwd").await, Err(Error::Key(_))));
    store.delete("a/two").await.unwrap();
    store.delete("a/two").await.unwrap();
    assert_eq!(store.head("a/two").await.unwrap(), None);
}

async fn has_one_winner_among_racing_writers(store: &Store) {
    let writers = (0..16).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move { store.put_if_absent("race/one", Bytes::from(format!("{writer}"))).await.unwrap() })
    });
    let results: Vec<_> = futures_util::future::join_all(writers).await;
    assert_eq!(results.into_iter().filter(|result| *result.as_ref().unwrap() == Put::Created).count(), 1);
}

async fn receives_a_session_while_it_runs(store: &Store) {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(generate().unwrap());
    let spool = open(dir.path(), &key).await;
    let shutdown = CancellationToken::new();
    let uploader = tokio::spawn(Uploader::new(spool.clone(), store.clone()).run(shutdown.clone()));

    let mut recording = spool.start(header()).await.unwrap();
    let session: SessionId = *recording.session();
    recording.append(Duration::from_millis(1), stdout("while it runs")).await.unwrap();
    let first = session.key(&chunk_name(0));
    eventually("the first chunk is in the store while the session runs", async || {
        store.head(&first).await.unwrap().filter(|size| *size > 0)
    })
    .await;
    assert!(store.head(&session.key("manifest.json")).await.unwrap().is_none());
    for number in 0..300u32 {
        let noise: Vec<u8> = (0..16_384u32).map(|n| (n.wrapping_mul(2_654_435_761 ^ number) >> 13) as u8).collect();
        recording.append(recording.elapsed(), stdout(noise)).await.unwrap();
    }
    recording.finish(Cause::Completed.into()).await.unwrap();
    shutdown.cancel();
    uploader.await.unwrap();

    let manifest = store.get(&session.key("manifest.json")).await.unwrap();
    let manifest = Manifest::open(&manifest, &[key.public().clone()]).unwrap();
    assert_eq!(manifest.events, 302);
    for entry in &manifest.chunks {
        let object = store.get(&session.key(&chunk_name(entry.sequence))).await.unwrap();
        assert_eq!(Chunk::parse(&object).unwrap().events().count() as u64, entry.events);
    }
    assert!(!dir.path().join(session.to_string()).exists(), "local copies go once the store has confirmed them");
    assert!(spool.used() < 100, "{} bytes are still accounted for", spool.used());
}

async fn an_object_with_other_bytes_is_never_overwritten(store: &Store) {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), &Arc::new(generate().unwrap())).await;
    let recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    let planted = Bytes::from_static(b"planted");
    store.put_if_absent(&session.key("header.json"), planted.clone()).await.unwrap();
    recording.finish(Cause::Completed.into()).await.unwrap();
    let done = CancellationToken::new();
    done.cancel();
    Uploader::new(spool, store.clone()).run(done).await;
    assert_eq!(store.get(&session.key("header.json")).await.unwrap(), planted);
    assert!(dir.path().join(session.to_string()).join("header.json").exists(), "the local copy is kept");
}

#[tokio::test]
async fn a_directory_keeps_the_store_contract() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&directory(dir.path())).await.unwrap();
    keeps_the_store_contract(&store).await;
    has_one_winner_among_racing_writers(&store).await;
    let report = store.probe().await.unwrap();
    assert!(report.conditional_create && !report.object_lock);
}

#[tokio::test]
async fn a_directory_receives_a_session_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&directory(dir.path())).await.unwrap();
    receives_a_session_while_it_runs(&store).await;
    an_object_with_other_bytes_is_never_overwritten(&store).await;
}

#[tokio::test]
async fn an_upload_that_was_cut_off_half_way_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&directory(&dir.path().join("store"))).await.unwrap();
    let local = dir.path().join("spool");
    let spool = open(&local, &Arc::new(generate().unwrap())).await;
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    recording.append(Duration::ZERO, stdout("shipped twice")).await.unwrap();
    recording.finish(Cause::Completed.into()).await.unwrap();
    for name in ["header.json", "00000000.krec"] {
        let bytes = std::fs::read(local.join(session.to_string()).join(name)).unwrap();
        store.put_if_absent(&session.key(name), bytes.into()).await.unwrap();
    }
    let done = CancellationToken::new();
    done.cancel();
    Uploader::new(spool, store.clone()).run(done).await;
    assert!(store.head(&session.key("manifest.json")).await.unwrap().is_some());
    assert!(!local.join(session.to_string()).exists());
}

#[tokio::test]
async fn sessions_go_on_while_the_store_is_away_and_are_shipped_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (root, local) = (dir.path().join("store"), dir.path().join("spool"));
    let store = Store::open(&directory(&root)).await.unwrap();
    std::fs::rename(&root, dir.path().join("aside")).unwrap();
    std::fs::write(&root, "no directory").unwrap();
    let spool = open(&local, &Arc::new(generate().unwrap())).await;
    let shutdown = CancellationToken::new();
    let uploader = tokio::spawn(Uploader::new(spool.clone(), store.clone()).run(shutdown.clone()));

    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    recording.append(Duration::ZERO, stdout("kept here meanwhile")).await.unwrap();
    recording.finish(Cause::Completed.into()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(local.join(session.to_string()).join("00000000.krec").exists());

    std::fs::remove_file(&root).unwrap();
    std::fs::rename(dir.path().join("aside"), &root).unwrap();
    eventually("the manifest is in the store", async || store.head(&session.key("manifest.json")).await.ok().flatten())
        .await;
    shutdown.cancel();
    uploader.await.unwrap();
    assert!(!local.join(session.to_string()).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_store_contract_and_its_lock_is_proved() {
    let dir = tempfile::tempdir().unwrap();
    let Some(config) = s3(dir.path()) else { return };
    let store = Store::open(&config).await.unwrap();
    let report = store.probe().await.unwrap();
    assert!(report.conditional_create && report.versioning && report.object_lock, "{report}");
    keeps_the_store_contract(&store).await;
    has_one_winner_among_racing_writers(&store).await;
    assert!(store.list("probe/").await.unwrap().is_empty(), "the probe cleans up");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_locks_each_place_for_its_own_time() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut config) = s3(dir.path()) else { return };
    config.s3.retention = Retention { mode: Mode::Governance, recordings: Some(90), log: Some(2) };
    let store = Store::open(&config).await.unwrap();
    let report = store.probe().await.unwrap();
    assert!(
        report.to_string().ends_with("locked when written (governance, recordings 90 days, log 2 days)"),
        "{report}"
    );
    assert_eq!(report.worm(), Worm::Verified);
    for (key, days) in [("recordings/v1/a", Some(90)), ("log/v1/a", Some(2)), ("other/a", None)] {
        store.put_if_absent(key, Bytes::from_static(b"kept")).await.unwrap();
        let until = store.locked_until(key).await.unwrap();
        let left = until.map(|until| until.duration_since(jiff::Timestamp::now()).as_secs_f64() / 86_400.0);
        assert_eq!(left.map(|left| left.round() as i64), days, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_receives_a_session_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let Some(config) = s3(dir.path()) else { return };
    let store = Store::open(&config).await.unwrap();
    receives_a_session_while_it_runs(&store).await;
    an_object_with_other_bytes_is_never_overwritten(&store).await;
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_named_with_its_cause() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    for name in ["access", "secret"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let s3 = S3Config {
        endpoint: Some(endpoint.clone()),
        path_style: true,
        access_key_file: Some(dir.path().join("access")),
        secret_key_file: Some(dir.path().join("secret")),
        ..S3Config::default()
    };
    let error = Store::open(&Config { location: "s3://evidence/a".parse().unwrap(), s3 }).await.err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.to_string(), format!("store s3://evidence/a/ at {endpoint} cannot be used"));
    assert!(cause.to_lowercase().contains("refused"), "{cause}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named_with_its_cause() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(&directory(&file.path().join("below"))).await.err().unwrap();
    assert!(error.to_string().contains("cannot be used"), "{error}");
}
