//! Laws of the codec, and each irregularity with its answer.

use super::*;
use bytes::BytesMut;
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

fn id(number: u32) -> StreamId {
    StreamId::new(number).expect("a stream id")
}

fn decode(side: Side, bytes: &[u8], step: usize) -> Result<Vec<Frame>, Error> {
    let mut decoder = Decoder::new(side, MAX_DATA);
    let mut frames = Vec::new();
    for chunk in bytes.chunks(step.max(1)) {
        decoder.push(chunk);
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn encode(frames: &[Frame]) -> BytesMut {
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    frames.iter().for_each(|frame| encoder.encode(frame, &mut out));
    out
}

fn only(bytes: &[u8]) -> Error {
    decode(Side::Client, bytes, bytes.len()).expect_err("irregular")
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 3];
    out.extend(kind.to_be_bytes());
    out.push(flags);
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend(payload);
    out
}

/// A header block compressed as a real peer does it.
fn deflated(block: &[u8]) -> Vec<u8> {
    let mut zlib = Compress::new(Compression::best(), true);
    zlib.set_dictionary(dictionary::DICTIONARY).expect("dictionary");
    let mut out = Vec::with_capacity(block.len() + 1024);
    zlib.compress_vec(block, &mut out, FlushCompress::Sync).expect("compressed");
    assert_eq!(zlib.total_in(), block.len() as u64);
    out
}

fn syn(compressed: &[u8]) -> Vec<u8> {
    control(1, 0, &[&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0], compressed].concat())
}

fn headers() -> impl Strategy<Value = Headers> {
    let pair = ("[a-z0-9-]{1,12}", prop::collection::vec(any::<u8>(), 0..24));
    prop::collection::btree_map(pair.0, pair.1, 0..6).prop_map(Headers::new)
}

fn stream() -> impl Strategy<Value = StreamId> {
    (1u32..=0x7fff_ffff).prop_map(id)
}

fn from_server() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
            stream,
            fin,
            headers
        }),
        (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::Headers { stream, fin, headers }),
        (stream(), 1u32..12).prop_map(|(stream, status)| Frame::RstStream {
            stream,
            status: ResetStatus::try_from(status).expect("not 0")
        }),
        prop::collection::vec(any::<(u32, u32)>(), 0..4).prop_map(Frame::Settings),
        (1u32..).prop_map(Frame::Ping),
        any::<(u32, u32)>().prop_map(|(last, status)| Frame::GoAway { last, status }),
        any::<(u32, u32)>().prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        (stream(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(stream, fin, bytes)| Frame::Data { stream, fin, bytes: bytes.into() }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_in_any_chunking(
        frames in prop::collection::vec(from_server(), 0..12), step in 1usize..40,
    ) {
        prop_assert_eq!(decode(Side::Server, &encode(&frames), step), Ok(frames));
    }

    #[test]
    fn streams_that_a_client_opens_are_read_back(all in prop::collection::vec((headers(), any::<bool>()), 0..8), step in 1usize..40) {
        let open = |(n, (headers, fin)): (usize, (Headers, bool))| Frame::SynStream { stream: id(2 * n as u32 + 1), fin, headers };
        let frames: Vec<Frame> = all.into_iter().enumerate().map(open).collect();
        prop_assert_eq!(decode(Side::Client, &encode(&frames), step), Ok(frames));
    }

    #[test]
    fn a_block_that_a_peer_compressed_is_read_like_one_that_is_stored(headers in headers()) {
        let mut stored = BytesMut::new();
        headers.write(true, &mut stored);
        // The head of the zlib stream, the head of the one stored block, the empty block after it.
        let plain = &stored[11..stored.len() - 5];
        let frames = decode(Side::Client, &syn(&deflated(plain)), 7);
        prop_assert_eq!(frames, Ok(vec![Frame::SynStream { stream: id(1), fin: false, headers }]));
    }

    #[test]
    fn any_bytes_give_the_same_in_any_chunking_and_cost_no_more_than_they_are(
        bytes in prop::collection::vec(any::<u8>(), 0..400), control in any::<bool>(), step in 1usize..40,
    ) {
        let bytes = if control { [&[0x80, 3, 0][..], &bytes].concat() } else { bytes };
        let whole = decode(Side::Client, &bytes, bytes.len());
        prop_assert_eq!(decode(Side::Client, &bytes, step), whole);
        let mut decoder = Decoder::new(Side::Server, 1000);
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
        prop_assert!(decoder.buffer().capacity() <= 1000 + 2 * 64 * 1024 + MAX_CONTROL);
    }
}

#[test]
fn the_dictionary_is_the_one_of_the_specification() {
    assert_eq!(dictionary::DICTIONARY.len(), 1423);
    let mut zlib = Compress::new(Compression::fast(), true);
    let sum = zlib.set_dictionary(dictionary::DICTIONARY).expect("dictionary");
    assert_eq!(sum.to_be_bytes(), dictionary::ID);
}

#[test]
fn blocks_of_one_direction_share_one_stream() {
    let block = b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05stdin";
    let mut zlib = Compress::new(Compression::best(), true);
    zlib.set_dictionary(dictionary::DICTIONARY).expect("dictionary");
    let mut bytes = Vec::new();
    for stream in [1u8, 3] {
        let mut out = Vec::with_capacity(1024);
        zlib.compress_vec(block, &mut out, FlushCompress::Sync).expect("compressed");
        bytes.extend(control(1, 0, &[&[0, 0, 0, stream, 0, 0, 0, 0, 0xe0, 0], &out[..]].concat()));
    }
    let frames = decode(Side::Client, &bytes, 5).expect("frames");
    let [Frame::SynStream { headers, .. }, Frame::SynStream { headers: again, .. }] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!((headers.only("streamtype"), again), (Some("stdin"), headers));
}

#[test]
fn a_bomb_is_given_up_on_at_the_limit() {
    let zeros = vec![0; 4 << 20];
    let bomb = deflated(&zeros);
    assert!(bomb.len() < MAX_CONTROL, "{}", bomb.len());
    assert_eq!(only(&syn(&bomb)), Error::Headers);
}

#[test]
fn a_block_that_is_not_exactly_a_list_of_headers_is_refused() {
    let long = [&b"\0\0\0\x01\0\0\0\x01a\0\0\0\x01b"[..], b"x"].concat();
    for block in [
        &b""[..],
        b"\0\0\0\x01",
        b"\0\0\0\x01\0\0\0\x02a",
        b"\0\0\0\x01\xff\xff\xff\xffa",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x41",
        b"\0\0\0\x01\0\0\0\0\0\0\0\0",
        b"\0\0\0\x01\0\0\0\x01A\0\0\0\x01b",
        b"\0\0\0\x02\0\0\0\x01a\0\0\0\x01b\0\0\0\x01a\0\0\0\x01c",
        &long,
    ] {
        assert_eq!(only(&syn(&deflated(block))), Error::Headers, "{block:?}");
    }
    assert_eq!(only(&syn(b"")), Error::Headers);
    assert_eq!(only(&syn(b"not zlib at all")), Error::Headers);
}

#[test]
fn several_values_are_not_one() {
    let headers = Headers::new([("streamtype", "stdin\0error")]);
    assert!(headers.has("streamtype"));
    assert_eq!(headers.only("streamtype"), None);
}

#[test]
fn what_spdystream_lets_pass_is_refused() {
    assert_eq!(only(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]), Error::Version(2));
    assert_eq!(only(&control(5, 0, &[])), Error::Type(5));
    assert_eq!(only(&control(6, 0, &[0, 0, 0, 1, 0])), Error::Length);
    assert_eq!(only(&control(6, 1, &[0, 0, 0, 1])), Error::Flags(1));
    assert_eq!(only(&control(6, 0, &[0; 4])), Error::Value);
    assert_eq!(only(&control(3, 0, &[0, 0, 0, 1, 0, 0, 0, 0])), Error::Value);
    assert_eq!(only(&control(3, 0, &[0x80, 0, 0, 1, 0, 0, 0, 1])), Error::Stream(0x8000_0001));
    assert_eq!(only(&control(4, 0, &[0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1])), Error::Length);
    assert_eq!(only(&control(7, 0, &[0; 4])), Error::Length);
    assert_eq!(only(&[0, 0, 0, 0, 0, 0, 0, 1, 0]), Error::Stream(0));
    assert_eq!(only(&[0, 0, 0, 1, 2, 0, 0, 0]), Error::Flags(2));
    assert_eq!(only(&control(1, 2, &[0; 10])), Error::Flags(2));
    let push = control(1, 0, &[&[0, 0, 0, 3, 0, 0, 0, 1, 0, 0][..], &deflated(&[0; 4])].concat());
    assert_eq!(only(&push), Error::Value);
    assert_eq!(only(&[0x80, 3, 0, 1, 0, 1, 0, 1]), Error::TooLarge(MAX_CONTROL));
}

#[test]
fn only_clients_open_streams_with_odd_rising_ids() {
    let open = |number| Frame::SynStream { stream: id(number), fin: false, headers: Headers::default() };
    assert_eq!(decode(Side::Client, &encode(&[open(2)]), 9), Err(Error::Stream(2)));
    assert_eq!(decode(Side::Client, &encode(&[open(3), open(3)]), 9), Err(Error::Stream(3)));
    assert_eq!(decode(Side::Client, &encode(&[open(5), open(1)]), 9), Err(Error::Stream(1)));
    assert_eq!(decode(Side::Server, &encode(&[open(1)]), 9), Err(Error::Stream(1)));
    let reply = Frame::SynReply { stream: id(1), fin: false, headers: Headers::default() };
    assert_eq!(decode(Side::Client, &encode(&[reply]), 9), Err(Error::Stream(1)));
}

#[test]
fn a_large_frame_is_refused_at_its_head_and_a_long_payload_is_split() {
    let mut decoder = Decoder::new(Side::Client, 10);
    decoder.push(&[0, 0, 0, 1, 0, 0, 0, 11]);
    assert_eq!(decoder.next_frame(), Err(Error::TooLarge(10)));
    assert_eq!(decoder.next_frame(), Err(Error::TooLarge(10)), "and for good");
    let bytes = Bytes::from(vec![7; MAX_DATA + 1]);
    let out = encode(&[Frame::Data { stream: id(1), fin: true, bytes }]);
    let frames = decode(Side::Client, &out, 1 << 20).expect("frames");
    let shape = |frame: &Frame| {
        let Frame::Data { fin, bytes, .. } = frame else { panic!("{frame:?}") };
        (*fin, bytes.len())
    };
    assert_eq!(frames.iter().map(shape).collect::<Vec<_>>(), [(false, MAX_DATA), (true, 1)]);
}
