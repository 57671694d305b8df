//! Holding by suspending: what the two calls of one creation say, and what becomes of the object. The API server behind
//! the webhook is [`FakeApi`](crate::approvals_api::FakeApi).
#![expect(clippy::indexing_slicing, reason = "a test that fails says so by panicking")]

use crate::approvals_api::eventually;
use crate::wal::written;
use crate::webhook::{Stage, review, snapshot, stage};
use http::Method;
use kustody::core::approval::Choice;
use kustody::core::audit::{Effect, Outcome};
use kustody::edge::cluster::approvals::{self, Approvals};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const MARK: &str = "kustody.dev/suspended";

/// With a rule that has Jobs, CronJobs and Deployments created suspended, on these terms.
async fn suspending(terms: Value) -> Stage {
    let stage = stage(|config| config.park = Duration::from_millis(50)).await;
    rules(&stage, terms);
    stage
}

fn rules(stage: &Stage, terms: Value) {
    let rule = json!({"id": "look", "reason": "people look", "action": "Hold", "hold": terms,
        "match": {"operations": ["CREATE"], "resources": [
            {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"]},
            {"apiGroups": ["apps"], "resources": ["deployments"]}]}});
    let other = json!({"id": "rest", "reason": "free", "action": "Allow",
        "match": {"resources": [{"apiGroups": ["*"], "resources": ["*"]}]}});
    stage.rules.send_replace(snapshot(serde_json::from_value(json!({"rules": [rule, other]})).unwrap()));
}

fn job(name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"},
        "spec": {"suspend": false, "template": {"spec": {"containers": [{"image": "a"}]}}}})
}

/// The object as the first call leaves it; as it came, where it is not changed.
async fn mutated(stage: &Stage, resource: &str, object: &Value) -> Value {
    let mut object = object.clone();
    let creation = review("CREATE", resource, json!({"name": object["metadata"]["name"], "object": object}));
    for step in stage.suspend(&creation).await.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let (above, last) = step["path"].as_str().unwrap().rsplit_once('/').unwrap();
        assert_eq!(step["op"], "add");
        object.pointer_mut(above).unwrap()[last.replace("~1", "/")] = step["value"].clone();
    }
    object
}

/// Both calls of a creation and, where it is admitted, the object; and the gate's answer.
async fn create(stage: &Stage, resource: &str, object: &Value) -> Value {
    let mut object = mutated(stage, resource, object).await;
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    object["metadata"]["uid"] = json!(format!("uid-{name}"));
    let answer = gate(stage, resource, &object).await;
    if answer["allowed"] == true {
        let plural = resource.split_once(':').unwrap().1;
        stage.api.put(plural, object);
    }
    answer
}

async fn gate(stage: &Stage, resource: &str, object: &Value) -> Value {
    let creation = review("CREATE", resource, json!({"name": object["metadata"]["name"], "object": object}));
    stage.ask("?timeout=30s", creation).await
}

fn there(stage: &Stage, plural: &str) -> Value {
    stage.api.all(plural).remove(0)
}

fn became(stage: &Stage) -> Value {
    stage.api.requests()[0]["status"]["release"].clone()
}

#[tokio::test]
async fn a_job_is_created_suspended_and_starts_with_its_approval_once() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    let answer = create(&stage, "batch:jobs", &job("j")).await;
    assert_eq!((&answer["allowed"], &answer["auditAnnotations"]["decision"]), (&json!(true), &json!("suspend")));
    let request = stage.api.requests().remove(0);
    let id = request["metadata"]["name"].as_str().unwrap();
    assert!(answer["warnings"][0].as_str().unwrap().contains(&format!("held for approval {id}")), "{answer}");
    let object = there(&stage, "jobs");
    assert_eq!((&object["spec"]["suspend"], &object["metadata"]["annotations"][MARK]), (&json!(true), &json!(id)));
    assert_eq!(
        (&request["spec"]["suspended"]["uid"], &request["spec"]["suspended"]["mark"]),
        (&json!("uid-j"), &json!(id))
    );
    stage.vote("anna", Choice::Approve);
    eventually(|| became(&stage)["outcome"] == "Freed").await;
    let object = there(&stage, "jobs");
    assert_eq!((&object["spec"]["suspend"], &object["metadata"]["annotations"]), (&json!(false), &json!({})));
    assert!(stage.api.requests()[0]["status"]["consumedAt"].is_string());
    // The same again is another object, which people are asked about anew.
    let mut again = mutated(&stage, "batch:jobs", &job("j")).await;
    again["metadata"]["uid"] = json!("another");
    assert_eq!(gate(&stage, "batch:jobs", &again).await["allowed"], true);
    assert_eq!(stage.api.requests().len(), 2);
}

#[tokio::test]
async fn of_several_replicas_one_starts_it_and_one_that_comes_later_finds_it_done() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    let shutdown = CancellationToken::new();
    let replica = || {
        let (_, keeper) = Approvals::new(stage.api.client(), approvals::Config::default());
        tokio::spawn(keeper.run(shutdown.clone()))
    };
    let others = [replica(), replica(), replica()];
    for name in ["a", "b", "c", "d"] {
        create(&stage, "batch:jobs", &job(name)).await;
    }
    for name in ["a", "b", "c", "d"] {
        stage.vote_for(name, "anna", Choice::Approve);
    }
    let is_freed = || stage.api.requests().iter().all(|request| request["status"]["release"]["outcome"] == "Freed");
    eventually(is_freed).await;
    let late = replica();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.api.merges(), 4, "each was started once");
    assert!(stage.api.all("jobs").iter().all(|job| job["spec"]["suspend"] == false));
    shutdown.cancel();
    for task in others.into_iter().chain([late]) {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_replica_that_starts_after_the_approval_frees_what_waits() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    create(&stage, "batch:jobs", &job("j")).await;
    // The approval is used and the process ends before the object is patched.
    stage.api.forbid(Method::GET, "jobs");
    stage.vote("anna", Choice::Approve);
    eventually(|| became(&stage)["outcome"] == "Blocked").await;
    let used = json!({"consumedAt": jiff::Timestamp::now()});
    let id = stage.api.requests()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    stage.api.set_status("approvalrequests", &id, &used);
    stage.api.permit_everything();
    let shutdown = CancellationToken::new();
    let (_, keeper) = Approvals::new(stage.api.client(), approvals::Config::default());
    let task = tokio::spawn(keeper.run(shutdown.clone()));
    eventually(|| became(&stage)["outcome"] == "Freed").await;
    assert_eq!(there(&stage, "jobs")["spec"]["suspend"], false);
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn the_log_says_that_it_was_let_through_suspended() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    create(&stage, "batch:jobs", &job("j")).await;
    let entries = written(stage.dir.path());
    let decision = entries[0].decision.as_ref().unwrap();
    assert_eq!((entries.len(), entries[0].effect, decision.outcome), (1, Effect::Admitted, Outcome::Hold));
    let id = decision.approval.as_ref().unwrap().to_string();
    let note = entries[0].note.as_ref().unwrap().to_string();
    assert_eq!(note, format!("created suspended, until {id} is approved"));
}

#[tokio::test]
async fn what_its_author_had_suspended_stays_so_and_a_deployment_is_paused() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    let mut cron = job("c");
    cron["spec"]["suspend"] = json!(true);
    create(&stage, "batch:cronjobs", &cron).await;
    stage.vote("anna", Choice::Approve);
    eventually(|| became(&stage)["outcome"] == "Freed").await;
    let object = there(&stage, "cronjobs");
    assert_eq!((&object["spec"]["suspend"], &object["metadata"]["annotations"]), (&json!(true), &json!({})));
    let deployment = json!({"metadata": {"name": "web", "annotations": {"a": "b"}}, "spec": {"replicas": 2}});
    create(&stage, "apps:deployments", &deployment).await;
    assert_eq!(there(&stage, "deployments")["spec"]["paused"], true);
    assert_eq!(stage.api.requests().len(), 2);
    stage.vote_for("web", "anna", Choice::Approve);
    eventually(|| there(&stage, "deployments")["spec"]["paused"] == false).await;
    assert_eq!(there(&stage, "deployments")["metadata"]["annotations"], json!({"a": "b"}));
}

#[tokio::test]
async fn a_denied_object_stays_suspended_and_says_why() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    create(&stage, "batch:jobs", &job("j")).await;
    stage.vote("anna", Choice::Deny);
    eventually(|| became(&stage)["outcome"] == "Kept").await;
    let object = there(&stage, "jobs");
    assert_eq!(object["spec"]["suspend"], true);
    let why = object["metadata"]["annotations"][MARK].as_str().unwrap();
    assert!(why.starts_with("denied: apr-") && why.ends_with("by anna: because"), "{why}");
}

#[tokio::test]
async fn an_object_that_changed_since_is_not_started() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    create(&stage, "batch:jobs", &job("j")).await;
    stage.api.merge("jobs", "j", &json!({"spec": {"template": {"spec": {"containers": [{"image": "b"}]}}}}));
    stage.vote("anna", Choice::Approve);
    eventually(|| became(&stage)["outcome"] == "Kept").await;
    let object = there(&stage, "jobs");
    assert_eq!(object["spec"]["suspend"], true);
    let why = object["metadata"]["annotations"][MARK].as_str().unwrap();
    assert!(why.contains("its spec is not the one people were shown"), "{why}");
    assert!(stage.api.requests()[0]["status"]["consumedAt"].is_null(), "the approval was not used");
}

#[tokio::test]
async fn a_missing_right_is_told_and_the_release_is_made_up_for() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    create(&stage, "batch:jobs", &job("j")).await;
    stage.api.forbid(Method::PATCH, "jobs");
    stage.vote("anna", Choice::Approve);
    eventually(|| became(&stage)["outcome"] == "Blocked").await;
    assert!(stage.api.requests()[0]["status"]["consumedAt"].is_null(), "nothing was used for nothing");
    assert_eq!(there(&stage, "jobs")["spec"]["suspend"], true);
    stage.api.permit_everything();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    eventually(|| became(&stage)["outcome"] == "Freed").await;
    assert_eq!(there(&stage, "jobs")["spec"]["suspend"], false);
}

#[tokio::test]
async fn without_the_first_call_it_is_an_ordinary_hold() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    let mut object = job("j");
    object["metadata"]["uid"] = json!("u");
    let answer = gate(&stage, "batch:jobs", &object).await;
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(429)));
    assert!(stage.api.requests()[0]["spec"]["suspended"].is_null());
    stage.vote("anna", Choice::Approve);
    eventually(|| stage.api.requests()[0]["status"]["state"] == "Approved").await;
    assert_eq!(gate(&stage, "batch:jobs", &object).await["allowed"], true);
}

#[tokio::test]
async fn where_another_rule_holds_otherwise_nothing_is_created() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    let mut policy = json!({"rules": []});
    for (id, mode) in [("a", "Suspended"), ("b", "Wait")] {
        policy["rules"]
            .as_array_mut()
            .unwrap()
            .push(json!({"id": id, "reason": "r", "action": "Hold", "hold": {"mode": mode},
            "match": {"operations": ["CREATE"], "resources": [{"apiGroups": ["batch"], "resources": ["jobs"]}]}}));
    }
    stage.rules.send_replace(snapshot(serde_json::from_value(policy).unwrap()));
    assert_eq!(create(&stage, "batch:jobs", &job("j")).await["status"]["code"], 429);
    assert!(stage.api.requests()[0]["spec"]["suspended"].is_null());
}

#[tokio::test]
async fn only_agents_and_only_what_is_held_so_is_suspended() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    let creation = |resource: &str| review("CREATE", resource, json!({"name": "j", "object": job("j")}));
    assert!(stage.suspend(&creation("batch:jobs")).await.is_some());
    let mut human = creation("batch:jobs");
    human["request"]["userInfo"]["username"] = json!("anna");
    let mut dry_run = creation("batch:jobs");
    dry_run["request"]["dryRun"] = json!(true);
    for other in
        [human, dry_run, creation("apps:statefulsets"), creation("other.dev:jobs"), creation("batch:jobs/status")]
    {
        assert_eq!(stage.suspend(&other).await, None, "{other}");
    }
    rules(&stage, json!({"mode": "Ticket"}));
    assert_eq!(stage.suspend(&creation("batch:jobs")).await, None);
}

#[tokio::test]
async fn a_rule_about_names_knows_a_name_that_is_still_to_be_generated() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    let rule = json!({"id": "late", "reason": "r", "action": "Hold", "hold": {"mode": "Suspended"},
        "when": ["object.metadata.name.startsWith('late-')"],
        "match": {"operations": ["CREATE"], "names": ["late-*"], "resources": [{"apiGroups": ["batch"], "resources": ["jobs"]}]}});
    stage.rules.send_replace(snapshot(serde_json::from_value(json!({"rules": [rule]})).unwrap()));
    for (prefix, is_suspended) in [("late-", true), ("early-", false)] {
        let mut object = job("");
        object["metadata"] = json!({"generateName": prefix, "namespace": "default"});
        let creation = review("CREATE", "batch:jobs", json!({"name": "", "object": object}));
        assert_eq!(stage.suspend(&creation).await.is_some(), is_suspended, "{prefix}");
    }
}

#[tokio::test]
async fn a_forged_mark_lets_nothing_through() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    let forged = |mark: &str, suspend: bool| {
        let mut object = job("j");
        object["metadata"]["uid"] = json!("u");
        object["metadata"]["annotations"] = json!({MARK: mark});
        object["spec"]["suspend"] = json!(suspend);
        object
    };
    for (mark, suspend) in [("apr-3f0c1a2b9d4e", false), ("freed", true), ("", true)] {
        let answer = gate(&stage, "batch:jobs", &forged(mark, suspend)).await;
        assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(403)), "{mark:?}");
    }
    assert_eq!(stage.api.requests().len(), 0);
    // Where the rules would allow it, it is not admitted either: nobody would ever free it.
    rules(&stage, json!({"mode": "Ticket"}));
    let answer = gate(&stage, "batch:jobs", &forged("apr-3f0c1a2b9d4e", true)).await;
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(429)));
    assert_eq!(stage.api.requests().len(), 0);
}

#[tokio::test]
async fn an_agent_leaves_a_suspended_object_as_it_is() {
    let stage = suspending(json!({"mode": "Suspended"})).await;
    create(&stage, "batch:jobs", &job("j")).await;
    let old = there(&stage, "jobs");
    let update = |change: fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        review("UPDATE", "batch:jobs", json!({"name": "j", "object": new, "oldObject": old}))
    };
    let labelled = update(|new| new["metadata"]["labels"] = json!({"a": "b"}));
    assert_eq!(stage.ask("?timeout=30s", labelled).await["allowed"], true);
    let changes: [fn(&mut Value); 3] = [
        |new| new["spec"]["suspend"] = json!(false),
        |new| new["metadata"]["annotations"] = json!({}),
        |new| new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("evil"),
    ];
    for change in changes {
        let answer = stage.ask("?timeout=30s", update(change)).await;
        assert_eq!(answer["auditAnnotations"]["rule"], "built-in/suspended", "{answer}");
        assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(403)));
    }
    let mut human = update(|new| new["spec"]["suspend"] = json!(false));
    human["request"]["userInfo"]["username"] = json!("anna");
    assert_eq!(stage.ask("?timeout=30s", human).await["allowed"], true);
}
