//! A held exec with a terminal over SPDY, as kubectl before 1.30 and client-go ask for it: what the client sees while people
//! think about it, and what becomes of it.

use crate::approvals_api::FakeApi as ApprovalsApi;
use crate::gateway::Stage;
use crate::gateway_live::{allowing, ending};
use crate::gateway_lobby::{decide, stage};
use crate::relay_spdy::{End, data, fin, id, open, reply, reset};
use bytes::Bytes;
use kustody::core::approval::Choice;
use kustody::core::recording::{Cause, EventKind};
use kustody::core::wire::spdy::{Frame, Headers, ResetStatus, Side};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TTY: &str = "command=sh&stdin=1&stdout=1&tty=1";
const OPENED: [(u32, &str); 4] = [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")];
const OK: &[u8] = br#"{"metadata":{},"status":"Success"}"#;

fn head(pod: &str, query: &str, versions: &[&str]) -> String {
    let offer: String =
        versions.iter().map(|version| format!("X-Stream-Protocol-Version: {version}.channel.k8s.io\r\n")).collect();
    format!(
        "POST /api/v1/namespaces/a/pods/{pod}/exec?{query} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\n\
         Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{offer}\r\n"
    )
}

/// A client with a terminal that has been switched over.
async fn switched(stage: &mut Stage, pod: &str) -> End<TcpStream> {
    let mut io = TcpStream::connect(stage.address).await.expect("connect");
    io.write_all(head(pod, TTY, &["v5", "v4", "v3"]).as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(io.read_u8().await.expect("read"));
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    // What the API server itself chooses of these.
    assert!(answer.contains("x-stream-protocol-version: v4.channel.k8s.io\r\n"), "{answer}");
    End::new(io, Side::Server)
}

/// The same with its streams open, one after the other as client-go does it, and told what it waits for.
async fn waiting(stage: &mut Stage, pod: &str) -> (End<TcpStream>, String) {
    let mut client = switched(stage, pod).await;
    let mut told = String::new();
    for (stream, name) in OPENED {
        client.send(&[open(stream, &[("streamtype", name)])]).await;
        client.expect(reply(stream)).await;
        if name == "stdout" {
            let (bytes, is_last) = heard(&mut client, 5).await;
            told = String::from_utf8_lossy(&bytes).into_owned();
            assert!(!is_last, "{told}");
        }
    }
    assert!(stage.api.untouched(), "dialled before anybody agreed");
    (client, told)
}

/// What comes next, on this stream, and whether that is all.
async fn heard(client: &mut End<TcpStream>, stream: u32) -> (Bytes, bool) {
    let data = match client.next().await {
        Some(Frame::Data { stream: on, fin, bytes }) if on == id(stream) => Some((bytes, fin)),
        _ => None,
    };
    data.expect("data on the stream")
}

/// The last word of the gateway: a status, and the end of every stream and of the connection.
async fn refused(client: &mut End<TcpStream>) -> Value {
    let (bytes, is_last) = heard(client, 1).await;
    assert!(is_last, "{bytes:?}");
    for stream in [3, 5, 7] {
        client.expect(fin(stream, b"")).await;
    }
    client.expect(Frame::GoAway { last: 7, status: 0 }).await;
    serde_json::from_slice(&bytes).expect("a status")
}

/// The API server's side, which is asked for the same streams in the same order.
async fn server(stage: &mut Stage) -> End<crate::fake_api::Upgraded> {
    let io = tokio::time::timeout(Duration::from_secs(5), stage.api.execs.recv()).await.expect("dialled");
    let mut server = End::new(io.expect("stream"), Side::Client);
    for (stream, name) in OPENED {
        server.expect(open(stream, &[("streamtype", name)])).await;
    }
    server
}

#[tokio::test]
async fn a_terminal_sees_what_it_waits_for_and_goes_on_when_people_agree() {
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    let (mut client, told) = waiting(&mut stage, "held").await;
    assert!(told.starts_with("kustody: waiting for approval apr-"), "{told}");
    assert!(told.contains("(rule hold-held: test)") && told.ends_with("\r\n"), "{told}");
    client.send(&[data(7, b"{\"Width\":80,\"Height\":24}"), data(3, b"early"), Frame::Ping(1)]).await;
    decide(&people, Choice::Approve).await;
    let mut server = server(&mut stage).await;
    let seen = stage.api.next().await;
    assert_eq!(seen.headers["x-stream-protocol-version"], "v4.channel.k8s.io");
    assert_eq!(seen.headers.get_all("x-stream-protocol-version").iter().count(), 1);
    let quiet = tokio::time::timeout(Duration::from_millis(100), server.next()).await;
    assert!(quiet.is_err(), "{quiet:?} came before its stream was taken");
    server.send(&OPENED.map(|(stream, _)| reply(stream))).await;
    server.expect(data(7, b"{\"Width\":80,\"Height\":24}")).await;
    server.expect(data(3, b"early")).await;
    // What people agreed to is not held again.
    stage.policies.send_replace(allowing("Hold"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.send(&[data(5, b"from the container"), fin(1, OK), Frame::GoAway { last: 7, status: 0 }]).await;
    // No stream is taken twice.
    client.expect(data(5, b"from the container")).await;
    assert_eq!(client.pings, 1, "its ping was answered while it waited");
    client.expect(fin(1, OK)).await;
    client.expect(Frame::GoAway { last: 7, status: 0 }).await;
    drop((client, server));
    let (cause, _, events) = ending(&stage).await;
    assert_eq!(cause, Cause::Completed);
    let markers: Vec<&str> = events
        .iter()
        .filter_map(|event| if let EventKind::Marker { name, .. } = event { Some(name.as_str()) } else { None })
        .collect();
    assert_eq!(markers, ["held", "approved"]);
    assert!(events.contains(&EventKind::Resize { cols: 80, rows: 24 }), "{events:?}");
    assert!(events.contains(&EventKind::Input { bytes: 5 }), "{events:?}");
    let output = |event: &EventKind| matches!(event, EventKind::Data { bytes, .. } if bytes.starts_with(b"kustody"));
    assert!(!events.iter().any(output), "the container did not say that");
}

#[tokio::test]
async fn a_terminal_is_told_who_denied_and_nothing_is_dialled() {
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    let (mut client, _) = waiting(&mut stage, "held").await;
    decide(&people, Choice::Deny).await;
    let status = refused(&mut client).await;
    let message = status["message"].as_str().expect("a message");
    assert!(message.starts_with("NOT EXECUTED. Denied by alice: not today (approval request apr-"), "{status}");
    assert_eq!((&status["status"], &status["code"]), (&"Failure".into(), &403.into()));
    assert!(stage.api.untouched());
    let (cause, detail, _) = ending(&stage).await;
    assert_eq!((cause, detail.as_str()), (Cause::Refused, message));
}

#[tokio::test]
async fn an_answer_waits_until_the_client_has_opened_its_streams() {
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    let mut client = switched(&mut stage, "held").await;
    decide(&people, Choice::Deny).await;
    let quiet = tokio::time::timeout(Duration::from_millis(200), client.next()).await;
    assert!(quiet.is_err(), "{quiet:?} has no stream to come on");
    let (all, last) = OPENED.split_at(3);
    for (stream, name) in all {
        client.send(&[open(*stream, &[("streamtype", name)])]).await;
        client.expect(reply(*stream)).await;
    }
    assert!(matches!(client.next().await, Some(Frame::Data { fin: false, .. })), "the line, and no status yet");
    client.send(&[open(last[0].0, &[("streamtype", last[0].1)])]).await;
    client.expect(reply(7)).await;
    assert!(refused(&mut client).await["message"].as_str().is_some_and(|told| told.contains("Denied by alice")));
    assert_eq!(ending(&stage).await.0, Cause::Refused);
}

#[tokio::test]
async fn who_goes_away_or_gives_up_waits_no_more_and_is_not_dialled_for_later() {
    for gives_up in [true, false] {
        let people = ApprovalsApi::default();
        let mut stage = stage(&people).await;
        let (mut client, _) = waiting(&mut stage, "held").await;
        if gives_up {
            // On another stream it is no Ctrl-C.
            client.send(&[data(7, b"\x03"), data(3, b"ls\x03")]).await;
            assert_eq!(refused(&mut client).await["message"], "NOT EXECUTED. The client gave up waiting for approval");
        } else {
            client.send(&[Frame::GoAway { last: 0, status: 0 }]).await;
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
    for (pod, told, cause) in [
        ("gone", "pods \"gone\" not found", Cause::Refused),
        // Another version than the one that the client was promised.
        ("no-version", "the API server agreed to a stream that was not asked for", Cause::UpstreamLost),
    ] {
        let people = ApprovalsApi::default();
        let mut stage = stage(&people).await;
        stage.policies.send_replace(allowing("Hold"));
        let (mut client, _) = waiting(&mut stage, pod).await;
        decide(&people, Choice::Approve).await;
        assert_eq!(refused(&mut client).await["message"], told);
        assert_eq!(ending(&stage).await.0, cause);
    }
}

#[tokio::test]
async fn a_rule_that_denies_by_now_ends_the_wait() {
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    let (mut client, _) = waiting(&mut stage, "held").await;
    stage.policies.send_replace(allowing("Deny"));
    let told = refused(&mut client).await["message"].to_string();
    assert!(told.contains("denied by rule freeze: nobody works tonight"), "{told}");
    assert!(stage.api.untouched());
    assert_eq!(ending(&stage).await.0, Cause::Terminated);
}

#[tokio::test]
async fn without_a_terminal_or_a_status_in_its_protocol_a_client_waits_without_a_word() {
    let people = ApprovalsApi::default();
    let stage = stage(&people).await;
    for (query, versions) in [
        ("command=sh&stdin=1&stdout=1", &["v4"][..]),
        ("command=sh&stdin=1&tty=1", &["v4"]),
        (TTY, &["v3", "v2"]),
        (TTY, &[]),
    ] {
        assert_eq!(stage.raw(head("held", query, versions).as_bytes()).await, "", "{query} {versions:?}");
    }
}

#[tokio::test]
async fn a_stream_that_was_not_asked_for_is_refused_and_irregular_frames_end_the_wait() {
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    let (mut client, _) = waiting(&mut stage, "held").await;
    for (stream, name) in [(9, "stderr"), (11, "stdin")] {
        client.send(&[open(stream, &[("streamtype", name)])]).await;
        client.expect(reset(stream, ResetStatus::RefusedStream)).await;
    }
    let headers = Frame::Headers { stream: id(2), fin: false, headers: Headers::new([("a", "b")]) };
    client.send(&[headers, open(3, &[("streamtype", "error")])]).await;
    client.expect(Frame::GoAway { last: 7, status: 2 }).await;
    let (cause, _, events) = ending(&stage).await;
    assert_eq!(cause, Cause::ProtocolError);
    let notes = events.iter().filter(|event| matches!(event, EventKind::Marker { name, .. } if name == "dropped"));
    assert_eq!(notes.count(), 1, "{events:?}");
    assert!(stage.api.untouched());
}

#[tokio::test]
async fn what_is_sent_ahead_is_kept_up_to_a_bound_and_none_of_it_is_lost() {
    const PIECES: usize = 1_000;
    let people = ApprovalsApi::default();
    let mut stage = stage(&people).await;
    let (mut client, _) = waiting(&mut stage, "held").await;
    let piece: Vec<u8> = (0..20_000u32).map(|n| 32 + (n * 7 % 89) as u8).collect();
    let sent = piece.clone();
    let writing = tokio::spawn(async move {
        for _ in 0..PIECES {
            client.send(&[data(3, &sent)]).await;
        }
        client.send(&[fin(3, b"")]).await;
        client
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writing.is_finished(), "20 MB are not kept for anybody");
    decide(&people, Choice::Approve).await;
    let mut server = server(&mut stage).await;
    server.send(&OPENED.map(|(stream, _)| reply(stream))).await;
    for _ in 0..PIECES {
        server.expect(data(3, &piece)).await;
    }
    server.expect(fin(3, b"")).await;
    drop((writing.await.expect("written"), server));
    let (_, _, events) = ending(&stage).await;
    let typed = |event: &EventKind| if let EventKind::Input { bytes } = event { *bytes } else { 0 };
    assert_eq!(events.iter().map(typed).sum::<u64>(), (PIECES * piece.len()) as u64);
}
