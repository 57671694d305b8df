//! What an approver is shown: the object that would go, and what an update would change.
//!
//! A copy for people, never what is hashed: secrets are masked (`mask`), what the API server keeps for itself
//! is left out, and the whole is capped, so that an ApprovalRequest stays small. What hangs on the object is
//! [`super::blast`]'s business.

mod mask;
mod transcript;

use super::normal;
use super::normal::Error;
use crate::core::{
    action::{Action, Operation, Resource},
    admission::review::Request,
};
use mask::mask;
pub use mask::{MASK, is_secret, mask_text, mask_words};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use std::fmt;
use transcript::transcript;

/// Largest object shown, in bytes of JSON.
const OBJECT_LIMIT: usize = 64 * 1024;
/// Most changes shown.
const CHANGES_LIMIT: usize = 64;
/// Longest path shown.
const PATH_LIMIT: usize = 1024;
/// Largest value shown in a change.
const VALUE_LIMIT: usize = 512;
/// Where an update keeps a copy of the whole object.
const COPY: &str = "last-applied-configuration";

/// What an approver is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exhibit {
    /// JSON of the object: as it would be created, as it is before an update or a delete, or the options of a
    /// stream. Secret values are masked.
    #[serde(default)]
    #[schemars(length(max = 66_000))]
    pub object: String,
    /// True when the object is too large to be shown whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// What an update changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub changes: Vec<ShownChange>,
    /// How many changes more there are than are shown.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(extend("format" = "int32"))]
    pub more_changes: u32,
}

/// One member that an update changes, as JSON text; absent where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShownChange {
    /// JSON pointer.
    #[schemars(length(max = 1100))]
    pub path: String,
    /// Before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 600))]
    pub old: Option<String>,
    /// After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 600))]
    pub new: Option<String>,
}

impl fmt::Display for ShownChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        write!(f, "{}: {} -> {}", self.path, shown(&self.old), shown(&self.new))
    }
}

/// What to show of a reviewed action.
///
/// # Errors
/// When an object of the review is no JSON.
pub fn of_review(action: &Action, request: &Request<'_>) -> Result<Exhibit, Error> {
    let text = object_of(action, request)?;
    let object = clip(&text, OBJECT_LIMIT);
    let truncated = object.len() < text.len();
    let (changes, more_changes) = changes_of(action, request)?;
    Ok(Exhibit { object, truncated, changes, more_changes })
}

/// The object of a review, masked: as it would be created, as it is before an update or a delete, or the options of a
/// stream; `null` where there is none.
///
/// # Errors
/// When it is no JSON.
pub fn object_of(action: &Action, request: &Request<'_>) -> Result<String, Error> {
    let raw = match action.operation {
        Operation::Update | Operation::Delete => request.old_object,
        Operation::Create | Operation::Connect | Operation::Read => request.object,
    };
    let json = raw.map_or("null", RawValue::get);
    transcript(&action.resource, json).map_err(|source| Error::new("object", source))
}

/// What an update changes, masked and capped, and how many changes were left out; nothing for anything else.
///
/// # Errors
/// When an object of the review is no JSON.
pub fn changes_of(action: &Action, request: &Request<'_>) -> Result<(Vec<ShownChange>, u32), Error> {
    if action.operation != Operation::Update {
        return Ok((Vec::new(), 0));
    }
    let (old, new) = normal::both(request)?;
    Ok(changes(&action.resource, old, new))
}

/// What to show of a stream.
#[must_use]
pub fn of_stream(action: &Action) -> Exhibit {
    let mut stream = action.stream.clone();
    if let Some(stream) = &mut stream {
        mask_words(&mut stream.command);
    }
    let object = serde_json::to_string(&stream).unwrap_or_default();
    Exhibit { truncated: object.len() > OBJECT_LIMIT, object: clip(&object, OBJECT_LIMIT), ..Exhibit::default() }
}

/// What changes from `old` to `new`, masked and capped, and how many changes were left out. Of a Secret no value
/// is shown at all: any part of it can hold a copy of its data.
fn changes(resource: &Resource, mut old: Value, mut new: Value) -> (Vec<ShownChange>, u32) {
    let mut found = normal::difference(&old, &new);
    found.retain(|change| !change.path.ends_with(COPY));
    let more = u32::try_from(found.len().saturating_sub(CHANGES_LIMIT)).unwrap_or(u32::MAX);
    mask(resource, &mut old);
    mask(resource, &mut new);
    let whole = is_secret(resource);
    let shown = |object: &Value, path: &str, there: bool| {
        there.then(|| match object.pointer(path) {
            Some(value) if !whole => clipped(value),
            Some(_) | None => MASK.to_owned(),
        })
    };
    let changes = found
        .iter()
        .take(CHANGES_LIMIT)
        .map(|change| ShownChange {
            path: clip(&change.path, PATH_LIMIT),
            old: shown(&old, &change.path, change.old.is_some()),
            new: shown(&new, &change.path, change.new.is_some()),
        })
        .collect();
    (changes, more)
}

/// JSON text of a value; what is cut off is told.
fn clipped(value: &Value) -> String {
    let text = value.to_string();
    let shown = clip(&text, VALUE_LIMIT);
    let more = text.len() - shown.len();
    if more == 0 { shown } else { format!("{shown} … {more} bytes more") }
}

/// At most `limit` bytes, whole characters.
fn clip(text: &str, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        action::ClassName,
        admission::{review::decode, subject},
    };

    fn exhibit(request: &str) -> Exhibit {
        let body = format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","userInfo":{{"username":"a"}},{request}}}}}"#
        );
        let request = decode(body.as_bytes()).unwrap();
        of_review(&subject::action(&request, ClassName::from("c")).unwrap(), &request).unwrap()
    }

    #[test]
    fn no_value_of_a_secret_is_shown() {
        let shown = exhibit(
            r#""resource":{"version":"v1","resource":"secrets"},"operation":"UPDATE","namespace":"n","name":"s",
            "object":{"data":{"k":"bmV3"},"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"bmV3"}}},
            "oldObject":{"data":{"k":"b2xk"}}"#,
        );
        let all = format!("{shown:?}");
        assert!(!all.contains("bmV3") && !all.contains("b2xk"), "{all}");
        assert!(shown.changes.iter().any(|change| change.to_string() == "/data/k: *** -> ***"), "{all}");
    }

    #[test]
    fn a_change_reads_as_old_to_new() {
        let shown = exhibit(
            r#""resource":{"group":"apps","version":"v1","resource":"deployments"},"operation":"UPDATE","namespace":"n","name":"d",
            "object":{"spec":{"replicas":0}},"oldObject":{"spec":{"replicas":3}}"#,
        );
        assert_eq!(shown.changes[0].to_string(), "/spec/replicas: 3 -> 0");
    }

    #[test]
    fn a_changed_password_is_a_change_without_values() {
        let shown = exhibit(
            r#""resource":{"group":"apps","version":"v1","resource":"deployments"},"operation":"UPDATE","namespace":"n","name":"d",
            "object":{"env":[{"name":"DB_PASSWORD","value":"old-one"},{"name":"MODE","value":"slow"}]},
            "oldObject":{"env":[{"name":"DB_PASSWORD","value":"new-one"},{"name":"MODE","value":"fast"}]}"#,
        );
        let lines: Vec<String> = shown.changes.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [r#"/env/0/value: "***" -> "***""#, r#"/env/1/value: "fast" -> "slow""#]);
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let many: serde_json::Map<String, Value> = (0..100).map(|n| (format!("k{n:03}"), Value::from(n))).collect();
        let resource =
            Resource { group: String::new(), version: "v1".into(), resource: "configmaps".into(), subresource: None };
        let (shown, more) = changes(&resource, Value::Null, serde_json::json!({"data": many}));
        assert_eq!((shown.len(), more), (1, 0), "a new object is one change");
        let (shown, more) = changes(&resource, serde_json::json!({"data": {}}), serde_json::json!({"data": many}));
        assert_eq!((shown.len(), more), (64, 36));
        let long = serde_json::json!({"data": {"k": "x".repeat(2000)}});
        let (shown, _) = changes(&resource, serde_json::json!({"data": {"k": "y"}}), long);
        assert!(shown[0].new.as_deref().unwrap().ends_with("… 1490 bytes more"), "{:?}", shown[0].new);
    }
}
