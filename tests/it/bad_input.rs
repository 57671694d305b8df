//! Reviews that no API server sends: whatever is wrong with one, an agent's request is refused, nothing crashes, and
//! what has a uid is written down.
#![expect(clippy::indexing_slicing, reason = "a test that fails says so by panicking")]

use http::StatusCode;
use kustody::core::audit::Effect;
use serde_json::{Value, json};

use crate::wal::written;
use crate::webhook::{review, stage};

/// A creation that the default rules allow, with `object` in place of its object, as text.
fn creation(object: &str) -> String {
    review("CREATE", "configmaps", json!({"namespace": "agents", "object": "@"})).to_string().replace("\"@\"", object)
}

/// What became of a body: refused in the answer, or no answer but an error that the API server takes for a failed call.
fn refused(status: StatusCode, body: &[u8]) -> bool {
    match status {
        StatusCode::OK => {
            let answer: Value = serde_json::from_slice(body).unwrap();
            let response = &answer["response"];
            response["allowed"] == false && response["status"]["code"].as_u64().is_some_and(|code| code >= 400)
        }
        status => status.is_client_error(),
    }
}

fn nested(open: &str, inner: &str, close: &str, levels: usize) -> String {
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let object = |data: &str| creation(&format!(r#"{{"metadata":{{"name":"n"}},"data":{data}}}"#)).into_bytes();
    let with = |key: &str, value: Value| {
        let mut review = review("CREATE", "configmaps", json!({"namespace": "agents", "object": {"metadata": {}}}));
        review["request"][key] = value;
        review.to_string().into_bytes()
    };
    let without = |key: &str| {
        let mut review = review("CREATE", "configmaps", json!({"namespace": "agents", "object": {"metadata": {}}}));
        review["request"].as_object_mut().unwrap().remove(key);
        review.to_string().into_bytes()
    };
    let mut invalid_text = object(r#"{"k":"@"}"#);
    let at = invalid_text.iter().position(|byte| *byte == b'@').unwrap();
    invalid_text[at] = 0xff;
    let mut invalid_user = with("userInfo", json!({"username": "system:serviceaccount:agents:b@t"}));
    let at = invalid_user.iter().position(|byte| *byte == b'@').unwrap();
    invalid_user[at] = 0xc0;
    let twice = |envelope: &str| {
        creation(r#"{"metadata":{"name":"n"}}"#).replacen("\"uid\"", &format!("{envelope},\"uid\""), 1)
    };
    let extras =
        r#"{"username":"system:serviceaccount:agents:bot","extra":{"kustody.dev/run":["a"],"kustody.dev/run":["b"]}}"#;
    vec![
        ("10,000 levels of lists", object(&nested("[", "1", "]", 10_000))),
        ("10,000 levels of objects", object(&nested("{\"a\":", "1", "}", 10_000))),
        ("10,000 levels that never end", object(&"[".repeat(10_000))),
        ("10,000 levels around the review", nested("[", "1", "]", 10_000).into_bytes()),
        ("more than 8 MiB", object(&format!("{{\"k\":\"{}\"}}", "x".repeat(8 << 20)))),
        ("a member twice", object(r#"{"k":"a","k":"b"}"#)),
        ("a member twice in two spellings", object(r#"{"k":"a","\u006b":"b"}"#)),
        ("metadata twice", creation(r#"{"metadata":{"name":"a"},"metadata":{"name":"b"}}"#).into_bytes()),
        ("user info twice", twice(r#""userInfo":{"username":"anna"}"#).into_bytes()),
        ("operation twice", twice(r#""operation":"DELETE""#).into_bytes()),
        (
            "an extra twice",
            creation("{}").replacen("\"userInfo\"", &format!("\"userInfo\":{extras},\"x\""), 1).into_bytes(),
        ),
        ("an integer of 20 digits", object("99999999999999999999")),
        ("a number beyond floating point", object("1e999")),
        ("no number", object("1e")),
        ("invalid UTF-8 in the object", invalid_text),
        ("invalid UTF-8 in the user", invalid_user),
        ("no uid", without("uid")),
        ("a uid that is no text", with("uid", json!(7))),
        ("an unknown operation", with("operation", json!("PATCH"))),
        ("an operation in lower case", with("operation", json!("create"))),
        ("no operation", without("operation")),
        ("no user info", without("userInfo")),
        ("no resource", without("resource")),
        ("no object", without("object")),
        ("null for an object", creation("null").into_bytes()),
        ("a text for an object", creation("\"x\"").into_bytes()),
        ("a list for metadata", creation(r#"{"metadata":[1]}"#).into_bytes()),
        ("a list for labels", creation(r#"{"metadata":{"labels":["a"]}}"#).into_bytes()),
        ("an update without its old object", with("operation", json!("UPDATE"))),
        (
            "null for a request",
            br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}"#.to_vec(),
        ),
        ("a lone surrogate", object(r#""\ud800""#)),
        ("an unfinished escape", object(r#""\u00"#)),
        ("text behind the review", [creation("{}").into_bytes(), b"{}".to_vec()].concat()),
        ("nothing", Vec::new()),
        ("zeros", vec![0; 4096]),
    ]
}

#[tokio::test]
async fn whatever_is_wrong_with_a_review_is_refused() {
    let stage = stage(|_| {}).await;
    let sound = creation(r#"{"metadata":{"name":"n"},"data":{"k":"v"}}"#);
    let (status, body) = stage.post("?timeout=30s", sound).await;
    assert!(!refused(status, &body), "the rules allow it as such: {}", String::from_utf8_lossy(&body));
    let before = written(stage.dir.path()).len();
    let mut answered = 0;
    for (what, review) in bodies() {
        let (status, body) = stage.post("?timeout=30s", review).await;
        assert!(refused(status, &body), "{what}: {status} {}", String::from_utf8_lossy(&body));
        answered += usize::from(status == StatusCode::OK);
    }
    let entries = written(stage.dir.path()).split_off(before);
    assert_eq!(entries.len(), answered, "every refusal with a uid is written down");
    assert!(entries.iter().all(|entry| entry.effect == Effect::Refused));
    assert!(answered > 15, "{answered} had a uid that was found");
}

#[tokio::test]
async fn an_object_of_almost_8_mib_is_decided_like_any_other() {
    let stage = stage(|_| {}).await;
    let body = creation(&format!(r#"{{"metadata":{{"name":"n"}},"data":{{"k":"{}"}}}}"#, "x".repeat((8 << 20) - 4096)));
    let (status, body) = stage.post("?timeout=30s", body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(!refused(status, &body), "{}", String::from_utf8_lossy(&body));
    let line = written(stage.dir.path()).pop().unwrap().to_line().unwrap();
    assert!(line.len() < 4096, "by its digest, not by its {} bytes", line.len());
}

#[tokio::test]
async fn a_person_is_let_through_whatever_the_object_is() {
    let stage = stage(|_| {}).await;
    let body = creation(&nested("[", "1", "]", 10_000)).replace("system:serviceaccount:agents:bot", "anna");
    let (status, body) = stage.post("?timeout=30s", body).await;
    assert!(status == StatusCode::OK && !refused(status, &body), "{}", String::from_utf8_lossy(&body));
}
