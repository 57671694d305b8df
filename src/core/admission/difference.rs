//! What differs between an object as it should be and as the cluster has it: the first place, in words.
//!
//! Whatever the wanted object does not speak of is left to the API server's defaults, except where a default
//! member could take something out of the gate: a webhook's selectors.

use serde_json::{Map, Value};

/// Where `actual` is not what `wanted` asks for; `None`: nowhere.
#[must_use]
pub fn difference(actual: &Value, wanted: &Value) -> Option<String> {
    first(actual, wanted, &mut String::new())
}

/// The same for webhook configurations: none beside the wanted ones, and no selector.
#[must_use]
pub fn difference_of_webhooks(actual: &Value, wanted: &Value) -> Option<String> {
    let hooks = |value: &Value| value.get("webhooks").and_then(Value::as_array).cloned().unwrap_or_default();
    let (actual, wanted) = (hooks(actual), hooks(wanted));
    if actual.len() != wanted.len() {
        return Some(format!("there are {} webhooks instead of {}", actual.len(), wanted.len()));
    }
    actual.iter().zip(&wanted).find_map(|(actual, wanted)| {
        let name = wanted.get("name").and_then(Value::as_str).unwrap_or_default();
        let found = difference(actual, wanted).or_else(|| selector(actual).map(|one| format!("{one} is not empty")));
        found.map(|found| format!("{name}: {found}"))
    })
}

/// A selector would take objects out of the gate that no rule says are out.
fn selector(webhook: &Value) -> Option<&'static str> {
    ["namespaceSelector", "objectSelector"].into_iter().find(|selector| match webhook.get(selector) {
        None | Some(Value::Null) => false,
        Some(value) => !value.as_object().is_some_and(Map::is_empty),
    })
}

fn first(actual: &Value, wanted: &Value, path: &mut String) -> Option<String> {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            below(path, key, |path| match actual.get(key) {
                Some(actual) => first(actual, wanted, path),
                None if is_nothing(wanted) => None,
                None => Some(format!("{path} is missing")),
            })
        }),
        (Value::Array(actual), Value::Array(wanted)) if actual.len() == wanted.len() => {
            let mut pairs = actual.iter().zip(wanted).enumerate();
            pairs.find_map(|(at, (actual, wanted))| below(path, &at.to_string(), |path| first(actual, wanted, path)))
        }
        (actual, wanted) if actual == wanted => None,
        (_, _) => Some(format!("{path} differs")),
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn below<T>(path: &mut String, step: &str, look: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(step);
    let found = look(path);
    path.truncate(length);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_place_is_named_and_defaults_are_no_difference() {
        let wanted = json!({"a": [{"b": 1, "c": {}}], "d": "e"});
        assert_eq!(difference(&json!({"a": [{"b": 1, "x": 2}], "d": "e", "f": 1}), &wanted), None);
        assert_eq!(difference(&json!({"a": [{"b": 2}], "d": "e"}), &wanted).as_deref(), Some("a.0.b differs"));
        assert_eq!(difference(&json!({"a": [{"b": 1}]}), &wanted).as_deref(), Some("d is missing"));
        assert_eq!(difference(&json!({"a": [], "d": "e"}), &wanted).as_deref(), Some("a differs"));
    }
}
