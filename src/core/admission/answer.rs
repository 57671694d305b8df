//! Writing the answer to an AdmissionReview.
//!
//! A denial always carries code and reason (the API server would invent others), and uid always equals the
//! request's. There is no patch here: a validating webhook that sends one fails the call.

use super::review::{API_VERSION, KIND};
use crate::core::audit::Decided;
use serde::Serialize;
use std::collections::BTreeMap;

/// Warnings longer than this may be cut by the API server.
const WARNING_LIMIT: usize = 256;
/// All warnings of one request together; the API server drops what is beyond 4096.
const WARNINGS_LIMIT: usize = 2048;

/// What the API server is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Let it through.
    pub allowed: bool,
    /// Set exactly when it is not allowed.
    pub status: Option<Status>,
    /// Printed by kubectl as `Warning: …`.
    pub warnings: Vec<String>,
    /// End up in the audit event as `<webhook>/<key>`.
    pub audit_annotations: BTreeMap<String, String>,
    /// What it follows from, for the log; never sent.
    pub decided: Option<Box<Decided>>,
}

/// Why not, in the form of a Kubernetes Status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// HTTP status the client gets.
    pub code: u16,
    /// Machine-readable word, such as `Forbidden`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Machine-readable details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// `status.details`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// What clients read to find a held request.
    pub causes: Vec<Cause>,
    /// Becomes the `Retry-After` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// `KustodyHold`, `KustodyDeny`.
    pub reason: &'static str,
    /// Id of the approval request.
    pub field: String,
    /// For people.
    pub message: String,
}

impl Answer {
    /// Let it through.
    #[must_use]
    pub fn allow() -> Self {
        Self::of(true, None)
    }

    /// Refuse.
    #[must_use]
    pub fn refuse(status: Status) -> Self {
        Self::of(false, Some(status))
    }

    fn of(allowed: bool, status: Option<Status>) -> Self {
        Self { allowed, status, warnings: Vec::new(), audit_annotations: BTreeMap::new(), decided: None }
    }

    /// 403.
    #[must_use]
    pub fn forbid(message: String) -> Self {
        Self::refuse(Status { code: 403, reason: "Forbidden", message, details: None })
    }

    /// 429: the same request again after so many seconds, which client-go does by itself, ten times.
    #[must_use]
    pub fn again(id: &str, seconds: u32, message: String) -> Self {
        let cause = Cause { reason: "KustodyHold", field: id.to_owned(), message: message.clone() };
        let details = Details { causes: vec![cause], retry_after_seconds: Some(seconds) };
        Self::refuse(Status { code: 429, reason: "TooManyRequests", message, details: Some(details) })
    }

    /// 400: the review itself is bad.
    #[must_use]
    pub fn bad_request(message: String) -> Self {
        Self::refuse(Status { code: 400, reason: "BadRequest", message, details: None })
    }

    /// The whole AdmissionReview that answers the request `uid`.
    ///
    /// # Errors
    /// Never in practice: every part is plain text.
    pub fn encode(&self, uid: &str) -> Result<Vec<u8>, serde_json::Error> {
        let mut left = WARNINGS_LIMIT;
        let warnings: Vec<String> = self
            .warnings
            .iter()
            .map(|warning| clip(warning, WARNING_LIMIT))
            .take_while(|warning| {
                let fits = warning.len() <= left;
                left = left.saturating_sub(warning.len());
                fits
            })
            .collect();
        serde_json::to_vec(&Envelope {
            api_version: API_VERSION,
            kind: KIND,
            response: Response {
                uid,
                allowed: self.allowed,
                status: self.status.as_ref(),
                warnings,
                audit_annotations: &self.audit_annotations,
            },
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: &'a BTreeMap<String, String>,
}

/// At most `limit` bytes of one line.
fn clip(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        if out.len() + character.len_utf8() > limit {
            break;
        }
        out.push(if character.is_control() { ' ' } else { character });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowed_answer_is_bare_and_bears_the_uid() {
        let text = String::from_utf8(Answer::allow().encode("u-1").unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u-1","allowed":true}}"#
        );
    }

    #[test]
    fn a_hold_is_a_429_that_client_go_repeats_after_a_second() {
        let value: serde_json::Value =
            serde_json::from_slice(&Answer::again("apr-1", 1, "NOT EXECUTED".into()).encode("u").unwrap()).unwrap();
        let status = &value["response"]["status"];
        assert_eq!(status["code"], 429);
        assert_eq!(status["details"]["retryAfterSeconds"], 1);
        assert_eq!(status["details"]["causes"][0]["field"], "apr-1");
    }

    #[test]
    fn warnings_stay_within_the_limits_of_the_api_server() {
        let mut answer = Answer::allow();
        answer.warnings = vec!["ä\n".repeat(400); 40];
        let value: serde_json::Value = serde_json::from_slice(&answer.encode("u").unwrap()).unwrap();
        let warnings = value["response"]["warnings"].as_array().unwrap();
        assert!(warnings.iter().all(|w| w.as_str().unwrap().len() <= 256 && !w.as_str().unwrap().contains('\n')));
        assert!(warnings.iter().map(|w| w.as_str().unwrap().len()).sum::<usize>() <= 4096);
    }
}
