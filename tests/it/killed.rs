//! Kustody killed with SIGKILL while sessions run at full speed: whatever the client or the API server had seen by then
//! is in the recording that the next start recovers.

use crate::piped::session;
use crate::spool::{events, header, manifest, open};
use bytes::BytesMut;
use kustody::core::keys::SigningKey;
use kustody::core::recording::{Cause, Channel, EventKind, SessionId};
use kustody::core::wire::channels::{Protocol, Streams};
use kustody::core::wire::websocket::{Decoder, MAX_MESSAGE, Message, Opcode, Side, encode};
use kustody::edge::keys::generate;
use kustody::service::relay::{Session, Speech};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const TEST: &str = "killed::what_either_side_had_seen_is_on_record_whenever_the_process_is_killed";
/// Set in the process that is killed: its spool, and where the two ends of its sessions listen.
const SPOOL: &str = "KUSTODY_TEST_KILLED_SPOOL";
const CLIENT: &str = "KUSTODY_TEST_KILLED_CLIENT";
const SERVER: &str = "KUSTODY_TEST_KILLED_SERVER";
/// How often a process is killed, each time a little later.
const MOMENTS: u64 = 50;
/// Sessions that run at once.
const SESSIONS: usize = 3;

/// What an end received of each channel, and nothing else.
type Seen = BTreeMap<u8, Vec<u8>>;

/// The process that is killed: relays sessions between the two addresses until then.
async fn relay_until_killed(spool: &str) {
    let address = |name| std::env::var(name).unwrap();
    let spool = open(Path::new(spool), &Arc::new(generate().unwrap())).await;
    for _ in 0..SESSIONS {
        let recording = spool.start(header()).await.unwrap();
        println!("session {}", recording.session());
        let streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
        let grace = Duration::from_secs(1);
        let session = Session { streams, grace, ..session(recording, Speech::Channels(Protocol::V5)) };
        let client = TcpStream::connect(address(CLIENT)).await.unwrap();
        let server = TcpStream::connect(address(SERVER)).await.unwrap();
        tokio::spawn(session.run(client, server, CancellationToken::new()));
    }
    println!("all run");
    std::future::pending().await
}

/// One end of a session: says things on these channels as fast as it can, and gives what it heard until the connection
/// broke.
async fn talk(io: TcpStream, key: Option<[u8; 4]>, channels: &'static [u8]) -> Seen {
    let peer = if key.is_some() { Side::Server } else { Side::Client };
    let (mut reader, mut writer) = io.into_split();
    let speaking = tokio::spawn(async move {
        let (mut said, mut out) = (0_u32, BytesMut::new());
        loop {
            for channel in channels {
                let length = 1 + (said.wrapping_mul(2_654_435_761) >> 18) as usize;
                let payload: Vec<u8> = (0..length).map(|at| (said as usize * 31 + at * 7) as u8).collect();
                out.clear();
                encode(&mut out, Opcode::Binary, key, &[&[*channel], &payload]);
                if writer.write_all(&out).await.is_err() {
                    return;
                }
                said += 1;
            }
        }
    });
    let (mut seen, mut decoder) = (Seen::new(), Decoder::new(peer, MAX_MESSAGE));
    while reader.read_buf(decoder.buffer()).await.is_ok_and(|read| read > 0) {
        while let Some(message) = decoder.next_message().expect("canonical frames") {
            if let Message::Data(bytes) = message
                && let Some((channel, payload)) = bytes.split_first()
            {
                seen.entry(*channel).or_default().extend_from_slice(payload);
            }
        }
    }
    speaking.abort();
    seen
}

/// Lets sessions run in another process for so long, kills it, and gives what their ends had seen.
async fn run_and_kill(dir: &Path, after: Duration) -> Vec<(SessionId, Seen)> {
    let (clients, servers) = (listener().await, listener().await);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(SPOOL, dir)
        .env(CLIENT, clients.local_addr().unwrap().to_string())
        .env(SERVER, servers.local_addr().unwrap().to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut sessions, mut ends) = (Vec::new(), Vec::new());
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.ends_with("all run") {
            break;
        }
        if let Some((_, session)) = line.rsplit_once("session ") {
            sessions.push(session.parse::<SessionId>().unwrap());
            let client = clients.accept().await.unwrap().0;
            let server = servers.accept().await.unwrap().0;
            let (client, server) = (talk(client, Some([9, 8, 7, 6]), &[0]), talk(server, None, &[1, 2]));
            ends.push(tokio::spawn(async move {
                let (mut client, server) = tokio::join!(client, server);
                client.extend(server);
                client
            }));
        }
    }
    tokio::time::sleep(after).await;
    child.kill().await.unwrap();
    let mut told = Vec::new();
    for (session, end) in sessions.into_iter().zip(ends) {
        told.push((session, end.await.unwrap()));
    }
    told
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// How many bytes were seen; fails when one of them is not in the recording where it belongs.
fn compare(dir: &Path, key: &SigningKey, session: &SessionId, seen: &Seen) -> usize {
    assert_eq!(manifest(dir, session, key).reason.cause, Cause::RecoveredAfterCrash);
    let mut recorded = Seen::new();
    for event in events(dir, session) {
        if let EventKind::Data { channel, bytes, .. } = event {
            recorded.entry(channel.number()).or_default().extend_from_slice(&bytes);
        }
    }
    for (channel, bytes) in seen {
        let recorded = recorded.get(channel).map_or(&[][..], Vec::as_slice);
        let name = Channel::ALL.iter().find(|known| known.number() == *channel).map(|known| known.name());
        assert!(recorded.starts_with(bytes), "{name:?}: {} bytes seen, {} recorded", bytes.len(), recorded.len());
    }
    seen.values().map(Vec::len).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_either_side_had_seen_is_on_record_whenever_the_process_is_killed() {
    if let Ok(spool) = std::env::var(SPOOL) {
        return relay_until_killed(&spool).await;
    }
    let mut seen = 0;
    for moment in 0..MOMENTS {
        let dir = tempfile::tempdir().unwrap();
        let after = Duration::from_millis(moment * moment * 53 % 160);
        let told = run_and_kill(dir.path(), after).await;
        assert_eq!(told.len(), SESSIONS);
        let key = Arc::new(generate().unwrap());
        let spool = open(dir.path(), &key).await;
        for (session, ends) in &told {
            seen += compare(dir.path(), &key, session, ends);
        }
        drop(spool);
    }
    println!("{} MB were seen in {MOMENTS} lives", seen / 1_000_000);
    assert!(seen > 1_000_000, "only {seen} bytes were seen: nothing was proved");
}
