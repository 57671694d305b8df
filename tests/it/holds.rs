//! Holding without a socket: tickets, groups, what changed meanwhile, and how many requests there may be. The API
//! server behind the webhook is [`FakeApi`](crate::approvals_api::FakeApi).
#![expect(clippy::indexing_slicing, reason = "a test that fails says so by panicking")]

use crate::approvals_api::eventually;
use crate::webhook::{Stage, deletion, review, snapshot, stage, stage_kept};
use kustody::core::approval::{Choice, Vote};
use kustody::edge::cluster::approvals;
use serde_json::{Value, json};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;
use tokio::time::Instant;

fn hold_everything(stage: &Stage, terms: Value) {
    let policy = json!({"rules": [{"id": "look", "reason": "people look", "action": "Hold", "hold": terms,
        "match": {"resources": [{"apiGroups": ["*"], "resources": ["*/*"]}]}}]});
    stage.rules.send_replace(snapshot(serde_json::from_value(policy).unwrap()));
}

fn approve(stage: &Stage, position: usize) {
    let vote = Vote { by: "anna".to_owned(), verdict: Choice::Approve, reason: None };
    stage.api.vote(position, &vote);
}

fn map(name: &str) -> Value {
    review("CREATE", "configmaps", json!({"name": name, "object": {"metadata": {"name": name}, "data": {"k": name}}}))
}

fn code(answer: &Value) -> u64 {
    answer["status"]["code"].as_u64().unwrap_or(200)
}

#[tokio::test]
async fn a_ticket_is_given_at_once_and_the_repeat_passes_after_the_approval() {
    let stage = stage(|_| {}).await;
    hold_everything(&stage, json!({"mode": "Ticket"}));
    let started = Instant::now();
    let answer = stage.ask("?timeout=30s", map("a")).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    let status = &answer["status"];
    assert_eq!((code(&answer), &status["details"]["causes"][0]["reason"]), (403, &json!("KustodyHold")));
    assert_eq!(status["details"]["retryAfterSeconds"], Value::Null);
    approve(&stage, 0);
    eventually(|| stage.api.requests()[0]["status"]["state"] == "Approved").await;
    assert_eq!(stage.ask("?timeout=30s", map("a")).await["allowed"], true);
}

#[tokio::test]
async fn twelve_objects_of_one_command_are_one_group() {
    let stage = stage(|_| {}).await;
    hold_everything(&stage, json!({"mode": "Ticket"}));
    for number in 0..12 {
        assert_eq!(code(&stage.ask("?timeout=30s", map(&format!("m{number}"))).await), 403);
    }
    let mut other = map("theirs");
    other["request"]["userInfo"]["extra"] = json!({"kustody.dev/run": ["r2"]});
    stage.ask("?timeout=30s", other).await;
    let requests = stage.api.requests();
    let groups: Vec<&str> = requests.iter().map(|request| request["spec"]["group"].as_str().unwrap()).collect();
    assert_eq!(groups.len(), 13);
    assert!(groups[..12].iter().all(|group| *group == groups[0]) && groups[12] != groups[0], "{groups:?}");
    assert!(
        requests.iter().all(|request| request["metadata"]["labels"]["kustody.dev/group"] == request["spec"]["group"])
    );
}

#[tokio::test]
async fn an_object_that_changed_since_the_approval_is_held_again_and_says_so() {
    let stage = stage(|_| {}).await;
    hold_everything(&stage, json!({"mode": "Ticket"}));
    let delete = |replicas: u32| {
        let old = json!({"metadata": {"name": "web", "uid": "u1", "resourceVersion": replicas.to_string()},
            "spec": {"replicas": replicas}, "status": {"x": replicas}});
        review("DELETE", "apps:deployments", json!({"oldObject": old}))
    };
    stage.ask("?timeout=30s", delete(1)).await;
    approve(&stage, 0);
    eventually(|| stage.api.requests()[0]["status"]["state"] == "Approved").await;
    let answer = stage.ask("?timeout=30s", delete(2)).await;
    let message = answer["status"]["message"].as_str().unwrap();
    let first = stage.api.requests()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(message.contains(&format!("the object changed since {first} was asked for")), "{message}");
    let requests = stage.api.requests();
    assert_eq!((requests.len(), &requests[0]["status"]["state"]), (2, &json!("Superseded")));
    assert_eq!(requests[1]["spec"]["supersedes"]["because"], "ObjectChanged");
    approve(&stage, 1);
    eventually(|| stage.api.requests()[1]["status"]["state"] == "Approved").await;
    assert_eq!(code(&stage.ask("?timeout=30s", delete(1)).await), 403, "the first approval is of no use any more");
}

#[tokio::test]
async fn a_denial_stays_in_force_however_the_object_changes() {
    let stage = stage(|config| config.park = Duration::from_millis(50)).await;
    stage.ask("?timeout=30s", deletion()).await;
    let vote = Vote { by: "anna".to_owned(), verdict: Choice::Deny, reason: Some("no".to_owned()) };
    stage.api.vote(0, &vote);
    eventually(|| stage.api.requests()[0]["status"]["state"] == "Denied").await;
    let mut changed = deletion();
    changed["request"]["oldObject"]["spec"] = json!({"replicas": 9});
    assert!(stage.ask("?timeout=30s", changed).await["status"]["message"].as_str().unwrap().contains("denied by anna"));
    assert_eq!(stage.api.requests().len(), 1);
}

#[tokio::test]
async fn rules_that_ask_for_more_after_the_approval_ask_again() {
    let stage = stage(|_| {}).await;
    hold_everything(&stage, json!({"mode": "Ticket"}));
    stage.ask("?timeout=30s", map("a")).await;
    approve(&stage, 0);
    eventually(|| stage.api.requests()[0]["status"]["state"] == "Approved").await;
    hold_everything(&stage, json!({"mode": "Ticket", "approvers": ["security"]}));
    let answer = stage.ask("?timeout=30s", map("a")).await;
    assert!(answer["status"]["message"].as_str().unwrap().contains("the rules ask for more"), "{answer}");
    assert_eq!(stage.api.requests()[1]["spec"]["approvers"], json!([["security"]]));
}

#[tokio::test]
async fn how_often_the_same_was_asked_today_is_told() {
    let stage = stage(|_| {}).await;
    hold_everything(&stage, json!({"mode": "Ticket"}));
    for content in ["a", "b", "c"] {
        let mut again = map("same");
        again["request"]["object"]["data"]["k"] = json!(content);
        stage.ask("?timeout=30s", again).await;
    }
    let counts: Vec<Value> = stage.api.requests().iter().map(|request| request["spec"]["askedToday"].clone()).collect();
    assert_eq!(counts, [0, 1, 2]);
}

#[tokio::test]
async fn an_agent_that_has_too_many_open_is_refused_and_others_are_not() {
    let stage = stage(|_| {}).await;
    hold_everything(&stage, json!({"mode": "Ticket"}));
    let storm = (0..200).map(|number| {
        let stage = &stage;
        async move { code(&stage.ask("?timeout=30s", map(&format!("m{number}"))).await) }
    });
    let codes = futures_util::future::join_all(storm).await;
    assert!(codes.iter().all(|code| *code == 403));
    assert_eq!(stage.api.requests().len(), 32, "the cap of this test");
    let refused = stage.ask("?timeout=30s", map("one-more")).await;
    assert_eq!(refused["status"]["details"]["causes"][0]["reason"], "KustodyLimit");
    assert!(refused["status"]["message"].as_str().unwrap().contains("32 open approval requests, of at most 32"));
    let mut other = map("m");
    other["request"]["userInfo"]["username"] = json!("system:serviceaccount:agents:other");
    stage.ask("?timeout=30s", other).await;
    assert_eq!(stage.api.requests().len(), 33);
}

#[tokio::test]
async fn what_is_over_is_removed_only_after_it_was_archived() {
    let (is_full, archived) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
    let (full, kept) = (Arc::clone(&is_full), Arc::clone(&archived));
    let limits = approvals::Config {
        retention: Duration::ZERO,
        sweep_every: Duration::from_millis(20),
        ..approvals::Config::default()
    };
    let stage = stage_kept(
        1 << 30,
        |_| {},
        limits,
        |keeper| {
            keeper.archiving(Arc::new(move |request| {
                let (full, kept) = (Arc::clone(&full), Arc::clone(&kept));
                Box::pin(async move {
                    if full.load(Ordering::Relaxed) {
                        return Err("the disk is full".to_owned());
                    }
                    kept.lock().unwrap().push(request.metadata.name.unwrap());
                    Ok(())
                })
            }))
        },
    )
    .await;
    hold_everything(&stage, json!({"mode": "Ticket"}));
    stage.ask("?timeout=30s", deletion()).await;
    let first = stage.api.requests()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let mut changed = deletion();
    changed["request"]["oldObject"]["spec"] = json!({"replicas": 9});
    stage.ask("?timeout=30s", changed).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.api.requests().len(), 2, "nothing is removed while it cannot be archived");
    is_full.store(false, Ordering::Relaxed);
    eventually(|| stage.api.requests().len() == 1).await;
    assert_eq!(*archived.lock().unwrap(), [first]);
    assert_eq!(stage.api.requests()[0]["status"]["state"], "Pending", "what is open stays");
}
