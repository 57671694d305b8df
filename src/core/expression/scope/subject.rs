//! `request`, `agent`, `action`, `run` and `namespaceObject`, from an action.
//!
//! `request` has the fields a ValidatingAdmissionPolicy sees; as there, an empty text is a field that is not there.

use super::{Documents, map, text};
use crate::core::{
    action::{Action, Identity, Operation},
    expression::{convert, problem::EvaluationError, value::Value},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap};

fn texts(of: &[String]) -> Value<'_> {
    Value::list(of.iter().map(|item| text(item)).collect())
}

fn extra(identity: &Identity) -> Value<'_> {
    map(identity.extra.iter().map(|(key, values)| (key.as_str(), texts(values))).collect())
}

fn operation(action: &Action) -> Value<'static> {
    text(match action.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
        Operation::Read => "READ",
    })
}

pub(super) fn agent(of: &Action) -> Value<'_> {
    map(vec![
        ("class", text(of.class.as_str())),
        ("user", text(&of.agent.user)),
        ("groups", texts(&of.agent.groups)),
        ("extra", extra(&of.agent)),
    ])
}

pub(super) fn action(of: &Action) -> Value<'_> {
    let resource = &of.resource;
    map(vec![
        ("operation", operation(of)),
        ("verb", text(&of.verb)),
        ("group", text(&resource.group)),
        ("version", text(&resource.version)),
        ("resource", text(&resource.resource)),
        ("subresource", text(resource.subresource.as_deref().unwrap_or_default())),
        ("namespace", text(of.namespace.as_deref().unwrap_or_default())),
        ("name", text(of.name.as_deref().unwrap_or_default())),
        ("dryRun", Value::Bool(of.dry_run)),
    ])
}

pub(super) fn run(of: &Action) -> Value<'_> {
    of.agent.extra(crate::core::action::EXTRA_RUN).map_or(Value::Null, text)
}

pub(super) fn namespace<'a>(name: &'a str, labels: &'a BTreeMap<String, String>) -> Value<'a> {
    let labels = map(labels.iter().map(|(key, value)| (key.as_str(), text(value))).collect());
    map(vec![("metadata", map(vec![("name", text(name)), ("labels", labels)]))])
}

/// What an object says it is.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TypeMeta<'a> {
    #[serde(borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
}

fn kind<'a>(raw: Option<&'a RawValue>) -> Value<'a> {
    let meta: TypeMeta<'a> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let api_version = meta.api_version.unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    map(vec![
        ("group", Value::text(group)),
        ("version", Value::text(version)),
        ("kind", Value::text(meta.kind.unwrap_or_default().as_ref())),
    ])
}

pub(super) fn request<'a>(of: &'a Action, documents: &Documents<'a>) -> Result<Value<'a>, EvaluationError> {
    let resource = map(vec![
        ("group", text(&of.resource.group)),
        ("version", text(&of.resource.version)),
        ("resource", text(&of.resource.resource)),
    ]);
    let kind = kind(documents.object.or(documents.old_object));
    let mut fields = vec![
        ("kind", kind.clone()),
        ("requestKind", kind),
        ("resource", resource.clone()),
        ("requestResource", resource),
        ("operation", operation(of)),
        ("userInfo", user_info(&of.agent)),
        ("dryRun", Value::Bool(of.dry_run)),
    ];
    let optional = [
        ("subResource", &of.resource.subresource),
        ("requestSubResource", &of.resource.subresource),
        ("name", &of.name),
        ("namespace", &of.namespace),
    ];
    for (name, value) in optional {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            fields.push((name, text(value)));
        }
    }
    if let Some(options) = documents.options {
        fields.push(("options", convert::value(options)?));
    }
    Ok(map(fields))
}

fn user_info(of: &Identity) -> Value<'_> {
    let mut fields = Vec::with_capacity(4);
    for (name, value) in [("username", &of.user), ("uid", &of.uid)] {
        if !value.is_empty() {
            fields.push((name, text(value)));
        }
    }
    if !of.groups.is_empty() {
        fields.push(("groups", texts(&of.groups)));
    }
    if !of.extra.is_empty() {
        fields.push(("extra", extra(of)));
    }
    map(fields)
}
