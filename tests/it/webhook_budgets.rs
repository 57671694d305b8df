//! Budgets at the webhook: what is used up is held, whoever comes at once; refusals count, also the same one again.

use crate::webhook::{Stage, review, snapshot, stage};
use serde_json::{Value, json};
use std::time::Duration;

/// Everything is allowed but the deletion of nodes, within a budget of so much.
async fn within(limits: Value) -> Stage {
    let stage = stage(|config| config.park = Duration::from_millis(50)).await;
    let everything = json!([{"apiGroups": ["*"], "resources": ["*/*"]}]);
    let policy = json!({"rules": [
        {"id": "all", "reason": "freely", "action": "Allow", "match": {"resources": everything}},
        {"id": "nodes", "reason": "never", "action": "Deny", "match": {"resources": [{"apiGroups": [""], "resources": ["nodes"]}]}},
        {"id": "much", "reason": "that is a lot", "action": "Budget", "budget": {"limits": limits}, "match": {"resources": everything}}
    ]});
    drop(stage.rules.send_replace(snapshot(serde_json::from_value(policy).unwrap())));
    stage
}

fn note(name: &str) -> Value {
    review("CREATE", "configmaps", json!({"name": name, "object": {"metadata": {"name": name}}}))
}

#[tokio::test]
async fn of_many_calls_at_once_no_more_pass_than_the_budget_says_and_the_rest_is_held_with_the_numbers() {
    let stage = within(json!([{"counted": "Mutations", "max": 3, "window": "10m"}])).await;
    let notes: Vec<Value> = (0..20).map(|number| note(&format!("n{number}"))).collect();
    let answers = futures_util::future::join_all(notes.iter().map(|note| stage.ask("?timeout=30s", note))).await;
    assert_eq!(answers.iter().filter(|answer| answer["allowed"] == true).count(), 3);
    let held = answers.iter().find(|answer| answer["allowed"] == false).unwrap();
    let message = held["status"]["message"].as_str().unwrap();
    assert!(message.contains("that is a lot: 3 changes in 600 s are used up"), "{message}");
    let mut dry = note("dry");
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(stage.ask("?timeout=30s", dry).await["allowed"], true, "a dry run changes nothing");
}

#[tokio::test]
async fn the_same_refusal_again_and_again_uses_a_budget_up() {
    let stage = within(json!([{"counted": "Denies", "max": 3, "window": "10m"}])).await;
    assert_eq!(stage.ask("?timeout=30s", note("before")).await["allowed"], true);
    let node =
        review("DELETE", "nodes", json!({"namespace": "", "name": "n", "oldObject": {"metadata": {"name": "n"}}}));
    for _ in 0..3 {
        assert_eq!(stage.ask("?timeout=30s", &node).await["status"]["code"], 403);
    }
    let answer = stage.ask("?timeout=30s", note("after")).await;
    assert_eq!(answer["status"]["code"], 429, "{answer}");
    assert!(answer["status"]["message"].as_str().unwrap().contains("3 refusals in 600 s are used up"), "{answer}");
}

#[tokio::test]
async fn what_is_held_or_refused_uses_up_no_changes() {
    let stage = within(json!([{"counted": "Deletes", "max": 1, "window": "10m"}])).await;
    let node =
        review("DELETE", "nodes", json!({"namespace": "", "name": "n", "oldObject": {"metadata": {"name": "n"}}}));
    for _ in 0..5 {
        assert_eq!(stage.ask("?timeout=30s", &node).await["status"]["code"], 403);
    }
    let delete = |name: &str| {
        review("DELETE", "pods", json!({"name": name, "oldObject": {"metadata": {"name": name, "uid": name}}}))
    };
    assert_eq!(stage.ask("?timeout=30s", delete("a")).await["allowed"], true);
    assert_eq!(stage.ask("?timeout=30s", delete("b")).await["status"]["code"], 429);
}
