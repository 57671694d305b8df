//! Terminal sizes on the resize channel: a stream of JSON objects `{"Width":80,"Height":24}`.
//!
//! Objects may be split across messages or follow each other in one, and Go reads their keys in any letter case. Two
//! readers of JSON need not agree on everything (members twice, letters that are none), and a size is something the
//! process sees. So a size is what this reader made of it: it is recorded and goes on written anew, by [`Size::to_json`],
//! and what is not read goes nowhere. After what is no JSON, or no end within [`LIMIT`] bytes, nothing is read any more;
//! the API server stops there, too.

use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// The most bytes kept while waiting for the end of an object.
pub const LIMIT: usize = 4096;

/// A terminal size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl Size {
    /// The size as kubectl writes it.
    #[must_use]
    pub fn to_json(self) -> String {
        format!(r#"{{"Width":{},"Height":{}}}"#, self.cols, self.rows)
    }
}

/// Collects pieces and gives the sizes in them.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    lost: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Number(u16),
    Other(IgnoredAny),
}

impl Reader {
    /// Takes a piece and gives the sizes completed by it.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Size> {
        let mut sizes = Vec::new();
        for part in piece.chunks(LIMIT) {
            self.take(part, &mut sizes);
        }
        sizes
    }

    /// Whether something could not be read, and so nothing more is.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    fn take(&mut self, part: &[u8], sizes: &mut Vec<Size>) {
        if self.lost {
            return;
        }
        self.buffer.extend_from_slice(part);
        let mut objects = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<BTreeMap<String, Field>>();
        let mut used = 0;
        let broken = loop {
            let next = objects.next();
            let end = objects.byte_offset();
            match next {
                // As it would be had it come in pieces.
                Some(Ok(_)) if end - used > LIMIT => break true,
                Some(Ok(fields)) => sizes.extend(size(&fields)),
                Some(Err(error)) => break !error.is_eof(),
                None => break false,
            }
            used = end;
        };
        self.buffer.drain(..used.min(self.buffer.len()));
        if broken || self.buffer.len() > LIMIT {
            self.lost = true;
            self.buffer = Vec::new();
        }
    }
}

fn size(fields: &BTreeMap<String, Field>) -> Option<Size> {
    let number = |name: &str| {
        fields.iter().find_map(|(key, value)| match value {
            Field::Number(number) if key.eq_ignore_ascii_case(name) => Some(*number),
            Field::Number(_) | Field::Other(_) => None,
        })
    };
    Some(Size { cols: number("width")?, rows: number("height")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn objects_are_read_when_split_and_when_joined() {
        let mut reader = Reader::default();
        assert_eq!(reader.push(b"{\"Width\":80,\"Hei"), []);
        assert_eq!(
            reader.push(b"ght\":24}\n{\"height\":50,\"WIDTH\":132}\n{"),
            [Size { cols: 80, rows: 24 }, Size { cols: 132, rows: 50 }]
        );
        assert_eq!(reader.push(b"\"Width\":1,\"Height\":2}"), [Size { cols: 1, rows: 2 }]);
    }

    #[test]
    fn rubbish_is_given_up_on() {
        let mut reader = Reader::default();
        assert_eq!(reader.push(b"]]]"), []);
        assert_eq!(reader.push(b"{\"Width\":80,\"Height\":24}"), []);
        let mut reader = Reader::default();
        assert_eq!(reader.push(&[b'['; 2 * LIMIT]), []);
        assert!(reader.buffer.is_empty());
    }

    #[test]
    fn an_object_without_both_numbers_is_no_size() {
        let mut reader = Reader::default();
        assert_eq!(reader.push(b"{\"Width\":80}{\"Width\":99999,\"Height\":1}"), []);
        assert_eq!(reader.push(b"{\"Width\":1,\"Height\":2}"), [Size { cols: 1, rows: 2 }]);
    }

    fn size() -> impl Strategy<Value = Size> {
        any::<(u16, u16)>().prop_map(|(cols, rows)| Size { cols, rows })
    }

    proptest! {
        #[test]
        fn sizes_that_are_written_are_read_back_in_any_chunking(sizes in vec(size(), 0..20), step in 1usize..60) {
            let text: String = sizes.iter().map(|size| size.to_json()).collect();
            let mut reader = Reader::default();
            let read: Vec<Size> = text.as_bytes().chunks(step).flat_map(|piece| reader.push(piece)).collect();
            prop_assert_eq!(read, sizes);
        }

        #[test]
        fn any_bytes_give_the_same_in_any_chunking_and_are_not_kept(
            parts in vec(prop_oneof![
                Just(b"{\"Width\":80,\"Height\":24}".to_vec()),
                Just(b"{\"x\":[\"".to_vec()),
                Just(b"\"]}".to_vec()),
                (0usize..2 * LIMIT).prop_map(|length| vec![b' '; length]),
                vec(any::<u8>(), 0..4),
            ], 0..12),
            step in 1usize..5000,
        ) {
            let bytes = parts.concat();
            let mut whole = Reader::default();
            let sizes = whole.push(&bytes);
            let mut pieces = Reader::default();
            let read: Vec<Size> = bytes.chunks(step).flat_map(|piece| pieces.push(piece)).collect();
            prop_assert_eq!(read, sizes);
            prop_assert_eq!(whole.is_lost(), pieces.is_lost());
            prop_assert!(whole.buffer.len() <= LIMIT && whole.buffer.capacity() <= 4 * LIMIT);
        }
    }
}
