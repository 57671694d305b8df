//! What real kubectl, a client of Python in base64 and a real API server (1.35) put on the wire, captured between them:
//! `.head` is the handshake without its credential, `.client` and `.server` are the bytes after it.

use bytes::{Bytes, BytesMut};
use http::Request;
use kustody::core::recording::summary::Exit;
use kustody::core::wire::channels::{FromClient, FromServer, Protocol, Streams};
use kustody::core::wire::handshake::Handshake;
use kustody::core::wire::resize;
use kustody::core::wire::websocket::{Decoder, MAX_MESSAGE, Message, Opcode, Side, encode};

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: true };

pub(crate) fn decoded(side: Side, bytes: &[u8], step: usize) -> Vec<Message> {
    let mut decoder = Decoder::new(side, MAX_MESSAGE);
    let mut messages = Vec::new();
    for chunk in bytes.chunks(step) {
        decoder.push(chunk);
        while let Some(message) = decoder.next_message().expect("regular frames") {
            messages.push(message);
        }
    }
    assert!(!decoder.is_midway(), "ends between frames");
    messages
}

pub(crate) fn data(messages: &[Message]) -> Vec<&Bytes> {
    messages.iter().filter_map(|message| if let Message::Data(bytes) = message { Some(bytes) } else { None }).collect()
}

pub(crate) fn handshake(head: &str) -> Handshake {
    let mut lines = head.lines();
    let target = lines.next().expect("request line").split(' ').nth(1).expect("target");
    let mut builder = Request::builder().uri(target);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        builder = builder.header(name, value);
    }
    Handshake::check(&builder.body(()).expect("request").into_parts().0).expect("accepted")
}

#[test]
fn exec_of_kubectl_is_read_whole_in_any_chunking() {
    for (head, client, server) in [
        (
            include_str!("../wire/kubectl-1.35-exec-exit-3.head"),
            &include_bytes!("../wire/kubectl-1.35-exec-exit-3.client")[..],
            &include_bytes!("../wire/kubectl-1.35-exec-exit-3.server")[..],
        ),
        (
            include_str!("../wire/kubectl-1.30-exec-exit-3.head"),
            &include_bytes!("../wire/kubectl-1.30-exec-exit-3.client")[..],
            &include_bytes!("../wire/kubectl-1.30-exec-exit-3.server")[..],
        ),
    ] {
        assert_eq!(handshake(head).names, ["v5.channel.k8s.io"]);
        for step in [1, 7, 4096] {
            let said = decoded(Side::Client, client, step);
            let read = |bytes: &Bytes| Protocol::V5.from_client(ALL, bytes).expect("well-formed");
            let said: Vec<_> = data(&said).into_iter().map(read).collect();
            assert_eq!(said, [FromClient::Stdin(Bytes::from_static(b"hello\n")), FromClient::HalfClose(0)]);
            let heard = decoded(Side::Server, server, step);
            let read = |bytes: &Bytes| Protocol::V5.from_server(bytes).expect("well-formed");
            let heard: Vec<_> = data(&heard).into_iter().map(read).collect();
            assert_eq!(heard.first(), Some(&FromServer::Stdout(Bytes::new())));
            assert!(heard.contains(&FromServer::Stdout(Bytes::from_static(b"hello\n"))), "{heard:?}");
            assert!(heard.contains(&FromServer::Stderr(Bytes::from_static(b"err\n"))), "{heard:?}");
            let is_exit = |message: &FromServer| matches!(message, FromServer::Status(json) if String::from_utf8_lossy(json).contains("NonZeroExitCode"));
            assert!(heard.iter().any(is_exit), "{heard:?}");
        }
    }
}

#[test]
fn a_terminal_of_kubectl_tells_its_size() {
    let said = decoded(Side::Client, include_bytes!("../wire/kubectl-1.35-exec-tty.client"), 3);
    let mut reader = resize::Reader::default();
    let mut sizes = Vec::new();
    for bytes in data(&said) {
        if let Ok(FromClient::Resize(piece)) = Protocol::V5.from_client(ALL, bytes) {
            sizes.extend(reader.push(&piece));
        }
    }
    assert_eq!(sizes.first(), Some(&resize::Size { cols: 100, rows: 30 }));
}

#[test]
fn exec_in_base64_is_read_whole_and_says_how_it_ended() {
    for (protocol, head, client, server) in [
        (
            Protocol::V1Base64,
            include_str!("../wire/websocket-client-1.9-exec-base64.head"),
            &include_bytes!("../wire/websocket-client-1.9-exec-base64.client")[..],
            &include_bytes!("../wire/websocket-client-1.9-exec-base64.server")[..],
        ),
        (
            Protocol::V4Base64,
            include_str!("../wire/websocket-client-1.9-exec-v4-base64.head"),
            &include_bytes!("../wire/websocket-client-1.9-exec-v4-base64.client")[..],
            &include_bytes!("../wire/websocket-client-1.9-exec-v4-base64.server")[..],
        ),
    ] {
        assert_eq!(handshake(head).names, [protocol.name()]);
        for step in [1, 7, 4096] {
            let said = decoded(Side::Client, client, step);
            let read = |bytes: &Bytes| protocol.from_client(ALL, bytes).expect("well-formed");
            let said: Vec<_> = data(&said).into_iter().map(read).collect();
            assert_eq!(said, [FromClient::Stdin(Bytes::from_static(b"hello\xff\n"))]);
            let heard = decoded(Side::Server, server, step);
            let read = |bytes: &Bytes| protocol.from_server(bytes).expect("well-formed");
            let mut heard: Vec<_> = data(&heard).into_iter().map(read).collect();
            let Some(FromServer::Status(status)) = heard.pop() else { panic!("{heard:?}") };
            let exit = Exit::from_status(&status).and_then(|exit| exit.code);
            // The first version has no status: its failure is text.
            assert_eq!(exit, (!protocol.succeeds_silently()).then_some(3), "{status:?}");
            assert!(String::from_utf8_lossy(&status).contains("non-zero exit code"), "{status:?}");
            let bytes = [&b""[..], b"hello\xff\n"].map(|bytes| FromServer::Stdout(Bytes::from_static(bytes)));
            assert_eq!(heard[..2], bytes);
            assert_eq!(heard[2..], [FromServer::Stderr(Bytes::from_static(b"err\n"))]);
        }
    }
}

#[test]
fn what_the_api_server_wrote_is_what_this_encoder_writes() {
    let server = &include_bytes!("../wire/kubectl-1.35-exec-exit-3.server")[..];
    let mut again = BytesMut::new();
    for message in decoded(Side::Server, server, server.len()) {
        match message {
            Message::Data(bytes) => encode(&mut again, Opcode::Binary, None, &[&bytes]),
            Message::Ping(bytes) => encode(&mut again, Opcode::Ping, None, &[&bytes]),
            Message::Pong(bytes) => encode(&mut again, Opcode::Pong, None, &[&bytes]),
            Message::Close { code, reason } => {
                let code = code.map(u16::to_be_bytes).unwrap_or_default();
                encode(&mut again, Opcode::Close, None, &[&code, &reason]);
            }
        }
    }
    assert_eq!(again, server);
}
