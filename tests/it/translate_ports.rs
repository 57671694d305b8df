//! A client of port-forward by channel messages, as in Python or JavaScript, and an API server, or something before it, that
//! knows no WebSocket: the gateway asks over SPDY and translates, and the client notices nothing.

use crate::gateway::{Stage, exec_head};
use crate::gateway_live::ending;
use crate::relay_spdy::{End, data, fin, open, reply, reset};
use crate::translate::Client;
use bytes::Bytes;
use kustody::core::policy::{ClassSpec, PolicySnapshot, PolicySpec};
use kustody::core::recording::{Cause, Direction, EventKind};
use kustody::core::wire::spdy::{Frame, ResetStatus, Side};
use kustody::core::wire::websocket::Message;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const PORTS: [(&str, &str); 2] = [("8082", "0"), ("8083", "1")];

/// A gateway that lets ports be forwarded.
async fn stage() -> Stage {
    let stage = Stage::new().await;
    let class: ClassSpec =
        serde_json::from_value(json!({"subjects": {"serviceAccountNamespaces": ["agents"]}})).expect("class");
    let policy: PolicySpec = serde_json::from_value(json!({"rules": [
        {"id": "forward", "reason": "recorded", "action": "Allow", "match": {"operations": ["CONNECT"],
          "resources": [{"apiGroups": [""], "resources": ["pods/portforward"]}]}}
    ]}))
    .expect("policy");
    let classes = BTreeMap::from([("agents".to_owned(), class)]);
    let (snapshot, problems) = PolicySnapshot::load(&classes, &BTreeMap::from([("p".to_owned(), policy)]));
    assert_eq!(problems, []);
    stage.policies.send_replace(Arc::new(snapshot));
    stage
}

fn head(pod: &str, protocols: &str) -> String {
    let head = exec_head(pod, "ports=8082&ports=8083").replace("/exec?", "/portforward?");
    head.replace("v5.channel.k8s.io", protocols)
}

/// A client that has been switched over, and the API server's side, which is asked for both connections.
async fn opened(stage: &mut Stage, pod: &str, protocol: &str) -> (Client, End<crate::fake_api::Upgraded>) {
    let (client, answer) = Client::open(stage, &head(pod, &format!("v5.channel.k8s.io, {protocol}"))).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains(&format!("sec-websocket-protocol: {protocol}\r\n")), "{answer}");
    let io = tokio::time::timeout(Duration::from_secs(10), stage.api.execs.recv()).await.expect("in time");
    let mut server = End::new(io.expect("a stream"), Side::Client);
    for ((port, request), first) in PORTS.into_iter().zip([1, 5]) {
        for (stream, purpose) in [(first, "error"), (first + 2, "data")] {
            server.expect(open(stream, &[("streamtype", purpose), ("port", port), ("requestid", request)])).await;
        }
    }
    (client, server)
}

/// The API server takes the streams; the client has no more to say on those of errors.
async fn taken(server: &mut End<crate::fake_api::Upgraded>) {
    server.send(&[1, 3, 5, 7].map(reply)).await;
    for error in [1, 5] {
        server.expect(fin(error, b"")).await;
    }
}

#[tokio::test]
async fn ports_are_forwarded_where_the_api_server_speaks_spdy_alone_and_each_connection_is_recorded() {
    for pod in ["no-websocket-400", "no-websocket-403"] {
        let mut stage = stage().await;
        let (mut client, mut server) = opened(&mut stage, pod, "v4.channel.k8s.io").await;
        let (first, second) = (stage.api.next().await, stage.api.next().await);
        assert_eq!((first.headers["upgrade"].as_bytes(), first.method), (&b"websocket"[..], http::Method::GET));
        assert_eq!((second.headers["upgrade"].as_bytes(), second.method), (&b"SPDY/3.1"[..], http::Method::POST));
        assert_eq!(second.target, first.target);
        assert_eq!(second.headers["x-stream-protocol-version"], "portforward.k8s.io");
        for (channel, port) in [(0, 8082u16), (1, 8082), (2, 8083), (3, 8083)] {
            client.expect(&[&[channel][..], &port.to_le_bytes()].concat()).await;
        }
        client.send(&[b"\0in\xff\0"]).await;
        let quiet = tokio::time::timeout(Duration::from_millis(100), server.next()).await;
        assert!(quiet.is_err(), "{quiet:?} came before the streams were taken");
        taken(&mut server).await;
        server.expect(data(3, b"in\xff\0")).await;
        client.send(&[b"\x02other"]).await;
        server.expect(data(7, b"other")).await;
        // Nobody listens at the second port.
        server.send(&[data(3, b"out"), fin(5, b"connection refused"), fin(7, b"")]).await;
        server.expect(fin(7, b"")).await;
        client.expect(b"\0out").await;
        client.expect(b"\x03connection refused").await;
        client.send(&[b"\x02late"]).await;
        client.send(&[b"\0more"]).await;
        server.expect(data(3, b"more")).await;
        server.send(&[fin(3, b"end"), fin(1, b"")]).await;
        server.expect(fin(3, b"")).await;
        client.expect(b"\0end").await;
        // With its last connection it ends, as at an API server that speaks WebSocket.
        assert_eq!(client.next().await, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
        drop((client, server));
        let (cause, _, events) = ending(&stage).await;
        assert_eq!(cause, Cause::Completed);
        let passed = |direction, bytes: &'static [u8]| {
            let bytes = Bytes::from_static(bytes);
            events.contains(&EventKind::ConnectionData { connection: 1, direction, bytes })
        };
        assert!(passed(Direction::ToContainer, b"in\xff\0") && passed(Direction::ToClient, b"out"), "{events:?}");
        let refused = EventKind::ConnectionError { connection: 2, bytes: Bytes::from_static(b"connection refused") };
        assert!(events.contains(&refused), "{events:?}");
    }
}

#[tokio::test]
async fn ports_are_forwarded_in_base64_too() {
    let mut stage = stage().await;
    let (mut client, mut server) = opened(&mut stage, "no-websocket-501", "v4.base64.channel.k8s.io").await;
    taken(&mut server).await;
    for (channel, port) in ["0", "1", "2", "3"].into_iter().zip(["kh8=", "kh8=", "kx8=", "kx8="]) {
        client.expect(format!("{channel}{port}").as_bytes()).await;
    }
    client.send_text(b"0aW7/").await;
    server.expect(data(3, b"in\xff")).await;
    server.send(&[data(7, b"\xffout")]).await;
    client.expect(b"2/291dA==").await;
    // The client is gone: so are the connections.
    drop(client);
    assert!(matches!(server.next().await, Some(Frame::GoAway { .. }) | None));
    assert_eq!(ending(&stage).await.0, Cause::ClientGone);
}

#[tokio::test]
async fn a_side_that_hangs_up_or_takes_no_connection_is_no_orderly_end() {
    for takes in [true, false] {
        let mut stage = stage().await;
        let (mut client, mut server) = opened(&mut stage, "no-websocket-404", "v4.channel.k8s.io").await;
        for _ in 0..4 {
            assert!(matches!(client.next().await, Some(Message::Data(_))));
        }
        if takes {
            taken(&mut server).await;
            server.send(&[fin(1, b""), fin(3, b"")]).await;
            server.expect(fin(3, b"")).await;
            drop(server);
        } else {
            server.send(&[reset(1, ResetStatus::RefusedStream)]).await;
        }
        assert_eq!(client.next().await, None);
        drop(client);
        assert_eq!(ending(&stage).await.0, Cause::UpstreamLost);
    }
}
