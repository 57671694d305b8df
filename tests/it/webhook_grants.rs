//! Grants at the webhook: what they let through, how uses are counted, and what an agent may ask for.
#![expect(clippy::indexing_slicing, reason = "a test that fails says so by panicking")]

use crate::approvals_api::eventually;
use crate::webhook::{Stage, deletion, review, stage};
use serde_json::{Value, json};
use std::time::Duration;

const BOT: &str = "system:serviceaccount:agents:bot";
const GRANTS: &str = "grants";

/// A grant for the deployments of the namespace `default`, with two uses.
fn grant(name: &str, origin: &str) -> Value {
    let until = jiff::Timestamp::now().checked_add(Duration::from_secs(600)).unwrap();
    json!({
        "apiVersion": "kustody.dev/v1alpha1", "kind": "Grant",
        "metadata": {
            "name": name, "namespace": "kustody-system", "uid": format!("uid-{name}"),
            "creationTimestamp": jiff::Timestamp::now().to_string()
        },
        "spec": {
            "requester": if origin == "Given" { "anna" } else { BOT }, "origin": origin, "class": "agents", "agent": BOT,
            "actions": [{"operations": ["DELETE"], "apiGroups": ["apps"], "resources": ["deployments"]}],
            "namespaces": ["default"], "until": until.to_string(), "maxUses": 2, "reason": "release", "quorum": 1
        }
    })
}

fn delete(name: &str) -> Value {
    let object = json!({"metadata": {"name": name, "uid": name}});
    review("DELETE", "apps:deployments", json!({"name": name, "oldObject": object}))
}

fn shown(stage: &Stage, name: &str) -> Value {
    stage.api.all(GRANTS).into_iter().find(|grant| grant["metadata"]["name"] == name).unwrap()["status"].clone()
}

async fn in_force(stage: &Stage, name: &str) {
    eventually(|| shown(stage, name)["state"] == "Active").await;
}

#[tokio::test]
async fn a_grant_lets_held_deletes_through_and_counts_each_until_it_is_used_up() {
    let stage = stage(|config| config.park = Duration::from_millis(50)).await;
    stage.api.put(GRANTS, grant("release", "Given"));
    in_force(&stage, "release").await;
    for name in ["a", "b"] {
        let answer = stage.ask("?timeout=30s", delete(name)).await;
        assert_eq!((&answer["allowed"], &answer["auditAnnotations"]["grant"]), (&json!(true), &json!("release")));
    }
    assert_eq!(
        (&shown(&stage, "release")["uses"], &shown(&stage, "release")["state"]),
        (&json!(2), &json!("Exhausted"))
    );
    let answer = stage.ask("?timeout=30s", delete("c")).await;
    assert_eq!(answer["status"]["code"], 429, "{answer}");
    assert_eq!(stage.api.requests().len(), 1, "only the third asked people");
}

#[tokio::test]
async fn thirty_calls_at_once_use_a_grant_no_oftener_than_it_says() {
    let stage = stage(|config| config.park = Duration::from_millis(50)).await;
    stage.api.put(GRANTS, grant("release", "Given"));
    in_force(&stage, "release").await;
    let names: Vec<String> = (0..30).map(|number| format!("web-{number}")).collect();
    let answers = names.iter().map(|name| stage.ask("?timeout=30s", delete(name)));
    let answers = futures_util::future::join_all(answers).await;
    let allowed = answers.iter().filter(|answer| answer["allowed"] == true).count();
    assert_eq!((allowed, &shown(&stage, "release")["uses"]), (2, &json!(2)));
}

#[tokio::test]
async fn a_parked_delete_goes_on_when_a_grant_comes_into_force() {
    let stage = stage(|_| {}).await;
    stage.api.put(GRANTS, grant("release", "Requested"));
    let (answer, ()) = tokio::join!(stage.ask("?timeout=30s", deletion()), async {
        eventually(|| stage.webhook.parked() == 1).await;
        let by_the_agent = json!({"decisions": [{"by": BOT, "verdict": "Approve"}]});
        stage.api.set_status(GRANTS, "release", &by_the_agent);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(stage.webhook.parked(), 1, "an agent's word is none");
        let decisions = json!([{"by": BOT, "verdict": "Approve"}, {"by": "anna", "verdict": "Approve"}]);
        stage.api.set_status(GRANTS, "release", &json!({"decisions": decisions}));
    });
    assert_eq!((&answer["allowed"], &shown(&stage, "release")["uses"]), (&json!(true), &json!(1)));
}

#[tokio::test]
async fn a_use_that_cannot_be_counted_is_not_allowed_and_a_revoked_grant_is_none() {
    let stage = stage(|config| config.park = Duration::from_millis(50)).await;
    stage.api.put(GRANTS, grant("release", "Given"));
    in_force(&stage, "release").await;
    stage.api.fail(true);
    let answer = stage.ask("?timeout=30s", delete("a")).await;
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(503)), "{answer}");
    stage.api.fail(false);
    let revocation = json!({"decisions": [{"by": "bert", "verdict": "Deny", "reason": "enough"}]});
    stage.api.set_status(GRANTS, "release", &revocation);
    eventually(|| shown(&stage, "release")["state"] == "Revoked").await;
    assert_eq!(stage.ask("?timeout=30s", delete("a")).await["status"]["code"], 429);
}

fn creation(object: &Value) -> Value {
    let name = object["metadata"]["name"].clone();
    review("CREATE", "kustody.dev:grants", json!({"namespace": "kustody-system", "name": name, "object": object}))
}

#[tokio::test]
async fn an_agent_may_ask_for_a_grant_for_itself_and_write_nothing_else_of_kustodys() {
    let stage = stage(|_| {}).await;
    let answer = stage.ask("?timeout=30s", creation(&grant("mine", "Requested"))).await;
    assert_eq!(
        (&answer["allowed"], &answer["auditAnnotations"]["rule"]),
        (&json!(true), &json!("built-in/grant-request"))
    );
    let mut others = grant("others", "Requested");
    others["spec"]["agent"] = json!("system:serviceaccount:agents:other");
    let mut everybodys = grant("everybodys", "Requested");
    everybodys["spec"].as_object_mut().unwrap().remove("agent");
    for object in [grant("given", "Given"), others, everybodys, json!({"metadata": {"name": "empty"}})] {
        let answer = stage.ask("?timeout=30s", creation(&object)).await;
        assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(403)), "{object}");
    }
    let object = grant("mine", "Requested");
    let own = json!({"namespace": "kustody-system", "name": "mine", "object": object, "oldObject": object});
    for (operation, resource) in [
        ("UPDATE", "kustody.dev:grants"),
        ("UPDATE", "kustody.dev:grants/status"),
        ("CREATE", "kustody.dev:grants/status"),
        ("DELETE", "kustody.dev:grants"),
        ("CREATE", "kustody.dev:approvalrequests"),
        ("UPDATE", "kustody.dev:approvalrequests/status"),
        ("CREATE", "kustody.dev:agentpolicies"),
        ("CREATE", "configmaps"),
        ("CREATE", "secrets"),
        ("CREATE", "rbac.authorization.k8s.io:rolebindings"),
        ("CREATE", "other.dev:grants"),
        ("CONNECT", "kustody.dev:grants"),
    ] {
        let answer = stage.ask("?timeout=30s", review(operation, resource, own.clone())).await;
        assert_eq!(
            (&answer["allowed"], &answer["status"]["code"]),
            (&json!(false), &json!(403)),
            "{operation} {resource}"
        );
    }
    assert_eq!(stage.api.requests().len(), 0, "none of it was held");
}

#[tokio::test]
async fn a_storm_of_requests_for_grants_ends_at_the_cap() {
    let stage = stage(|_| {}).await;
    let mut admitted = 0;
    for number in 0..50 {
        let object = grant(&format!("g-{number}"), "Requested");
        let answer = stage.ask("?timeout=30s", creation(&object)).await;
        if answer["allowed"] == true {
            admitted += 1;
            stage.api.put(GRANTS, object);
        } else {
            assert!(answer["status"]["message"].as_str().unwrap().contains("nobody has decided"), "{answer}");
        }
    }
    assert_eq!(admitted, 8);
}
