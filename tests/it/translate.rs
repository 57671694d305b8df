//! A client that speaks WebSocket and an API server, or something before it, that does not: the gateway asks over SPDY
//! and translates, and the client notices nothing.

use crate::fake_api::Upgraded;
use crate::gateway::{Stage, exec_head, only_session};
use crate::relay_spdy::{End, data, fin, id, reply, reset};
use crate::spool::{events, manifest};
use bytes::{Bytes, BytesMut};
use kustody::core::recording::{Cause, Channel, Direction, EventKind};
use kustody::core::wire::spdy::{Frame, Headers, ResetStatus, Side};
use kustody::core::wire::websocket::{Decoder, MAX_MESSAGE, Message, Opcode, encode};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KEY: [u8; 4] = [5, 6, 7, 8];
const FAILED: &[u8] = br#"{"metadata":{},"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;

/// A client that has been switched over.
pub(crate) struct Client {
    io: TcpStream,
    decoder: Decoder,
}

impl Client {
    /// Opens an exec, and gives what it was answered too.
    pub(crate) async fn open(stage: &Stage, head: &str) -> (Client, String) {
        let mut io = TcpStream::connect(stage.address).await.expect("connect");
        io.write_all(head.as_bytes()).await.expect("write");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(io.read_u8().await.expect("an answer"));
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        (Client { io, decoder: Decoder::new(kustody::core::wire::websocket::Side::Server, MAX_MESSAGE) }, answer)
    }

    pub(crate) async fn send(&mut self, parts: &[&[u8]]) {
        self.write(Opcode::Binary, parts).await;
    }

    pub(crate) async fn send_text(&mut self, text: &[u8]) {
        self.write(Opcode::Text, &[text]).await;
    }

    async fn write(&mut self, opcode: Opcode, parts: &[&[u8]]) {
        let mut out = BytesMut::new();
        encode(&mut out, opcode, Some(KEY), parts);
        self.io.write_all(&out).await.expect("write");
    }

    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.decoder.next_message().expect("frames") {
                return Some(message);
            }
            let read = self.io.read_buf(self.decoder.buffer());
            let read = tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time");
            if read.expect("read") == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn expect(&mut self, message: &[u8]) {
        assert_eq!(self.next().await, Some(Message::Data(Bytes::copy_from_slice(message))));
    }
}

/// The API server's side: takes the streams of these names, in this order.
async fn server(stage: &mut Stage, names: &[&'static str]) -> End<Upgraded> {
    let io = tokio::time::timeout(Duration::from_secs(10), stage.api.execs.recv()).await.expect("in time");
    let mut server = End::new(io.expect("a stream"), Side::Client);
    for (n, name) in names.iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        let headers = Headers::new([("streamtype", *name)]);
        server.expect(Frame::SynStream { stream: id(stream), fin: false, headers }).await;
    }
    for n in 0..names.len() {
        server.send(&[reply(2 * n as u32 + 1)]).await;
    }
    server
}

#[tokio::test]
async fn an_exec_over_websocket_works_where_the_api_server_speaks_spdy_alone() {
    let mut stage = Stage::new().await;
    let head = exec_head("no-websocket-400", "command=cat&stdin=1&stdout=1&stderr=1");
    let (mut client, answer) = Client::open(&stage, &head).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: v5.channel.k8s.io"), "{answer}");
    let (first, second) = (stage.api.next().await, stage.api.next().await);
    assert_eq!(
        (first.headers["upgrade"].as_bytes(), second.headers["upgrade"].as_bytes()),
        (&b"websocket"[..], &b"SPDY/3.1"[..])
    );
    assert_eq!((second.target, second.method), (first.target, http::Method::POST));
    assert_eq!(second.headers["x-stream-protocol-version"], "v4.channel.k8s.io");
    let ticket = "impersonate-extra-kustody.dev%2fticket";
    assert!(second.headers[ticket].to_str().expect("text").starts_with("k1."));
    let mut server = server(&mut stage, &["error", "stdin", "stdout", "stderr"]).await;
    client.expect(b"\x01").await;
    client.send(&[b"\0in\xff\0"]).await;
    client.send(&[b"\xff\0"]).await;
    server.expect(data(3, b"in\xff\0")).await;
    server.expect(fin(3, b"")).await;
    server
        .send(&[data(5, b"out"), data(7, b"err"), data(1, &FAILED[..9]), fin(1, &FAILED[9..]), data(5, b"late")])
        .await;
    server.send(&[reset(3, ResetStatus::Cancel), Frame::GoAway { last: 7, status: 0 }]).await;
    client.expect(b"\x01out").await;
    client.expect(b"\x02err").await;
    client.expect(&[b"\x03", FAILED].concat()).await;
    client.expect(b"\x01late").await;
    assert_eq!(client.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
    drop((client, server));
    let session = only_session(&stage).await;
    assert_eq!(manifest(stage.spool.path(), &session, &stage.key).reason.cause, Cause::Completed);
    let kept = events(stage.spool.path(), &session);
    let stdin = Bytes::from_static(b"in\xff\0");
    let stdin = EventKind::Data { channel: Channel::Stdin, direction: Direction::ToContainer, bytes: stdin };
    assert!(
        kept.contains(&stdin) && kept.contains(&EventKind::Status { bytes: Bytes::from_static(FAILED) }),
        "{kept:?}"
    );
}

#[tokio::test]
async fn sizes_of_a_terminal_have_their_stream_and_standard_error_none() {
    let mut stage = Stage::new().await;
    let head = exec_head("no-websocket-403", "command=sh&stdin=1&stdout=1&stderr=1&tty=1");
    let (mut client, _) = Client::open(&stage, &head).await;
    let mut server = server(&mut stage, &["error", "stdin", "stdout", "resize"]).await;
    client.send(&[b"\x04{\"Width\":80,\"Height\":24}"]).await;
    server.expect(data(7, b"{\"Width\":80,\"Height\":24}")).await;
    drop(server);
    // Hung up without a status: nothing is dressed up as an orderly end.
    client.expect(b"\x01").await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn nothing_is_written_before_the_api_server_has_taken_every_stream() {
    let mut stage = Stage::new().await;
    let head = exec_head("no-websocket-501", "command=sh&stdin=1&stdout=1");
    let (mut client, _) = Client::open(&stage, &head).await;
    client.send(&[b"\0early"]).await;
    let io = stage.api.execs.recv().await.expect("a stream");
    let mut server = End::new(io, Side::Client);
    for _ in 0..3 {
        assert!(matches!(server.next().await, Some(Frame::SynStream { .. })));
    }
    server.send(&[reply(1), reply(3)]).await;
    let early = tokio::time::timeout(Duration::from_millis(200), server.next()).await;
    assert!(early.is_err(), "{early:?} came before the last stream was taken");
    server.send(&[reply(5)]).await;
    server.expect(data(3, b"early")).await;
    // The client is gone: so is the session at the API server.
    drop(client);
    assert!(matches!(server.next().await, Some(Frame::GoAway { .. }) | None));
}

#[tokio::test]
async fn every_way_to_say_that_no_websocket_is_known_is_understood_and_others_are_passed_on() {
    let stage = Stage::new().await;
    for (code, answered) in
        [(400, 101), (403, 101), (404, 101), (405, 101), (426, 101), (501, 101), (500, 500), (409, 409)]
    {
        let head = exec_head(&format!("no-websocket-{code}"), "command=id&stdout=1");
        let (_, answer) = Client::open(&stage, &head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {answered} ")), "{code}: {answer}");
    }
}
