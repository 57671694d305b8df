//! Clients of the relay that do nothing for a while: one that does not read gets what the process said last all the
//! same, or is ended by the idle limit without being kept in memory.

use crate::relay::{Stage, bytes_in};
use crate::spool::manifest;
use bytes::Bytes;
use kustody::core::recording::Cause;
use kustody::core::wire::channels::Protocol;
use kustody::core::wire::websocket::Message;
use kustody::service::relay::{LINGER, Limits, Speech};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const OK: &[u8] = br#"{"metadata":{},"status":"Success"}"#;
const PIECE: [u8; 16 * 1024] = [b'x'; 16 * 1024];

#[tokio::test]
async fn what_a_process_said_last_waits_for_a_client_that_stalls_and_its_recording_does_not() {
    let mut stage = Stage::changed(Speech::Channels(Protocol::V5), |_| {}, |_| {}).await;
    // More than the connection holds, and less than makes the relay stop reading.
    for _ in 0..12 {
        stage.server.send(1, &PIECE).await;
    }
    stage.server.send(3, OK).await;
    stage.server.close(1000).await;
    let ended = Instant::now();
    let sealed = stage.piped.dir.path().join(stage.piped.session.to_string()).join("manifest.json");
    while !sealed.exists() {
        assert!(ended.elapsed() < 10 * LINGER, "the recording waits for the client");
        tokio::time::sleep(20 * MS).await;
    }
    tokio::time::sleep(500 * MS).await;
    for _ in 0..12 {
        stage.client.expect(1, &PIECE).await;
    }
    stage.client.expect(3, OK).await;
    assert_eq!(stage.client.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
    let reason = manifest(stage.piped.dir.path(), &stage.piped.session, &stage.piped.key).reason;
    assert_eq!(reason.cause, Cause::Completed);
    assert_eq!(bytes_in(&stage.end().await.1), 12 * PIECE.len());
}

#[tokio::test]
async fn a_client_that_stops_reading_is_ended_by_the_idle_limit_and_not_kept_in_memory() {
    let limits = Limits { idle: 400 * MS, ..Limits::default() };
    let mut stage = Stage::changed(Speech::Channels(Protocol::V5), |session| session.limits = limits, |_| {}).await;
    let began = Instant::now();
    let flood = async {
        loop {
            stage.server.send(1, &PIECE).await;
        }
    };
    // Held back: nothing more is taken from the API server until the session is over.
    assert!(tokio::time::timeout(300 * MS, flood).await.is_err());
    stage.piped.ended().await;
    assert!(began.elapsed() < 400 * MS + 2 * LINGER, "it took {:?}", began.elapsed());
    let (cause, events) = stage.end().await;
    assert_eq!(cause, Cause::Limit);
    assert!(bytes_in(&events) < 1 << 20, "{} bytes were taken for a client that takes none", bytes_in(&events));
}
