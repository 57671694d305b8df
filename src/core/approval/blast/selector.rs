//! Label selectors, as far as telling who is selected: `matchLabels`, `matchExpressions`, plain maps, and the
//! `a=b,c=d` text of a Scale.

use serde_json::Value;

/// A label selector.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Selector {
    equal: Vec<(String, String)>,
    expressions: Vec<Value>,
}

impl Selector {
    /// A LabelSelector; an empty one takes everything.
    pub(super) fn of(selector: &Value) -> Self {
        let expressions = selector.get("matchExpressions").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_map = selector.get("matchLabels").is_none() && expressions.is_empty();
        // A ReplicationController has the plain map.
        let map = if is_map { Some(selector) } else { selector.get("matchLabels") };
        Self { equal: pairs(map), expressions }
    }

    /// The plain map of a Service; without one it selects nothing.
    pub(super) fn of_map(map: Option<&Value>) -> Option<Self> {
        let equal = pairs(map);
        (!equal.is_empty()).then_some(Self { equal, expressions: Vec::new() })
    }

    /// `a=b,c=d`; anything else is not understood.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let plain = |key: &str| !key.is_empty() && !key.contains(['!', ' ', '(']);
        let pair = |part: &str| {
            let (key, value) = part.split_once('=')?;
            plain(key).then(|| (key.to_owned(), value.trim_start_matches('=').to_owned()))
        };
        let equal: Option<Vec<_>> = text.split(',').map(pair).collect();
        Some(Self { equal: equal?, expressions: Vec::new() })
    }

    pub(super) fn takes(&self, labels: &Value) -> bool {
        let value = |key: &str| labels.get(key).and_then(Value::as_str);
        self.equal.iter().all(|(key, wanted)| value(key) == Some(wanted))
            && self.expressions.iter().all(|expression| holds(expression, &value))
    }
}

fn holds<'a>(expression: &Value, value: &impl Fn(&str) -> Option<&'a str>) -> bool {
    let Some(key) = expression.get("key").and_then(Value::as_str) else { return false };
    let values = expression.get("values").and_then(Value::as_array);
    let is_listed =
        || value(key).is_some_and(|label| values.into_iter().flatten().any(|one| one.as_str() == Some(label)));
    match expression.get("operator").and_then(Value::as_str) {
        Some("In") => is_listed(),
        Some("NotIn") => !is_listed(),
        Some("Exists") => value(key).is_some(),
        Some("DoesNotExist") => value(key).is_none(),
        Some(_) | None => false,
    }
}

fn pairs(map: Option<&Value>) -> Vec<(String, String)> {
    let members = map.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
