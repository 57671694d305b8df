//! Writing the answer of a mutating webhook: it refuses nothing, and changes an object or does not.
//!
//! Apart from [`super::answer`], since a validating webhook that sends a patch fails the call.

use super::review::{API_VERSION, KIND};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// The whole AdmissionReview that answers the request `uid`; `patch` is a JSON patch.
#[must_use]
pub fn encode(uid: &str, patch: Option<&Value>) -> Vec<u8> {
    let response = match patch {
        None => json!({"uid": uid, "allowed": true}),
        Some(patch) => json!({
            "uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())
        }),
    };
    json!({"apiVersion": API_VERSION, "kind": KIND, "response": response}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_and_type_come_together_or_not_at_all() {
        let read = |patch: Option<&Value>| -> Value { serde_json::from_slice(&encode("u-1", patch)).unwrap() };
        assert_eq!(read(None)["response"], json!({"uid": "u-1", "allowed": true}));
        let answer = read(Some(&json!([{"op": "add", "path": "/spec/suspend", "value": true}])));
        let patch = STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        assert!(String::from_utf8(patch).unwrap().starts_with("[{"));
    }
}
