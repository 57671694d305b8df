//! Which one action an approval fits: a digest of who, what and with which content.
//!
//! One user request can be many reviews, and each carries values the API server made afresh (uid, timestamps,
//! generated names, the suffix of a service account volume). [`super::normal`] takes those out, so that the
//! repeats of one request have one fingerprint and any other content has another. Recorded pairs of reviews in
//! `tests/reviews` hold both to that.

use super::normal::{self, Error};
use crate::core::{action::Action, admission::review::Request, canonical};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// Identity extras that belong to who somebody is; the others change from request to request.
const BOUND_EXTRAS: [&str; 3] =
    [crate::core::action::EXTRA_RUN, crate::core::action::EXTRA_ON_BEHALF_OF, "authentication.kubernetes.io/pod-uid"];

/// Lower-case hexadecimal SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Fingerprint(#[schemars(regex(pattern = "^[0-9a-f]{64}$"))] String);

impl Fingerprint {
    /// Of a reviewed action: identity, operation, target and normalised content.
    ///
    /// # Errors
    /// When an object of the review is no JSON.
    pub fn of_review(action: &Action, request: &Request<'_>) -> Result<Self, Error> {
        Ok(Self::of(action, &normal::content(action, request)?))
    }

    /// Of a stream, which has no content beside its options.
    #[must_use]
    pub fn of_stream(action: &Action) -> Self {
        Self::of(action, &Value::Null)
    }

    fn of(action: &Action, content: &Value) -> Self {
        let extras: Vec<Value> = BOUND_EXTRAS
            .iter()
            .filter_map(|key| action.agent.extra.get(*key).map(|value| json!([key, value])))
            .collect();
        let generated = content.get("generateName").is_some_and(|prefix| !prefix.is_null());
        let stream = action.stream.as_ref().map(|stream| {
            json!({
                "container": stream.container, "command": stream.command, "stdin": stream.stdin,
                "stdout": stream.stdout, "stderr": stream.stderr, "tty": stream.tty
            })
        });
        let whole = json!({
            "user": action.agent.user,
            "extras": extras,
            "operation": action.operation,
            "resource": action.resource,
            "namespace": action.namespace,
            "name": if generated { None } else { action.name.as_deref() },
            "stream": stream,
            "content": content,
        });
        Self::of_bytes(&canonical::bytes(&whole))
    }

    /// The fingerprint of canonical bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(canonical::sha256_hex(bytes))
    }

    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, which name the ApprovalRequest.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
