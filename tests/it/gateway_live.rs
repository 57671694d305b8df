//! Running sessions of a gateway: how many there may be, and what ends them while they run.

use crate::approvals_api::{FakeApi as ApprovalsApi, eventually};
use crate::gateway::{Stage, code, exec_head, only_session, rules};
use crate::spool::{events, manifest};
use crate::wal::written;
use bytes::BytesMut;
use kustody::core::audit::{Effect, Entry, Kind, Text};
use kustody::core::policy::{ClassSpec, PolicySnapshot, PolicySpec};
use kustody::core::recording::{Cause, EventKind};
use kustody::core::wire::websocket::{Opcode, encode};
use kustody::edge::cluster::terminations::Terminations;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// An exec that has been switched over, and the API server's end of it.
async fn running(stage: &mut Stage) -> (TcpStream, crate::fake_api::Upgraded) {
    running_in(stage, "web").await
}

async fn running_in(stage: &mut Stage, pod: &str) -> (TcpStream, crate::fake_api::Upgraded) {
    let mut client = TcpStream::connect(stage.address).await.expect("connect");
    client.write_all(exec_head(pod, "command=sh&stdin=1&stdout=1").as_bytes()).await.expect("write");
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

pub(crate) fn allowing(action: &str) -> Arc<PolicySnapshot> {
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

pub(crate) async fn ending(stage: &Stage) -> (Cause, String, Vec<EventKind>) {
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
        // Its place is free a moment after its recording is sealed.
        let mut answer = answer;
        for _ in 0..50 {
            if code(&answer) != "429" {
                break;
            }
            answer = stage.raw(exec_head("web", "command=sh&stdin=1").as_bytes()).await;
        }
        assert_eq!(code(&answer), "101", "{answer}");
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
        assert!(
            events.contains(&EventKind::Marker { name: "no-longer-allowed".into(), detail: why.clone() }),
            "{events:?}"
        );
        logged(&stage, &why).await;
    }
}

#[tokio::test]
async fn a_change_that_still_allows_it_ends_nothing() {
    let mut stage = Stage::new().await;
    let (mut client, mut server) = running(&mut stage).await;
    stage.policies.send_replace(allowing("Allow"));
    stage.policies.send_replace(rules());
    still_there(&mut client, &mut server).await;
}

/// A message that passes, some time after something changed.
async fn still_there(client: &mut TcpStream, server: &mut crate::fake_api::Upgraded) {
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut out = BytesMut::new();
    encode(&mut out, Opcode::Binary, None, &[b"\x01still here"]);
    server.write_all(&out).await.expect("write");
    let mut heard = BytesMut::new();
    while !heard.windows(10).any(|ten| ten == b"still here") {
        assert_ne!(client.read_buf(&mut heard).await.expect("read"), 0);
    }
}

fn grant() -> Value {
    let now = jiff::Timestamp::now();
    json!({
        "apiVersion": "kustody.dev/v1alpha1", "kind": "Grant",
        "metadata": {"name": "tonight", "namespace": "kustody-system", "uid": "g1", "creationTimestamp": now},
        "spec": {
            "requester": "anna", "origin": "Given", "class": "agents", "agent": "system:serviceaccount:agents:bot",
            "actions": [{"operations": ["CONNECT"], "apiGroups": [""], "resources": ["pods/exec"]}],
            "namespaces": ["a"], "until": now + Duration::from_secs(600), "maxUses": 1, "reason": "a repair", "quorum": 1
        }
    })
}

#[tokio::test]
async fn a_grant_that_is_used_up_stands_for_what_it_let_through_and_one_taken_back_does_not() {
    let people = ApprovalsApi::default();
    let mut stage = Stage::beside(people.clone(), 1 << 30, |_| {}).await;
    people.put("grants", grant());
    let state = || people.all("grants").first().and_then(|one| one.pointer("/status/state").cloned());
    eventually(|| state() == Some("Active".into())).await;
    let (mut client, mut server) = running_in(&mut stage, "held").await;
    eventually(|| state() == Some("Exhausted".into())).await;
    stage.policies.send_replace(allowing("Hold"));
    still_there(&mut client, &mut server).await;
    let revoked = json!({"decisions": [{"by": "anna", "verdict": "Deny", "reason": "done"}]});
    people.set_status("grants", "tonight", &revoked);
    let told = rest(client).await;
    assert!(told.contains("kustody ended this session: the grant tonight is over or was taken back"), "{told}");
    assert_eq!(ending(&stage).await.0, Cause::Terminated);
}

#[tokio::test]
async fn more_ports_than_connections_are_refused_before_anything_is_forwarded() {
    let mut stage = Stage::changed(1 << 30, |config| config.limits.connections = 2).await;
    let head = exec_head("web", "ports=80&ports=81&ports=82").replace("/exec?", "/portforward?");
    let answer = stage.raw(head.replace("v5.channel", "v4.channel").as_bytes()).await;
    assert!(code(&answer) == "403" && answer.contains("At most 2 connections"), "{answer}");
    assert!(stage.api.untouched());
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

/// Entries of the log about sessions that were ordered to end.
fn ends(stage: &Stage) -> Vec<Entry> {
    written(stage.spool.path()).into_iter().filter(|entry| entry.kind == Kind::Termination).collect()
}

/// The log says once that the one session was ended, whose it was, and why.
async fn logged(stage: &Stage, why: &str) {
    eventually(|| !ends(stage).is_empty()).await;
    let mut ends = ends(stage);
    assert_eq!(ends.len(), 1, "{ends:?}");
    let end = ends.remove(0);
    assert_eq!((end.effect, end.note.as_ref().and_then(Text::as_str)), (Effect::Ended, Some(why)));
    assert_eq!(end.recording.map(|session| session.to_string()), Some(session_of(stage)));
    assert_eq!(end.principal.agent.user.as_str(), Some("system:serviceaccount:agents:bot"));
    assert_eq!(end.subresource.as_ref().and_then(Text::as_str), Some("exec"));
}

/// The one session in the spool, running or not.
fn session_of(stage: &Stage) -> String {
    let folders = std::fs::read_dir(stage.spool.path()).expect("spool").filter_map(Result::ok);
    let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.len() == 36).max().expect("a session")
}

fn termination(name: &str, session: &str, reason: &str) -> Value {
    json!({
        "apiVersion": "kustody.dev/v1alpha1", "kind": "Termination",
        "metadata": {"name": name, "namespace": "kustody-system", "uid": "u"},
        "spec": {"session": session, "by": "alice", "reason": reason}
    })
}

#[tokio::test]
async fn whoever_a_person_kills_is_cut_by_the_replica_that_has_it_and_told_by_whom() {
    let people = ApprovalsApi::default();
    let mut other = Stage::beside(people.clone(), 1 << 30, |_| {}).await;
    let mut stage = Stage::beside(people.clone(), 1 << 30, |_| {}).await;
    let _bystander = running(&mut other).await;
    let (client, mut server) = running(&mut stage).await;
    people.put("terminations", termination("typo", "no-session", "a typo"));
    people.put("terminations", termination("k1", &session_of(&stage), "wrong\u{1b}[2J cluster"));
    let ordered = Instant::now();
    let told = rest(client).await;
    server.read_to_end(&mut Vec::new()).await.ok();
    assert!(ordered.elapsed() < Duration::from_secs(1), "{:?}", ordered.elapsed());
    assert!(told.contains(r#""message":"killed by alice: wrong [2J cluster""#), "{told}");
    let (cause, detail, events) = ending(&stage).await;
    assert_eq!((cause, detail.as_str()), (Cause::Terminated, "killed by alice: wrong [2J cluster"));
    assert!(events.contains(&EventKind::Marker { name: "killed".into(), detail: detail.clone() }), "{events:?}");
    logged(&stage, &detail).await;
    assert_eq!(ends(&other).len(), 0);
    let status = || people.all("terminations").iter().find(|one| one["metadata"]["name"] == "k1").cloned();
    eventually(|| status().is_some_and(|one| one["status"]["replica"] == "local")).await;
    assert!(!other.spool.path().join(session_of(&other)).join("manifest.json").exists(), "the bystander runs on");
}

#[tokio::test]
async fn orders_are_put_away_when_they_are_old() {
    let people = ApprovalsApi::default();
    people.put("terminations", termination("early", "019aa8c0-4a3b-7e50-8f21-6d1c0b2a9e77", "before the start"));
    let (terminations, keeper) = Terminations::new(people.client(), "local");
    let stop = CancellationToken::new();
    let (kept, sweep) = (Duration::from_millis(400), Duration::from_millis(50));
    let keeping = tokio::spawn(keeper.keeping(kept, sweep).run(stop.clone()));
    let open = terminations.open();
    eventually(|| open.borrow().contains_key("early")).await;
    people.put("terminations", termination("late", "019aa8c0-4a3b-7e50-8f21-6d1c0b2a9e78", "while it runs"));
    assert_eq!(people.all("terminations").len(), 2, "put away too early");
    eventually(|| people.all("terminations").is_empty() && open.borrow().is_empty()).await;
    stop.cancel();
    keeping.await.expect("ends");
}
