//! Bytes that come in pieces, as text. A letter that is cut off at the end of a piece waits for the next one; what can
//! never be a letter becomes U+FFFD, exactly as if all bytes had come at once.

/// Decodes one stream.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a letter, at most three bytes.
    held: Vec<u8>,
}

impl Decoder {
    /// Appends the text of these bytes.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        let joined;
        let bytes = if self.held.is_empty() {
            bytes
        } else {
            joined = [std::mem::take(&mut self.held).as_slice(), bytes].concat();
            &joined
        };
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let rest = chunk.invalid();
            if chunks.peek().is_none() && is_cut_off(rest) {
                self.held = rest.to_vec();
            } else if !rest.is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// Appends what stands for a letter that was never completed.
    pub fn finish(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.held).is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// True when more bytes could make a letter of these.
fn is_cut_off(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(pieces: &[&[u8]]) -> String {
        let (mut decoder, mut out) = (Decoder::default(), String::new());
        for piece in pieces {
            decoder.push(piece, &mut out);
        }
        decoder.finish(&mut out);
        out
    }

    #[test]
    fn a_letter_cut_in_four_is_one_letter() {
        assert_eq!(decoded(&[b"a\xf0", b"\x9f", b"\x98", b"\x80b"]), "a😀b");
        assert_eq!(decoded(&[b"a\xe2\x82"]), "a\u{fffd}");
        assert_eq!(decoded(&[b"\xe2\x82", b"x"]), "\u{fffd}x");
    }

    proptest! {
        #[test]
        fn any_pieces_give_the_text_of_the_whole(
            bytes in prop::collection::vec(prop_oneof![Just(0xe2u8), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f), any::<u8>()], 0..60),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decoded(&pieces), String::from_utf8_lossy(&bytes));
        }
    }
}
