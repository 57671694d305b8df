//! Recordings and a store that misbehaves: away, slow, cut off at every step, shared by two replicas; and a disk that is
//! full. The store is the real S3 server, behind a proxy that can be told to be bad.

use crate::spool::{events, header, open, open_with, stdout};
use crate::store::{eventually, s3};
use bytes::Bytes;
use kustody::core::keys::SigningKey;
use kustody::core::recording::chunk::Chunk;
use kustody::core::recording::layout::chunk_name;
use kustody::core::recording::manifest::Manifest;
use kustody::core::recording::{Cause, EventKind, SessionId};
use kustody::edge::keys::generate;
use kustody::edge::store::spool::{Config, Error, Recording, Spool};
use kustody::edge::store::uploader::Uploader;
use kustody::edge::store::{Store, catalog};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long the store is away, in seconds; a longer time for a run by hand.
const AWAY: &str = "KUSTODY_TEST_OUTAGE_SECONDS";
/// Set in the process that fills its disk: the folder where that disk is mounted.
const FULL_DISK: &str = "KUSTODY_TEST_FULL_DISK";

/// Stands between a store and its server.
#[derive(Clone)]
struct Proxy {
    /// Bytes that may still pass, both ways together; with none left connections break and no new one is taken.
    left: Arc<AtomicI64>,
    /// Bytes a second.
    rate: Arc<AtomicU64>,
}

impl Proxy {
    const AS_IT_IS: u64 = u64::MAX;

    /// A proxy before the server of a store, and the store as it is seen through it.
    async fn before(config: &mut kustody::edge::store::Config) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = config.s3.endpoint.clone().unwrap();
        let (scheme, address) = server.split_once("://").unwrap();
        let address = address.trim_end_matches('/').to_owned();
        config.s3.endpoint = Some(format!("{scheme}://{}", listener.local_addr().unwrap()));
        let proxy = Proxy { left: Arc::new(AtomicI64::new(i64::MAX)), rate: Arc::new(AtomicU64::new(Self::AS_IT_IS)) };
        let own = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (proxy, server) = (own.clone(), TcpStream::connect(&address).await.unwrap());
                tokio::spawn(proxy.pass(client, server));
            }
        });
        proxy
    }

    fn cut_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    fn mend(&self) {
        self.cut_after(i64::MAX);
    }

    fn slow_down(&self, rate: u64) {
        self.rate.store(rate, Ordering::SeqCst);
    }

    async fn pass(self, client: TcpStream, server: TcpStream) {
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        // The first of the two to end takes the other with it: a connection breaks as a whole.
        tokio::select! {
            () = self.copy(from_client, to_server) => {}
            () = self.copy(from_server, to_client) => {}
        }
    }

    async fn copy(&self, mut from: impl tokio::io::AsyncRead + Unpin, mut to: impl tokio::io::AsyncWrite + Unpin) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read.unwrap_or(0),
                () = self.run_out() => return,
            };
            if read == 0 {
                return;
            }
            let left = self.left.fetch_sub(read as i64, Ordering::SeqCst);
            let passed = usize::try_from(left).unwrap_or(0).min(read);
            if to.write_all(buffer.get(..passed).unwrap_or_default()).await.is_err() || passed < read {
                return;
            }
            let rate = self.rate.load(Ordering::SeqCst);
            if rate != Self::AS_IT_IS {
                tokio::time::sleep(Duration::from_micros(read as u64 * 1_000_000 / rate)).await;
            }
        }
    }

    async fn run_out(&self) {
        while self.left.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Bytes that do not compress, of their own for every number.
fn noise(number: u64, length: usize) -> Bytes {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(step).collect::<Vec<u8>>().into()
}

/// What the store holds of a session's stdout; fails unless it is whole and sealed.
async fn stored(store: &Store, session: &SessionId, spool: &Spool) -> Vec<u8> {
    let manifest = store.get(&session.key("manifest.json")).await.unwrap();
    let manifest = Manifest::open(&manifest, &[spool.key().public().clone()]).unwrap();
    let mut all = Vec::new();
    for entry in &manifest.chunks {
        let object = store.get(&session.key(&chunk_name(entry.sequence))).await.unwrap();
        for event in Chunk::parse(&object).unwrap().events() {
            if let EventKind::Data { bytes, .. } = event.unwrap().kind {
                all.extend_from_slice(&bytes);
            }
        }
    }
    all
}

/// The spool of the next process, on a folder that the last one has just left.
async fn reopened(dir: &Path, key: &Arc<SigningKey>) -> Spool {
    eventually("the folder is free", async || {
        let config = Config { free_space_floor: 0, ..Config::new(dir) };
        Spool::open(config, key.clone(), Default::default()).await.ok()
    })
    .await
}

fn uploading(spool: &Spool, store: &Store, shutdown: &CancellationToken) -> JoinHandle<()> {
    tokio::spawn(Uploader::new(spool.clone(), store.clone()).run(shutdown.clone()))
}

/// Records for so long; gives the session, what it should hold, and the longest that one event took.
async fn record_for(mut recording: Recording, number: u64, how_long: Duration) -> (SessionId, Vec<u8>, Duration) {
    let (session, begun, mut longest) = (*recording.session(), Instant::now(), Duration::ZERO);
    let mut all = Vec::new();
    while begun.elapsed() < how_long {
        let bytes = noise(number << 32 | all.len() as u64, 4096);
        all.extend_from_slice(&bytes);
        let asked = Instant::now();
        recording.append(recording.elapsed(), stdout(bytes)).await.unwrap();
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    recording.finish(Cause::Completed.into()).await.unwrap();
    (session, all, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_sessions_outlive_a_store_that_is_away_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut config) = s3(dir.path()) else { return };
    let proxy = Proxy::before(&mut config).await;
    let store = Store::open(&config).await.unwrap();
    let spool = open(&dir.path().join("spool"), &Arc::new(generate().unwrap())).await;
    let away = std::env::var(AWAY).ok().map_or(4, |seconds| seconds.parse().unwrap());
    let shutdown = CancellationToken::new();
    let uploader = uploading(&spool, &store, &shutdown);
    let mut sessions = Vec::new();
    for number in 0..20 {
        let recording = spool.start(header()).await.unwrap();
        sessions.push(tokio::spawn(record_for(recording, number, Duration::from_secs(away + 3))));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.cut_after(0);
    tokio::time::sleep(Duration::from_secs(away)).await;
    assert!(spool.used() > 100_000, "meanwhile it is all kept here");
    proxy.mend();
    let mut held = Vec::new();
    for session in sessions {
        held.push(session.await.unwrap());
    }
    let last = held.last().unwrap().0.key("manifest.json");
    shutdown.cancel();
    uploader.await.unwrap();
    // What the last pass could not ship, the next process does.
    let uploader = uploading(&spool, &store, &shutdown);
    uploader.await.unwrap();
    eventually("the last manifest is in the store", async || store.head(&last).await.ok().flatten()).await;
    for (session, all, longest) in held {
        assert_eq!(stored(&store, &session, &spool).await, all);
        assert!(longest < Duration::from_secs(1), "an event of a session took {longest:?}");
    }
    assert!(spool.used() < 100, "{} bytes are left", spool.used());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_does_not_slow_sessions_until_the_quota_is_used_up() {
    const RATE: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let Some(mut config) = s3(dir.path()) else { return };
    let proxy = Proxy::before(&mut config).await;
    let store = Store::open(&config).await.unwrap();
    let quota = 6 << 20;
    let spool = open_with(&dir.path().join("spool"), &Arc::new(generate().unwrap()), quota).await;
    proxy.slow_down(RATE);
    let shutdown = CancellationToken::new();
    let uploader = uploading(&spool, &store, &shutdown);
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    let (begun, mut all, mut until_full) = (Instant::now(), Vec::new(), None);
    let refused = loop {
        assert!(all.len() < 64 << 20, "it never got full");
        let bytes = noise(all.len() as u64, 64 * 1024);
        match recording.append(recording.elapsed(), stdout(bytes.clone())).await {
            Ok(()) => all.extend_from_slice(&bytes),
            Err(error) => break error,
        }
        if (all.len() as u64) < quota / 2 {
            until_full = Some(begun.elapsed());
        }
    };
    assert!(matches!(refused, Error::Full(_)), "{refused}");
    let at_once = until_full.unwrap();
    assert!(at_once < Duration::from_secs(2), "3 MB of a session took {at_once:?}; the store alone needs 3 s");
    assert!(matches!(spool.start(header()).await, Err(Error::Full(_))), "no new session either");
    recording.finish(Cause::RecorderFailed.into()).await.unwrap();
    proxy.slow_down(Proxy::AS_IT_IS);
    shutdown.cancel();
    uploader.await.unwrap();
    assert_eq!(stored(&store, &session, &spool).await, all);
    assert!(spool.has_room().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_cut_off_at_any_step_is_completed_without_loss_or_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut config) = s3(dir.path()) else { return };
    let proxy = Proxy::before(&mut config).await;
    let store = Store::open(&config).await.unwrap();
    let key = Arc::new(generate().unwrap());
    let done = CancellationToken::new();
    done.cancel();
    let mut cut_off = 0;
    for step in 0..16_i64 {
        let local = dir.path().join(format!("spool-{step}"));
        let spool = open(&local, &key).await;
        let mut recording = spool.start(header()).await.unwrap();
        let session = *recording.session();
        let all: Vec<u8> = (0..3).flat_map(|part| noise(step as u64 * 8 + part, 3000)).collect();
        for part in all.chunks(3000) {
            recording.append(recording.elapsed(), stdout(part.to_vec())).await.unwrap();
            // Ends a chunk, so that there are several.
            recording
                .append(recording.elapsed(), EventKind::Status { bytes: Bytes::from_static(b"{}") })
                .await
                .unwrap();
        }
        recording.finish(Cause::Completed.into()).await.unwrap();
        proxy.cut_after(200 + step * step * 75);
        uploading(&spool, &store, &done).await.unwrap();
        cut_off += usize::from(spool.used() > 100);
        proxy.mend();
        // The next process, on the same folder.
        drop(spool);
        let spool = reopened(&local, &key).await;
        uploading(&spool, &store, &done).await.unwrap();
        assert_eq!(stored(&store, &session, &spool).await, all, "step {step}");
        assert!(spool.used() < 100, "step {step}: {} bytes are left", spool.used());
    }
    assert!(cut_off > 8, "only {cut_off} uploads were cut off: nothing was proved");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_ship_side_by_side_into_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let Some(config) = s3(dir.path()) else { return };
    let store = Store::open(&config).await.unwrap();
    let shutdown = CancellationToken::new();
    let (mut sessions, mut uploaders, mut spools) = (Vec::new(), Vec::new(), Vec::new());
    for replica in 0..2_u64 {
        let spool = open(&dir.path().join(format!("spool-{replica}")), &Arc::new(generate().unwrap())).await;
        uploaders.push(uploading(&spool, &store, &shutdown));
        for number in 0..5 {
            let recording = spool.start(header()).await.unwrap();
            let recorded = record_for(recording, replica * 5 + number, Duration::from_millis(400));
            sessions.push((replica, tokio::spawn(recorded)));
        }
        spools.push(spool);
    }
    let mut held = Vec::new();
    for (replica, session) in sessions {
        held.push((replica, session.await.unwrap()));
    }
    shutdown.cancel();
    for uploader in uploaders {
        uploader.await.unwrap();
    }
    for (replica, (session, all, _)) in &held {
        assert_eq!(&stored(&store, session, &spools[*replica as usize]).await, all);
    }
    assert_eq!(catalog::sessions(&store, 100).await.unwrap().len(), held.len());
}

/// The process whose disk is full: runs in a mount namespace of its own.
async fn record_until_the_disk_is_full(dir: &Path) {
    let spool = open(&dir.join("spool"), &Arc::new(generate().unwrap())).await;
    let mut recording = spool.start(header()).await.unwrap();
    let session = *recording.session();
    let mut accepted = Vec::new();
    let error = loop {
        assert!(accepted.len() < 64 << 20, "it never got full");
        let bytes = noise(accepted.len() as u64, 32 * 1024);
        match recording.append(recording.elapsed(), stdout(bytes.clone())).await {
            Ok(()) => accepted.extend_from_slice(&bytes),
            Err(error) => break error,
        }
    };
    println!("full after {} bytes: {error}", accepted.len());
    assert!(accepted.len() > 1 << 20);
    assert!(
        recording.append(recording.elapsed(), stdout("more")).await.is_err(),
        "it does not go on as if nothing was"
    );
    recording.finish(Cause::RecorderFailed.into()).await.ok();
    drop(spool);
    std::fs::remove_file(dir.join("filler")).unwrap();
    let spool = reopened(&dir.join("spool"), &Arc::new(generate().unwrap())).await;
    let mut recorded = Vec::new();
    for event in events(&dir.join("spool"), &session) {
        if let EventKind::Data { bytes, .. } = event {
            recorded.extend_from_slice(&bytes);
        }
    }
    assert!(recorded.starts_with(&accepted), "{} accepted, {} recorded", accepted.len(), recorded.len());
    drop(spool);
    println!("all of it was there");
}

#[tokio::test]
async fn a_disk_that_is_full_ends_the_recording_and_loses_nothing_that_was_accepted() {
    if let Ok(dir) = std::env::var(FULL_DISK) {
        return record_until_the_disk_is_full(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=6m tmpfs "$0" && head -c 2000000 /dev/zero > "$0/filler" &&
        exec "$1" --exact outage::a_disk_that_is_full_ends_the_recording_and_loses_nothing_that_was_accepted --nocapture"#;
    let done = tokio::process::Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .env(FULL_DISK, dir.path())
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && told.contains("all of it was there"), "{done:?}");
}
