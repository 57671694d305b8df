//! Tries a held action: the same request once more as a server-side dry run, as the agent, by impersonation. Nothing
//! is persisted, and the API server answers what it would: quota, validation, other webhooks, the agent's own rights.
//!
//! An update is tried as a PUT of the object as it would be, whatever the agent sent: the review does not say. A
//! creation is tried with what the API server filled in. Streams, tokens and bindings are not tried.

use super::inquiry::Inquiry;
use crate::core::{
    action::{Action, EXTRA_REQUEST, EXTRA_TICKET, Operation},
    approval::{
        blast::{Trial, TrialOutcome},
        exhibit,
    },
};
use http::{HeaderName, HeaderValue, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Limited};
use kube::{Client, client::Body};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json, value::RawValue};

/// Largest answer read.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
/// Longest message kept.
const MESSAGE_LIMIT: usize = 1024;
/// Most warnings kept.
const WARNINGS_LIMIT: usize = 8;
/// Kustody's own warning about its own dry run says nothing new.
const OWN_WARNING: &str = "would be held for approval";
/// Everything but what names and keys may hold as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// What trying `inquiry` says.
pub(super) async fn of(client: &Client, inquiry: &Inquiry) -> Trial {
    let request = match request(inquiry) {
        Ok(request) => request,
        Err(why) => return unknown(why),
    };
    let response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => return unknown(format!("the API server did not answer: {error}")),
    };
    let warnings = warnings(response.headers());
    let status = response.status();
    let body = match Limited::new(response.into_body(), ANSWER_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return unknown(format!("the answer could not be read: {error}")),
    };
    if status.is_success() {
        return Trial { outcome: TrialOutcome::Passed, message: None, warnings };
    }
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = answer.get("message").and_then(Value::as_str).unwrap_or("no message");
    Trial { warnings, ..refused(&inquiry.action, status, text) }
}

/// That it could not be tried.
pub(super) fn unknown(why: impl Into<String>) -> Trial {
    Trial { outcome: TrialOutcome::Unknown, message: Some(clip(&why.into())), warnings: Vec::new() }
}

fn refused(action: &Action, status: StatusCode, text: &str) -> Trial {
    if text.contains("cannot impersonate") {
        return unknown("kustody may not impersonate this agent");
    }
    let is_forbidden = status == StatusCode::FORBIDDEN;
    if is_forbidden && action.operation == Operation::Update && text.contains("cannot update resource") {
        return unknown("the agent may patch but not update, and what it sent is not known");
    }
    let shown = if exhibit::is_secret(&action.resource) {
        "the message is not shown, it can hold values of the secret".to_owned()
    } else {
        exhibit::mask_text(text)
    };
    let told = matches!(status.as_u16(), 403 | 404 | 409 | 410 | 422 | 429);
    let outcome = if told { TrialOutcome::Refused } else { TrialOutcome::Unknown };
    Trial { outcome, message: Some(clip(&format!("{}: {shown}", status.as_u16()))), warnings: Vec::new() }
}

fn request(inquiry: &Inquiry) -> Result<Request<Body>, String> {
    let action = &inquiry.action;
    if inquiry.is_there {
        return Err("the object is there already, suspended, so creating it is not tried again".to_owned());
    }
    if inquiry.is_too_large {
        return Err("the object is too large to be tried".to_owned());
    }
    let subresource = action.resource.subresource.as_deref();
    let (method, body) = match (action.operation, subresource) {
        (Operation::Create, None | Some("eviction")) => ("POST", object(inquiry, action)?),
        (Operation::Update, _) => ("PUT", object(inquiry, action)?),
        (Operation::Delete, None) => ("DELETE", options(inquiry)?),
        (Operation::Create | Operation::Delete, Some(_)) => return Err("this subresource is not tried".to_owned()),
        (Operation::Connect | Operation::Read, _) => return Err("a stream cannot be tried".to_owned()),
    };
    let path = path(action).ok_or("the object has no name yet")?;
    let mut builder = Request::builder()
        .method(method)
        .uri(format!("{path}?dryRun=All"))
        .header(CONTENT_TYPE, "application/json")
        .header("Impersonate-User", header(&action.agent.user)?);
    for group in &action.agent.groups {
        builder = builder.header("Impersonate-Group", header(group)?);
    }
    for (key, values) in &action.agent.extra {
        let values = if key == EXTRA_REQUEST { &[][..] } else { values.as_slice() };
        for value in values.iter().filter(|_| key != EXTRA_TICKET) {
            builder = builder.header(extra(key)?, header(value)?);
        }
    }
    // Says in every log whose dry run this was.
    builder = builder.header(extra(EXTRA_REQUEST)?, header(&format!("dry-run/{}", inquiry.id))?);
    builder.body(Body::from(body.to_string().into_bytes())).map_err(|error| error.to_string())
}

/// Path of the object, or of its collection for a creation.
fn path(action: &Action) -> Option<String> {
    let resource = &action.resource;
    let mut path = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let escaped = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let is_namespace = resource.group.is_empty() && resource.resource == "namespaces";
    if let Some(namespace) = action.namespace.as_deref().filter(|_| !is_namespace) {
        path.push_str(&format!("/namespaces/{}", escaped(namespace)));
    }
    path.push_str(&format!("/{}", resource.resource));
    if action.operation == Operation::Create && resource.subresource.is_none() {
        return Some(path);
    }
    path.push_str(&format!("/{}", escaped(action.name.as_deref()?)));
    if let Some(subresource) = &resource.subresource {
        path.push_str(&format!("/{subresource}"));
    }
    Some(path)
}

/// The object as it would be, without what the API server sets by itself.
fn object(inquiry: &Inquiry, action: &Action) -> Result<Value, String> {
    let mut object = parse(inquiry.object.as_deref())?;
    let is_creation = action.operation == Operation::Create;
    let is_custom = action.resource.group.contains('.') && !action.resource.group.ends_with(".k8s.io");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        // Custom resources are not updated without one; for others a status written meanwhile is no conflict.
        if is_creation || !is_custom {
            metadata.remove("resourceVersion");
        }
        if is_creation {
            ["uid", "creationTimestamp", "generation"].iter().for_each(|key| drop(metadata.remove(*key)));
        }
    }
    Ok(object)
}

fn options(inquiry: &Inquiry) -> Result<Value, String> {
    let mut options = match inquiry.options.as_deref() {
        Some(raw) if raw.get() != "null" => parse(Some(raw))?,
        Some(_) | None => json!({}),
    };
    let Some(members) = options.as_object_mut() else { return Err("the options are no object".to_owned()) };
    members.insert("kind".to_owned(), json!("DeleteOptions"));
    members.insert("apiVersion".to_owned(), json!("v1"));
    members.insert("dryRun".to_owned(), json!(["All"]));
    Ok(options)
}

fn parse(raw: Option<&RawValue>) -> Result<Value, String> {
    let raw = raw.ok_or("there is no object")?;
    serde_json::from_str(raw.get()).map_err(|error| error.to_string())
}

fn header(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "the agent's identity cannot be written as a header".to_owned())
}

fn extra(key: &str) -> Result<HeaderName, String> {
    let name = format!("impersonate-extra-{}", utf8_percent_encode(key, ESCAPED));
    HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|error| error.to_string())
}

/// The texts of `Warning: 299 - "text"`.
fn warnings(headers: &http::HeaderMap) -> Vec<String> {
    headers
        .get_all(http::header::WARNING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter_map(|value| Some(value.split_once('"')?.1.trim_end_matches('"').to_owned()))
        .filter(|text| !text.contains(OWN_WARNING))
        .take(WARNINGS_LIMIT)
        .map(|text| text.chars().take(256).collect())
        .collect()
}

fn clip(text: &str) -> String {
    text.chars().take(MESSAGE_LIMIT).collect()
}
