//! Kubernetes `Status` answers: what a client is told when the gateway itself answers.
//!
//! Clients read the JSON whatever they asked for, go by its content type, and kubectl prints the message
//! as it is. Nothing about the inside of Kustody is told here.

use super::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde::Serialize;
use serde_json::Value;

/// The reason in `details.causes` of an answer to a held request.
pub(super) const HOLD: &str = "KustodyHold";
/// The reason in `details.causes` of an answer to a denied request.
pub(super) const DENY: &str = "KustodyDeny";
/// The reason in `details.causes` of an answer to what goes beyond a limit.
pub(super) const LIMIT: &str = "KustodyLimit";

/// An answer of the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) message: String,
    cause: Option<Cause>,
    retry_after: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Cause {
    reason: &'static str,
    field: String,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    code: u16,
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    causes: Option<[&'a Cause; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into(), cause: None, retry_after: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// For a stream whose recording fails before anything was dialled.
    pub(super) fn unrecorded() -> Self {
        Self::unavailable("NOT EXECUTED. This session cannot be recorded now; try again later")
    }

    /// Names the rule or the approval, for programs. `field` is its id.
    pub(super) fn cause(mut self, reason: &'static str, field: &str) -> Self {
        self.cause = Some(Cause { reason, field: field.to_owned(), message: self.message.clone() });
        self
    }

    /// client-go and kubectl send the request again by themselves after this many seconds.
    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The whole HTTP response.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = json(self.code, self.json());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The `Status` itself.
    pub(super) fn json(&self) -> Bytes {
        let details =
            Details { causes: self.cause.as_ref().map(|cause| [cause]), retry_after_seconds: self.retry_after };
        let status = Status {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata {},
            status: "Failure",
            message: &self.message,
            reason: reason(self.code),
            details: (self.cause.is_some() || self.retry_after.is_some()).then_some(details),
            code: self.code.as_u16(),
        };
        // Plain strings and numbers always serialise; an empty body would still carry the code.
        serde_json::to_vec(&status).map(Bytes::from).unwrap_or_default()
    }
}

/// The `Status` that a body of the API server is, if it is one.
pub(super) fn parsed(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(|status: &Value| status.get("kind").is_some_and(|kind| kind == "Status"))
}

/// A JSON response from bytes at hand.
pub(super) fn json(code: StatusCode, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The `metav1.StatusReason` that client libraries test for.
fn reason(code: StatusCode) -> &'static str {
    match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::GATEWAY_TIMEOUT => "Timeout",
        _ => "InternalError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_that_names_its_rule() {
        let refusal = Refusal::forbidden("no").cause(DENY, "no-exec").retry_after(1);
        assert_eq!(
            String::from_utf8_lossy(&refusal.json()),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no","reason":"Forbidden","details":{"causes":[{"reason":"KustodyDeny","field":"no-exec","message":"no"}],"retryAfterSeconds":1},"code":403}"#
        );
        assert_eq!(refusal.response().headers()[RETRY_AFTER], "1");
    }
}
