//! What clients and the API server put on the wire, and what reads it: frames, channel messages, tunnels, handshakes.
//!
//! Laws: the same in any chunking, no more kept than the limits say, the same again when written anew, and nothing that is
//! passed on without a name for it.

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Version};
use kustody::core::wire::channels::{FromClient, Protocol, STDIN, Streams};
use kustody::core::wire::websocket::{Decoder, Error, Message, Opcode, Side, encode, encode_close};
use kustody::core::wire::{handshake, resize, spdy};

use crate::targets::files;

/// The most bytes of a message and of a frame here.
const LIMIT: usize = 1 << 16;
const KEY: [u8; 4] = [0x6b, 0, 0xff, 0x20];

/// What a real kubectl sent, and frames of every type.
pub(crate) fn spdy_streams() -> Vec<Vec<u8>> {
    let mut found = files("tests/wire", "spdy");
    let id = |number| spdy::StreamId::new(number).expect("a stream id");
    let headers = || spdy::Headers::new([("streamtype", "stdin"), ("port", "80"), ("requestid", "0")]);
    let frames = [
        spdy::Frame::SynStream { stream: id(1), fin: false, headers: headers() },
        spdy::Frame::Data { stream: id(1), fin: false, bytes: vec![7; 300].into() },
        spdy::Frame::SynReply { stream: id(1), fin: false, headers: spdy::Headers::default() },
        spdy::Frame::Headers { stream: id(1), fin: false, headers: headers() },
        spdy::Frame::RstStream { stream: id(1), status: spdy::ResetStatus::Cancel },
        spdy::Frame::Settings(vec![(4, 100), (7, 65_536)]),
        spdy::Frame::Ping(1),
        spdy::Frame::WindowUpdate { stream: 1, delta: 1024 },
        spdy::Frame::GoAway { last: 1, status: 0 },
    ];
    for first in 0..frames.len() {
        let (mut encoder, mut out) = (spdy::Encoder::default(), bytes::BytesMut::new());
        frames.iter().skip(first).chain(&frames).for_each(|frame| encoder.encode(frame, &mut out));
        found.push(out.to_vec());
    }
    found
}

/// Frames do not depend on the chunking, are kept within the limits, and are what they are when written anew.
pub(crate) fn read_spdy(input: &[u8]) {
    for side in [spdy::Side::Client, spdy::Side::Server] {
        let read = |bytes: &[u8], step: usize| {
            let (mut decoder, mut frames) = (spdy::Decoder::new(side, 1 << 16), Vec::new());
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                loop {
                    match decoder.next_frame() {
                        Ok(Some(frame)) => frames.push(frame),
                        Ok(None) => break,
                        Err(error) => return (frames, Some(error)),
                    }
                }
            }
            assert!(decoder.buffer().len() <= (1 << 16) + step + 8, "no more is kept than a frame may have");
            (frames, None)
        };
        let (frames, error) = read(input, input.len().max(1));
        assert_eq!(read(input, 3), (frames.clone(), error), "in any chunking");
        let (mut encoder, mut out) = (spdy::Encoder::default(), bytes::BytesMut::new());
        frames.iter().for_each(|frame| encoder.encode(frame, &mut out));
        assert_eq!(read(&out, out.len().max(1)), (frames, None), "written anew");
    }
}

/// What kubectl and the API server sent, and messages of every kind from both sides.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let mut found = [files("tests/wire", "client"), files("tests/wire", "server")].concat();
    for key in [Some(KEY), None] {
        let mut out = BytesMut::new();
        for (opcode, payload) in [
            (Opcode::Binary, &b"\0hello\n"[..]),
            (Opcode::Text, b"0aGVsbG8K"),
            (Opcode::Ping, b"are you there"),
            (Opcode::Binary, &[7; 300]),
            (Opcode::Pong, b""),
            (Opcode::Binary, &[255, 0]),
        ] {
            // A fragment, where the first frame is not final.
            let (first, rest) = payload.split_at(payload.len() / 2);
            let start = out.len();
            encode(&mut out, opcode, key, &[first]);
            found.push(out.to_vec());
            if matches!(opcode, Opcode::Binary | Opcode::Text) {
                out[start] &= 0x7f;
                encode(&mut out, Opcode::Ping, key, &[b"between"]);
                encode(&mut out, Opcode::Continuation, key, &[rest]);
            }
        }
        encode(&mut out, Opcode::Binary, key, &[&[9; 70_000]]);
        found.push(out.to_vec());
        encode_close(&mut out, Some(1000), b"done", key);
        found.push(out.to_vec());
    }
    found
}

fn messages_of(side: Side, input: &[u8], step: usize) -> (Vec<Message>, Option<Error>) {
    let (mut decoder, mut messages) = (Decoder::new(side, LIMIT), Vec::new());
    let mut held = 0;
    for chunk in input.chunks(step) {
        decoder.push(chunk);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => {
                    held += length(&message);
                    messages.push(message);
                }
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        let closed = matches!(messages.last(), Some(Message::Close { .. }));
        assert!(closed || decoder.buffer().len() <= LIMIT + 14, "no more is kept than a frame may have");
    }
    assert!(held <= input.len(), "no more is given than there was");
    (messages, None)
}

fn length(message: &Message) -> usize {
    match message {
        Message::Data(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close { reason, .. } => reason.len(),
    }
}

pub(crate) fn read_frames(input: &[u8]) {
    for (side, key) in [(Side::Client, Some(KEY)), (Side::Server, None)] {
        let (messages, error) = messages_of(side, input, input.len().max(1));
        assert_eq!(messages_of(side, input, 3), (messages.clone(), error), "in any chunking");
        let mut out = BytesMut::new();
        for message in &messages {
            match message {
                Message::Data(bytes) => encode(&mut out, Opcode::Binary, key, &[bytes]),
                Message::Ping(bytes) => encode(&mut out, Opcode::Ping, key, &[bytes]),
                Message::Pong(bytes) => encode(&mut out, Opcode::Pong, key, &[bytes]),
                Message::Close { code, reason } => encode_close(&mut out, *code, reason, key),
            }
        }
        assert_eq!(messages_of(side, &out, out.len().max(1)), (messages, None), "written anew");
    }
}

/// Messages behind each other: a byte that says how long the next one is, then the message.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    let parts: [&[u8]; 12] = [
        b"\0echo hello\n",
        b"0ZWNobyBoZWxsbwo=",
        b"0aW\r\nQK",
        b"4eyJXaWR0aCI6ODAsIkhlaWdodCI6MjR9",
        b"\x04{\"Width\":80,\"Hei",
        b"\x04ght\":24}{\"height\":50,\"WIDTH\":132}",
        &[255, 0],
        &[255, 4],
        &[255, 0, 0],
        b"\x01",
        b"\x03{\"status\":\"Success\"}",
        b"",
    ];
    let framed = |part: &&[u8]| [&[u8::try_from(part.len()).expect("short")], *part].concat();
    let all: Vec<Vec<u8>> = parts.iter().map(framed).collect();
    all.iter().cloned().chain([all.concat()]).collect()
}

fn cut(mut input: &[u8]) -> Vec<Bytes> {
    let mut found = Vec::new();
    while let Some((length, rest)) = input.split_first() {
        let (message, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        found.push(Bytes::copy_from_slice(message));
        input = rest;
    }
    found
}

/// What is passed on is not longer than it was, was asked for, and is read as the same again; sizes do not depend on how
/// they were cut.
pub(crate) fn read_channels(input: &[u8]) {
    for message in cut(input) {
        for (protocol, bits) in
            Protocol::ALL.into_iter().flat_map(|protocol| (0u8..4).map(move |bits| (protocol, bits)))
        {
            let streams = Streams { stdin: bits & 1 != 0, stdout: true, stderr: true, tty: bits & 2 != 0 };
            drop(protocol.from_server(&message));
            let Ok(read) = protocol.from_client(streams, &message) else { continue };
            let (channel, payload) = match &read {
                FromClient::Stdin(bytes) if streams.stdin => (STDIN, bytes),
                FromClient::Resize(bytes) if streams.tty => (4, bytes),
                FromClient::HalfClose(STDIN) if streams.stdin => continue,
                FromClient::Dropped { bytes, .. } => {
                    assert!(*bytes <= message.len());
                    continue;
                }
                FromClient::Stdin(_) | FromClient::Resize(_) | FromClient::HalfClose(_) => {
                    unreachable!("{read:?} of a stream that nobody asked for")
                }
            };
            assert!(payload.len() < message.len());
            let again = [&[protocol.channel(channel)], &protocol.payload(payload.clone())[..]].concat();
            assert_eq!(protocol.from_client(streams, &again.into()), Ok(read));
        }
    }
    let sizes = |step: usize| {
        let mut reader = resize::Reader::default();
        input.chunks(step).flat_map(|piece| reader.push(piece)).collect::<Vec<_>>()
    };
    if input.len() <= resize::LIMIT {
        assert_eq!(sizes(1), sizes(input.len().max(1)));
    }
}

/// SPDY streams cut into messages.
pub(crate) fn tunnels() -> Vec<Vec<u8>> {
    let in_messages = |stream: &Vec<u8>| {
        let mut out = BytesMut::new();
        stream.chunks(11).for_each(|piece| encode(&mut out, Opcode::Binary, Some(KEY), &[piece]));
        out.to_vec()
    };
    spdy_streams().iter().map(in_messages).collect()
}

/// What is read through both decoders does not depend on the chunking either.
pub(crate) fn read_tunnel(input: &[u8]) {
    let read = |step: usize| {
        let (mut web, mut inner) = (Decoder::new(Side::Client, LIMIT), spdy::Decoder::new(spdy::Side::Client, LIMIT));
        let mut frames = Vec::new();
        for chunk in input.chunks(step) {
            web.push(chunk);
            loop {
                match web.next_message() {
                    Ok(Some(Message::Data(bytes))) => inner.push(&bytes),
                    Ok(Some(Message::Ping(_) | Message::Pong(_) | Message::Close { .. })) => continue,
                    Ok(None) | Err(_) => break,
                }
                loop {
                    match inner.next_frame() {
                        Ok(Some(frame)) => frames.push(frame),
                        Ok(None) => break,
                        Err(error) => return (frames, Some(error)),
                    }
                }
            }
        }
        (frames, None)
    };
    assert_eq!(read(3), read(input.len().max(1)));
}

pub(crate) fn heads() -> Vec<Vec<u8>> {
    let token = b"sec-websocket-protocol: base64url.bearer.authorization.k8s.io.dG9rZW4, v4.channel.k8s.io\r\n";
    let mut found = files("tests/wire", "head");
    found.extend(found.clone().into_iter().map(|head| [&head[..], token].concat()));
    found
}

/// A request that is taken for an upgrade asks for just one, has no body, and its token is none of its protocols.
pub(crate) fn read_head(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let method = lines.next().and_then(|line| line.split(' ').next()).unwrap_or_default();
    let mut builder = Request::builder().version(Version::HTTP_11).method(method);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        builder = builder.header(name, value);
    }
    let Ok(request) = builder.body(()) else { return };
    let parts = request.into_parts().0;
    let wanted = handshake::wanted(&parts.headers);
    let (web, spdy) = (handshake::Handshake::check(&parts), handshake::spdy(&parts));
    assert!(web.is_err() || (wanted == handshake::Wanted::WebSocket && parts.method == Method::GET));
    assert!(spdy.is_err() || wanted == handshake::Wanted::Spdy);
    let is_upgrade = web.is_ok() || spdy.is_ok();
    assert!(!is_upgrade || !parts.headers.contains_key("transfer-encoding"), "an upgrade has no body");
    let offer = handshake::Offer::read(&parts.headers);
    let names = web.map(|handshake| handshake.names).unwrap_or_default();
    assert!(offer.names.iter().chain(&names).all(|name| !name.starts_with(handshake::BEARER_PREFIX)));
}
