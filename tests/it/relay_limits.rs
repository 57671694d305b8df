//! What ends a session besides its two sides: its limits, each tried right at its edge, and an order from outside.

use crate::relay::{self, data};
use crate::relay_ports::{connect, purpose};
use crate::relay_spdy::{self, fin, id, open, reply, reset};
use bytes::Bytes;
use kustody::core::recording::{Cause, Channel, Direction, EventKind};
use kustody::core::wire::channels::Protocol;
use kustody::core::wire::spdy::{Frame, ResetStatus};
use kustody::core::wire::websocket::Message;
use kustody::service::relay::{Limits, Order, Orders, Session, Speech};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const MS: Duration = Duration::from_millis(1);

async fn limited(limits: Limits) -> relay::Stage {
    relay::Stage::changed(Speech::Channels(Protocol::V5), |session| session.limits = limits, |_| {}).await
}

/// The message of the status that comes next, and the close code after it.
async fn last_words(stage: &mut relay::Stage) -> (String, Option<u16>) {
    let mut told = None;
    let code = loop {
        match stage.client.next().await {
            Some(Message::Data(bytes)) => {
                if let Some(json) = bytes.strip_prefix(&[3]) {
                    told = serde_json::from_slice::<Value>(json).ok();
                }
            }
            Some(Message::Close { code, .. }) => break code,
            Some(Message::Ping(_) | Message::Pong(_)) => {}
            None => break None,
        }
    };
    let told = told.expect("a status");
    let text = |pointer: &str| told.pointer(pointer).and_then(Value::as_str).expect("text").to_owned();
    assert_eq!((text("/kind"), text("/status")), ("Status".to_owned(), "Failure".to_owned()));
    (text("/message"), code)
}

#[tokio::test]
async fn a_session_without_data_ends_and_one_with_some_does_not() {
    let mut stage = limited(Limits { idle: 1500 * MS, ..Limits::default() }).await;
    let began = Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(400 * MS).await;
        stage.server.send(1, b"on").await;
        stage.client.expect(1, b"on").await;
    }
    let quiet = Instant::now();
    // A ping is no data.
    let mut ping = bytes::BytesMut::new();
    kustody::core::wire::websocket::encode(
        &mut ping,
        kustody::core::wire::websocket::Opcode::Ping,
        Some([1, 2, 3, 4]),
        &[b""],
    );
    for _ in 0..2 {
        tokio::time::sleep(400 * MS).await;
        stage.client.write(&ping).await;
    }
    let told = loop {
        match stage.client.next().await {
            Some(Message::Pong(_)) => {}
            Some(Message::Data(status)) => break status,
            other => panic!("{other:?}"),
        }
    };
    assert!(String::from_utf8_lossy(&told).contains("nothing was sent or received for 1500ms"), "{told:?}");
    assert!(quiet.elapsed() >= 1450 * MS && began.elapsed() >= 3400 * MS);
    stage.piped.ended().await;
    assert_eq!(stage.end().await.0, Cause::Limit);
}

#[tokio::test]
async fn a_session_ends_after_its_time_however_busy() {
    let mut stage = limited(Limits { lifetime: 2000 * MS, ..Limits::default() }).await;
    let began = Instant::now();
    let mut passed = 0;
    while began.elapsed() < 1200 * MS {
        stage.server.send(1, b"busy").await;
        stage.client.expect(1, b"busy").await;
        passed += 1;
        tokio::time::sleep(20 * MS).await;
    }
    assert!(passed > 3);
    let (told, code) = last_words(&mut stage).await;
    assert_eq!(
        (told.as_str(), code),
        ("kustody ended this session: it has lasted 2s, which is the longest", Some(1000))
    );
    assert!(began.elapsed() >= 1950 * MS);
    stage.piped.ended().await;
    assert_eq!(stage.end().await.0, Cause::Limit);
}

#[tokio::test]
async fn what_fills_the_recording_passes_and_nothing_beyond() {
    // Each event counts 16 bytes besides its own.
    let mut stage = limited(Limits { recording: 3 * (16 + 5), ..Limits::default() }).await;
    stage.client.send(0, b"first").await;
    stage.server.expect(0, b"first").await;
    for _ in 0..2 {
        stage.server.send(1, b"three").await;
        stage.client.expect(1, b"three").await;
    }
    stage.server.send(1, b"f").await;
    let (told, _) = last_words(&mut stage).await;
    assert_eq!(told, "kustody ended this session: its recording has reached 63 bytes, which is the most");
    stage.piped.ended().await;
    let (cause, events) = stage.end().await;
    assert_eq!((cause, relay::bytes_in(&events)), (Cause::Limit, 15));
}

#[tokio::test]
async fn a_message_of_the_limit_passes_and_one_byte_more_ends_the_session() {
    let limits = Limits { max_message: 1000, ..Limits::default() };
    let mut stage = limited(limits).await;
    stage.client.send(0, &[7; 999]).await;
    stage.server.expect(0, &[7; 999]).await;
    stage.client.send(0, &[7; 1000]).await;
    let (told, code) = last_words(&mut stage).await;
    assert_eq!(
        (told.as_str(), code),
        ("kustody ended this session: the client: a message is larger than 1000 bytes", Some(1000))
    );
    stage.piped.ended().await;
    let (cause, events) = stage.end().await;
    assert_eq!((cause, relay::bytes_in(&events)), (Cause::Limit, 999));

    let mut stage = relay_spdy::Stage::changed(Speech::Spdy, |session| session.limits = limits).await;
    for (stream, name) in [(1, "error"), (3, "stdin")] {
        stage.client.send(&[open(stream, &[("streamtype", name)])]).await;
        stage.server.next().await;
        stage.server.send(&[reply(stream)]).await;
        stage.client.expect(reply(stream)).await;
    }
    stage.client.send(&[relay_spdy::data(3, &[7; 1000])]).await;
    stage.server.expect(relay_spdy::data(3, &[7; 1000])).await;
    stage.client.send(&[relay_spdy::data(3, &[7; 1001])]).await;
    let Some(Frame::Data { stream, fin: true, bytes }) = stage.client.next().await else { panic!("no status") };
    assert_eq!(stream, id(1));
    assert!(String::from_utf8_lossy(&bytes).contains("a frame is larger than 1000 bytes"), "{bytes:?}");
    stage.piped.ended().await;
    assert_eq!(stage.end().await.0, Cause::Limit);
}

#[tokio::test]
async fn one_connection_too_many_is_refused_until_another_has_ended() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let mut stage = relay_spdy::Stage::changed(Speech::Forward, |session| session.limits = limits).await;
    connect(&mut stage, 1, "0").await;
    connect(&mut stage, 5, "1").await;
    for stream in [9, 11] {
        stage.client.send(&[purpose(stream, "error", "2")]).await;
        stage.client.expect(reset(stream, ResetStatus::RefusedStream)).await;
    }
    stage.client.send(&[reset(3, ResetStatus::Cancel), reset(1, ResetStatus::Cancel)]).await;
    stage.server.expect(reset(3, ResetStatus::Cancel)).await;
    stage.server.expect(reset(1, ResetStatus::Cancel)).await;
    connect(&mut stage, 13, "3").await;
    let (_, events) = stage.end().await;
    let noted: Vec<_> = events.iter().filter(|event| matches!(event, EventKind::Marker { .. })).collect();
    let detail = "connections beyond 2 at a time are refused".to_owned();
    assert_eq!(noted, [&EventKind::Marker { name: "limit".into(), detail }], "noted once");
}

fn kill() -> Order {
    Order { name: "killed", message: "killed by alice: wrong cluster".into() }
}

fn ordered(sender: &mut Option<oneshot::Sender<Order>>) -> impl FnOnce(&mut Session) {
    let (give, orders) = Orders::channel();
    *sender = Some(give);
    move |session| session.orders = orders
}

#[tokio::test]
async fn an_order_cuts_both_sides_within_a_second_although_the_client_reads_nothing() {
    let mut sender = None;
    let change = ordered(&mut sender);
    let mut stage = relay::Stage::changed(Speech::Channels(Protocol::V5), change, |_| {}).await;
    // More than all buffers in between hold.
    let flood = async {
        loop {
            stage.server.send(1, &[b'x'; 16 * 1024]).await;
        }
    };
    assert!(tokio::time::timeout(300 * MS, flood).await.is_err());
    sender.expect("a sender").send(kill()).expect("a session");
    let ordered = Instant::now();
    stage.piped.ended().await;
    assert!(ordered.elapsed() < Duration::from_secs(1), "{:?}", ordered.elapsed());
    let (cause, events) = stage.end().await;
    assert_eq!(cause, Cause::Terminated);
    let marker = EventKind::Marker { name: "killed".into(), detail: "killed by alice: wrong cluster".into() };
    assert!(events.contains(&marker), "no marker");
}

#[tokio::test]
async fn who_is_cut_off_is_told_why_in_every_protocol() {
    let mut sender = None;
    let change = ordered(&mut sender);
    let mut stage = relay::Stage::changed(Speech::Channels(Protocol::V4), change, |_| {}).await;
    stage.client.send(0, b"hello").await;
    stage.server.expect(0, b"hello").await;
    sender.take().expect("a sender").send(kill()).expect("a session");
    assert_eq!(last_words(&mut stage).await, ("killed by alice: wrong cluster".to_owned(), Some(1000)));
    let (_, events) = stage.end().await;
    assert!(events.contains(&data(Channel::Stdin, Direction::ToContainer, b"hello")));
    let close = events.last().expect("events");
    assert!(
        matches!(close, EventKind::Close { reason } if reason.detail == "killed by alice: wrong cluster"),
        "{close:?}"
    );

    let change = ordered(&mut sender);
    let mut stage = relay_spdy::Stage::changed(Speech::Forward, change).await;
    connect(&mut stage, 1, "0").await;
    sender.take().expect("a sender").send(kill()).expect("a session");
    stage.client.expect(fin(1, b"killed by alice: wrong cluster")).await;
    stage.client.expect(Frame::GoAway { last: 3, status: 2 }).await;
    assert_eq!(stage.end().await.0, Cause::Terminated);

    let change = ordered(&mut sender);
    let ports = |session: &mut Session| {
        change(session);
        session.ports = vec![80];
    };
    let mut stage = relay::Stage::changed(Speech::ForwardChannels(Protocol::V4), ports, |_| {}).await;
    sender.take().expect("a sender").send(kill()).expect("a session");
    let reason = Bytes::from_static(b"killed by alice: wrong cluster");
    assert_eq!(stage.client.next().await, Some(Message::Close { code: Some(1008), reason }));
    assert_eq!(stage.end().await.0, Cause::Terminated);
}

#[tokio::test]
async fn nobody_who_could_give_an_order_is_no_order() {
    let mut sender = None;
    let change = ordered(&mut sender);
    let mut stage = relay::Stage::changed(Speech::Channels(Protocol::V5), change, |_| {}).await;
    drop(sender);
    stage.client.send(0, b"hello").await;
    stage.server.expect(0, b"hello").await;
    // Both sides hang up at once: either may be seen first.
    assert!(matches!(stage.end().await.0, Cause::ClientGone | Cause::UpstreamLost));
}
