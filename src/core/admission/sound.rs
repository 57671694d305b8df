//! What no reader may understand differently from another: the objects of an agent's review, checked before anything
//! is decided about them.
//!
//! Some parsers take the first of two equal members and some the last, large numbers lose digits, deep nesting ends
//! where a parser says so. The API server writes objects anew before it sends them, so none of this can come from it;
//! whatever has it is refused. The text is JSON already ([`serde_json::value::RawValue`]).

use memchr::memchr2;
use std::borrow::Cow;

/// Deepest nesting; parsers of the JSON of one object end at 128.
pub const MAX_DEPTH: usize = 100;

/// Why an object is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// Not there, or null.
    #[error("it is missing")]
    Missing,
    /// Nested too deep.
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Two members of one name.
    #[error("it has a member twice")]
    Twice,
    /// Half of a character, which not every reader takes.
    #[error("it has a text that is no Unicode")]
    Text,
    /// A number that not every reader can hold.
    #[error("it has a number that neither 64-bit integers nor floating point can hold")]
    Number,
}

/// A list or an object that is not closed yet.
struct Open {
    is_object: bool,
    /// The next string is a member's name.
    names: bool,
    /// Where its names begin.
    first: usize,
}

/// Checks JSON text.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(json: &str) -> Result<(), Unsound> {
    let bytes = json.as_bytes();
    let mut open: Vec<Open> = Vec::new();
    let mut names: Vec<Cow<'_, [u8]>> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                let is_object = *byte == b'{';
                open.push(Open { is_object, names: is_object, first: names.len() });
                if open.len() > MAX_DEPTH {
                    return Err(Unsound::TooDeep);
                }
            }
            b'}' | b']' => {
                let first = open.pop().map_or(0, |closed| closed.first);
                if has_twins(names.get_mut(first..).unwrap_or_default()) {
                    return Err(Unsound::Twice);
                }
                names.truncate(first);
            }
            b',' => {
                if let Some(open) = open.last_mut() {
                    open.names = open.is_object;
                }
            }
            b'"' => {
                let length = string_length(bytes.get(at..).unwrap_or_default());
                let text = bytes.get(at..at.saturating_add(length)).unwrap_or_default();
                at = at.saturating_add(length).saturating_add(1);
                check_text(text)?;
                if let Some(open) = open.last_mut()
                    && open.names
                {
                    open.names = false;
                    names.push(name(text));
                }
            }
            b'-' | b'0'..=b'9' => {
                let rest = bytes.get(at - 1..).unwrap_or_default();
                let length = rest.iter().position(|byte| b",}] \t\r\n".contains(byte)).unwrap_or(rest.len());
                check_number(rest.get(..length).unwrap_or_default())?;
                at = (at - 1).saturating_add(length);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bytes up to the closing quotation mark.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        match memchr2(b'"', b'\\', rest).map(|found| (found, rest.get(found))) {
            Some((found, Some(b'\\'))) => at += found + 2,
            Some((found, _)) => return at + found,
            None => return text.len().max(at),
        }
    }
}

/// The text of a member of an object, found without reading what comes after it; of several of that name the first.
/// The text must be JSON; a name is found as it is spelled.
#[must_use]
pub fn member<'a>(json: &'a str, wanted: &str) -> Option<&'a str> {
    let bytes = json.as_bytes();
    if !json.trim_start().starts_with('{') {
        return None;
    }
    let (mut at, mut depth, mut names, mut begun) = (0, 0_usize, false, None);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                names = depth == 1;
            }
            b'}' | b']' | b',' if depth == 1 => match begun {
                Some(begun) => {
                    return json.get(begun..at - 1).map(|text| text.trim_start().trim_start_matches(':').trim());
                }
                None => names = true,
            },
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let length = string_length(bytes.get(at..).unwrap_or_default());
                let text = bytes.get(at..at.saturating_add(length)).unwrap_or_default();
                at = at.saturating_add(length).saturating_add(1);
                if names && text == wanted.as_bytes() {
                    begun = Some(at);
                }
                names = false;
            }
            _ => {}
        }
    }
    None
}

/// Halves of characters are written as escapes, and some readers replace those that stand alone.
fn check_text(text: &[u8]) -> Result<(), Unsound> {
    let has_halves = text.contains(&b'\\') && text.windows(3).any(|part| matches!(part, [b'\\', b'u', b'd' | b'D']));
    if has_halves { unescaped(text).map(drop).ok_or(Unsound::Text) } else { Ok(()) }
}

fn unescaped(text: &[u8]) -> Option<String> {
    serde_json::from_slice(&[b"\"", text, b"\""].concat()).ok()
}

/// A name as it reads: two spellings of one name are one name.
fn name(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    unescaped(text).map_or(Cow::Borrowed(text), |name| Cow::Owned(name.into_bytes()))
}

fn has_twins(names: &mut [Cow<'_, [u8]>]) -> bool {
    names.sort_unstable();
    names.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
}

fn check_number(text: &[u8]) -> Result<(), Unsound> {
    // So many digits fit into anything.
    let is_short = text.len() <= 15 && !text.iter().any(|byte| matches!(byte, b'e' | b'E'));
    if is_short {
        return Ok(());
    }
    let text = std::str::from_utf8(text).map_err(|_| Unsound::Number)?;
    let is_integer = !text.contains(['.', 'e', 'E']);
    let fits = if is_integer { text.parse::<i64>().is_ok() } else { text.parse::<f64>().is_ok_and(f64::is_finite) };
    if fits { Ok(()) } else { Err(Unsound::Number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_objects_are_sound() {
        for json in [
            "null",
            "{}",
            r#"{"a":{"a":[{"a":1},{"a":"a"}]},"b":-0.5e3,"c":9223372036854775807,"d":"\"a\":1,\"a\":2","e":[1,2,2]}"#,
            r#" { "a" : [ 1 , 2 ] , "b" : "x" } "#,
        ] {
            assert_eq!(check(json), Ok(()), "{json}");
        }
    }

    #[test]
    fn what_readers_disagree_about_is_not() {
        for (json, why) in [
            (r#"{"a":1,"b":2,"a":3}"#, Unsound::Twice),
            (r#"{"x":[{"a":1,"\u0061":3}]}"#, Unsound::Twice),
            (r#"{"a":9223372036854775808}"#, Unsound::Number),
            (r#"{"a":[1e999]}"#, Unsound::Number),
            (r#"{"a":-99999999999999999999}"#, Unsound::Number),
            (r#"{"a":"\ud800"}"#, Unsound::Text),
            (r#"{"\ud83d":1}"#, Unsound::Text),
        ] {
            assert_eq!(check(json), Err(why), "{json}");
        }
        assert_eq!(check(&"[".repeat(MAX_DEPTH + 1)), Err(Unsound::TooDeep));
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(check(&deep), Ok(()));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            ".{0,8}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn a_member_is_found_where_it_stands_and_nowhere_else() {
        for (json, found) in [
            (r#"{"metadata":{"a":"}"}}"#, Some(r#"{"a":"}"}"#)),
            (r#" { "a" : [ {"metadata":1} ], "metadata" : null , "z":1}"#, Some("null")),
            (r#"{"a":"metadata","b":{"metadata":1}}"#, None),
            (r#"[{"metadata":1}]"#, None),
            ("null", None),
        ] {
            assert_eq!(member(json, "metadata"), found, "{json}");
        }
    }

    proptest! {
        #[test]
        fn a_member_is_what_a_parser_says_it_is(value in json(), name in "[a-c]?") {
            let text = value.to_string();
            prop_assert_eq!(member(&text, &name).map(str::to_owned), value.get(&name).map(ToString::to_string));
        }

        #[test]
        fn whatever_a_serialiser_writes_is_sound(value in json()) {
            prop_assert_eq!(check(&value.to_string()), Ok(()));
            prop_assert_eq!(check(&serde_json::to_string_pretty(&value).unwrap()), Ok(()));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            drop(check(&text));
            prop_assert!(member(&text, "a").is_none_or(|found| found.len() < text.len()));
        }

        #[test]
        fn text_of_json_letters_never_panics(text in "[\\[\\]{}\":,0-9e\\\\ -]{0,60}") {
            drop(check(&text));
        }
    }
}
