//! Field paths, and finding what lies at one in a raw object.
//!
//! A [`Path`] is read from text such as `spec.containers[*].image`. [`Path::find`] walks the JSON of an object and
//! keeps nothing but what lies at the path: no tree is built of the rest. A member that is there twice is an error,
//! because two readers could see different values.

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, value::RawValue};
use std::fmt;

/// Most steps of a path.
const STEPS: usize = 24;

/// A path of members, and of all elements of lists or maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Each,
}

/// What lies at a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// Nothing, or null.
    Absent,
    /// A value.
    One(Value),
    /// What lies at the rest of the path in each element, with the element's key or name.
    Each(Vec<(Option<String>, Found)>),
}

impl Path {
    /// Reads `spec.a[*].b`, `metadata.labels['example.org/c']`, `data.*`.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (step, after) = if let Some(after) = rest.strip_prefix("[*]") {
                (Step::Each, after)
            } else if let Some(after) = rest.strip_prefix("['") {
                let (member, after) = after.split_once("']").ok_or("has a [' without ']")?;
                (Step::Member(member.to_owned()), after)
            } else {
                let after = if steps.is_empty() { rest } else { rest.strip_prefix('.').ok_or("lacks a dot")? };
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (word, after) = after.split_at(end);
                (if word == "*" { Step::Each } else { Step::Member(word.to_owned()) }, after)
            };
            if matches!(&step, Step::Member(member) if member.is_empty() || member.contains('*')) {
                return Err("has an empty member, or a * within one");
            }
            steps.push(step);
            rest = after;
        }
        match steps.first() {
            Some(Step::Member(_)) if steps.len() <= STEPS => Ok(Self(steps)),
            Some(Step::Member(_)) => Err("is too long"),
            Some(Step::Each) | None => Err("does not begin with a member"),
        }
    }

    /// Its steps: a member, or `None` for each element.
    pub(super) fn steps(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter().map(|step| match step {
            Step::Member(member) => Some(member.as_str()),
            Step::Each => None,
        })
    }

    /// What lies at the path in `object`.
    pub(super) fn find(&self, object: Option<&RawValue>) -> Result<Found, serde_json::Error> {
        let Some(raw) = object else { return Ok(Found::Absent) };
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        Seek(&self.0).deserialize(&mut deserializer)
    }
}

impl Found {
    /// The value; `None` when absent.
    pub(super) fn value(&self) -> Option<&Value> {
        match self {
            Self::One(value) => Some(value),
            Self::Absent | Self::Each(_) => None,
        }
    }
}

/// Reads a value for what lies at the rest of a path in it.
#[derive(Clone, Copy)]
struct Seek<'p>(&'p [Step]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        if self.0.is_empty() {
            let value = <Value as serde::Deserialize>::deserialize(deserializer)?;
            return Ok(if value.is_null() { Found::Absent } else { Found::One(value) });
        }
        deserializer.deserialize_any(Level { path: self.0, named: false }).map(|(_, found)| found)
    }
}

/// Reads an element of a list: its name beside what lies in it.
struct Element<'p>(&'p [Step]);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = (Option<String>, Found);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            let value = <Value as serde::Deserialize>::deserialize(deserializer)?;
            let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
            return Ok((name, Found::One(value)));
        }
        deserializer.deserialize_any(Level { path: self.0, named: true })
    }
}

/// One level of a non-empty path.
struct Level<'p> {
    path: &'p [Step],
    /// Whether the name of this level is wanted.
    named: bool,
}

type Named = (Option<String>, Found);

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
        let Some((step, rest)) = self.path.split_first() else { return Ok((None, Found::Absent)) };
        let Step::Member(wanted) = step else {
            let mut items: Vec<Named> = Vec::new();
            while let Some(key) = map.next_key::<String>()? {
                items.push((Some(key), map.next_value_seed(Seek(rest))?));
            }
            return Ok((None, Found::Each(items)));
        };
        let (mut name, mut found) = (None, None);
        while let Some(key) = map.next_key_seed(KeyOf { wanted, named: self.named })? {
            match key {
                Key::Wanted if found.is_some() => return Err(A::Error::custom("a member is there twice")),
                Key::Wanted => {
                    let value = map.next_value_seed(Seek(rest))?;
                    if wanted == "name" {
                        name = value.value().and_then(Value::as_str).map(str::to_owned);
                    }
                    found = Some(value);
                }
                Key::Name => name = map.next_value::<Value>()?.as_str().map(str::to_owned),
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok((name, found.unwrap_or(Found::Absent)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Named, A::Error> {
        match self.path.split_first() {
            Some((Step::Each, rest)) => {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element_seed(Element(rest))? {
                    items.push(item);
                }
                Ok((None, Found::Each(items)))
            }
            Some((Step::Member(_), _)) | None => {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok((None, Found::Absent))
            }
        }
    }

    fn visit_unit<E>(self) -> Result<Named, E> {
        Ok((None, Found::Absent))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Named, E> {
        Ok((None, Found::Absent))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Named, E> {
        Ok((None, Found::Absent))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Named, E> {
        Ok((None, Found::Absent))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Named, E> {
        Ok((None, Found::Absent))
    }

    fn visit_str<E>(self, _: &str) -> Result<Named, E> {
        Ok((None, Found::Absent))
    }
}

enum Key {
    Wanted,
    Name,
    Other,
}

/// Compares a key without keeping it.
struct KeyOf<'a> {
    wanted: &'a str,
    named: bool,
}

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            _ if key == self.wanted => Key::Wanted,
            "name" if self.named => Key::Name,
            _ => Key::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{json, value::to_raw_value};

    fn find(path: &str, object: &Value) -> Found {
        Path::parse(path).unwrap().find(Some(&to_raw_value(object).unwrap())).unwrap()
    }

    #[test]
    fn a_path_finds_members_elements_and_quoted_keys() {
        let pod = json!({"metadata": {"labels": {"a.b/c": "x"}},
            "spec": {"containers": [{"image": "i", "name": "c", "x": {"y": 1}}, {"name": "d"}], "list": [1, [2]]}});
        assert_eq!(find("metadata.labels['a.b/c']", &pod), Found::One(json!("x")));
        assert_eq!(
            find("spec.containers[*].x.y", &pod),
            Found::Each(vec![(Some("c".into()), Found::One(json!(1))), (Some("d".into()), Found::Absent)])
        );
        assert_eq!(
            find("spec.containers[*].name", &pod),
            Found::Each(vec![(Some("c".into()), Found::One(json!("c"))), (Some("d".into()), Found::One(json!("d")))])
        );
        assert_eq!(find("metadata.labels.*", &pod), Found::Each(vec![(Some("a.b/c".into()), Found::One(json!("x")))]));
        for absent in ["spec.nothing", "spec.list.x", "metadata.labels.a.b", "kind"] {
            assert_eq!(find(absent, &pod), Found::Absent, "{absent}");
        }
    }

    #[test]
    fn a_member_that_is_there_twice_is_no_answer() {
        let raw = RawValue::from_string(r#"{"spec":{"a":1,"a":2},"b":1,"b":2}"#.to_owned()).unwrap();
        assert!(Path::parse("spec.a").unwrap().find(Some(&raw)).is_err());
        assert_eq!(Path::parse("spec.c").unwrap().find(Some(&raw)).unwrap(), Found::Absent);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", ".a", "a..b", "a.", "[*]", "a[0]", "a['b", "a[*]b", "a.b*", "*"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert!(Path::parse(&vec!["a"; 25].join(".")).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,64}") {
            drop(Path::parse(&text));
        }

        #[test]
        fn what_is_found_is_what_a_tree_would_give(keys in proptest::collection::vec("[a-d]", 1..5), depth in 1usize..4) {
            let mut value = json!({"end": keys.len()});
            for key in &keys {
                value = json!({ key.as_str(): value, "other": [1, {"a": 2}] });
            }
            let path: Vec<&str> = keys.iter().rev().take(depth).map(String::as_str).collect();
            let expected = path.iter().fold(&value, |value, key| &value[*key]);
            prop_assert_eq!(find(&path.join("."), &value), Found::One(expected.clone()));
        }
    }
}
