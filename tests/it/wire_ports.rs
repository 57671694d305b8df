//! What real clients of port-forward and a real API server (1.35) put on the wire, in all three encodings. Port 8082 of the
//! pod answers a request for a file, kubectl asks it twice; nobody listens at 8083.
//!
//! `.client` and `.server` are the bytes after the handshake in `.head`, with `.spdy` behind it where they are SPDY.

use crate::wire::{self, handshake};
use crate::wire_spdy::{self, id, sent};
use bytes::{Bytes, BytesMut};
use http::Request;
use kustody::core::wire::channels::Protocol;
use kustody::core::wire::spdy::{Encoder, Frame, ResetStatus, Side, StreamId};
use kustody::core::wire::websocket::{self, Message};
use std::collections::BTreeMap;

const ASKED: &[u8] = b"GET /file HTTP/1.0\r\n\r\n";
const ANSWERED: &[u8] = b"\r\n\r\nhello from the pod\n";
const REFUSED: &[u8] = b"error forwarding port 8083";

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

/// The id, purpose, port and request of a stream that a frame opens.
fn opened(frame: &Frame) -> Option<(u32, &str, &str, &str)> {
    let Frame::SynStream { stream, headers, .. } = frame else { return None };
    Some((stream.get(), headers.only("streamtype")?, headers.only("port")?, headers.only("requestid")?))
}

/// Three connections of kubectl: an error and a data stream each, in this order.
fn is_a_session_of_kubectl(said: &[Frame], heard: &[Frame]) {
    let streams: Vec<_> = said.iter().filter_map(opened).collect();
    assert_eq!(
        streams,
        [
            (1, "error", "8082", "0"),
            (3, "data", "8082", "0"),
            (5, "error", "8082", "1"),
            (7, "data", "8082", "1"),
            (9, "error", "8083", "2"),
            (11, "data", "8083", "2"),
        ]
    );
    let taken = |frame: &&Frame| matches!(frame, Frame::SynReply { .. });
    assert_eq!(heard.iter().filter(taken).count(), 6);
    let (said, heard) = (sent(said), sent(heard));
    let on = |side: &BTreeMap<StreamId, (Vec<u8>, bool)>, stream| side.get(&id(stream)).cloned().unwrap_or_default();
    for (error, data) in [(1, 3), (5, 7)] {
        assert_eq!(on(&said, error), (Vec::new(), true), "kubectl has nothing to say on an error stream");
        assert_eq!(on(&said, data).0, ASKED);
        let answer = on(&heard, data).0;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(ANSWERED), "{answer:?}");
        assert!(on(&heard, error).0.is_empty(), "all went well");
    }
    let refused = on(&heard, 9).0;
    assert!(refused.starts_with(REFUSED) && contains(&refused, b"connection refused"), "{refused:?}");
}

#[test]
fn port_forward_of_kubectl_over_spdy_is_read_whole_in_any_chunking() {
    for (head, client, server) in [
        (
            include_str!("../wire/kubectl-1.29-port-forward.head"),
            &include_bytes!("../wire/kubectl-1.29-port-forward.client.spdy")[..],
            &include_bytes!("../wire/kubectl-1.29-port-forward.server.spdy")[..],
        ),
        (
            include_str!("../wire/kubectl-1.35-port-forward.head"),
            &include_bytes!("../wire/kubectl-1.35-port-forward.client.spdy")[..],
            &include_bytes!("../wire/kubectl-1.35-port-forward.server.spdy")[..],
        ),
    ] {
        let mut builder = Request::builder().method("POST");
        for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
            builder = builder.header(name, value);
        }
        let parts = builder.body(()).expect("request").into_parts().0;
        assert_eq!(kustody::core::wire::handshake::spdy(&parts), Ok(vec!["portforward.k8s.io".to_owned()]));
        for step in [1, 7, 4096] {
            let said = wire_spdy::decoded(Side::Client, client, step);
            is_a_session_of_kubectl(&said, &wire_spdy::decoded(Side::Server, server, step));
        }
        let said = wire_spdy::decoded(Side::Client, client, client.len());
        let (mut encoder, mut again) = (Encoder::default(), BytesMut::new());
        said.iter().for_each(|frame| encoder.encode(frame, &mut again));
        assert_eq!(wire_spdy::decoded(Side::Client, &again, 5), said, "written anew it means the same");
    }
}

/// The SPDY inside: the messages one after the other, wherever they are cut.
fn tunnelled(side: websocket::Side, bytes: &[u8], step: usize) -> Vec<u8> {
    let messages = wire::decoded(side, bytes, step);
    wire::data(&messages).into_iter().flat_map(|message| message.iter().copied()).collect()
}

#[test]
fn port_forward_of_kubectl_in_a_tunnel_is_the_same_inside() {
    let head = include_str!("../wire/kubectl-1.35-port-forward-tunnel.head");
    assert_eq!(handshake(head).names, ["SPDY/3.1+portforward.k8s.io"]);
    for step in [1, 7, 4096] {
        let said =
            tunnelled(websocket::Side::Client, include_bytes!("../wire/kubectl-1.35-port-forward-tunnel.client"), step);
        let heard =
            tunnelled(websocket::Side::Server, include_bytes!("../wire/kubectl-1.35-port-forward-tunnel.server"), step);
        let said = wire_spdy::decoded(Side::Client, &said, step);
        is_a_session_of_kubectl(&said, &wire_spdy::decoded(Side::Server, &heard, step));
        // As over plain SPDY, kubectl is done with a connection when it resets its data stream.
        let reset = Frame::RstStream { stream: id(3), status: ResetStatus::Cancel };
        assert!(said.contains(&reset), "{said:?}");
    }
}

#[test]
fn port_forward_of_python_has_two_channels_for_each_port() {
    let head = include_str!("../wire/python-37-port-forward.head");
    assert_eq!(handshake(head).names, ["v5.channel.k8s.io", "v4.channel.k8s.io"], "from one list");
    for step in [1, 7, 4096] {
        let said =
            wire::decoded(websocket::Side::Client, include_bytes!("../wire/python-37-port-forward.client"), step);
        let open = |bytes: &Bytes| Protocol::V4.message(bytes).expect("a channel");
        let of = |messages: &[Message]| wire::data(messages).into_iter().map(open).collect::<Vec<(u8, Bytes)>>();
        assert_eq!(of(&said), [(0, Bytes::from_static(ASKED))]);
        let heard =
            wire::decoded(websocket::Side::Server, include_bytes!("../wire/python-37-port-forward.server"), step);
        let heard_on = of(&heard);
        let greetings = [(0, 8082u16), (1, 8082), (2, 8083), (3, 8083)];
        let greetings = greetings.map(|(channel, port)| (channel, Bytes::copy_from_slice(&port.to_le_bytes())));
        assert_eq!(heard_on[..4], greetings);
        let on = |channel| {
            let all = heard_on[4..].iter().filter(|(on, _)| *on == channel);
            all.flat_map(|(_, bytes)| bytes.to_vec()).collect::<Vec<u8>>()
        };
        assert!(on(0).ends_with(ANSWERED) && on(1).is_empty() && on(2).is_empty(), "{heard_on:?}");
        assert!(on(3).starts_with(REFUSED), "{heard_on:?}");
        assert_eq!(heard.last(), Some(&Message::Close { code: Some(1000), reason: Bytes::new() }));
    }
}
