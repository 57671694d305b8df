//! What an approver is shown: the object that would go, and what an update would change.
//!
//! A copy for people, never what is hashed: values of Secrets are masked, what the API server keeps for itself
//! is left out, and the whole is capped, so that an ApprovalRequest stays small.

use super::normal::Error;
use super::normal::{self, Change};
use crate::core::{
    action::{Action, Operation},
    admission::review::Request,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest object shown, in bytes of JSON.
const OBJECT_LIMIT: usize = 64 * 1024;
/// Most changes shown.
const CHANGES_LIMIT: usize = 64;
/// Largest value shown in a change.
const VALUE_LIMIT: usize = 256;
/// Stands for a value nobody is shown.
const MASK: &str = "***";
/// Holds a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

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
    /// What an update changes, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 65), inner(length(max = 2048)))]
    pub changes: Vec<String>,
}

/// What to show of a reviewed action.
///
/// # Errors
/// When an object of the review is no JSON.
pub fn of_review(action: &Action, request: &Request<'_>) -> Result<Exhibit, Error> {
    let is_secret = action.resource.group.is_empty() && action.resource.resource == "secrets";
    let raw = match action.operation {
        Operation::Update | Operation::Delete => request.old_object,
        Operation::Create | Operation::Connect | Operation::Read => request.object,
    };
    let mut object = normal::parse(raw, "object")?;
    mask(&mut object, is_secret);
    let text = object.to_string();
    let shown: String = clip(&text, OBJECT_LIMIT);
    let changes = match action.operation {
        Operation::Update => lines(&normal::changes(request)?, is_secret),
        Operation::Create | Operation::Delete | Operation::Connect | Operation::Read => Vec::new(),
    };
    Ok(Exhibit { truncated: shown.len() < text.len(), object: shown, changes })
}

/// What to show of a stream.
#[must_use]
pub fn of_stream(action: &Action) -> Exhibit {
    let object = serde_json::to_string(&action.stream).unwrap_or_default();
    Exhibit { truncated: object.len() > OBJECT_LIMIT, object: clip(&object, OBJECT_LIMIT), changes: Vec::new() }
}

fn mask(object: &mut Value, is_secret: bool) {
    normal::strip_metadata(object);
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    if !is_secret {
        return;
    }
    for part in ["data", "stringData"] {
        if let Some(members) = object.get_mut(part).and_then(Value::as_object_mut) {
            members.values_mut().for_each(|value| *value = Value::String(MASK.to_owned()));
        }
    }
}

/// One line for each change. Of a Secret no value is shown at all: any part of it can hold a copy of its data.
fn lines(changes: &[Change], is_secret: bool) -> Vec<String> {
    let mut lines: Vec<String> = changes
        .iter()
        .filter(|change| !change.path.ends_with("last-applied-configuration"))
        .map(|change| {
            let path = clip(&change.path, 1024);
            if is_secret {
                format!("{path}: {MASK} -> {MASK}")
            } else {
                format!("{path}: {} -> {}", shown(change.old.as_ref()), shown(change.new.as_ref()))
            }
        })
        .collect();
    if lines.len() > CHANGES_LIMIT {
        let more = lines.len() - CHANGES_LIMIT;
        lines.truncate(CHANGES_LIMIT);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| clip(&value.to_string(), VALUE_LIMIT))
}

/// At most `limit` bytes, whole characters.
fn clip(text: &str, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
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
        assert!(shown.changes.iter().any(|line| line == "/data/k: *** -> ***"), "{all}");
    }

    #[test]
    fn a_change_reads_as_old_to_new() {
        let shown = exhibit(
            r#""resource":{"group":"apps","version":"v1","resource":"deployments"},"operation":"UPDATE","namespace":"n","name":"d",
            "object":{"spec":{"replicas":0}},"oldObject":{"spec":{"replicas":3}}"#,
        );
        assert_eq!(shown.changes, ["/spec/replicas: 3 -> 0"]);
    }
}
