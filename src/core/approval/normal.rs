//! The content of a review without what the API server makes afresh for each one.
//!
//! Each rule here stands for a difference seen between two reviews of the same user request; nothing is taken
//! out because it looks unimportant. A creation is its object, an update the changes it makes, a deletion the
//! uid and the options, a connect its options.

use crate::core::{
    action::{Action, Operation},
    admission::review::Request,
    canonical,
};
use serde_json::{Map, Value, json, value::RawValue};

/// Metadata the API server sets by itself.
pub(super) const SERVER_METADATA: [&str; 6] =
    ["uid", "creationTimestamp", "managedFields", "resourceVersion", "generation", "selfLink"];
/// Labels a Job's selector and template get from its uid.
const JOB_UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
/// Labels a Job's template gets from its name.
const JOB_NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
/// The volume the service account admission adds to a pod, with five random characters behind it.
const ACCESS_VOLUME: &str = "kube-api-access-";
/// Set by `kubectl rollout restart` to the time of the command.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// One member that an update changes; `None`: absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// JSON pointer.
    pub path: String,
    /// Before.
    pub old: Option<Value>,
    /// After.
    pub new: Option<Value>,
}

/// Why content cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the {which} of the review cannot be read")]
pub struct Error {
    which: &'static str,
    source: serde_json::Error,
}

impl Error {
    pub(super) fn new(which: &'static str, source: serde_json::Error) -> Self {
        Self { which, source }
    }
}

/// What of a review belongs to its fingerprint.
pub(super) fn content(action: &Action, request: &Request<'_>) -> Result<Value, Error> {
    match action.operation {
        Operation::Create => {
            let mut object = parse(request.object, "object")?;
            let prefix = object.pointer("/metadata/generateName").cloned();
            created(&mut object);
            Ok(json!({"object": object, "generateName": prefix}))
        }
        Operation::Update => {
            let old = parse(request.old_object, "oldObject")?;
            let changes: Vec<Value> =
                changes(request)?.into_iter().map(|change| json!([change.path, change.old, change.new])).collect();
            Ok(json!({"uid": old.pointer("/metadata/uid"), "changes": changes}))
        }
        Operation::Delete => {
            let old = parse(request.old_object, "oldObject")?;
            let mut options = parse(request.options, "options")?;
            if let Some(members) = options.as_object_mut() {
                members.retain(|key, _| key != "kind" && key != "apiVersion");
            }
            Ok(json!({"uid": old.pointer("/metadata/uid"), "options": options}))
        }
        Operation::Connect if action.stream.is_some() => Ok(json!({"options": rest_of_stream(request)?})),
        Operation::Connect | Operation::Read => Ok(json!({"options": parse(request.object, "object")?})),
    }
}

/// What an update changes, member by member, without what the API server sets by itself.
///
/// # Errors
/// When one of the objects is no JSON.
pub fn changes(request: &Request<'_>) -> Result<Vec<Change>, Error> {
    let (old, new) = both(request)?;
    Ok(difference(&old, &new))
}

/// Every difference between two objects, in the order of their keys.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    diff("", Some(old), Some(new), &mut found);
    found
}

/// An object before and after an update, without what the API server sets by itself.
pub(super) fn both(request: &Request<'_>) -> Result<(Value, Value), Error> {
    let mut old = parse(request.old_object, "oldObject")?;
    let mut new = parse(request.object, "object")?;
    strip_metadata(&mut old);
    strip_metadata(&mut new);
    spelled_scale(&mut old);
    spelled_scale(&mut new);
    restarted(&old, &mut new);
    Ok((old, new))
}

/// Digest of what an update or a deletion starts from: the object as it is, with its uid, without what controllers
/// and the API server write by themselves. `None` where there is no object yet. An approval fits as long as this
/// stays the same: people agreed to a change of what they were shown.
///
/// # Errors
/// When the object is no JSON.
pub fn basis(action: &Action, request: &Request<'_>) -> Result<Option<String>, Error> {
    if !matches!(action.operation, Operation::Update | Operation::Delete) {
        return Ok(None);
    }
    let mut old = parse(request.old_object, "oldObject")?;
    let uid = old.pointer("/metadata/uid").cloned();
    strip_metadata(&mut old);
    spelled_scale(&mut old);
    if let Some(metadata) = old.get_mut("metadata").and_then(Value::as_object_mut) {
        // Deleting what is being deleted is the same deletion; changing it is not the same change.
        if action.operation == Operation::Delete {
            metadata.remove("deletionTimestamp");
        } else if let Some(at) = metadata.get_mut("deletionTimestamp") {
            *at = Value::Bool(true);
        }
        metadata.remove("deletionGracePeriodSeconds");
    }
    if action.resource.subresource.as_deref() != Some("status")
        && let Some(members) = old.as_object_mut()
    {
        members.remove("status");
    }
    Ok(Some(canonical::sha256_hex(&canonical::bytes(&json!({"uid": uid, "object": old})))))
}

/// Options of a stream that the action itself does not carry, such as the path of a proxy.
fn rest_of_stream(request: &Request<'_>) -> Result<Value, Error> {
    let mut options = parse(request.object, "object")?;
    if let Some(members) = options.as_object_mut() {
        members.retain(|key, _| key == "path" || key == "ports");
        if members.is_empty() {
            return Ok(Value::Null);
        }
    }
    Ok(options)
}

pub(super) fn parse(raw: Option<&RawValue>, which: &'static str) -> Result<Value, Error> {
    raw.map_or(Ok(Value::Null), |raw| serde_json::from_str(raw.get()).map_err(|source| Error::new(which, source)))
}

pub(super) fn strip_metadata(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| !SERVER_METADATA.contains(&key.as_str()));
    }
}

/// Takes out of a new object what the API server made for this one review.
fn created(object: &mut Value) {
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
    let name = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    let is_generated =
        object.pointer("/metadata/generateName").and_then(Value::as_str).is_some_and(|prefix| !prefix.is_empty());
    strip_metadata(object);
    if let Some(members) = object.as_object_mut() {
        members.remove("status");
    }
    access_volume(object.get_mut("spec"));
    let generated_name = name.filter(|_| is_generated);
    if is_generated && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("name");
    }
    for pointer in ["/spec/selector/matchLabels", "/spec/template/metadata/labels", "/metadata/labels"] {
        let Some(labels) = object.pointer_mut(pointer).and_then(Value::as_object_mut) else {
            continue;
        };
        drop_equal(labels, &JOB_UID_LABELS, uid.as_deref());
        drop_equal(labels, &JOB_NAME_LABELS, generated_name.as_deref());
    }
}

/// Removes `keys` where their value is `value`: what a user wrote by hand is another value, and stays.
fn drop_equal(labels: &mut Map<String, Value>, keys: &[&str], value: Option<&str>) {
    let Some(value) = value else { return };
    labels.retain(|key, label| !(keys.contains(&key.as_str()) && label.as_str() == Some(value)));
}

/// Gives the access volume of a pod one name, in the volumes and in every mount.
fn access_volume(spec: Option<&mut Value>) {
    let Some(spec) = spec.and_then(Value::as_object_mut) else {
        return;
    };
    rename_access(spec.get_mut("volumes"));
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        let Some(list) = spec.get_mut(containers).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in list {
            rename_access(container.get_mut("volumeMounts"));
        }
    }
}

fn rename_access(list: Option<&mut Value>) {
    for entry in list.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(name) = entry.get_mut("name")
            && name.as_str().is_some_and(is_access_volume)
        {
            *name = Value::String(ACCESS_VOLUME.to_owned());
        }
    }
}

fn is_access_volume(name: &str) -> bool {
    name.strip_prefix(ACCESS_VOLUME)
        .is_some_and(|suffix| suffix.len() == 5 && suffix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

/// A rollout restart is the same action whenever it is typed.
fn restarted(old: &Value, new: &mut Value) {
    let at = "/spec/template/metadata/annotations";
    let before = old.pointer(at).and_then(|annotations| annotations.get(RESTARTED_AT)).cloned();
    if let Some(now) = new.pointer_mut(at).and_then(|annotations| annotations.get_mut(RESTARTED_AT))
        && Some(&*now) != before.as_ref()
    {
        *now = Value::String("<restart>".to_owned());
    }
}

/// A Scale leaves zero replicas out; people read it better written down.
fn spelled_scale(object: &mut Value) {
    if object.get("kind").and_then(Value::as_str) == Some("Scale")
        && let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.entry("replicas").or_insert_with(|| json!(0));
    }
}

/// Appends every difference between `old` and `new`, in the order of their keys.
fn diff(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Change>) {
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
            keys.sort_unstable();
            for key in keys {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                diff(&format!("{path}/{escaped}"), old.get(key), new.get(key), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (position, (old, new)) in old.iter().zip(new).enumerate() {
                diff(&format!("{path}/{position}"), Some(old), Some(new), found);
            }
        }
        (old, new) => found.push(Change { path: path.to_owned(), old: old.cloned(), new: new.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_what_differs_and_nothing_else() {
        let old = json!({"a": {"b": [1, {"c": 2}], "x/y": 1}, "gone": true});
        let new = json!({"a": {"b": [1, {"c": 3}], "x/y": 1}, "fresh": null});
        let mut found = Vec::new();
        diff("", Some(&old), Some(&new), &mut found);
        let paths: Vec<&str> = found.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["/a/b/1/c", "/fresh", "/gone"]);
    }

    #[test]
    fn only_a_random_access_volume_is_renamed() {
        assert!(is_access_volume("kube-api-access-x7k2q"));
        assert!(!is_access_volume("kube-api-access-mine-x") && !is_access_volume("kube-api-access-ABCDE"));
    }

    #[test]
    fn a_job_keeps_labels_a_user_wrote() {
        let mut job = json!({"metadata": {"uid": "u1"}, "spec": {"template": {"metadata": {"labels": {
            "controller-uid": "u1", "batch.kubernetes.io/controller-uid": "chosen"}}}}});
        created(&mut job);
        let labels = job.pointer("/spec/template/metadata/labels").unwrap();
        assert_eq!(labels, &json!({"batch.kubernetes.io/controller-uid": "chosen"}));
    }

    #[test]
    fn a_restart_is_one_action_but_not_an_untouched_update() {
        let annotated = |at: &str| json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: at}}}}});
        let old = annotated("monday");
        let mut tuesday = annotated("tuesday");
        restarted(&old, &mut tuesday);
        assert_eq!(tuesday, annotated("<restart>"));
        let mut same = annotated("monday");
        restarted(&old, &mut same);
        assert_eq!(same, old);
    }

    #[test]
    fn a_basis_changes_with_the_object_and_not_with_its_status() {
        use crate::core::{
            action::ClassName,
            admission::{review::decode, subject},
        };
        let basis_of = |operation: &str, old: &str| {
            let body = format!(
                r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","userInfo":{{"username":"a"}},
                "resource":{{"version":"v1","resource":"pods"}},"operation":"{operation}","namespace":"n","name":"p","object":{{}},"oldObject":{old}}}}}"#
            );
            let request = decode(body.as_bytes()).unwrap();
            basis(&subject::action(&request, ClassName::from("c")).unwrap(), &request).unwrap()
        };
        let first =
            basis_of("UPDATE", r#"{"metadata":{"uid":"1","resourceVersion":"7"},"spec":{"a":1},"status":{"x":1}}"#);
        let later =
            basis_of("UPDATE", r#"{"metadata":{"uid":"1","resourceVersion":"9"},"spec":{"a":1},"status":{"x":2}}"#);
        assert!(first.is_some() && first == later);
        for other in [
            r#"{"metadata":{"uid":"2"},"spec":{"a":1}}"#,
            r#"{"metadata":{"uid":"1"},"spec":{"a":2}}"#,
            r#"{"metadata":{"uid":"1","deletionTimestamp":"x"},"spec":{"a":1}}"#,
        ] {
            assert_ne!(basis_of("UPDATE", other), first, "{other}");
        }
        assert_eq!(
            basis_of("DELETE", r#"{"metadata":{"uid":"1","deletionTimestamp":"x"},"spec":{"a":1}}"#),
            basis_of("DELETE", r#"{"metadata":{"uid":"1"},"spec":{"a":1}}"#)
        );
        assert_eq!(basis_of("CREATE", "null"), None);
    }
}
