//! Bytes to frames and back: the protocols Kubernetes streams travel in.
//!
//! Every codec here is sans-I/O: it owns its buffer and its limits, takes bytes in any chunking and
//! gives frames. Nothing here opens a socket, reads a clock or decides anything.

pub mod channels;
pub mod handshake;
pub mod resize;
pub mod spdy;
pub mod websocket;

/// A port as Kubernetes takes it in a query or a stream's header: decimal digits, leading zeros allowed, 1 to 65535.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::{spdy, websocket};
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tunnel_carries_spdy_in_messages_that_are_cut_anywhere(
            payloads in prop::collection::vec((1u32..9, any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
            piece in 1usize..100, step in 1usize..100,
        ) {
            let frame = |(stream, fin, bytes): (u32, bool, Vec<u8>)| spdy::Frame::Data {
                stream: spdy::StreamId::new(stream).expect("a stream id"),
                fin,
                bytes: Bytes::from(bytes),
            };
            let frames: Vec<spdy::Frame> = payloads.into_iter().map(frame).collect();
            let (mut encoder, mut inner, mut outer) = (spdy::Encoder::default(), BytesMut::new(), BytesMut::new());
            frames.iter().for_each(|frame| encoder.encode(frame, &mut inner));
            let key = Some([1, 2, 3, 4]);
            inner.chunks(piece).for_each(|piece| websocket::encode(&mut outer, websocket::Opcode::Binary, key, &[piece]));
            let mut web = websocket::Decoder::new(websocket::Side::Client, piece);
            let mut decoder = spdy::Decoder::new(spdy::Side::Client, 200);
            let mut read = Vec::new();
            for chunk in outer.chunks(step) {
                web.push(chunk);
                while let Some(message) = web.next_message().expect("regular frames") {
                    let websocket::Message::Data(bytes) = message else { panic!("{message:?}") };
                    decoder.push(&bytes);
                }
                while let Some(frame) = decoder.next_frame().expect("regular frames") {
                    read.push(frame);
                }
                prop_assert!(web.buffer().len() <= piece + step + 14 && decoder.buffer().len() <= 200 + 8);
            }
            prop_assert_eq!(read, frames);
            prop_assert!(!web.is_midway() && !decoder.is_midway());
        }
    }

    #[test]
    fn a_port_is_digits_from_1_to_65535() {
        let taken = ["1", "07777", "65535"].map(super::port);
        assert_eq!(taken, [Some(1), Some(7777), Some(65535)]);
        for refused in ["", "0", "+80", "-1", " 80", "80 ", "0x50", "65536", "٨٠"] {
            assert_eq!(super::port(refused), None, "{refused}");
        }
    }
}
