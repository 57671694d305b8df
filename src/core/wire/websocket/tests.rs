//! The laws of the frame codec, and each irregular frame the API server would take.

use super::*;
use proptest::prelude::*;

const KEY: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | u8::try_from(payload.len()).expect("short")];
    bytes.extend_from_slice(&KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn all(side: Side, limit: usize, chunks: &[&[u8]]) -> (Vec<Message>, Option<Error>) {
    let mut decoder = Decoder::new(side, limit);
    let mut messages = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fn refused(bytes: &[u8]) -> Error {
    all(Side::Client, 1024, &[bytes]).1.expect("refused")
}

#[test]
fn irregular_frames_of_clients_are_refused() {
    assert_eq!(refused(&raw(0xc2, b"\0ls\n")), Error::Reserved);
    for opcode in [3, 7, 0xb, 0xf] {
        assert_eq!(refused(&raw(0x80 | opcode, b"\0ls\n")), Error::Opcode(opcode));
    }
    assert_eq!(refused(&[0x82, 0x01, 0x00]), Error::Masking);
    assert_eq!(refused(&raw(0x80, b"\0orphan")), Error::Fragment);
    assert_eq!(refused(&raw(0x09, b"ping")), Error::Control);
    assert_eq!(refused(&[0x89, 0x80 | 126, 0, 126]), Error::Control);
    assert_eq!(refused(&[0x82, 0x80 | 126, 0, 5]), Error::Length);
    assert_eq!(refused(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 5]), Error::Length);
    assert_eq!(refused(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 5]), Error::Length);
    assert_eq!(refused(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]), Error::TooLarge(1024));
    assert_eq!(refused(&raw(0x88, &[3])), Error::Close);
    assert_eq!(refused(&raw(0x88, &[3, 0xed])), Error::Close);
}

#[test]
fn masked_frames_of_servers_are_refused() {
    assert_eq!(all(Side::Server, 1024, &[&raw(0x82, b"\x01x")]).1, Some(Error::Masking));
}

#[test]
fn fragments_are_put_together_and_pings_between_them_are_given_first() {
    let bytes = [raw(0x02, b"\0hel"), raw(0x89, b"p"), raw(0x00, b"lo"), raw(0x80, b"\n")].concat();
    let (messages, error) = all(Side::Client, 1024, &[&bytes]);
    assert_eq!(error, None);
    assert_eq!(messages, [Message::Ping(Bytes::from_static(b"p")), Message::Data(Bytes::from_static(b"\0hello\n"))]);
}

#[test]
fn fragments_count_against_the_limit_together() {
    let bytes = [raw(0x02, &[0; 60]), raw(0x00, &[0; 60])].concat();
    assert_eq!(all(Side::Client, 100, &[&bytes]).1, Some(Error::TooLarge(100)));
}

#[test]
fn a_start_inside_a_fragmented_message_is_refused() {
    let bytes = [raw(0x02, b"\0a"), raw(0x82, b"\0b")].concat();
    assert_eq!(refused(&bytes), Error::Fragment);
}

#[test]
fn nothing_is_given_after_a_close_frame() {
    let bytes = [raw(0x88, &[3, 0xe8]), raw(0x82, b"\0late")].concat();
    let (messages, error) = all(Side::Client, 1024, &[&bytes]);
    assert_eq!(messages, [Message::Close { code: Some(1000), reason: Bytes::new() }]);
    assert_eq!(error, None);
}

#[test]
fn a_lying_length_costs_no_memory() {
    let mut decoder = Decoder::new(Side::Client, MAX_MESSAGE);
    decoder.push(&[0x82, 0xff, 0, 0, 0, 0, 0x02, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(decoder.next_message(), Ok(None));
    assert!(decoder.buffer.capacity() < 256 * 1024);
    let mut decoder = Decoder::new(Side::Client, MAX_MESSAGE);
    decoder.push(&[0x82, 0xff, 0, 0, 0, 0, 0x02, 0, 0, 1, 1, 2, 3, 4]);
    assert_eq!(decoder.next_message(), Err(Error::TooLarge(MAX_MESSAGE)));
}

fn message() -> impl Strategy<Value = Message> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from);
    prop_oneof![
        bytes(300).prop_map(Message::Data),
        bytes(70_000).prop_map(Message::Data),
        bytes(125).prop_map(Message::Ping),
        bytes(125).prop_map(Message::Pong),
    ]
}

fn written(messages: &[Message], key: Option<[u8; 4]>) -> BytesMut {
    let mut out = BytesMut::new();
    for message in messages {
        match message {
            Message::Data(bytes) => {
                let (a, b) = bytes.split_at(bytes.len() / 2);
                encode(&mut out, Opcode::Binary, key, &[a, b]);
            }
            Message::Ping(bytes) => encode(&mut out, Opcode::Ping, key, &[bytes]),
            Message::Pong(bytes) => encode(&mut out, Opcode::Pong, key, &[bytes]),
            Message::Close { code, reason } => encode_close(&mut out, *code, reason, key),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_is_decoded_in_any_chunking(
        messages in prop::collection::vec(message(), 0..6),
        key in any::<Option<[u8; 4]>>(),
        cuts in prop::collection::vec(1usize..4000, 0..40),
        code in 3000u16..5000,
    ) {
        let mut messages = messages;
        messages.push(Message::Close { code: Some(code), reason: Bytes::from_static(b"done") });
        let bytes = written(&messages, key);
        let side = if key.is_some() { Side::Client } else { Side::Server };
        let mut chunks = Vec::new();
        let mut rest: &[u8] = &bytes;
        for cut in cuts {
            let (chunk, tail) = rest.split_at(cut.min(rest.len()));
            chunks.push(chunk);
            rest = tail;
        }
        chunks.push(rest);
        prop_assert_eq!(all(side, MAX_MESSAGE, &chunks), (messages, None));
    }

    #[test]
    fn a_message_is_the_same_in_any_fragments_and_any_chunking(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..6),
        step in 1usize..50,
    ) {
        let mut ends: Vec<(usize, bool)> = cuts.iter().map(|(at, pinged)| (at.index(payload.len() + 1), *pinged)).collect();
        ends.sort_unstable();
        let (mut out, mut from, mut opcode) = (BytesMut::new(), 0, Opcode::Text);
        for (end, pinged) in ends {
            let start = out.len();
            encode(&mut out, opcode, Some(KEY), &[&payload[from..end]]);
            out[start] &= 0x7f;
            if pinged {
                encode(&mut out, Opcode::Pong, Some(KEY), &[b"between"]);
            }
            (from, opcode) = (end, Opcode::Continuation);
        }
        encode(&mut out, opcode, Some(KEY), &[&payload[from..]]);
        let chunks: Vec<&[u8]> = out.chunks(step).collect();
        let (mut messages, error) = all(Side::Client, 300, &chunks);
        messages.retain(|message| matches!(message, Message::Data(_)));
        prop_assert_eq!((messages, error), (vec![Message::Data(Bytes::from(payload))], None));
    }

    #[test]
    fn what_is_kept_of_an_endless_stream_is_bounded(
        frames in prop::collection::vec((0u8..3, 0usize..700), 1..200), step in 1usize..3000,
    ) {
        let mut bytes = vec![0x01, 0x80, 0, 0, 0, 0];
        for (opcode, length) in frames {
            let start = bytes.len();
            let mut out = BytesMut::new();
            let opcode = if opcode == 0 { Opcode::Ping } else { Opcode::Continuation };
            let length = if opcode == Opcode::Ping { length % 126 } else { length };
            encode(&mut out, opcode, Some(KEY), &[&vec![7; length]]);
            bytes.extend_from_slice(&out);
            bytes[start] &= if opcode == Opcode::Ping { 0xff } else { 0x7f };
        }
        let mut decoder = Decoder::new(Side::Client, 10_000);
        for chunk in bytes.chunks(step) {
            decoder.push(chunk);
            while let Ok(Some(_)) = decoder.next_message() {}
            if decoder.ended.is_some() {
                break;
            }
            let kept = decoder.buffer.capacity() + decoder.fragments.as_ref().map_or(0, BytesMut::capacity);
            prop_assert!(kept <= 2 * 10_000 + 64 * 1024 + 2 * step, "{}", kept);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_hold_more_than_given(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        client in any::<bool>(),
        cut in 1usize..50,
    ) {
        let side = if client { Side::Client } else { Side::Server };
        let chunks: Vec<&[u8]> = bytes.chunks(cut).collect();
        let (messages, error) = all(side, 200, &chunks);
        let held: usize = messages.iter().map(|message| match message {
            Message::Data(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
            Message::Close { reason, .. } => reason.len(),
        }).sum();
        prop_assert!(held <= bytes.len());
        prop_assert_eq!(all(side, 200, &[&bytes]), (messages, error));
    }
}
