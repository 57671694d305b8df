//! The log on the real cluster, read back from the S3 store with nothing but `kustody audit`: every reviewed request of an
//! agent is there with the ids that the API server noted, live too, and also when Kustody is killed right after an answer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Test;
use crate::audit_log;
use crate::stage::Stage;
use crate::stage::run::{Done, eventually};
use crate::stage::story::held;

pub(super) const TESTS: &[Test] = &[
    ("log: whatever becomes of an agent's request, the store has it as the API server does", everything_is_there),
    ("log: a tail shows what happens while it runs, once", a_tail_shows_what_happens),
    ("log: killed right after an answer, the entry is there and shipped after the next start", no_answer_is_lost),
];

/// Entries take so long to the store.
pub(super) const SHIPPED: Duration = Duration::from_secs(30);

/// Everything in the store of the last minutes.
pub(super) fn stored(stage: &Stage) -> anyhow::Result<Vec<Value>> {
    let argv = ["kustody", "audit", "list", "--since", "20m", "--limit", "1000000", "-o", "json"];
    let listed = stage.run_argv(&stage.people.approver, &argv).ok()?;
    Ok(serde_json::from_slice(&listed.stdout)?)
}

/// Entries in which a word stands, once there are so many of them.
fn about(stage: &Stage, word: &str, count: usize) -> anyhow::Result<Vec<Value>> {
    eventually(SHIPPED, || {
        let entries: Vec<Value> = stored(stage)?.into_iter().filter(|entry| entry.to_string().contains(word)).collect();
        ensure!(entries.len() >= count, "{} of {count} entries about {word}: {entries:?}", entries.len());
        Ok(entries)
    })
}

fn run(stage: &Stage, who: &Path, command: &str) -> anyhow::Result<Done> {
    stage.run(who, command).done()
}

/// Kind, effect, outcome and rule of an entry.
fn told(entry: &Value) -> [&str; 4] {
    ["/kind", "/effect", "/decision/outcome", "/decision/rule"]
        .map(|pointer| entry.pointer(pointer).and_then(Value::as_str).unwrap_or("-"))
}

fn everything_is_there(stage: &mut Stage) -> anyhow::Result<()> {
    let begun = audit_log::end(stage)?;
    for name in ["log-allowed", "log-passed"] {
        stage.cluster.admin(&["delete", "configmap", name, "-n", "agents", "--ignore-not-found"])?;
    }
    directly(stage)?;
    through_the_gateway(stage)?;
    turned_away(stage)?;
    as_the_api_server_has_it(stage, begun)
}

/// Requests past the gateway, which the webhook alone sees.
fn directly(stage: &Stage) -> anyhow::Result<()> {
    let direct = &stage.people.agent_direct;
    run(stage, direct, "kubectl create configmap log-allowed -n agents")?.ok()?;
    ensure!(told(&about(stage, "log-allowed", 1)?[0])[..3] == ["review", "admitted", "allow"], "allowed");

    let refused = run(stage, direct, "kubectl create token default -n shop")?;
    ensure!(refused.code != 0, "{refused:?}");
    let denied = &about(stage, "\"rule\":\"token-mint\"", 1)?[0];
    ensure!(told(denied) == ["review", "refused", "deny", "token-mint"] && denied["status"] == 403, "{denied}");
    run(stage, direct, "kubectl create configmap log-dry -n agents --dry-run=server")?.ok()?;
    let dry = &about(stage, "log-dry", 1)?[0];
    ensure!(dry["dryRun"] == true && told(dry)[..3] == ["review", "admitted", "allow"], "dry run: {dry}");

    stage.cluster.admin(&["delete", "configmap", "log-held", "-n", "shop", "--ignore-not-found"])?;
    stage.cluster.admin(&["create", "configmap", "log-held", "-n", "shop"])?;
    let waiting = stage.run(direct, "kubectl delete configmap log-held -n shop").start()?;
    let id = held(stage)?;
    stage.run_argv(&stage.people.approver, &["kustody", "approve", &id, "--reason", "it may go"]).ok()?;
    waiting.done()?.ok()?;
    // Kustody's own dry run for the approver is an entry too.
    let approved = eventually(SHIPPED, || {
        let entries = about(stage, "log-held", 1)?;
        let real = |entry: &Value| entry["effect"] == "admitted" && entry["dryRun"] != true;
        entries.into_iter().find(real).context("no approved entry")
    })?;
    ensure!(approved["decision"]["approval"] == id.as_str(), "{approved}");
    ensure!(approved["decision"]["approvers"][0]["by"] == "approver", "{approved}");
    ensure!(approved["kubectl"] == "kubectl delete configmaps log-held -n shop", "{approved}");
    Ok(())
}

/// Requests that both see, tied together by one id, which the API server has too.
fn through_the_gateway(stage: &Stage) -> anyhow::Result<()> {
    let agent = &stage.people.agent;
    run(stage, agent, "kubectl create configmap log-passed -n agents")?.ok()?;
    // The gateway does not look into what it passes on, and the name is in there: the request's id ties its entries.
    let review = &about(stage, "log-passed", 1)?[0];
    let request = review["request"].as_str().context("no request id")?;
    let passed = about(stage, request, 3)?;
    let kinds: Vec<&str> = passed.iter().map(|entry| told(entry)[0]).collect();
    ensure!(kinds == ["decision", "review", "exchange"], "{kinds:?}");

    let missing = run(stage, agent, "kubectl get configmap log-read -n shop")?;
    ensure!(missing.code != 0, "{missing:?}");
    let read = about(stage, "log-read", 2)?;
    ensure!(told(&read[0]) == ["decision", "forwarded", "allow", "reads"], "{:?}", read[0]);
    ensure!(told(&read[1])[..2] == ["exchange", "answered"] && read[1]["status"] == 404, "{:?}", read[1]);

    let pod = stage.pod()?;
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "echo", "log-exec"];
    stage.run_argv(agent, &argv).ok()?;
    let exec = about(stage, "log-exec", 1)?;
    let decided = exec.iter().find(|entry| entry["kind"] == "decision").context("no decision")?;
    ensure!(decided["command"] == serde_json::json!(["echo", "log-exec"]), "{decided}");
    let recording = decided["recording"].as_str().context("no recording")?.to_owned();
    eventually(SHIPPED, || stage.verify(&recording)?.ok())?;
    Ok(())
}

/// Requests of nobody who is known to be an agent.
fn turned_away(stage: &Stage) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&stage.people.agent)?;
    let token = |text: &str| -> anyhow::Result<String> {
        let rest = text.split("token: \"").nth(1).context("no token")?;
        Ok(rest.split('"').next().unwrap_or_default().to_owned())
    };
    let own = token(&text)?;
    let foreign = token(&std::fs::read_to_string(&stage.people.agent_direct)?)?;
    let person = ["create", "token", "default", "-n", "shop", "--audience=kustody"];
    let person = stage.cluster.admin(&person)?.out().trim().to_owned();
    for (other, namespace, rule) in
        [(&foreign, "log-wrong-token", "unauthenticated"), (&person, "log-nobody", "no-agent")]
    {
        let file = stage.dir.join(format!("{namespace}.kubeconfig"));
        std::fs::write(&file, text.replace(&own, other))?;
        let refused =
            stage.run_argv(&file, &["kubectl", "get", "--raw", &format!("/api/v1/namespaces/{namespace}/pods")]);
        ensure!(refused.done()?.code != 0, "{rule} went through");
        let entries = about(stage, namespace, 1)?;
        ensure!(told(&entries[0]) == ["decision", "refused", "deny", rule], "{:?}", entries[0]);
        let everything = stored(stage)?.iter().map(Value::to_string).collect::<String>();
        ensure!(!everything.contains(other.as_str()), "a token is in the log");
    }
    Ok(())
}

/// Whatever the API server asked the gate's webhook about: the same ids, rules and words on both sides.
fn as_the_api_server_has_it(stage: &Stage, begun: u64) -> anyhow::Result<()> {
    let events = audit_log::events(stage, begun)?;
    let reviewed: Vec<&Value> = events.iter().filter(|event| !audit_log::note(event, "decision").is_empty()).collect();
    ensure!(reviewed.len() >= 6, "only {} requests were reviewed", reviewed.len());
    // What cannot be told apart from here is whether an agent's change never met the webhook: none may.
    let agents = |event: &&Value| {
        let user = event.pointer("/impersonatedUser/username").or(event.pointer("/user/username"));
        let changes = ["create", "update", "patch", "delete", "deletecollection"];
        user.and_then(Value::as_str).is_some_and(|user| user.starts_with("system:serviceaccount:agents:"))
            && changes.contains(&event["verb"].as_str().unwrap_or_default())
            && event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 400)
            && !["selfsubjectreviews", "selfsubjectaccessreviews"]
                .contains(&event["objectRef"]["resource"].as_str().unwrap_or_default())
    };
    if let Some(event) = events.iter().filter(agents).find(|event| audit_log::note(event, "log-entry").is_empty()) {
        anyhow::bail!("a change by an agent that nobody reviewed: {event}");
    }
    eventually(SHIPPED, || {
        let entries = stored(stage)?;
        for event in &reviewed {
            let id = audit_log::note(event, "log-entry");
            let entry =
                entries.iter().find(|entry| entry["id"] == id).with_context(|| format!("no entry of {event}"))?;
            let decided = &entry["decision"];
            let rule = [&decided["policy"], &decided["rule"]].map(|part| part.as_str().unwrap_or_default()).join("/");
            ensure!(rule == audit_log::note(event, "rule"), "{entry} of {event}");
            ensure!(
                decided["id"].as_str().unwrap_or_default() == audit_log::note(event, "decision-id"),
                "{entry} of {event}"
            );
            ensure!(decided["outcome"] == audit_log::note(event, "decision"), "{entry} of {event}");
            let user = event.pointer("/impersonatedUser/username").or(event.pointer("/user/username"));
            ensure!(Some(&entry["principal"]["agent"]["user"]) == user, "{entry} of {event}");
            // What Kustody tries for approvers comes with the id of the approval instead.
            let request = entry["request"].as_str().unwrap_or_default();
            if event.get("impersonatedUser").is_some() && !request.starts_with("dry-run/") {
                ensure!(entry["request"] == event["auditID"], "{entry} of {event}");
            }
        }
        Ok(())
    })
}

fn a_tail_shows_what_happens(stage: &mut Stage) -> anyhow::Result<()> {
    let file = stage.dir.join("tail.ndjson");
    let line = format!("exec kustody audit tail -o json > '{}'", file.display());
    let mut tail = stage.run_argv(&stage.people.approver, &["sh", "-c", &line]).start()?;
    std::thread::sleep(Duration::from_secs(3));
    let dry = "kubectl create configmap log-live -n agents --dry-run=server";
    run(stage, &stage.people.agent_direct, dry)?.ok()?;
    let seen = eventually(SHIPPED, || {
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.contains("log-live"), "not yet: {text}");
        Ok(text)
    });
    ensure!(tail.runs()?, "it ended by itself");
    tail.kill()?;
    tail.done()?;
    let seen = seen?;
    for line in seen.lines() {
        let entry: Value = serde_json::from_str(line).with_context(|| format!("no entry: {line}"))?;
        ensure!(entry["id"].is_string(), "{entry}");
    }
    ensure!(seen.matches("kubectl create").count() >= 1 && seen.matches("\"log-live\"").count() >= 1, "{seen}");
    let ids: Vec<String> = seen
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|entry| entry["id"].to_string())
        .collect();
    let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
    ensure!(distinct.len() == ids.len(), "an entry was shown twice");
    Ok(())
}

fn no_answer_is_lost(stage: &mut Stage) -> anyhow::Result<()> {
    let begun = audit_log::end(stage)?;
    let create = "kubectl create configmap log-killed -n agents --dry-run=server";
    run(stage, &stage.people.agent_direct, create)?.ok()?;
    stage.kustody.kill()?;
    let event = eventually(Duration::from_secs(5), || {
        let events = audit_log::events(stage, begun)?;
        let of_it = events.into_iter().find(|event| event["objectRef"]["name"] == "log-killed");
        of_it.context("no audit event")
    });
    stage.kustody.launch()?;
    let event = event?;
    let id = audit_log::note(&event, "log-entry");
    ensure!(!id.is_empty(), "{event}");
    eventually(SHIPPED, || {
        ensure!(stored(stage)?.iter().any(|entry| entry["id"] == id), "entry {id} is not in the store");
        Ok(())
    })
}
