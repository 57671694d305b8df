//! Clients of the relay that do nothing for a while: an idle one is kept for hours and pinged, one that does not read gets
//! what the process said last all the same, or is ended by the idle limit without being kept in memory; one that waits for
//! people and has no place for an answer is not waited for.
//!
//! Where an hour passes the clock stands still and is moved by hand, and only while nothing is recorded.

use crate::piped::{self, Piped};
use crate::relay::{Stage, bytes_in};
use crate::relay_spdy::{self, data, id, open, reply};
use crate::spool::{header, manifest};
use bytes::Bytes;
use kustody::core::recording::Cause;
use kustody::core::wire::channels::Protocol;
use kustody::core::wire::spdy::{Frame, Side};
use kustody::core::wire::websocket::Message;
use kustody::edge::keys::generate;
use kustody::edge::store::spool::{Config, Spool};
use kustody::service::relay::{LINGER, Limits, OPENING, PING, Speech, Waiting};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::duplex;
use tokio_util::task::TaskTracker;

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

/// So much time goes by at once, with nothing said.
async fn pass(time: Duration) {
    tokio::time::pause();
    for _ in 0..time.as_secs() {
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
}

/// Whether both sides were asked as often as they should have been in so much time; the clock moves in steps.
fn assert_asked(time: Duration, pings: (usize, usize)) {
    let due = (time.as_secs() / PING.as_secs()) as usize;
    let usual = due * 19 / 20..=due;
    assert!(usual.contains(&pings.0) && usual.contains(&pings.1), "{pings:?} pings in {time:?}");
}

const HOUR: Duration = Duration::from_secs(3_600);

fn goes_on(piped: &Piped, what: &str) {
    assert!(piped.goes_on(), "{what}");
}

#[tokio::test]
async fn a_session_that_is_idle_for_an_hour_is_pinged_on_both_sides_and_goes_on() {
    let mut stage = Stage::changed(Speech::Channels(Protocol::V5), |_| {}, |_| {}).await;
    stage.client.send(0, b"before").await;
    stage.server.expect(0, b"before").await;
    for hour in 1..=3 {
        pass(HOUR).await;
        goes_on(&stage.piped, "an idle session was ended");
        stage.client.send(0, b"in").await;
        stage.server.expect(0, b"in").await;
        stage.server.send(1, b"out").await;
        stage.client.expect(1, b"out").await;
        assert_asked(hour * HOUR, (stage.client.pings, stage.server.pings));
    }

    let mut stage = relay_spdy::Stage::changed(Speech::Spdy, |_| {}).await;
    for (stream, name) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        stage.client.send(&[open(stream, &[("streamtype", name)])]).await;
        stage.server.next().await;
        stage.server.send(&[reply(stream)]).await;
        stage.client.expect(reply(stream)).await;
    }
    pass(HOUR).await;
    goes_on(&stage.piped, "an idle session was ended over SPDY");
    stage.client.send(&[data(3, b"in")]).await;
    stage.server.expect(data(3, b"in")).await;
    stage.server.send(&[data(5, b"out")]).await;
    stage.client.expect(data(5, b"out")).await;
    assert_asked(HOUR, (stage.client.pings, stage.server.pings));
}

#[tokio::test]
async fn the_idle_limit_ends_a_session_when_it_is_over_and_not_before() {
    let limits = Limits { idle: HOUR, ..Limits::default() };
    let mut stage = Stage::changed(Speech::Channels(Protocol::V5), |session| session.limits = limits, |_| {}).await;
    let second = Duration::from_secs(1);
    pass(HOUR / 2).await;
    stage.server.send(1, b"half an hour later").await;
    stage.client.expect(1, b"half an hour later").await;
    pass(HOUR - second).await;
    goes_on(&stage.piped, "it was ended too early");
    pass(2 * second).await;
    let told = stage.client.next().await;
    let Some(Message::Data(told)) = told else { panic!("{told:?}") };
    assert!(String::from_utf8_lossy(&told).contains("nothing was sent or received for 1h"), "{told:?}");
    stage.piped.ended().await;
    assert_eq!(stage.end().await.0, Cause::Limit);
}

#[tokio::test]
async fn who_does_not_open_its_streams_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("folder");
    let key = Arc::new(generate().expect("key"));
    let mut config = Config::new(dir.path());
    config.free_space_floor = 0;
    let spool = Spool::open(config, key.clone(), TaskTracker::new()).await.expect("spool");
    let recording = spool.start(header()).await.expect("recording");
    let session = *recording.session();
    let (io, near) = duplex(1024);
    let mut client = relay_spdy::End::new(io, Side::Server);
    let waiting = Waiting::new(near, piped::session(recording, Speech::Spdy));
    // Even when everybody agreed at once.
    let waiting = tokio::spawn(waiting.until(std::future::ready(())));
    client.send(&[open(1, &[("streamtype", "error")])]).await;
    client.expect(reply(1)).await;
    pass(OPENING - Duration::from_secs(2)).await;
    assert!(!waiting.is_finished(), "it may take its time");
    pass(Duration::from_secs(4)).await;
    let Some(Frame::Data { stream, fin: true, bytes }) = client.next().await else { panic!("a status") };
    assert!(stream == id(1) && String::from_utf8_lossy(&bytes).contains("did not open the streams"), "{bytes:?}");
    drop(client);
    assert!(waiting.await.expect("no panic").is_none());
    assert_eq!(manifest(dir.path(), &session, &key).reason.cause, Cause::ProtocolError);
}
