//! Values of a log entry that come from outside and may be of any length: whole, or replaced by length and digest.
//!
//! In JSON a whole value is itself; a replaced one is `{"elided":{"bytes":N,"sha256":"…"}}`, over the text's UTF-8, or
//! over the canonical JSON of a list or a map. Short fields are cut when they are made; the long ones of an entry
//! are replaced one by one, the longest first, until its line fits.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::canonical;
use crate::core::recording::Digest;

/// Most bytes a short field takes in JSON.
pub const SHORT: usize = 1024;

/// A value, or what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Bounded<T> {
    /// The value itself.
    Whole(T),
    /// It was too large.
    Elided {
        /// What is known of it.
        elided: Elided,
    },
}

/// A short text.
pub type Text = Bounded<String>;

/// What stands for a value that was too large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Elided {
    /// Its length.
    pub bytes: u64,
    /// Its digest; absent where even a digest would tell too much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// A value that can be replaced by what is known of it.
pub(super) trait Elide {
    /// How many bytes of JSON it takes; zero once it is replaced.
    fn weight(&self) -> usize;
    /// Replaces it.
    fn elide(&mut self);
}

/// What is measured and hashed of a value.
pub trait Content {
    /// Bytes of JSON.
    fn json_len(&self) -> usize;
    /// What is hashed, and whose length is told.
    fn hashed(&self) -> Vec<u8>;
}

impl Text {
    /// A short text; whole up to [`SHORT`] bytes of JSON.
    pub fn short(text: impl Into<String>) -> Self {
        let text = text.into();
        let mut bounded = Bounded::Whole(text);
        if bounded.weight() > SHORT {
            bounded.elide();
        }
        bounded
    }

    /// The text, unless it was replaced.
    pub fn as_str(&self) -> Option<&str> {
        self.whole().map(String::as_str)
    }
}

impl<T> Bounded<T> {
    /// The value, unless it was replaced.
    pub fn whole(&self) -> Option<&T> {
        match self {
            Bounded::Whole(value) => Some(value),
            Bounded::Elided { .. } => None,
        }
    }
}

impl<T: Content> Elide for Bounded<T> {
    fn weight(&self) -> usize {
        self.whole().map_or(0, Content::json_len)
    }

    fn elide(&mut self) {
        if let Bounded::Whole(value) = self {
            let bytes = value.hashed();
            let elided = Elided { bytes: bytes.len() as u64, sha256: Some(Digest::of(&bytes)) };
            *self = Bounded::Elided { elided };
        }
    }
}

impl Content for String {
    fn json_len(&self) -> usize {
        let escaped = |byte: u8| match byte {
            b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        };
        2 + self.bytes().map(escaped).sum::<usize>()
    }

    fn hashed(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }
}

impl Content for Vec<String> {
    fn json_len(&self) -> usize {
        2 + self.iter().map(|item| item.json_len() + 1).sum::<usize>()
    }

    fn hashed(&self) -> Vec<u8> {
        canonical::bytes(&serde_json::Value::from(self.clone()))
    }
}

impl Content for BTreeMap<String, Vec<String>> {
    fn json_len(&self) -> usize {
        2 + self.iter().map(|(key, value)| key.json_len() + value.json_len() + 2).sum::<usize>()
    }

    fn hashed(&self) -> Vec<u8> {
        let members = self.iter().map(|(key, value)| (key.clone(), serde_json::Value::from(value.clone())));
        canonical::bytes(&serde_json::Value::Object(members.collect()))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bounded::Whole(text) => f.write_str(text),
            Bounded::Elided { elided } => write!(f, "({} bytes, left out)", elided.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_text_is_replaced_by_its_length_and_digest() {
        assert_eq!(serde_json::to_string(&Text::short("web")).unwrap(), r#""web""#);
        let long = Text::short("x".repeat(2000));
        let digest = Digest::of("x".repeat(2000).as_bytes());
        let json = serde_json::to_string(&long).unwrap();
        assert_eq!(json, format!(r#"{{"elided":{{"bytes":2000,"sha256":"{digest}"}}}}"#));
        assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), long);
    }

    proptest! {
        #[test]
        fn no_value_takes_more_json_than_it_is_weighed(text in ".{0,200}", list in proptest::collection::vec(".{0,20}", 0..8)) {
            prop_assert!(serde_json::to_string(&text).unwrap().len() <= text.json_len());
            prop_assert!(serde_json::to_string(&list).unwrap().len() <= list.json_len());
            let map = BTreeMap::from([(text, list)]);
            prop_assert!(serde_json::to_string(&map).unwrap().len() <= map.json_len());
        }
    }
}
