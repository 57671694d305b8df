//! What real kubectl of the SPDY days and a real API server (1.35) put on the wire: `.client.spdy` and `.server.spdy` are
//! the bytes after the handshake in `.head`. kubectl writes a frame in pieces and may exit in the middle of its last one.

use bytes::BytesMut;
use http::Request;
use kustody::core::recording::summary::Exit;
use kustody::core::wire::handshake;
use kustody::core::wire::spdy::{Decoder, Encoder, Frame, MAX_DATA, Side, StreamId};
use std::collections::BTreeMap;

pub(crate) fn decoded(side: Side, bytes: &[u8], step: usize) -> Vec<Frame> {
    let mut decoder = Decoder::new(side, MAX_DATA);
    let mut frames = Vec::new();
    for chunk in bytes.chunks(step) {
        decoder.push(chunk);
        while let Some(frame) = decoder.next_frame().expect("regular frames") {
            frames.push(frame);
        }
    }
    frames
}

/// All bytes of each stream, and whether the side closed it.
pub(crate) fn sent(frames: &[Frame]) -> BTreeMap<StreamId, (Vec<u8>, bool)> {
    let mut all: BTreeMap<StreamId, (Vec<u8>, bool)> = BTreeMap::new();
    for frame in frames {
        if let Frame::Data { stream, fin, bytes } = frame {
            let one = all.entry(*stream).or_default();
            one.0.extend_from_slice(bytes);
            one.1 |= fin;
        }
    }
    all
}

#[test]
fn exec_of_old_kubectl_is_read_whole_in_any_chunking() {
    for (head, client, server) in [
        (
            include_str!("../wire/kubectl-1.27-exec-exit-3.head"),
            &include_bytes!("../wire/kubectl-1.27-exec-exit-3.client.spdy")[..],
            &include_bytes!("../wire/kubectl-1.27-exec-exit-3.server.spdy")[..],
        ),
        (
            include_str!("../wire/kubectl-1.29-exec-exit-3.head"),
            &include_bytes!("../wire/kubectl-1.29-exec-exit-3.client.spdy")[..],
            &include_bytes!("../wire/kubectl-1.29-exec-exit-3.server.spdy")[..],
        ),
    ] {
        let mut builder = Request::builder().method("POST");
        for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
            builder = builder.header(name, value);
        }
        let names = handshake::spdy(&builder.body(()).expect("request").into_parts().0).expect("accepted");
        assert!(names.contains(&"v4.channel.k8s.io".to_owned()) && names.len() >= 4, "{names:?}");
        for step in [1, 7, 4096] {
            let said = decoded(Side::Client, client, step);
            let opened: Vec<(u32, &str)> = said.iter().filter_map(purpose).collect();
            assert_eq!(opened, [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")]);
            let stdin = sent(&said).remove(&id(3));
            assert_eq!(stdin, Some((b"hello\n".to_vec(), true)));
            let heard = decoded(Side::Server, server, step);
            let replies = heard.iter().filter(|frame| matches!(frame, Frame::SynReply { .. })).count();
            assert_eq!(replies, 4);
            let mut streams = sent(&heard);
            let mut bytes = |number| streams.remove(&id(number)).expect("a stream").0;
            assert_eq!((bytes(5), bytes(7)), (b"hello\n".to_vec(), b"err\n".to_vec()));
            assert_eq!(Exit::from_status(&bytes(1)).and_then(|exit| exit.code), Some(3));
        }
    }
}

#[test]
fn what_kubectl_said_means_the_same_written_anew() {
    let client = include_bytes!("../wire/kubectl-1.27-exec-exit-3.client.spdy");
    let frames = decoded(Side::Client, client, client.len());
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    frames.iter().for_each(|frame| encoder.encode(frame, &mut out));
    assert_eq!(decoded(Side::Client, &out, 5), frames);
}

pub(crate) fn id(number: u32) -> StreamId {
    StreamId::new(number).expect("a stream id")
}

fn purpose(frame: &Frame) -> Option<(u32, &str)> {
    let Frame::SynStream { stream, headers, .. } = frame else {
        return None;
    };
    Some((stream.get(), headers.only("streamtype")?))
}
