//! Text as logs have it: lines that are alike and never the same. The same seed gives the same lines on every machine, so
//! that what they compress to can be compared between runs. Bytes that nothing compresses, likewise. Main function: [`fill`].

const LEVELS: [&str; 8] = ["INFO", "INFO", "INFO", "INFO", "INFO", "DEBUG", "WARN", "ERROR"];
const PARTS: [&str; 6] = ["checkout", "payment", "catalog", "gateway", "inventory", "mailer"];
const EVENTS: [&str; 8] = [
    "request served",
    "cache miss, asking the database",
    "connection to the database opened",
    "retrying after a timeout",
    "message published",
    "token refreshed",
    "queue drained",
    "slow query",
];

/// A xorshift generator: enough to make lines differ.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of(&mut self, words: &[&'static str]) -> &'static str {
        let place = self.next() as usize % words.len().max(1);
        words.get(place).copied().unwrap_or_default()
    }
}

/// Some 110 bytes of a line, with its end.
fn line(number: u64, random: &mut Random) -> String {
    let (second, milli) = (number / 40, random.next() % 1000);
    let (level, part, event) = (random.of(&LEVELS), random.of(&PARTS), random.of(&EVENTS));
    let (id, took, order) = (random.next() >> 32, random.next() % 900, random.next() % 100_000);
    format!(
        "2026-01-01T{:02}:{:02}:{:02}.{milli:03}Z {level:5} {part} {event} trace={id:08x} order={order} took={took}ms\n",
        second / 3600 % 24,
        second / 60 % 60,
        second % 60
    )
}

/// So many bytes of lines; the last may be cut.
pub(crate) fn fill(bytes: usize, seed: u64) -> Vec<u8> {
    let (mut random, mut text) = (Random::new(seed), Vec::with_capacity(bytes + 256));
    let mut number = 0;
    while text.len() < bytes {
        text.extend_from_slice(line(number, &mut random).as_bytes());
        number += 1;
    }
    text.truncate(bytes);
    text
}

/// So many bytes that nothing compresses.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(bytes).collect()
}
