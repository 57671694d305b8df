//! Makes new inputs of old ones: bytes flipped, cut, repeated and spliced; where an input is JSON, members and values
//! exchanged for others of the corpus and for extreme ones. What it made is not kept: every input is a few steps from
//! something real.

use serde_json::Value;

/// Values at the edges of what readers expect.
const EXTREME: [&str; 22] = [
    "null",
    "true",
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "1e308",
    "1e-400",
    "\"\"",
    "\"\\u0000\"",
    "\"*\"",
    "\"a/b\"",
    "\"~1\"",
    "\"\u{202e}\u{1F600}\"",
    "[]",
    "{}",
    "[null]",
    "{\"\":null}",
    "{\"metadata\":{}}",
    "\"system:serviceaccount:agents:bot\"",
    "\"2026-11-21T00:00:00Z\"",
];

/// Makes inputs, the same ones for the same seed.
pub(crate) struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
    values: Vec<Value>,
}

impl Mutator {
    pub(crate) fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        let mut values: Vec<Value> = EXTREME.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
        let parsed: Vec<Value> = corpus.iter().filter_map(|input| serde_json::from_slice(input).ok()).collect();
        parsed.iter().for_each(|value| gather(value, &mut values));
        Mutator { state: seed | 1, corpus, values }
    }

    /// The next input.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        let mut input = self.corpus[at].clone();
        let mut is_new = false;
        if self.below(3) > 0
            && let Ok(mut value) = serde_json::from_slice::<Value>(&input)
        {
            is_new = true;
            for _ in 0..=self.below(4) {
                self.reshape(&mut value);
            }
            input = value.to_string().into_bytes();
        }
        if !is_new || self.below(3) == 0 {
            for _ in 0..=self.below(6) {
                self.scratch(&mut input);
            }
        }
        input
    }

    /// xorshift64*: the same everywhere.
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random() % (end.max(1) as u64)).unwrap_or(0)
    }

    /// Changes one value somewhere in a tree.
    fn reshape(&mut self, value: &mut Value) {
        let deeper = self.below(8) > 0;
        match value {
            Value::Object(members) if deeper && !members.is_empty() => {
                let at = self.below(members.len());
                let key = members.keys().nth(at).cloned().unwrap_or_default();
                match self.below(8) {
                    0 => drop(members.remove(&key)),
                    1 => {
                        let fresh = self.value();
                        members.insert(format!("{key}x"), fresh);
                    }
                    _ => members.get_mut(&key).into_iter().for_each(|member| self.reshape(member)),
                }
            }
            Value::Array(items) if deeper && !items.is_empty() => {
                let at = self.below(items.len());
                match self.below(8) {
                    0 => drop(items.remove(at)),
                    1 => items.extend_from_within(at..),
                    _ => self.reshape(&mut items[at]),
                }
            }
            Value::String(text) if deeper && !text.is_empty() => {
                let mut bytes = text.clone().into_bytes();
                self.scratch(&mut bytes);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                *value = self.value();
            }
        }
    }

    fn value(&mut self) -> Value {
        let at = self.below(self.values.len());
        let value = self.values[at].clone();
        match self.below(24) {
            0 => (0..self.below(200)).fold(value, |inner, _| Value::Array(vec![inner])),
            1 => Value::String("x".repeat(self.below(70_000))),
            _ => value,
        }
    }

    /// Changes some bytes.
    fn scratch(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => {
                let other = self.below(self.corpus.len());
                let from = self.below(self.corpus[other].len());
                let length = self.below(64);
                let piece: Vec<u8> = self.corpus[other].iter().skip(from).take(length).copied().collect();
                drop(bytes.splice(at..at, piece));
            }
            4 => {
                let letters = b"{}[]\",:\\.()*/-+!&|<>='0129eE \n\0\xff\xc0";
                let letter = letters[self.below(letters.len())];
                bytes.insert(at, letter);
            }
            _ => {
                let flip = 1 << self.below(8);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= flip);
            }
        }
    }
}

/// Every value in a tree that is not large.
fn gather(value: &Value, into: &mut Vec<Value>) {
    if into.len() < 4_000 && value.to_string().len() < 400 {
        into.push(value.clone());
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, into)),
        Value::Object(members) => members.values().for_each(|member| gather(member, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
