//! A session between a scripted client and a scripted API server, over in-memory pipes, recorded to a real spool.

use crate::piped::Piped;
use bytes::{Bytes, BytesMut};
use kustody::core::recording::{Cause, Channel, Direction, EventKind};
use kustody::core::wire::channels::Protocol;
use kustody::core::wire::websocket::{Decoder, MAX_MESSAGE, Message, Opcode, Side, encode, encode_close};
use kustody::edge::store::spool::Config;
use kustody::service::relay::{Session, Speech};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const KEY: [u8; 4] = [1, 2, 3, 4];
const OK: &[u8] = br#"{"metadata":{},"status":"Success"}"#;

/// One scripted end: writes frames, reads whole messages.
pub(crate) struct End {
    io: DuplexStream,
    decoder: Decoder,
    key: Option<[u8; 4]>,
    /// How often it was asked whether it is there.
    pub(crate) pings: usize,
}

impl End {
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("write");
    }

    pub(crate) async fn send(&mut self, channel: u8, payload: &[u8]) {
        let mut out = BytesMut::new();
        encode(&mut out, Opcode::Binary, self.key, &[&[channel], payload]);
        self.write(&out).await;
    }

    pub(crate) async fn close(&mut self, code: u16) {
        let mut out = BytesMut::new();
        encode_close(&mut out, Some(code), b"", self.key);
        self.write(&out).await;
    }

    /// The next message, pings aside; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match self.decoder.next_message().expect("canonical frames") {
                Some(Message::Ping(_)) => self.pings += 1,
                Some(message) => return Some(message),
                None => {
                    let read = self.io.read_buf(self.decoder.buffer());
                    let read = tokio::time::timeout(Duration::from_secs(10), read).await;
                    if read.expect("in time").expect("read") == 0 {
                        return None;
                    }
                }
            }
        }
    }

    pub(crate) async fn expect(&mut self, channel: u8, payload: &[u8]) {
        let expected = [&[channel], payload].concat();
        assert_eq!(self.next().await, Some(Message::Data(Bytes::from(expected))));
    }
}

pub(crate) struct Stage {
    pub(crate) client: End,
    pub(crate) server: End,
    pub(crate) piped: Piped,
}

impl Stage {
    async fn new(protocol: Protocol) -> Stage {
        Self::with(protocol, |_| {}).await
    }

    async fn with(protocol: Protocol, spool: impl FnOnce(&mut Config)) -> Stage {
        Self::speaking(Speech::Channels(protocol), Vec::new(), spool).await
    }

    async fn speaking(speech: Speech, ports: Vec<u16>, spool: impl FnOnce(&mut Config)) -> Stage {
        Self::changed(speech, |session| session.ports = ports, spool).await
    }

    pub(crate) async fn changed(
        speech: Speech,
        change: impl FnOnce(&mut Session),
        spool: impl FnOnce(&mut Config),
    ) -> Stage {
        let (piped, client, server) = Piped::start(speech, change, spool).await;
        let client = End { io: client, decoder: Decoder::new(Side::Server, MAX_MESSAGE), key: Some(KEY), pings: 0 };
        let server = End { io: server, decoder: Decoder::new(Side::Client, MAX_MESSAGE), key: None, pings: 0 };
        Stage { client, server, piped }
    }

    /// Hangs up on both sides, waits for the end, and gives the cause and what was recorded.
    pub(crate) async fn end(self) -> (Cause, Vec<EventKind>) {
        drop((self.client, self.server));
        self.piped.end().await
    }
}

pub(crate) fn data(channel: Channel, direction: Direction, bytes: &'static [u8]) -> EventKind {
    EventKind::Data { channel, direction, bytes: Bytes::from_static(bytes) }
}

pub(crate) fn bytes_in(events: &[EventKind]) -> usize {
    events.iter().map(|event| if let EventKind::Data { bytes, .. } = event { bytes.len() } else { 0 }).sum()
}

#[tokio::test]
async fn bytes_half_close_and_status_pass_in_order_and_are_recorded() {
    let mut stage = Stage::new(Protocol::V5).await;
    stage.server.send(1, b"").await;
    stage.client.expect(1, b"").await;
    stage.client.send(0, b"in\xff\0").await;
    stage.server.expect(0, b"in\xff\0").await;
    stage.client.send(255, &[0]).await;
    stage.server.expect(255, &[0]).await;
    stage.client.send(0, b"late").await;
    stage.server.send(1, b"out").await;
    stage.server.send(2, b"err").await;
    stage.server.send(3, OK).await;
    stage.server.close(1000).await;
    stage.client.expect(1, b"out").await;
    stage.client.expect(2, b"err").await;
    stage.client.expect(3, OK).await;
    assert_eq!(stage.client.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
    stage.client.close(1000).await;
    let (cause, events) = stage.end().await;
    assert_eq!(cause, Cause::Completed);
    let kept: Vec<_> = events.into_iter().filter(|e| !matches!(e, EventKind::Marker { .. })).collect();
    assert_eq!(
        kept[..5],
        [
            data(Channel::Stdin, Direction::ToContainer, b"in\xff\0"),
            EventKind::HalfClose { channel: Channel::Stdin, direction: Direction::ToContainer },
            data(Channel::Stdout, Direction::ToClient, b"out"),
            data(Channel::Stderr, Direction::ToClient, b"err"),
            EventKind::Status { bytes: Bytes::from_static(OK) },
        ]
    );
}

#[tokio::test]
async fn each_port_of_a_channel_client_is_a_connection_on_record() {
    let mut stage = Stage::speaking(Speech::ForwardChannels(Protocol::V4), vec![80, 443], |_| {}).await;
    for channel in 0..4 {
        let port = if channel < 2 { 80u16 } else { 443 }.to_le_bytes();
        stage.server.send(channel, &port).await;
        stage.client.expect(channel, &port).await;
    }
    for (channel, bytes) in [(1, b"not yours"), (9, b"no port's"), (2, b"to port 2")] {
        stage.client.send(channel, bytes).await;
    }
    stage.server.expect(2, b"to port 2").await;
    stage.server.send(0, b"from port 1").await;
    stage.server.send(3, b"refused").await;
    stage.client.expect(0, b"from port 1").await;
    stage.client.expect(3, b"refused").await;
    stage.server.close(1000).await;
    assert_eq!(stage.client.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
    let (cause, events) = stage.end().await;
    assert_eq!(cause, Cause::Completed);
    let data = |connection, direction, bytes| EventKind::ConnectionData { connection, direction, bytes };
    for expected in [
        EventKind::ConnectionOpened { connection: 2, port: 443 },
        data(2, Direction::ToContainer, Bytes::from_static(b"to port 2")),
        data(1, Direction::ToClient, Bytes::from_static(b"from port 1")),
        EventKind::ConnectionError { connection: 2, bytes: Bytes::from_static(b"refused") },
    ] {
        assert!(events.contains(&expected), "{expected:?} in {events:?}");
    }
    let totals = |event: &EventKind| {
        let EventKind::ConnectionClosed { port, to_container, to_client, .. } = event else { return None };
        Some((*port, *to_container, *to_client))
    };
    assert_eq!(events.iter().filter_map(totals).collect::<Vec<_>>(), [(80, 0, 11), (443, 9, 0)]);
}

#[tokio::test]
async fn base64_is_spoken_on_both_legs_and_recorded_as_what_it_means() {
    let mut stage = Stage::new(Protocol::V1Base64).await;
    let mut text = BytesMut::new();
    encode(&mut text, Opcode::Text, Some(KEY), &[b"0aWQK"]);
    stage.client.write(&text).await;
    assert_eq!(stage.server.next().await, Some(Message::Data(Bytes::from_static(b"0aWQK"))));
    stage.server.send(b'1', b"cm9vdA==").await;
    assert_eq!(stage.client.next().await, Some(Message::Data(Bytes::from_static(b"1cm9vdA=="))));
    stage.server.close(1000).await;
    assert_eq!(stage.client.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
    let (cause, events) = stage.end().await;
    assert_eq!(cause, Cause::Completed, "the first version succeeds in silence");
    assert_eq!(
        events[..2],
        [data(Channel::Stdin, Direction::ToContainer, b"id\n"), data(Channel::Stdout, Direction::ToClient, b"root")]
    );
}

#[tokio::test]
async fn terminal_sizes_are_recorded_and_pass_as_what_was_read() {
    let mut stage = Stage::new(Protocol::V5).await;
    stage.client.send(4, b"{\"Width\":100,\"He").await;
    stage.client.send(4, b"ight\":30}\n").await;
    stage.server.expect(4, b"{\"Width\":100,\"Height\":30}").await;
    let (_, events) = stage.end().await;
    assert!(events.contains(&EventKind::Resize { cols: 100, rows: 30 }), "{events:?}");
}

#[tokio::test]
async fn a_size_that_only_go_can_read_does_not_reach_the_terminal() {
    let mut stage = Stage::new(Protocol::V5).await;
    // Go replaces what is no UTF-8, and takes the last of members with one name in any letter case.
    stage.client.send(4, b"{\"Width\":1,\"Height\":2,\"width\":3}").await;
    stage.server.expect(4, b"{\"Width\":1,\"Height\":2}").await;
    stage.client.send(4, b"{\"\xff\":0,\"Width\":104,\"Height\":105}").await;
    stage.client.send(4, b"{\"Width\":104,\"Height\":105}").await;
    stage.client.send(0, b"next").await;
    stage.server.expect(0, b"next").await;
    let (_, events) = stage.end().await;
    let is_size = |event: &&EventKind| matches!(event, EventKind::Resize { .. });
    let sizes: Vec<&EventKind> = events.iter().filter(is_size).collect();
    assert_eq!(sizes, [&EventKind::Resize { cols: 1, rows: 2 }]);
    let noted =
        |event: &EventKind| matches!(event, EventKind::Marker { detail, .. } if detail.contains("cannot be read"));
    assert!(events.iter().any(noted), "{events:?}");
}

#[tokio::test]
async fn messages_without_effect_are_noted_and_go_nowhere() {
    let mut stage = Stage::new(Protocol::V4).await;
    for message in [&[9u8, 1][..], &[1, 1], &[255, 0]] {
        stage.client.send(message[0], &message[1..]).await;
    }
    stage.client.send(0, b"real").await;
    stage.server.expect(0, b"real").await;
    let (_, events) = stage.end().await;
    let notes = events.iter().filter(|event| matches!(event, EventKind::Marker { name, .. } if name == "dropped"));
    assert_eq!(notes.count(), 2, "the first one, and how many in all");
}

#[tokio::test]
async fn fragments_of_a_client_reach_the_server_as_one_frame() {
    let mut stage = Stage::new(Protocol::V4).await;
    let mut bytes = BytesMut::new();
    encode(&mut bytes, Opcode::Binary, Some(KEY), &[b"\0hel"]);
    bytes[0] &= 0x7f;
    let mut rest = BytesMut::new();
    encode(&mut rest, Opcode::Continuation, Some(KEY), &[b"lo\n"]);
    stage.client.write(&[bytes, rest].concat()).await;
    stage.server.expect(0, b"hello\n").await;
    let (cause, events) = stage.end().await;
    assert!(matches!(cause, Cause::ClientGone | Cause::UpstreamLost));
    assert_eq!(events[0], data(Channel::Stdin, Direction::ToContainer, b"hello\n"));
}

#[tokio::test]
async fn an_irregular_frame_ends_the_session_and_reaches_nobody() {
    let mut stage = Stage::new(Protocol::V5).await;
    let mut bytes = BytesMut::new();
    encode(&mut bytes, Opcode::Unknown(3), Some(KEY), &[b"\0id\n"]);
    stage.client.write(&bytes).await;
    assert_eq!(stage.client.next().await, Some(Message::Close { code: Some(1002), reason: Bytes::new() }));
    assert_eq!(stage.server.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
    let (cause, events) = stage.end().await;
    assert_eq!(cause, Cause::ProtocolError);
    assert!(!events.iter().any(|event| matches!(event, EventKind::Data { .. })));
}

#[tokio::test]
async fn pings_of_both_sides_are_answered_by_the_gateway() {
    let mut stage = Stage::new(Protocol::V5).await;
    for end in [&mut stage.client, &mut stage.server] {
        let mut ping = BytesMut::new();
        encode(&mut ping, Opcode::Ping, end.key, &[b"x"]);
        end.write(&ping).await;
        assert_eq!(end.next().await, Some(Message::Pong(Bytes::from_static(b"x"))));
    }
    stage.end().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_session_at_the_server() {
    let Stage { client, mut server, piped } = Stage::new(Protocol::V5).await;
    drop(client);
    assert_eq!(server.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
    assert_eq!(server.next().await, None);
    drop(server);
    assert_eq!(piped.end().await.0, Cause::ClientGone);
}

#[tokio::test]
async fn a_lost_upstream_is_not_dressed_up_as_an_orderly_end() {
    let Stage { mut client, mut server, piped } = Stage::new(Protocol::V5).await;
    server.send(1, b"half").await;
    drop(server);
    client.expect(1, b"half").await;
    assert_eq!(client.next().await, None);
    drop(client);
    assert_eq!(piped.end().await.0, Cause::UpstreamLost);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_passed_on() {
    let mut stage = Stage::with(Protocol::V5, |config| config.quota = 64 * 1024).await;
    // Incompressible, or the quota would not be met.
    let mut seed = 1u64;
    let block: Vec<u8> = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) as u8
    })
    .take(60_000)
    .collect();
    let mut passed = 0;
    for _ in 0..40 {
        stage.server.send(1, &block).await;
        match stage.client.next().await {
            Some(Message::Data(bytes)) if bytes[0] == 1 => passed += bytes.len() - 1,
            Some(Message::Data(bytes)) => {
                assert_eq!(bytes[0], 3);
                assert!(String::from_utf8_lossy(&bytes).contains("could no longer be recorded"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let Stage { client, server, mut piped } = stage;
    drop((client, server));
    let kept = bytes_in(&piped.recorded().await);
    assert!(passed < 40 * block.len() && kept >= passed, "passed {passed}, kept {kept}");
}

#[tokio::test]
async fn shutdown_tells_the_client_and_finishes_the_recording() {
    let mut stage = Stage::new(Protocol::V5).await;
    stage.piped.stop.cancel();
    let Some(Message::Data(status)) = stage.client.next().await else { panic!("a status") };
    assert!(String::from_utf8_lossy(&status).contains("shutting down"));
    assert_eq!(stage.client.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
    assert_eq!(stage.end().await.0, Cause::Shutdown);
}

#[tokio::test]
async fn megabytes_pass_both_ways_at_once_unchanged() {
    let stage = Stage::new(Protocol::V5).await;
    let Stage { mut client, mut server, mut piped } = stage;
    let echo = tokio::spawn(async move {
        let mut total = 0;
        while total < 8_000_000 {
            let Some(Message::Data(bytes)) = server.next().await else { panic!("data") };
            total += bytes.len() - 1;
            server.send(1, &bytes[1..]).await;
        }
        server.close(1000).await;
        assert!(matches!(server.next().await, None | Some(Message::Close { .. })));
    });
    let block: Vec<u8> = (0..32_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(client.io);
    let sent = block.clone();
    let writing = tokio::spawn(async move {
        for _ in 0..250 {
            let mut out = BytesMut::new();
            encode(&mut out, Opcode::Binary, Some(KEY), &[&[0], &sent]);
            writer.write_all(&out).await.expect("write");
        }
        writer
    });
    let mut received = 0;
    while received < 8_000_000 {
        match client.decoder.next_message().expect("frames") {
            Some(Message::Data(bytes)) => {
                assert_eq!(bytes[1..], block[..]);
                received += bytes.len() - 1;
            }
            Some(_) => {}
            None => assert_ne!(reader.read_buf(client.decoder.buffer()).await.expect("read"), 0),
        }
    }
    drop((reader, writing.await.expect("written")));
    echo.await.expect("echoed");
    assert_eq!(bytes_in(&piped.recorded().await), 16_000_000);
}
