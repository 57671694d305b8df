//! Writes frames in their one canonical form: no flag without meaning, priority 0, header blocks stored.

use super::{FIN, Frame, Headers, MAX_DATA, StreamId, Type};
use bytes::{BufMut, BytesMut};

const VERSION: u16 = 0x8003;

/// Writes the frames of one direction.
#[derive(Debug, Default)]
pub struct Encoder {
    /// A header block was written, so the zlib stream has its head.
    begun: bool,
}

impl Encoder {
    /// Appends a frame. Data longer than a frame can hold becomes several.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                self.block((Type::SynStream, *fin), (*stream, &[0; 6]), headers, out);
            }
            Frame::SynReply { stream, fin, headers } => {
                self.block((Type::SynReply, *fin), (*stream, &[]), headers, out);
            }
            Frame::Headers { stream, fin, headers } => {
                self.block((Type::Headers, *fin), (*stream, &[]), headers, out);
            }
            Frame::RstStream { stream, status } => words(Type::RstStream, &[stream.get(), status.number()], out),
            Frame::Settings(settings) => {
                let count = u32::try_from(settings.len()).unwrap_or(u32::MAX);
                let pairs = settings.iter().flat_map(|(id, value)| [*id, *value]);
                words(Type::Settings, &std::iter::once(count).chain(pairs).collect::<Vec<_>>(), out);
            }
            Frame::Ping(id) => words(Type::Ping, &[*id], out),
            Frame::GoAway { last, status } => words(Type::GoAway, &[*last, *status], out),
            Frame::WindowUpdate { stream, delta } => words(Type::WindowUpdate, &[*stream, *delta], out),
            Frame::Data { stream, fin, bytes } => data(*stream, *fin, bytes, out),
        }
    }

    fn block(
        &mut self,
        (kind, fin): (Type, bool),
        (stream, more): (StreamId, &[u8]),
        headers: &Headers,
        out: &mut BytesMut,
    ) {
        let mut payload = BytesMut::new();
        payload.put_u32(stream.get());
        payload.extend_from_slice(more);
        headers.write(!self.begun, &mut payload);
        self.begun = true;
        head(kind, u8::from(fin) * FIN, payload.len(), out);
        out.extend_from_slice(&payload);
    }
}

fn data(stream: StreamId, fin: bool, bytes: &[u8], out: &mut BytesMut) {
    let mut rest = bytes;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(MAX_DATA));
        rest = after;
        out.reserve(super::HEAD + piece.len());
        out.put_u32(stream.get());
        out.put_u8(if fin && rest.is_empty() { FIN } else { 0 });
        out.put_uint(piece.len() as u64, 3);
        out.extend_from_slice(piece);
        if rest.is_empty() {
            return;
        }
    }
}

fn words(kind: Type, words: &[u32], out: &mut BytesMut) {
    head(kind, 0, 4 * words.len(), out);
    words.iter().for_each(|word| out.put_u32(*word));
}

fn head(kind: Type, flags: u8, length: usize, out: &mut BytesMut) {
    out.put_u16(VERSION);
    out.put_u16(kind.number());
    out.put_u8(flags);
    out.put_uint(length as u64, 3);
}
