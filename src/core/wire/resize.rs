//! Terminal sizes on the resize channel: a stream of JSON objects `{"Width":80,"Height":24}`.
//!
//! Objects may be split across messages or follow each other in one, and Go reads their keys in any
//! letter case. This reader only tells the recorder what sizes went by; the bytes themselves are
//! passed on untouched. Anything it cannot read within [`LIMIT`] bytes is given up on quietly.

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
        if self.lost {
            return Vec::new();
        }
        self.buffer.extend_from_slice(piece);
        let mut objects = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<BTreeMap<String, Field>>();
        let mut sizes = Vec::new();
        let mut used = 0;
        let broken = loop {
            match objects.next() {
                Some(Ok(fields)) => sizes.extend(size(&fields)),
                Some(Err(error)) => break !error.is_eof(),
                None => break false,
            }
            used = objects.byte_offset();
        };
        self.buffer.drain(..used.min(self.buffer.len()));
        if broken || self.buffer.len() > LIMIT {
            self.lost = true;
            self.buffer = Vec::new();
        }
        sizes
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
}
