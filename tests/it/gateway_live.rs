//! Running sessions of a gateway: how many there may be, and what ends them while they run.

use crate::gateway::{Stage, code, exec_head, only_session, rules};
use crate::spool::{events, manifest};
use bytes::BytesMut;
use kustody::core::policy::{ClassSpec, PolicySnapshot, PolicySpec};
use kustody::core::recording::{Cause, EventKind};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An exec that has been switched over, and the API server's end of it.
async fn running(stage: &mut Stage) -> (TcpStream, crate::fake_api::Upgraded) {
    let mut client = TcpStream::connect(stage.address).await.expect("connect");
    client.write_all(exec_head("web", "command=sh&stdin=1&stdout=1").as_bytes()).await.expect("write");
    let mut answer = BytesMut::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        assert_ne!(client.read_buf(&mut answer).await.expect("read"), 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
    (client, stage.api.execs.recv().await.expect("stream"))
}

/// Everything that still comes.
async fn rest(mut client: TcpStream) -> String {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await;
    read.expect("cut").ok();
    String::from_utf8_lossy(&rest).into_owned()
}

fn allowing(action: &str) -> Arc<PolicySnapshot> {
    let class: ClassSpec =
        serde_json::from_value(json!({"subjects": {"serviceAccountNamespaces": ["agents"]}})).expect("class");
    let policy: PolicySpec = serde_json::from_value(json!({"rules": [
        {"id": "freeze", "reason": "nobody works tonight", "action": action, "match": {"operations": ["CONNECT"],
          "resources": [{"apiGroups": [""], "resources": ["pods/exec"]}]}}
    ]}))
    .expect("policy");
    let classes = BTreeMap::from([("agents".to_owned(), class)]);
    let (snapshot, problems) = PolicySnapshot::load(&classes, &BTreeMap::from([("p".to_owned(), policy)]));
    assert_eq!(problems, []);
    Arc::new(snapshot)
}

async fn ending(stage: &Stage) -> (Cause, String, Vec<EventKind>) {
    let session = only_session(stage).await;
    let reason = manifest(stage.spool.path(), &session, &stage.key).reason;
    (reason.cause, reason.detail, events(stage.spool.path(), &session))
}

#[tokio::test]
async fn one_session_too_many_is_told_to_come_back_and_finds_a_place_when_one_has_ended() {
    for (field, most, most_per_agent) in [("maxSessionsPerAgent", 9, 2), ("maxSessions", 2, 9)] {
        let limits = |config: &mut kustody::service::gateway::Config| {
            (config.max_sessions, config.max_sessions_per_agent) = (most, most_per_agent);
        };
        let mut stage = Stage::changed(1 << 30, limits).await;
        let first = running(&mut stage).await;
        let _second = running(&mut stage).await;
        let answer = stage.raw(exec_head("web", "command=sh&stdin=1").as_bytes()).await;
        assert!(code(&answer) == "429" && answer.contains("retry-after: 5"), "{answer}");
        assert!(answer.contains("NOT EXECUTED.") && answer.contains("which is the most at a time"), "{answer}");
        assert!(answer.contains(&format!(r#""reason":"KustodyLimit","field":"{field}""#)), "{answer}");
        drop(first);
        only_session(&stage).await;
        let (_client, _server) = running(&mut stage).await;
    }
}

#[tokio::test]
async fn a_rule_that_denies_or_holds_now_ends_what_runs_and_says_which() {
    for (action, verdict) in [("Deny", "denied by"), ("Hold", "held by")] {
        let mut stage = Stage::new().await;
        let (client, mut server) = running(&mut stage).await;
        stage.policies.send_replace(allowing(action));
        let changed = Instant::now();
        let told = rest(client).await;
        assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());
        let why = format!("kustody ended this session: {verdict} rule freeze: nobody works tonight");
        assert!(told.contains(&why), "{told}");
        // The API server's side is gone too.
        let mut scrap = Vec::new();
        server.read_to_end(&mut scrap).await.ok();
        let (cause, detail, events) = ending(&stage).await;
        assert_eq!((cause, detail), (Cause::Terminated, why.clone()));
        assert!(events.contains(&EventKind::Marker { name: "no-longer-allowed".into(), detail: why }), "{events:?}");
    }
}

#[tokio::test]
async fn a_change_that_still_allows_it_ends_nothing() {
    let mut stage = Stage::new().await;
    let (mut client, mut server) = running(&mut stage).await;
    stage.policies.send_replace(allowing("Allow"));
    stage.policies.send_replace(rules());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut out = BytesMut::new();
    let opcode = kustody::core::wire::websocket::Opcode::Binary;
    kustody::core::wire::websocket::encode(&mut out, opcode, None, &[b"\x01still here"]);
    server.write_all(&out).await.expect("write");
    let mut heard = BytesMut::new();
    while !heard.windows(10).any(|ten| ten == b"still here") {
        assert_ne!(client.read_buf(&mut heard).await.expect("read"), 0);
    }
}

#[tokio::test]
async fn who_is_no_agent_any_more_is_cut_off() {
    let mut stage = Stage::new().await;
    let (client, _server) = running(&mut stage).await;
    let (nobody, _) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::new());
    stage.policies.send_replace(Arc::new(nobody));
    let told = rest(client).await;
    assert!(told.contains("system:serviceaccount:agents:bot belongs to no AgentClass any more"), "{told}");
    assert_eq!(ending(&stage).await.0, Cause::Terminated);
}

#[tokio::test]
async fn a_token_that_is_valid_no_more_ends_what_it_opened() {
    let mut stage = Stage::changed(1 << 30, |config| config.recheck = Duration::from_millis(100)).await;
    let (client, _server) = running(&mut stage).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    stage.api.revoked.store(true, Ordering::Relaxed);
    let told = rest(client).await;
    assert!(told.contains("the token of system:serviceaccount:agents:bot is not valid any more"), "{told}");
    let (cause, _, events) = ending(&stage).await;
    assert_eq!(cause, Cause::Terminated);
    assert!(events.iter().any(|event| matches!(event, EventKind::Marker { name, .. } if name == "revoked")));
}
