//! port-forward sessions between a scripted client and a scripted API server: every connection on record.

use crate::relay_spdy::{Stage, data, fin, open, reply, reset};
use bytes::Bytes;
use kustody::core::recording::{Cause, Channel, Direction, EventKind};
use kustody::core::wire::channels::Streams;
use kustody::core::wire::spdy::{Frame, ResetStatus};
use kustody::service::relay::Speech;
use std::time::Duration;

const UP: Direction = Direction::ToContainer;
const DOWN: Direction = Direction::ToClient;

async fn stage() -> Stage {
    Stage::new(Speech::Forward, Streams::default()).await
}

pub(crate) fn purpose(stream: u32, kind: &'static str, request: &'static str) -> Frame {
    open(stream, &[("streamtype", kind), ("port", "80"), ("requestid", request)])
}

/// Opens a pair as kubectl does: the error stream, closed at once by the client, then the data stream.
pub(crate) async fn connect(stage: &mut Stage, first: u32, request: &'static str) {
    for (stream, kind) in [(first, "error"), (first + 2, "data")] {
        stage.client.send(&[purpose(stream, kind, request)]).await;
        stage.server.expect(purpose(stream, kind, request)).await;
        stage.server.send(&[reply(stream)]).await;
        stage.client.expect(reply(stream)).await;
        if kind == "error" {
            stage.client.send(&[fin(stream, b"")]).await;
            stage.server.expect(fin(stream, b"")).await;
        }
    }
}

fn passed(connection: u32, direction: Direction, bytes: &'static [u8]) -> EventKind {
    EventKind::ConnectionData { connection, direction, bytes: Bytes::from_static(bytes) }
}

/// Without how long they took.
fn timeless(events: Vec<EventKind>) -> Vec<EventKind> {
    let timeless = |mut event| {
        if let EventKind::ConnectionClosed { duration, .. } = &mut event {
            *duration = Duration::ZERO;
        }
        event
    };
    events.into_iter().map(timeless).collect()
}

fn closed(connection: u32, to_container: u64, to_client: u64) -> EventKind {
    EventKind::ConnectionClosed { connection, port: 80, to_container, to_client, duration: Duration::ZERO }
}

#[tokio::test]
async fn each_connection_is_recorded_with_its_bytes_and_its_end() {
    let mut stage = stage().await;
    connect(&mut stage, 1, "0").await;
    connect(&mut stage, 5, "1").await;
    stage.client.send(&[data(3, b"GET /"), data(7, b"other")]).await;
    stage.server.expect(data(3, b"GET /")).await;
    stage.server.expect(data(7, b"other")).await;
    stage.server.send(&[data(3, b"200 OK"), fin(3, b""), data(5, b"refused"), fin(5, b"")]).await;
    for frame in [data(3, b"200 OK"), fin(3, b""), data(5, b"refused"), fin(5, b"")] {
        stage.client.expect(frame).await;
    }
    stage.client.send(&[fin(3, b""), reset(3, ResetStatus::Cancel)]).await;
    stage.server.expect(fin(3, b"")).await;
    stage.client.send(&[Frame::GoAway { last: 0, status: 0 }]).await;
    stage.piped.ended().await;
    let (cause, events) = stage.end().await;
    assert_eq!(cause, Cause::Completed);
    let events = timeless(events);
    let expected = [
        EventKind::ConnectionOpened { connection: 1, port: 80 },
        EventKind::ConnectionOpened { connection: 2, port: 80 },
        passed(1, UP, b"GET /"),
        passed(2, UP, b"other"),
        passed(1, DOWN, b"200 OK"),
        EventKind::ConnectionHalfClose { connection: 1, direction: DOWN },
        EventKind::ConnectionError { connection: 2, bytes: Bytes::from_static(b"refused") },
        EventKind::ConnectionHalfClose { connection: 1, direction: UP },
        closed(1, 5, 6),
        closed(2, 5, 0),
    ];
    assert_eq!(events[..10], expected);
}

#[tokio::test]
async fn bytes_beyond_the_limit_pass_and_are_counted() {
    let mut stage = stage().await;
    connect(&mut stage, 1, "0").await;
    stage.client.send(&[data(3, b"0123456789abcdef")]).await;
    stage.server.expect(data(3, b"0123456789abcdef")).await;
    stage.server.send(&[reset(3, ResetStatus::Cancel)]).await;
    stage.client.expect(reset(3, ResetStatus::Cancel)).await;
    let events = timeless(stage.end().await.1);
    assert!(events.contains(&passed(1, UP, b"0123456789")), "{events:?}");
    let lost = |event: &EventKind| {
        matches!(event, EventKind::Gap { channel: Channel::Connection, direction: UP, bytes: 6, .. })
    };
    assert!(events.iter().any(lost), "{events:?}");
    assert!(events.contains(&closed(1, 16, 0)), "{events:?}");
}

#[tokio::test]
async fn streams_that_fit_no_connection_are_refused_and_reach_nobody() {
    let mut stage = stage().await;
    connect(&mut stage, 1, "0").await;
    let bad: [&[(&'static str, &'static str)]; 8] = [
        &[("streamtype", "data"), ("port", "80"), ("requestid", "0")],
        &[("streamtype", "error"), ("port", "81"), ("requestid", "0")],
        &[("streamtype", "data"), ("port", "0"), ("requestid", "9")],
        &[("streamtype", "data"), ("port", "+80"), ("requestid", "9")],
        &[("streamtype", "data"), ("port", "65536"), ("requestid", "9")],
        &[("streamtype", "data"), ("requestid", "9")],
        &[("streamtype", "stdin"), ("port", "80"), ("requestid", "9")],
        &[("streamtype", "data"), ("port", "80"), ("requestid", "1\0b")],
    ];
    for (stream, headers) in (5..).step_by(2).zip(bad) {
        stage.client.send(&[open(stream, headers)]).await;
        stage.client.expect(reset(stream, ResetStatus::RefusedStream)).await;
    }
    stage.client.send(&[data(3, b"real")]).await;
    stage.server.expect(data(3, b"real")).await;
    stage.end().await;
}

#[tokio::test]
async fn pairs_without_a_request_id_go_by_their_stream_ids() {
    let mut stage = stage().await;
    for (stream, kind) in [(1, "error"), (3, "data"), (5, "error"), (7, "data")] {
        let frame = open(stream, &[("streamtype", kind), ("port", "80")]);
        stage.client.send(std::slice::from_ref(&frame)).await;
        stage.server.expect(frame).await;
    }
    let events = timeless(stage.end().await.1);
    assert_eq!(events.iter().filter(|event| matches!(event, EventKind::ConnectionOpened { .. })).count(), 2);
    assert!(events.contains(&closed(1, 0, 0)) && events.contains(&closed(2, 0, 0)), "{events:?}");
}
