//! A held exec with a terminal over WebSocket: what the client sees while people think about it, and what becomes of it.

use crate::approvals_api::{FakeApi as ApprovalsApi, eventually};
use crate::gateway::{Stage, exec_head};
use crate::gateway_live::{allowing, ending};
use bytes::{Bytes, BytesMut};
use kustody::core::approval::{Choice, Vote};
use kustody::core::recording::{Cause, EventKind};
use kustody::core::wire::websocket::{Decoder, MAX_MESSAGE, Message, Opcode, Side, encode};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const KEY: [u8; 4] = [5, 6, 7, 8];
const TTY: &str = "command=sh&stdin=1&stdout=1&tty=1";

struct End<T> {
    io: T,
    decoder: Decoder,
    key: Option<[u8; 4]>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> End<T> {
    async fn send(&mut self, opcode: Opcode, message: &[u8]) {
        let mut out = BytesMut::new();
        encode(&mut out, opcode, self.key, &[message]);
        self.io.write_all(&out).await.expect("write");
    }

    /// The next message; `None` at the end of the connection.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.decoder.next_message().expect("canonical frames") {
                return Some(message);
            }
            let read = tokio::time::timeout(Duration::from_secs(10), self.io.read_buf(self.decoder.buffer())).await;
            if read.expect("in time").expect("read") == 0 {
                return None;
            }
        }
    }

    async fn data(&mut self) -> String {
        match self.next().await {
            Some(Message::Data(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            other => format!("{other:?}"),
        }
    }
}

pub(crate) async fn stage(people: &ApprovalsApi) -> Stage {
    Stage::beside(people.clone(), 1 << 30, |config| config.hold = Duration::from_secs(30)).await
}

/// A client with a terminal that has been switched over and told what it waits for.
async fn waiting(stage: &mut Stage, pod: &str) -> (End<TcpStream>, String) {
    let mut io = TcpStream::connect(stage.address).await.expect("connect");
    io.write_all(exec_head(pod, TTY).as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(io.read_u8().await.expect("read"));
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: v5.channel.k8s.io\r\n"), "{answer}");
    let mut client = End { io, decoder: Decoder::new(Side::Server, MAX_MESSAGE), key: Some(KEY) };
    let told = client.data().await;
    assert!(stage.api.untouched(), "dialled before anybody agreed");
    (client, told)
}

pub(crate) async fn decide(people: &ApprovalsApi, verdict: Choice) {
    eventually(|| people.requests().len() == 1).await;
    people.vote(0, &Vote { by: "alice".into(), verdict, reason: Some("not today".into()) });
}

#[tokio::test]
async fn a_terminal_sees_what_it_waits_for_and_goes_on_when_people_agree() {
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    let (mut client, told) = waiting(&mut stage, "held").await;
    assert!(told.starts_with("\u{1}kustody: waiting for approval apr-"), "{told}");
    assert!(told.contains("(rule hold-held: test)") && told.ends_with("\r\n"), "{told}");
    // As kubectl does: the size at once, pings every few seconds, and a person who types ahead.
    client.send(Opcode::Binary, b"\x04{\"Width\":80,\"Height\":24}").await;
    client.send(Opcode::Ping, b"there?").await;
    assert_eq!(client.next().await, Some(Message::Pong(Bytes::from_static(b"there?"))));
    client.send(Opcode::Binary, b"\0early").await;
    decide(&people, Choice::Approve).await;
    let io = tokio::time::timeout(Duration::from_secs(5), stage.api.execs.recv()).await.expect("dialled");
    let seen = stage.api.next().await;
    assert_eq!(seen.headers["sec-websocket-protocol"], "v5.channel.k8s.io");
    let mut server = End { io: io.expect("stream"), decoder: Decoder::new(Side::Client, MAX_MESSAGE), key: None };
    assert_eq!(server.data().await, "\u{4}{\"Width\":80,\"Height\":24}");
    assert_eq!(server.data().await, "\0early");
    // What people agreed to is not held again.
    stage.policies.send_replace(allowing("Hold"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.send(Opcode::Binary, b"\x01from the container").await;
    assert_eq!(client.data().await, "\u{1}from the container");
    server.send(Opcode::Binary, b"\x03{\"metadata\":{},\"status\":\"Success\"}").await;
    server.send(Opcode::Close, &[3, 232]).await;
    assert!(client.data().await.contains("Success"));
    drop((client, server));
    let (cause, _, events) = ending(&stage).await;
    assert_eq!(cause, Cause::Completed);
    let markers: Vec<&str> = events
        .iter()
        .filter_map(|event| if let EventKind::Marker { name, .. } = event { Some(name.as_str()) } else { None })
        .collect();
    assert_eq!(markers, ["held", "approved"]);
    let output = |event: &EventKind| matches!(event, EventKind::Data { bytes, .. } if bytes.starts_with(b"kustody"));
    assert!(!events.iter().any(output), "the container did not say that");
}

#[tokio::test]
async fn a_terminal_is_told_who_denied_and_nothing_is_dialled() {
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    let (mut client, _) = waiting(&mut stage, "held").await;
    decide(&people, Choice::Deny).await;
    let told = client.data().await;
    let status: Value = serde_json::from_str(told.trim_start_matches('\u{3}')).expect("a status");
    let message = status["message"].as_str().expect("a message");
    assert!(message.starts_with("NOT EXECUTED. Denied by alice: not today (approval request apr-"), "{told}");
    assert_eq!((&status["status"], &status["code"]), (&"Failure".into(), &403.into()));
    // With any other code client-go shows no status.
    assert_eq!(client.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
    assert!(stage.api.untouched());
    let (cause, detail, _) = ending(&stage).await;
    assert_eq!((cause, detail.as_str()), (Cause::Refused, message));
}

#[tokio::test]
async fn who_goes_away_or_gives_up_waits_no_more_and_is_not_dialled_for_later() {
    for gives_up in [true, false] {
        let people = ApprovalsApi::default();
        let mut stage = stage(&people).await;
        let (mut client, _) = waiting(&mut stage, "held").await;
        if gives_up {
            client.send(Opcode::Binary, b"\0ls\x03").await;
            // Without a status client-go takes it for success.
            assert!(client.data().await.contains("NOT EXECUTED. The client gave up waiting for approval"));
            assert_eq!(client.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
        }
        drop(client);
        assert_eq!(ending(&stage).await.0, Cause::ClientGone);
        decide(&people, Choice::Approve).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(stage.api.untouched(), "dialled for nobody");
        assert_ne!(people.requests().first().and_then(|one| one.pointer("/status/state")), Some(&"Consumed".into()));
    }
}

#[tokio::test]
async fn what_the_api_server_answers_in_the_end_reaches_the_terminal() {
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    stage.policies.send_replace(allowing("Hold"));
    let (mut client, told) = waiting(&mut stage, "gone").await;
    assert!(told.contains("rule freeze: nobody works tonight"), "{told}");
    decide(&people, Choice::Approve).await;
    assert!(client.data().await.contains("pods \\\"gone\\\" not found"));
    let (cause, detail, _) = ending(&stage).await;
    assert_eq!((cause, detail.as_str()), (Cause::Refused, "the API server answered 404 Not Found"));
}

#[tokio::test]
async fn a_rule_that_denies_by_now_ends_the_wait() {
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    let (mut client, _) = waiting(&mut stage, "held").await;
    stage.policies.send_replace(allowing("Deny"));
    assert!(client.data().await.contains("denied by rule freeze: nobody works tonight"));
    assert!(stage.api.untouched());
    assert_eq!(ending(&stage).await.0, Cause::Terminated);
}
