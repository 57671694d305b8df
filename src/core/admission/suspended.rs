//! Objects that are created suspended, until people decide: which can be, how one is marked, and how it is freed.
//!
//! The mark is an annotation that names the ApprovalRequest; what the author had written stays known beside it, so
//! that a Job which its author suspended is still suspended when it is freed. Pure: the webhook in `service/webhook`
//! sends the patch, `edge/cluster/approvals` frees the object. Agents change nothing of a marked object ([`tampering`]).

use crate::core::{
    action::{Action, Operation, Resource},
    canonical,
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

/// The annotation that marks an object: the ApprovalRequest it waits for, or how that ended.
pub const ANNOTATION: &str = "kustody.dev/suspended";
/// There when the author had suspended the object already.
pub const BY_AUTHOR: &str = "kustody.dev/suspended-by-author";
/// How many digits the name of a mark has.
const DIGITS: usize = 12;

/// What can be created suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspendable {
    /// A Job of group `batch`.
    Job,
    /// A CronJob of group `batch`.
    CronJob,
    /// A Deployment of group `apps`.
    Deployment,
}

/// What the annotations of a suspended object say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// `apr-` and twelve digits: names the ApprovalRequest.
    pub id: String,
    /// Whether the author had suspended it.
    pub by_author: bool,
}

/// Why an object that says it is suspended is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// The annotation has another form.
    #[error("the annotation {ANNOTATION} is not one of Kustody's")]
    Foreign,
    /// It is not suspended.
    #[error("it bears the annotation {ANNOTATION} and is not suspended")]
    Runs,
}

/// How an object stands to the mark it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As it was created.
    Untouched,
    /// The mark is gone: somebody freed it.
    Freed,
    /// Somebody changed it.
    Changed(&'static str),
}

impl Suspendable {
    /// The kind by group and plural, without subresource.
    #[must_use]
    pub fn named(group: &str, resource: &str) -> Option<Self> {
        match (group, resource) {
            ("batch", "jobs") => Some(Self::Job),
            ("batch", "cronjobs") => Some(Self::CronJob),
            ("apps", "deployments") => Some(Self::Deployment),
            _ => None,
        }
    }

    /// What `action` creates, when that can be suspended.
    #[must_use]
    pub fn created_by(action: &Action) -> Option<Self> {
        let is_whole = action.resource.subresource.is_none();
        (action.operation == Operation::Create && is_whole).then(|| Self::of(&action.resource)).flatten()
    }

    /// The kind of a resource, whatever its subresource.
    #[must_use]
    pub fn of(resource: &Resource) -> Option<Self> {
        Self::named(&resource.group, &resource.resource)
    }

    /// Kind, as objects name it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::Deployment => "Deployment",
        }
    }

    /// The member of `spec` that suspends it.
    #[must_use]
    pub fn member(self) -> &'static str {
        match self {
            Self::Job | Self::CronJob => "suspend",
            Self::Deployment => "paused",
        }
    }

    fn suspends(self, object: &Value) -> bool {
        object.get("spec").and_then(|spec| spec.get(self.member())) == Some(&Value::Bool(true))
    }
}

impl Mark {
    /// The mark of a new object as its author wrote it. Of `random` the last twelve letters or digits name it.
    #[must_use]
    pub fn fresh(kind: Suspendable, object: &Value, random: &str) -> Self {
        let name = random.get(random.len().saturating_sub(DIGITS)..).unwrap_or_default();
        Self { id: format!("apr-{name}"), by_author: kind.suspends(object) }
    }

    /// The mark that an object bears; `None`: none.
    ///
    /// # Errors
    /// When it has an annotation of that name and is not suspended by it.
    pub fn read(kind: Suspendable, object: &Value) -> Result<Option<Self>, Unsound> {
        let annotation = |key| object.pointer("/metadata/annotations").and_then(|all| all.get(key));
        let by_author = annotation(BY_AUTHOR);
        let Some(id) = annotation(ANNOTATION) else {
            return if by_author.is_none() { Ok(None) } else { Err(Unsound::Foreign) };
        };
        let id = id.as_str().filter(|id| is_name(id)).ok_or(Unsound::Foreign)?;
        if !kind.suspends(object) {
            return Err(Unsound::Runs);
        }
        Ok(Some(Self { id: id.to_owned(), by_author: by_author.is_some() }))
    }

    /// The JSON patch that suspends and marks a new object; `None` where it has no spec to say so in.
    #[must_use]
    pub fn patch(&self, kind: Suspendable, object: &Value) -> Option<Value> {
        object.get("spec").filter(|spec| spec.is_object())?;
        let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
        let at = |key: &str| format!("/metadata/annotations/{}", key.replace('/', "~1"));
        let mut steps = Vec::new();
        if annotations.is_none() {
            steps.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
        }
        steps.push(json!({"op": "add", "path": at(ANNOTATION), "value": self.id}));
        if self.by_author {
            steps.push(json!({"op": "add", "path": at(BY_AUTHOR), "value": "true"}));
        } else if annotations.is_some_and(|annotations| annotations.contains_key(BY_AUTHOR)) {
            steps.push(json!({"op": "remove", "path": at(BY_AUTHOR)}));
        }
        steps.push(json!({"op": "add", "path": format!("/spec/{}", kind.member()), "value": true}));
        Some(Value::Array(steps))
    }

    /// The object as its author wrote it: rules decide about that one.
    #[must_use]
    pub fn taken_off(&self, kind: Suspendable, mut object: Value) -> Value {
        if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| key != ANNOTATION && key != BY_AUTHOR);
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
            && metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty)
        {
            metadata.remove("annotations");
        }
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut).filter(|_| !self.by_author) {
            match kind {
                Suspendable::Job | Suspendable::CronJob => drop(spec.insert("suspend".to_owned(), Value::Bool(false))),
                Suspendable::Deployment => drop(spec.remove("paused")),
            }
        }
        object
    }
}

/// The merge patch that frees an object: the mark goes, and it runs unless its author had suspended it.
#[must_use]
pub fn release(kind: Suspendable, by_author: bool) -> Value {
    let mut patch = json!({"metadata": {"annotations": {ANNOTATION: null, BY_AUTHOR: null}}});
    if let Some(members) = patch.as_object_mut().filter(|_| !by_author) {
        members.insert("spec".to_owned(), json!({kind.member(): false}));
    }
    patch
}

/// The merge patch that leaves an object as it is and says why.
#[must_use]
pub fn keep(why: &str) -> Value {
    json!({"metadata": {"annotations": {ANNOTATION: why}}})
}

/// Digest of what runs when an object is freed.
#[must_use]
pub fn digest(object: &Value) -> String {
    canonical::sha256_hex(&canonical::bytes(object.get("spec").unwrap_or(&Value::Null)))
}

/// How `object` stands to the mark `id` it was given when its digest was `approved`.
#[must_use]
pub fn standing(kind: Suspendable, object: &Value, id: &str, approved: &str) -> Standing {
    let mark = object.pointer("/metadata/annotations").and_then(|all| all.get(ANNOTATION));
    match mark.map(Value::as_str) {
        None => Standing::Freed,
        Some(there) if there != Some(id) => Standing::Changed("its annotation was changed"),
        Some(_) if !kind.suspends(object) => Standing::Changed("it is not suspended any more"),
        Some(_) if digest(object) != approved => Standing::Changed("its spec is not the one people were shown"),
        Some(_) => Standing::Untouched,
    }
}

/// Why an update would touch what nobody but people and Kustody may: the mark, or the spec of a marked object.
#[must_use]
pub fn tampering(action: &Action, old: Option<&RawValue>, new: Option<&RawValue>) -> Option<&'static str> {
    let carries_all = matches!(action.resource.subresource.as_deref(), None | Some("status"));
    if action.operation != Operation::Update || !carries_all || Suspendable::of(&action.resource).is_none() {
        return None;
    }
    // The API server writes objects anew: a key stands in them as it is, or not at all.
    let speaks = |raw: Option<&RawValue>| raw.is_some_and(|raw| raw.get().contains(ANNOTATION));
    if !speaks(old) && !speaks(new) {
        return None;
    }
    let (Some(old), Some(new)) = (marked(old), marked(new)) else { return Some("its annotations cannot be read") };
    if old.marks() != new.marks() {
        return Some("agents do not write the annotations of what Kustody suspended");
    }
    (old.marks().0.is_some() && old.spec != new.spec)
        .then_some("it was created suspended, and stays as it is until people have decided")
}

/// The part of an object that its suspension is about.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Marked {
    metadata: Metadata,
    spec: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: Option<Map<String, Value>>,
}

impl Marked {
    fn marks(&self) -> (Option<&Value>, Option<&Value>) {
        let annotation = |key| self.metadata.annotations.as_ref().and_then(|all| all.get(key));
        (annotation(ANNOTATION), annotation(BY_AUTHOR))
    }
}

fn marked(raw: Option<&RawValue>) -> Option<Marked> {
    serde_json::from_str(raw?.get()).ok()
}

fn is_name(text: &str) -> bool {
    let digits = text.strip_prefix("apr-").unwrap_or_default();
    digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::fixture::Case;
    use std::collections::BTreeMap;

    const RANDOM: &str = "0192-7a3f0c1a2b9d4e";

    fn patched(kind: Suspendable, mut object: Value) -> Value {
        let patch = Mark::fresh(kind, &object, RANDOM).patch(kind, &object).unwrap();
        for step in patch.as_array().unwrap() {
            let (above, last) = step["path"].as_str().unwrap().rsplit_once('/').unwrap();
            let above = object.pointer_mut(above).unwrap().as_object_mut().unwrap();
            match step["op"].as_str().unwrap() {
                "add" => drop(above.insert(last.replace("~1", "/"), step["value"].clone())),
                _ => assert!(above.remove(&last.replace("~1", "/")).is_some()),
            }
        }
        object
    }

    #[test]
    fn a_marked_object_is_read_back_as_its_author_wrote_it() {
        for (kind, object) in [
            (Suspendable::Job, json!({"metadata": {"name": "j"}, "spec": {"suspend": false, "a": 1}})),
            (Suspendable::CronJob, json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"suspend": true}})),
            (Suspendable::Deployment, json!({"metadata": {}, "spec": {"replicas": 2}})),
            (Suspendable::Deployment, json!({"metadata": {}, "spec": {"paused": true}})),
        ] {
            let marked = patched(kind, object.clone());
            let mark = Mark::read(kind, &marked).unwrap().unwrap();
            assert_eq!(mark.id, "apr-3f0c1a2b9d4e");
            assert_eq!(mark.taken_off(kind, marked), object);
        }
    }

    #[test]
    fn what_an_agent_wrote_into_the_annotations_is_overwritten() {
        let forged = json!({"metadata": {"annotations": {ANNOTATION: "apr-1", BY_AUTHOR: "true"}}, "spec": {}});
        let mark = Mark::read(Suspendable::Job, &patched(Suspendable::Job, forged)).unwrap().unwrap();
        assert_eq!(mark, Mark { id: "apr-3f0c1a2b9d4e".to_owned(), by_author: false });
    }

    #[test]
    fn a_mark_of_another_form_or_on_what_runs_is_none() {
        let read = |annotations: Value, suspend: bool| {
            Mark::read(
                Suspendable::Job,
                &json!({"metadata": {"annotations": annotations}, "spec": {"suspend": suspend}}),
            )
        };
        assert_eq!(read(json!({"a": "b"}), true), Ok(None));
        assert_eq!(read(json!({ANNOTATION: "apr-3f0c1a2b9d4e"}), false), Err(Unsound::Runs));
        for other in ["", "apr-", "apr-3F0C1A2B9D4E", "apr-3f0c1a2b9d4e0", "denied"] {
            assert_eq!(read(json!({ANNOTATION: other}), true), Err(Unsound::Foreign), "{other}");
        }
        assert_eq!(read(json!({BY_AUTHOR: "true"}), true), Err(Unsound::Foreign));
    }

    #[test]
    fn an_object_without_a_spec_is_not_patched() {
        let object = json!({"metadata": {}});
        assert_eq!(Mark::fresh(Suspendable::Job, &object, RANDOM).patch(Suspendable::Job, &object), None);
    }

    #[test]
    fn whatever_changed_since_is_seen() {
        let object = json!({"metadata": {"annotations": {ANNOTATION: "apr-1"}}, "spec": {"suspend": true, "a": 1}});
        let digest = digest(&object);
        let standing = |object: &Value| standing(Suspendable::Job, object, "apr-1", &digest);
        assert_eq!(standing(&object), Standing::Untouched);
        let other = |pointer: &str, value: Value| {
            let mut object = object.clone();
            *object.pointer_mut(pointer).unwrap() = value;
            standing(&object)
        };
        assert_eq!(other("/metadata/annotations", json!({})), Standing::Freed);
        for (pointer, value) in [
            ("/spec/a", json!(2)),
            ("/spec/suspend", json!(false)),
            ("/metadata/annotations", json!({ANNOTATION: "apr-2"})),
        ] {
            assert!(matches!(other(pointer, value), Standing::Changed(_)), "{pointer}");
        }
    }

    #[test]
    fn agents_touch_neither_the_mark_nor_the_spec_of_a_marked_object() {
        let raw = |value: &Value| serde_json::value::to_raw_value(value).unwrap();
        let told = |what: &str, old: &Value, new: &Value| {
            let case = Case { action: what.to_owned(), ..Case::default() };
            let action = case.scene(&BTreeMap::new()).unwrap().action;
            tampering(&action, Some(&raw(old)), Some(&raw(new)))
        };
        let object = |mark: Option<&str>, suspend: bool, label: &str| {
            let annotations = mark.map_or(json!({}), |mark| json!({ANNOTATION: mark}));
            json!({"metadata": {"annotations": annotations, "labels": {"l": label}}, "spec": {"suspend": suspend}})
        };
        let held = object(Some("apr-1"), true, "a");
        let jobs = |new: &Value| told("UPDATE jobs.batch n/j", &held, new);
        assert_eq!(jobs(&object(Some("apr-1"), true, "b")), None, "labels are no part of it");
        assert!(jobs(&object(Some("apr-1"), false, "a")).is_some(), "started");
        assert!(jobs(&object(None, true, "a")).is_some(), "unmarked");
        assert!(jobs(&object(Some("apr-2"), true, "a")).is_some(), "marked anew");
        let free = object(None, false, "a");
        assert!(told("UPDATE jobs.batch n/j", &free, &object(Some("apr-1"), false, "a")).is_some(), "forged");
        assert!(told("UPDATE jobs.batch/status n/j", &held, &free).is_some(), "by the back door");
        assert_eq!(told("UPDATE jobs.batch n/j", &free, &object(None, true, "b")), None);
        assert_eq!(told("UPDATE configmaps n/j", &held, &free), None);
    }
}
