//! Nothing is answered that is not written down: what the log says of reviews and of requests through the gateway, and
//! what happens when it cannot be written.

use std::time::Duration;

use http::StatusCode;
use kustody::core::approval::Choice;
use kustody::core::audit::entry::Seen;
use kustody::core::audit::{Effect, Entry, Kind, Outcome, Text};
use serde_json::{Value, json};

use crate::approvals_api::eventually;
use crate::gateway::{Stage as Gate, code, exec_head};
use crate::wal::written;
use crate::webhook::{deletion, review, stage, stage_with};

fn text(text: &Option<Text>) -> String {
    text.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn outcome(entry: &Entry) -> Option<Outcome> {
    entry.decision.as_ref().map(|decision| decision.outcome)
}

#[tokio::test]
async fn every_answer_to_an_agent_is_on_the_disk_when_it_leaves_and_a_persons_is_not() {
    let stage = stage(|config| config.park = Duration::from_millis(20)).await;
    let mut human = deletion();
    human["request"]["userInfo"]["username"] = json!("anna");
    stage.ask("?timeout=30s", &human).await;
    assert_eq!(written(stage.dir.path()).len(), 0);

    let note = review("CREATE", "configmaps", json!({"namespace": "agents", "object": {"metadata": {"name": "n"}}}));
    let token = review("CREATE", "serviceaccounts/token", json!({"name": "builder", "object": {"spec": {}}}));
    let mut dry = deletion();
    dry["request"]["dryRun"] = json!(true);
    let exec = review("CONNECT", "pods/exec", json!({"object": {"kind": "PodExecOptions", "command": ["id", "-u"]}}));
    let expected = [
        (note, Effect::Admitted, Outcome::Allow, None),
        (token, Effect::Refused, Outcome::Deny, Some(403)),
        (deletion(), Effect::Waiting, Outcome::Hold, Some(429)),
        (dry, Effect::Admitted, Outcome::Allow, None),
        (exec, Effect::Refused, Outcome::Deny, Some(403)),
    ];
    for (count, (review, effect, verdict, status)) in (1..).zip(expected) {
        let answer = stage.ask("?timeout=30s", &review).await;
        let entries = written(stage.dir.path());
        assert_eq!(entries.len(), count, "{review}");
        let entry = entries.last().unwrap();
        assert_eq!((entry.kind, entry.effect, outcome(entry)), (Kind::Review, effect, Some(verdict)), "{review}");
        assert_eq!((entry.status, entry.dry_run), (status, review["request"]["dryRun"] == true));
        assert_eq!(answer["auditAnnotations"]["log-entry"], entry.id.to_string());
        assert_eq!(entry.principal.agent.user.as_str(), Some("system:serviceaccount:agents:bot"));
        assert_eq!(
            (entry.witnesses[0].by, entry.witnesses[0].id.as_str()),
            (Seen::Admission, review["request"]["uid"].as_str())
        );
    }
    let entries = written(stage.dir.path());
    assert_eq!(text(&entries[2].kubectl), "kubectl delete deployments.apps web -n default");
    assert!(entries[2].decision.as_ref().unwrap().approval.is_some() && text(&entries[2].uid) == "u1");
    assert_eq!(entries[4].command.as_ref().unwrap().whole().unwrap(), &["id", "-u"]);
    assert_eq!(entries[4].decision.as_ref().unwrap().rule.as_str(), Some("gateway-only"));
}

#[tokio::test]
async fn an_approved_request_names_who_approved_it() {
    let stage = stage(|_| {}).await;
    let (answer, ()) = tokio::join!(stage.ask("?timeout=30s", deletion()), async {
        eventually(|| stage.webhook.parked() == 1).await;
        stage.vote("anna", Choice::Approve);
    });
    assert_eq!(answer["allowed"], true);
    let entry = written(stage.dir.path()).pop().unwrap();
    let decision = entry.decision.unwrap();
    assert_eq!((entry.effect, decision.outcome), (Effect::Admitted, Outcome::Allow));
    assert_eq!(text(&decision.approval), answer["auditAnnotations"]["approval"].as_str().unwrap());
    assert_eq!((decision.approvers[0].by.as_str(), decision.approvers[0].approved), (Some("anna"), true));
    assert!(entry.latency_us > 0);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_refused_whatever_was_decided() {
    let stage = stage_with(0, |_| {}).await;
    let note = review("CREATE", "configmaps", json!({"namespace": "agents", "object": {"metadata": {"name": "n"}}}));
    let token = review("CREATE", "serviceaccounts/token", json!({"name": "builder", "object": {"spec": {}}}));
    for review in [note, token] {
        let answer = stage.ask("?timeout=30s", &review).await;
        assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(503)), "{answer}");
        assert_eq!(answer["status"]["details"]["retryAfterSeconds"], 1);
        assert!(
            answer["status"]["message"].as_str().unwrap().starts_with("NOT EXECUTED. It could not be written down")
        );
    }
    let mut human = deletion();
    human["request"]["userInfo"]["username"] = json!("anna");
    assert_eq!(stage.ask("?timeout=30s", &human).await["allowed"], true, "people never depend on the log");
}

#[tokio::test]
async fn a_review_that_cannot_be_read_is_written_down_with_its_uid() {
    let stage = stage(|_| {}).await;
    let body = deletion().to_string();
    let (status, answer) = stage.post("?timeout=30s", body[..body.len() - 2].to_owned()).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, &answer["response"]["status"]["code"]), (StatusCode::OK, &json!(400)));
    let entry = written(stage.dir.path()).pop().unwrap();
    assert_eq!((entry.effect, entry.status), (Effect::Refused, Some(400)));
    assert_eq!(entry.decision.unwrap().rule.as_str(), Some("malformed"));
    assert_eq!(entry.witnesses[0].id.as_str(), answer["response"]["uid"].as_str());
}

#[tokio::test]
async fn a_read_is_written_down_before_and_after_and_a_refusal_once() {
    let gate = Gate::new().await;
    assert_eq!(code(&gate.ask("GET /api/v1/namespaces/a/pods/web?pretty=1", "").await), "200");
    crate::store::eventually("both", async || (written(gate.spool.path()).len() == 2).then_some(())).await;
    let entries = written(gate.spool.path());
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.effect, entry.status)).collect();
    assert_eq!(kinds, [(Kind::Decision, Effect::Forwarded, None), (Kind::Exchange, Effect::Answered, Some(200))]);
    assert_eq!(entries[0].request, entries[1].request);
    assert!(entries.iter().all(|entry| entry.authenticated && outcome(entry) == Some(Outcome::Allow)));
    assert_eq!(text(&entries[0].kubectl), "kubectl get pods web -n a");

    assert_eq!(code(&gate.ask("GET /api/v1/namespaces/a/secrets/s", "").await), "403");
    assert_eq!(code(&gate.ask("GET /api/v1/namespaces/a/pods%2fweb", "").await), "400");
    let entries = written(gate.spool.path());
    let refused: Vec<_> = entries[2..].iter().map(|entry| (entry.kind, entry.effect, entry.status)).collect();
    assert_eq!(refused, [(Kind::Decision, Effect::Refused, Some(403)), (Kind::Decision, Effect::Refused, Some(400))]);
    assert_eq!(entries[2].decision.as_ref().unwrap().rule.as_str(), Some("no-secret-reads"));
    assert!(text(&entries[3].kubectl).contains("pods%2fweb"), "{:?}", entries[3].kubectl);
}

#[tokio::test]
async fn an_exec_names_its_recording_before_it_is_dialled() {
    let gate = Gate::new().await;
    gate.raw(exec_head("web", "command=sh&command=-c&command=ls%20/&stdout=1").as_bytes()).await;
    let entry = written(gate.spool.path()).remove(0);
    assert_eq!((entry.kind, entry.effect), (Kind::Decision, Effect::Forwarded));
    assert_eq!(entry.command.unwrap().whole().unwrap(), &["sh", "-c", "ls /"]);
    let recording = entry.recording.unwrap().to_string();
    assert!(gate.spool.path().join(recording).is_dir());
    assert_eq!(text(&entry.kubectl), "kubectl exec -n a web -- sh -c 'ls /'");
}

#[tokio::test]
async fn without_the_log_nothing_goes_through_the_gateway() {
    let mut gate = Gate::with_quota(0).await;
    let create = "POST /api/v1/namespaces/a/configmaps";
    assert_eq!(code(&gate.ask(create, "Content-Length: 0\r\n").await), "503");
    assert_eq!(code(&gate.raw(exec_head("web", "command=id&stdout=1").as_bytes()).await), "503");
    assert!(gate.api.untouched());
    let read = gate.ask("GET /api/v1/namespaces/a/pods/web", "").await;
    assert!(code(&read) == "503" && !read.contains("/api/v1/namespaces/a/pods/web"), "{read}");
}

#[tokio::test]
async fn who_is_turned_away_at_the_gateway_is_written_down_without_the_token() {
    let gate = Gate::new().await;
    let ask = |line: &str, token: &str| {
        format!("{line} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n")
    };
    let delete = "DELETE /api/v1/namespaces/a/pods/web?token=s3cret-in-the-query";
    assert_eq!(code(&gate.raw(ask(delete, "s3cret-wrong").as_bytes()).await), "401");
    assert_eq!(code(&gate.raw(ask("GET /openapi/v2?x=s3cret", "alice").as_bytes()).await), "403");
    let entries = written(gate.spool.path());
    assert_eq!(entries.len(), 2);
    let rules: Vec<_> = entries.iter().map(|entry| entry.decision.as_ref().unwrap().rule.to_string()).collect();
    assert_eq!(rules, ["unauthenticated", "no-agent"]);
    assert!(entries.iter().all(|entry| entry.effect == Effect::Refused && outcome(entry) == Some(Outcome::Deny)));
    assert_eq!((entries[0].status, entries[0].authenticated), (Some(401), false));
    assert_eq!(text(&entries[0].kubectl), "kubectl delete pods web -n a");
    assert!(text(&entries[0].note).contains("127.0.0.1"), "{:?}", entries[0].note);
    assert_eq!((entries[1].status, entries[1].authenticated), (Some(403), true));
    assert_eq!(entries[1].principal.agent.user.as_str(), Some("alice"));
    assert_eq!(text(&entries[1].kubectl), "kubectl get --raw /openapi/v2");
    let everything = serde_json::to_string(&entries).unwrap();
    assert!(!everything.contains("s3cret"), "{everything}");
}

#[tokio::test]
async fn a_flood_of_wrong_tokens_leaves_few_entries_and_its_number() {
    let gate = Gate::new().await;
    let request = |number: usize| {
        format!("GET /api HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer wrong-{number}\r\nConnection: close\r\n\r\n")
    };
    for number in 0..40 {
        assert_eq!(code(&gate.raw(request(number).as_bytes()).await), "401");
    }
    let refused = |entries: &[Entry]| entries.iter().filter(|entry| entry.status == Some(401)).count();
    assert_eq!(refused(&written(gate.spool.path())), 16);
    gate.stop();
    crate::store::eventually("the number", async || (written(gate.spool.path()).len() == 17).then_some(())).await;
    let last = written(gate.spool.path()).pop().unwrap();
    assert!(text(&last.note).starts_with("24 more requests"), "{:?}", last.note);
}
