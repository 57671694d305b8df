//! The bytes of one stream on their way to a terminal: sanitised, with line ends a terminal understands, as whole letters.

use super::export::utf8::Decoder;
use super::sanitize::Sanitizer;

/// One stream.
#[derive(Debug)]
pub struct Pane {
    sanitizer: Option<Sanitizer>,
    /// LF becomes CR LF unless a CR was before it.
    lines: bool,
    previous: u8,
    decoder: Decoder,
}

impl Pane {
    /// For a stream of a terminal, or of none (then LF becomes CR LF). `raw` leaves control sequences as they were.
    pub fn new(tty: bool, raw: bool) -> Self {
        Pane { sanitizer: (!raw).then(Sanitizer::default), lines: !tty, previous: 0, decoder: Decoder::default() }
    }

    /// What these bytes show; a letter or sequence that is not complete yet is held back.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut clean = Vec::with_capacity(bytes.len());
        match &mut self.sanitizer {
            Some(sanitizer) => sanitizer.push(bytes, &mut clean),
            None => clean.extend_from_slice(bytes),
        }
        let mut text = String::with_capacity(clean.len());
        if !self.lines {
            self.decoder.push(&clean, &mut text);
            return text;
        }
        let mut ended = Vec::with_capacity(clean.len());
        for byte in clean {
            if byte == b'\n' && self.previous != b'\r' {
                ended.push(b'\r');
            }
            ended.push(byte);
            self.previous = byte;
        }
        self.decoder.push(&ended, &mut text);
        text
    }

    /// What stands for a letter that was never completed.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.decoder.finish(&mut text);
        text
    }
}
