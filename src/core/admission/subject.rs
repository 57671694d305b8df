//! From a review to an [`Action`]: which object, which labels, which stream.
//!
//! Follows the table of what each client action looks like: subresources, names that only the objects know
//! (deleted collections, generated names), the options of a CONNECT. Objects are read for their metadata only.

use super::{review::Request, sound};
use crate::core::action::{Action, ClassName, Identity, Operation, StreamKind, StreamRequest};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Why no action can be made of a review.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Metadata of another shape.
    #[error("the metadata of {which} cannot be read")]
    Metadata {
        /// `object` or `oldObject`.
        which: &'static str,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A CONNECT to something without options.
    #[error("the options of this CONNECT cannot be read")]
    Options(#[source] serde_json::Error),
}

/// The part of `metadata` that matters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Name; fresh for every review while it is generated.
    #[serde(default)]
    pub name: Option<String>,
    /// Prefix of a generated name.
    #[serde(default)]
    pub generate_name: Option<String>,
    /// Namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Uid.
    #[serde(default)]
    pub uid: Option<String>,
    /// Labels.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// The members of PodExecOptions and PodAttachOptions, and of the others as far as they share them.
#[derive(Default, Deserialize)]
struct Options {
    #[serde(default)]
    container: Option<String>,
    #[serde(default)]
    command: Option<Vec<String>>,
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    stdout: bool,
    #[serde(default)]
    stderr: bool,
    #[serde(default)]
    tty: bool,
}

/// Reads the metadata of a raw object; absent object or metadata: empty.
///
/// # Errors
/// When there is metadata of another shape.
pub fn metadata(raw: Option<&RawValue>, which: &'static str) -> Result<Metadata, Error> {
    let Some(raw) = raw else {
        return Ok(Metadata::default());
    };
    let wrong = |source| Error::Metadata { which, source };
    let Some(text) = sound::member(raw.get(), "metadata") else {
        // Null or an object without metadata; anything else is no object at all.
        let _: Option<BTreeMap<String, IgnoredAny>> = serde_json::from_str(raw.get()).map_err(wrong)?;
        return Ok(Metadata::default());
    };
    let parsed: Option<Metadata> = serde_json::from_str(text).map_err(wrong)?;
    Ok(parsed.unwrap_or_default())
}

/// The action a review asks about, for an agent of `class`.
///
/// # Errors
/// When metadata or options have another shape than every client sends.
pub fn action(request: &Request<'_>, class: ClassName) -> Result<Action, Error> {
    action_of(request.identity(), request, class)
}

/// [`action`] for whoever knows who asks already.
///
/// # Errors
/// As there.
pub fn action_of(agent: Identity, request: &Request<'_>, class: ClassName) -> Result<Action, Error> {
    let operation = request.operation();
    let resource = request.resource();
    let old = metadata(request.old_object, "oldObject")?;
    let new = match operation {
        // The object of a CONNECT is the options, which have no metadata.
        Operation::Connect => Metadata::default(),
        Operation::Create | Operation::Update | Operation::Delete | Operation::Read => {
            metadata(request.object, "object")?
        }
    };
    let name = some(&request.name).or(new.name).or(old.name);
    let is_namespace = resource.group.is_empty() && resource.resource == "namespaces";
    let namespace = some(&request.namespace)
        .or(new.namespace)
        .or(old.namespace)
        .or_else(|| is_namespace.then(|| name.clone()).flatten());
    let labels_before = old.labels.unwrap_or_default();
    let (labels, previous_labels) = match operation {
        Operation::Update => (new.labels.unwrap_or_default(), Some(labels_before)),
        Operation::Delete => (labels_before, None),
        Operation::Create | Operation::Connect | Operation::Read => (new.labels.unwrap_or_default(), None),
    };
    let stream = stream(request, operation, resource.subresource.as_deref())?;
    Ok(Action {
        agent,
        class,
        operation,
        verb: operation.to_string().to_lowercase(),
        resource,
        namespace,
        name,
        labels,
        previous_labels,
        dry_run: request.is_dry_run(),
        stream,
    })
}

fn stream(request: &Request<'_>, operation: Operation, sub: Option<&str>) -> Result<Option<StreamRequest>, Error> {
    if operation != Operation::Connect {
        return Ok(None);
    }
    let Some(kind) = sub.and_then(StreamKind::of_subresource) else {
        return Ok(None);
    };
    let options: Options = match request.object {
        Some(raw) => serde_json::from_str(raw.get()).map_err(Error::Options)?,
        None => Options::default(),
    };
    Ok(Some(StreamRequest {
        kind,
        container: options.container.filter(|container| !container.is_empty()),
        command: options.command.unwrap_or_default(),
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
        tty: options.tty,
    }))
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::admission::review::decode;

    fn action_of(request: &str) -> Action {
        let body = format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","userInfo":{{"username":"a"}},{request}}}}}"#
        );
        action(&decode(body.as_bytes()).unwrap(), ClassName::from("agents")).unwrap()
    }

    #[test]
    fn a_deleted_collection_gets_its_names_from_the_old_object() {
        let action = action_of(
            r#""resource":{"version":"v1","resource":"pods"},"operation":"DELETE","namespace":"n",
            "oldObject":{"metadata":{"name":"p1","uid":"x","labels":{"a":"b"}}}"#,
        );
        assert_eq!((action.name.as_deref(), action.target().as_str()), (Some("p1"), "n/p1"));
        assert_eq!(action.labels.get("a").map(String::as_str), Some("b"));
    }

    #[test]
    fn a_generated_name_comes_from_the_object() {
        let action = action_of(
            r#""resource":{"version":"v1","resource":"pods"},"operation":"CREATE","namespace":"n",
            "object":{"metadata":{"generateName":"p-","name":"p-x7k2q"}}"#,
        );
        assert_eq!(action.name.as_deref(), Some("p-x7k2q"));
    }

    #[test]
    fn an_exec_carries_its_argv_and_flags() {
        let action = action_of(
            r#""resource":{"version":"v1","resource":"pods"},"subResource":"exec","operation":"CONNECT","namespace":"n","name":"p",
            "object":{"kind":"PodExecOptions","apiVersion":"v1","stdin":true,"stdout":true,"container":"c","command":["sh","-c","x"]}"#,
        );
        let stream = action.stream.unwrap();
        assert_eq!((stream.kind, stream.container.as_deref()), (StreamKind::Exec, Some("c")));
        assert_eq!(stream.command, ["sh", "-c", "x"]);
        assert!(stream.stdin && stream.stdout && !stream.stderr && !stream.tty);
    }

    #[test]
    fn a_namespace_lies_in_itself() {
        let action = action_of(
            r#""resource":{"version":"v1","resource":"namespaces"},"operation":"CREATE","name":"","object":{"metadata":{"name":"x"}}"#,
        );
        assert_eq!(action.namespace.as_deref(), Some("x"));
    }

    #[test]
    fn an_update_shows_labels_before_and_after() {
        let action = action_of(
            r#""resource":{"version":"v1","resource":"pods"},"operation":"UPDATE","namespace":"n","name":"p",
            "object":{"metadata":{"labels":{"tier":"dev"}}},"oldObject":{"metadata":{"labels":{"tier":"prod"}}}"#,
        );
        assert_eq!(action.labels.get("tier").map(String::as_str), Some("dev"));
        assert_eq!(action.previous_labels.unwrap().get("tier").map(String::as_str), Some("prod"));
    }
}
