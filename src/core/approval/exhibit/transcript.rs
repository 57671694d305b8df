//! The text of an object as people are shown it, written in one pass over the text that came, without a tree.
//!
//! What is left out and what is masked is [`super::mask()`]'s and [`normal`](super::super::normal)'s to say; a test holds this
//! way to the one over trees. Members stay in the order in which they came.

use super::mask::{Follows, LAST_APPLIED, MASK, is_secret, masked_text, speaks_of_a_secret};
use crate::core::{action::Resource, approval::normal::SERVER_METADATA};
use serde::{
    Serialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Error as Problem;
use std::{borrow::Cow, fmt, ops::Range};

/// The masked text of JSON text about an object of `resource`.
pub(super) fn transcript(resource: &Resource, json: &str) -> Result<String, Problem> {
    let mut out = Vec::with_capacity(json.len());
    let mut from = serde_json::Deserializer::from_str(json);
    let place = Place::Root { is_secret: is_secret(resource) };
    Scribe { out: &mut out, place, follows: None }.deserialize(&mut from)?;
    from.end()?;
    String::from_utf8(out).map_err(Problem::custom)
}

/// Where in the object a value stands.
#[derive(Clone, Copy)]
enum Place {
    Root {
        is_secret: bool,
    },
    Metadata,
    Annotations,
    /// `data` of a Secret.
    Secret,
    /// A member whose name speaks of a secret, or one of a Secret's.
    Hidden {
        whatever: bool,
    },
    Inner,
}

/// Writes one value.
struct Scribe<'a> {
    out: &'a mut Vec<u8>,
    place: Place,
    /// In a list: whether the word before announced a secret.
    follows: Option<&'a mut Follows>,
}

/// A name of a member.
struct Name;

impl Scribe<'_> {
    fn write<E: Error>(self, value: &impl Serialize) -> Result<(), E> {
        if let Some(follows) = self.follows {
            follows.nothing();
        }
        let hidden = matches!(self.place, Place::Hidden { whatever: true } | Place::Secret);
        if hidden { put(self.out, MASK) } else { put(self.out, value) }
    }

    fn member<'de, A: MapAccess<'de>>(
        out: &mut Vec<u8>,
        name: &str,
        place: Place,
        members: &mut A,
    ) -> Result<Range<usize>, A::Error> {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        put(out, name)?;
        out.push(b':');
        let start = out.len();
        members.next_value_seed(Scribe { out, place, follows: None })?;
        Ok(start..out.len())
    }
}

impl Place {
    /// Where a member of a value stands; `None`: it is left out.
    fn of_member(self, name: &str, is_named_secret: bool) -> Option<Self> {
        match self {
            Place::Metadata if SERVER_METADATA.contains(&name) => return None,
            Place::Annotations if name == LAST_APPLIED => return None,
            Place::Secret => return Some(Place::Hidden { whatever: true }),
            Place::Root { is_secret: true } if matches!(name, "data" | "stringData") => return Some(Place::Secret),
            Place::Root { .. } if name == "metadata" => return Some(Place::Metadata),
            Place::Metadata if name == "annotations" => return Some(Place::Annotations),
            Place::Root { .. } | Place::Metadata | Place::Annotations | Place::Hidden { .. } | Place::Inner => {}
        }
        let hidden = speaks_of_a_secret(name) || (is_named_secret && name == "value");
        Some(if hidden { Place::Hidden { whatever: false } } else { Place::Inner })
    }
}

fn put<E: Error>(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
    serde_json::to_writer(out, value).map_err(E::custom)
}

impl<'de> DeserializeSeed<'de> for Scribe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scribe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        // A Secret without data has none to hide.
        let place = if matches!(self.place, Place::Secret) { Place::Inner } else { self.place };
        Scribe { place, ..self }.write(&())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let masked = match (self.place, self.follows) {
            (Place::Hidden { .. } | Place::Secret, _) => Some(MASK.to_owned()),
            (_, Some(follows)) => follows.masked(text),
            (_, None) => masked_text(text),
        };
        put(self.out, masked.as_deref().unwrap_or(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if let Some(follows) = self.follows {
            follows.nothing();
        }
        if let Place::Hidden { whatever: true } | Place::Secret = self.place {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return put(self.out, MASK);
        }
        let mut follows = Follows::default();
        self.out.push(b'[');
        let start = self.out.len();
        loop {
            let end = self.out.len();
            if end > start {
                self.out.push(b',');
            }
            let item = Scribe { out: self.out, place: Place::Inner, follows: Some(&mut follows) };
            if items.next_element_seed(item)?.is_none() {
                self.out.truncate(end);
                break;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        if let Some(follows) = self.follows {
            follows.nothing();
        }
        if let Place::Hidden { whatever: true } = self.place {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return put(self.out, MASK);
        }
        let (mut is_named_secret, mut value) = (false, None);
        self.out.push(b'{');
        while let Some(name) = members.next_key_seed(Name)? {
            let Some(place) = self.place.of_member(&name, is_named_secret) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let written = Self::member(self.out, &name, place, &mut members)?;
            match &*name {
                "value" => value = Some(written),
                "name" => is_named_secret |= names_a_secret(self.out.get(written).unwrap_or_default()),
                _ => continue,
            }
            // The value may have come before the name that speaks of it.
            if is_named_secret && let Some(range) = value.take() {
                hide(self.out, range)?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// Whether what was written is a text that speaks of a secret.
fn names_a_secret(json: &[u8]) -> bool {
    serde_json::from_slice::<String>(json).is_ok_and(|name| speaks_of_a_secret(&name))
}

/// Masks what was written, when it is a text.
fn hide<E: Error>(out: &mut Vec<u8>, written: Range<usize>) -> Result<(), E> {
    let tail = out.split_off(written.end);
    if out.get(written.start) == Some(&b'"') {
        out.truncate(written.start);
        put(out, MASK)?;
    }
    out.extend_from_slice(&tail);
    Ok(())
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::mask;
    use super::*;
    use crate::core::approval::normal;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn resource(name: &str) -> Resource {
        Resource { group: String::new(), version: "v1".into(), resource: name.into(), subresource: None }
    }

    fn by_tree(name: &str, mut object: Value) -> Value {
        normal::strip_metadata(&mut object);
        mask(&resource(name), &mut object);
        object
    }

    fn by_text(name: &str, object: &str) -> Value {
        serde_json::from_str(&transcript(&resource(name), object).unwrap()).unwrap()
    }

    #[test]
    fn a_value_is_masked_also_when_its_name_comes_after_it() {
        let text = transcript(&resource("pods"), r#"{"env":[{"value":"hunter2","x":[1],"name":"PASSWORD"}]}"#).unwrap();
        assert_eq!(text, r#"{"env":[{"value":"***","x":[1],"name":"PASSWORD"}]}"#);
    }

    #[test]
    fn what_the_api_server_keeps_and_copies_of_the_object_are_left_out() {
        let object = json!({"metadata": {"uid": "u", "managedFields": [{"a": 1}], "name": "x", "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"}}, "spec": {"uid": "kept"}});
        let shown = json!({"metadata": {"name": "x", "annotations": {"a": "b"}}, "spec": {"uid": "kept"}});
        assert_eq!(by_text("pods", &object.to_string()), shown);
    }

    /// Objects of members that matter, in any place.
    fn objects() -> impl Strategy<Value = Value> {
        let words = prop_oneof![
            Just("name"),
            Just("value"),
            Just("DB_PASSWORD"),
            Just("--token"),
            Just("--api-key=x"),
            Just("data"),
            Just("stringData"),
            Just("metadata"),
            Just("annotations"),
            Just("uid"),
            Just(LAST_APPLIED),
            Just("plain"),
            Just("postgres://u:p@h/x"),
            Just("ghp_0123456789abcdef0123"),
            Just("a PRIVATE KEY-----"),
            Just("quo\"te\n"),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            words.clone().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec((words.clone(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_text_is_masked_as_its_tree_is(object in objects(), secret in any::<bool>()) {
            let name = if secret { "secrets" } else { "pods" };
            let text = object.to_string();
            prop_assert_eq!(by_text(name, &text), by_tree(name, serde_json::from_str(&text).unwrap()));
        }
    }
}
