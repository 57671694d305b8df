//! Reading an AdmissionReview.
//!
//! Everything the verdict depends on is parsed strictly; the objects stay raw. A body that cannot be read is
//! an error that carries the request's uid when it can be salvaged, so that the answer can still be a proper
//! denial: without the right uid the API server sees a failed call instead.

use super::sound::{self, Unsound};
use crate::core::action::{Identity, Operation, Resource};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt};

/// The only version spoken.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// The only kind spoken.
pub const KIND: &str = "AdmissionReview";

/// Why a body is no review.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not the JSON of a review.
    #[error("the body is no AdmissionReview")]
    Malformed {
        /// Uid of the request, when it could be found.
        uid: Option<String>,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A review of another version, or another object.
    #[error("expected {API_VERSION} {KIND}, got {api_version} {kind}")]
    WrongKind {
        /// What it said.
        api_version: String,
        /// What it said.
        kind: String,
    },
    /// A review without a request.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

impl Error {
    /// The salvaged uid.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        match self {
            Self::Malformed { uid, .. } => uid.as_deref(),
            Self::WrongKind { .. } | Self::NoRequest => None,
        }
    }
}

/// An object that is refused before anything is decided about it.
#[derive(Debug, thiserror::Error)]
#[error("the {which} of the review is refused: {why}")]
pub struct UnsoundObject {
    /// `object`, `oldObject`, `options`.
    which: &'static str,
    why: Unsound,
}

/// `request` of a review.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// Fresh for every call.
    pub uid: String,
    resource: GroupVersionResource,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    request_resource: Option<GroupVersionResource>,
    #[serde(default)]
    request_sub_resource: String,
    /// Empty while the API server has yet to generate it, and for deleted collections.
    #[serde(default)]
    pub name: String,
    /// Empty for cluster scope.
    #[serde(default)]
    pub namespace: String,
    operation: ReviewOperation,
    user_info: UserInfo,
    /// The object as it would be; the options of a CONNECT; null for DELETE.
    #[serde(borrow, default)]
    pub object: Option<&'a RawValue>,
    /// The object as it is; null for CREATE and CONNECT.
    #[serde(borrow, default)]
    pub old_object: Option<&'a RawValue>,
    /// CreateOptions, UpdateOptions, DeleteOptions.
    #[serde(borrow, default)]
    pub options: Option<&'a RawValue>,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
struct GroupVersionResource {
    #[serde(default)]
    group: String,
    version: String,
    resource: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ReviewOperation {
    Create,
    Update,
    Delete,
    Connect,
}

#[derive(Debug, Deserialize)]
struct UserInfo {
    #[serde(default)]
    username: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    groups: Option<Vec<String>>,
    #[serde(default, deserialize_with = "unique")]
    extra: Option<BTreeMap<String, Vec<String>>>,
}

/// A map in which no key is there twice: whoever reads it sees the same.
fn unique<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, Vec<String>>>, D::Error> {
    struct Unique;

    impl<'de> Visitor<'de> for Unique {
        type Value = Option<BTreeMap<String, Vec<String>>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of lists, or null")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = members.next_entry::<String, Vec<String>>()? {
                if map.insert(key, value).is_some() {
                    return Err(de::Error::custom("a key is there twice"));
                }
            }
            Ok(Some(map))
        }
    }

    from.deserialize_any(Unique)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(borrow, default)]
    request: Option<Request<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// Reads a review, in one pass.
///
/// # Errors
/// When the body is not JSON, not a review of this version, or its request has another shape.
pub fn decode(body: &[u8]) -> Result<Request<'_>, Error> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|source| unreadable(body, source))?;
    check_kind(envelope.api_version, envelope.kind)?;
    envelope.request.ok_or(Error::NoRequest)
}

/// A body of another kind need not have a request of this shape: what it is comes first.
fn unreadable(body: &[u8], source: serde_json::Error) -> Error {
    if let Ok(kind) = serde_json::from_slice::<TypeMeta>(body)
        && let Err(error) = check_kind(kind.api_version, kind.kind)
    {
        return error;
    }
    Error::Malformed { uid: salvage_uid(body), source }
}

fn check_kind(api_version: String, kind: String) -> Result<(), Error> {
    if api_version == API_VERSION && kind == KIND {
        return Ok(());
    }
    Err(Error::WrongKind { api_version: clip(api_version), kind: clip(kind) })
}

/// What a client wrote is repeated to it only in part.
fn clip(text: String) -> String {
    text.chars().take(64).collect()
}

impl Request<'_> {
    /// The resource as the client asked for it, before any conversion.
    #[must_use]
    pub fn resource(&self) -> Resource {
        let (gvr, sub) = match &self.request_resource {
            Some(gvr) => (gvr, &self.request_sub_resource),
            None => (&self.resource, &self.sub_resource),
        };
        Resource {
            group: gvr.group.clone(),
            version: gvr.version.clone(),
            resource: gvr.resource.clone(),
            subresource: (!sub.is_empty()).then(|| sub.clone()),
        }
    }

    /// The operation.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self.operation {
            ReviewOperation::Create => Operation::Create,
            ReviewOperation::Update => Operation::Update,
            ReviewOperation::Delete => Operation::Delete,
            ReviewOperation::Connect => Operation::Connect,
        }
    }

    /// Who asks.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            user: self.user_info.username.clone(),
            uid: self.user_info.uid.clone(),
            groups: self.user_info.groups.clone().unwrap_or_default(),
            extra: self.user_info.extra.clone().unwrap_or_default(),
        }
    }

    /// Refuses objects that two readers could understand differently, and a write without its objects.
    ///
    /// # Errors
    /// Which one, and why.
    pub fn check(&self) -> Result<(), UnsoundObject> {
        let needs = match self.operation {
            ReviewOperation::Create => [true, false],
            ReviewOperation::Update => [true, true],
            ReviewOperation::Delete | ReviewOperation::Connect => [false, false],
        };
        let [object, old_object] = needs;
        let parts = [
            ("object", self.object, object),
            ("oldObject", self.old_object, old_object),
            ("options", self.options, false),
        ];
        for (which, raw, is_needed) in parts {
            let sound = match raw {
                Some(raw) => sound::check(raw.get()),
                None if is_needed => Err(Unsound::Missing),
                None => Ok(()),
            };
            sound.map_err(|why| UnsoundObject { which, why })?;
        }
        Ok(())
    }

    /// Whether nothing would be persisted.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.dry_run == Some(true)
    }
}

/// Finds `"request": {… "uid": "…"` in a body that does not parse.
fn salvage_uid(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body.get(..body.len().min(64 * 1024))?);
    let request = text.split_once("\"request\"")?.1;
    let after = request.split_once("\"uid\"")?.1;
    let value = after.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let (uid, _) = value.split_once('"')?;
    let sound = !uid.is_empty() && uid.len() <= 64 && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    sound.then(|| uid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

    fn review(request: &str) -> String {
        format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{request}}}"#)
    }

    #[test]
    fn a_minimal_review_is_read_with_its_objects_untouched() {
        let body = review(&format!(
            r#"{{"uid":"{UID}","resource":{{"group":"apps","version":"v1","resource":"deployments"}},"subResource":"scale",
            "operation":"UPDATE","userInfo":{{"username":"a","groups":["g"]}},"object":{{"b": 1.50 ,"a":2}},"oldObject":null,"dryRun":true}}"#
        ));
        let request = decode(body.as_bytes()).unwrap();
        assert_eq!(request.resource().to_string(), "apps/v1/deployments/scale");
        assert_eq!(request.object.unwrap().get(), r#"{"b": 1.50 ,"a":2}"#);
        assert!(request.old_object.is_none() && request.is_dry_run());
        assert_eq!(request.identity().groups, ["g"]);
    }

    #[test]
    fn a_review_cut_short_still_tells_its_uid() {
        let body = review(&format!(r#"{{ "uid" : "{UID}", "operation":"#));
        assert_eq!(decode(body.as_bytes()).unwrap_err().uid(), Some(UID));
    }

    #[test]
    fn an_unknown_operation_or_a_doubled_member_is_an_error_with_the_uid() {
        for bad in [r#""operation":"PATCH""#, r#""operation":"CREATE","operation":"DELETE""#] {
            let body = review(&format!(
                r#"{{"uid":"{UID}","resource":{{"version":"v1","resource":"pods"}},"userInfo":{{}},{bad}}}"#
            ));
            assert_eq!(decode(body.as_bytes()).unwrap_err().uid(), Some(UID), "{bad}");
        }
    }

    #[test]
    fn another_version_or_kind_is_refused_without_a_uid() {
        for (version, kind) in
            [("admission.k8s.io/v1beta1", "AdmissionReview"), ("admission.k8s.io/v1", "Pod"), ("", "")]
        {
            let body = format!(r#"{{"apiVersion":"{version}","kind":"{kind}","request":{{"uid":"{UID}"}}}}"#);
            let error = decode(body.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::WrongKind { .. }) && error.uid().is_none());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(decode(&body));
        }

        #[test]
        fn a_review_cut_anywhere_never_panics(cut in 0usize..200) {
            let body = review(&format!(r#"{{"uid":"{UID}","operation":"CREATE","userInfo":{{"username":"ä"}}}}"#));
            drop(decode(&body.as_bytes()[..cut.min(body.len())]));
        }
    }
}
