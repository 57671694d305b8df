//! Holding by suspending on the real cluster: what an agent creates is there at once and does not run; people start it.
//! The opt-in is applied for these tests alone and taken away after each of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Test;
use crate::stage::Stage;
use crate::stage::run::{Done, eventually};

pub(super) const TESTS: &[Test] = &[
    (
        "suspended: a job, a cron job and a deployment are there at once and start when approved",
        they_start_when_approved,
    ),
    ("suspended: what is denied or expires stays suspended and says why", they_stay_when_not_approved),
    ("suspended: an agent cannot start it, not even with kustody dead, and a person can", an_agent_cannot_start_it),
    ("suspended: kustody restarted before the approval starts it all the same", a_restart_loses_nothing),
    ("suspended: what changed since it was shown is not started", what_changed_is_not_started),
    (
        "suspended: applied once more it stays as it is, and what never came to be is closed",
        applying_again_changes_nothing,
    ),
    ("suspended: without the opt-in it is an ordinary hold, and a missing right is told", without_the_opt_in),
];

/// Has new workloads of the namespace `shop` created suspended, on these terms, and lets agents change them.
fn policy(terms: &str) -> String {
    let about = "namespaces: [shop]\n      names: [\"late-*\"]\n      resources:\n      \
         - {apiGroups: [batch], resources: [jobs, cronjobs]}\n      - {apiGroups: [apps], resources: [deployments]}\n";
    format!(
        "apiVersion: kustody.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: test-suspended}}\nspec:\n  rules:\n  \
         - id: look-first\n    reason: somebody looks first\n    action: Hold\n    hold: {terms}\n    match:\n      \
         operations: [CREATE]\n      {about}  - id: rest\n    reason: theirs\n    action: Allow\n    match:\n      \
         operations: [UPDATE]\n      {about}"
    )
}

fn opt_in() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/opt-in/admit-suspended.yaml").display().to_string()
}

/// Names of the webhooks that suspend: one while a rule asks for it.
fn registered(stage: &Stage) -> anyhow::Result<String> {
    let argv = ["get", "mutatingwebhookconfiguration", "kustody-suspend", "-o", "jsonpath={.webhooks[*].name}"];
    Ok(stage.cluster.admin(&argv)?.out())
}

/// With the opt-in applied and the policy in force; takes everything away afterwards.
fn suspending(
    stage: &mut Stage,
    terms: &str,
    test: impl FnOnce(&mut Stage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    stage.cluster.admin(&["apply", "-f", &opt_in()])?;
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(policy(terms)).ok()?;
    let tried = eventually(Duration::from_secs(15), || {
        ensure!(registered(stage)? == "suspend.kustody.dev", "nothing is registered yet");
        Ok(())
    })
    // The API server's own copy of the registration follows within a second.
    .map(|()| std::thread::sleep(Duration::from_secs(2)))
    .and_then(|()| test(stage));
    stage.cluster.admin(&["delete", "agentpolicy", "test-suspended"])?;
    let emptied = eventually(Duration::from_secs(15), || {
        ensure!(registered(stage)?.is_empty(), "it is registered still");
        Ok(())
    });
    stage.cluster.admin(&["delete", "-f", &opt_in()])?;
    stage.cluster.admin(&["delete", "jobs,cronjobs,deployments", "-n", "shop", "-l", "test=suspended"])?;
    stage.cluster.admin(&["delete", "approvalrequests", "--all", "-n", "kustody-system"])?;
    tried.and(emptied)
}

fn template(stage: &Stage, command: &str) -> String {
    let image = &stage.cluster.image;
    format!(
        "{{metadata: {{labels: {{app: late}}}}, spec: {{restartPolicy: RESTART, terminationGracePeriodSeconds: 1, \
         containers: [{{name: main, image: {image}, imagePullPolicy: Never, command: [sh, -c, \"{command}\"]}}]}}}}"
    )
}

fn job(stage: &Stage, metadata: &str) -> String {
    let template = template(stage, "echo done").replace("RESTART", "Never");
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{{metadata}, namespace: shop, labels: {{test: suspended}}}}\n\
         spec: {{template: {template}}}\n"
    )
}

fn cron_job(stage: &Stage, name: &str) -> String {
    let template = template(stage, "echo done").replace("RESTART", "Never");
    format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {name}, namespace: shop, labels: {{test: suspended}}}}\n\
         spec: {{schedule: \"* * * * *\", jobTemplate: {{spec: {{template: {template}}}}}}}\n"
    )
}

fn deployment(stage: &Stage, name: &str) -> String {
    let template = template(stage, "trap 'exit 0' TERM; while :; do sleep 1; done").replace("RESTART", "Always");
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop, labels: {{test: suspended}}}}\n\
         spec: {{replicas: 1, selector: {{matchLabels: {{app: late}}}}, template: {template}}}\n"
    )
}

/// `kubectl apply` or `create` by the agent: it ends at once, well, and with the warning. Returns the request's id.
fn created(stage: &Stage, verb: &str, manifest: String) -> anyhow::Result<String> {
    let done = stage.run_argv(&stage.people.agent_direct, &["kubectl", verb, "-f", "-"]).input(manifest).ok()?;
    ensure!(done.took < Duration::from_secs(10), "the agent waited: {done:?}");
    let told = done.err();
    ensure!(told.contains("Warning: created suspended, held for approval apr-"), "{done:?}");
    let id = told.split_whitespace().find(|word| word.starts_with("apr-")).context("no id")?;
    Ok(id.to_owned())
}

fn decide(stage: &Stage, verb: &str, id: &str) -> anyhow::Result<Done> {
    stage.run_argv(&stage.people.approver, &["kustody", verb, id, "--reason", "the test says so"]).ok()
}

fn get(stage: &Stage, what: &[&str]) -> anyhow::Result<Value> {
    let argv = [&["get", "-n", "shop", "-o", "json"], what].concat();
    Ok(serde_json::from_slice(&stage.cluster.admin(&argv)?.stdout)?)
}

fn pods(stage: &Stage) -> anyhow::Result<usize> {
    let listed = get(stage, &["pods", "-l", "app=late"])?;
    Ok(listed["items"].as_array().context("no list")?.len())
}

fn mark(object: &Value) -> &str {
    object["metadata"]["annotations"]["kustody.dev/suspended"].as_str().unwrap_or_default()
}

/// What the request says became of its object, once it says something.
fn became(stage: &Stage, id: &str, outcome: &str) -> anyhow::Result<String> {
    eventually(Duration::from_secs(45), || {
        let argv = ["get", "approvalrequest", id, "-n", "kustody-system", "-o", "json"];
        let request: Value = serde_json::from_slice(&stage.cluster.admin(&argv)?.stdout)?;
        let release = &request["status"]["release"];
        ensure!(release["outcome"] == outcome, "not {outcome}: {}", request["status"]);
        Ok(release["message"].as_str().unwrap_or_default().to_owned())
    })
}

fn they_start_when_approved(stage: &mut Stage) -> anyhow::Result<()> {
    suspending(stage, "{mode: Suspended}", |stage| {
        let cron = created(stage, "apply", cron_job(stage, "late-cron"))?;
        let deployed = created(stage, "apply", deployment(stage, "late-web"))?;
        let ran = created(stage, "create", job(stage, "generateName: late-"))?;
        let jobs = get(stage, &["jobs", "-l", "test=suspended"])?;
        let made = &jobs["items"][0];
        let name = made["metadata"]["name"].as_str().context("no name")?.to_owned();
        ensure!(made["spec"]["suspend"] == true && mark(made) == ran, "{made}");
        let paused = get(stage, &["deployment", "late-web"])?;
        ensure!(paused["spec"]["paused"] == true && mark(&paused) == deployed, "{paused}");
        let suspended = get(stage, &["cronjob", "late-cron"])?;
        ensure!(suspended["spec"]["suspend"] == true && mark(&suspended) == cron, "{suspended}");
        let shown = stage.run_argv(&stage.people.approver, &["kustody", "show", &ran]).ok()?.out();
        ensure!(shown.contains("suspended; approved, it starts") && shown.contains(&name), "{shown}");
        std::thread::sleep(Duration::from_secs(3));
        ensure!(pods(stage)? == 0, "something runs before anybody approved it");
        let target = format!("job/{name}");
        let wait = ["kubectl", "wait", "--for=condition=complete", "-n", "shop", &target, "--timeout=60s"];
        let waiting = stage.run_argv(&stage.people.agent_direct, &wait).start()?;
        for id in [&ran, &deployed, &cron] {
            decide(stage, "approve", id)?;
        }
        waiting.done()?.ok()?;
        stage.cluster.admin(&["rollout", "status", "deployment/late-web", "-n", "shop", "--timeout=60s"])?;
        for id in [&ran, &deployed, &cron] {
            became(stage, id, "Freed")?;
        }
        let cron = get(stage, &["cronjob", "late-cron"])?;
        ensure!(cron["spec"]["suspend"] == false && mark(&cron).is_empty(), "{cron}");
        Ok(())
    })
}

fn they_stay_when_not_approved(stage: &mut Stage) -> anyhow::Result<()> {
    suspending(stage, "{mode: Suspended, expiresAfter: 10s}", |stage| {
        let expires = created(stage, "apply", deployment(stage, "late-expired"))?;
        let denied = created(stage, "apply", job(stage, "name: late-denied"))?;
        decide(stage, "deny", &denied)?;
        let why = became(stage, &denied, "Kept")?;
        ensure!(why.contains("denied") && why.contains("approver: the test says so"), "{why}");
        let object = get(stage, &["job", "late-denied"])?;
        ensure!(object["spec"]["suspend"] == true && mark(&object) == why, "{object}");
        let described = stage.cluster.admin(&["describe", "job", "late-denied", "-n", "shop"])?.out();
        ensure!(described.contains("StaysSuspended"), "no event: {described}");
        became(stage, &expires, "Kept")?;
        let object = get(stage, &["deployment", "late-expired"])?;
        ensure!(object["spec"]["paused"] == true && mark(&object) == format!("expired: {expires}"), "{object}");
        ensure!(pods(stage)? == 0, "something runs");
        Ok(())
    })
}

fn patch(stage: &Stage, who: &Path, patch: &str) -> anyhow::Result<Done> {
    let argv = ["kubectl", "patch", "job", "late-guarded", "-n", "shop", "--type=merge", "-p", patch];
    stage.run_argv(who, &argv).done()
}

/// Whatever an agent tries with a suspended object is refused, by something that says so.
fn all_refused(stage: &Stage, by: &str) -> anyhow::Result<()> {
    for change in [
        r#"{"spec": {"suspend": false}}"#,
        r#"{"spec": {"parallelism": 3}}"#,
        r#"{"metadata": {"annotations": {"kustody.dev/suspended": null}}}"#,
        r#"{"metadata": {"annotations": {"kustody.dev/suspended-by-author": "true"}}}"#,
    ] {
        let refused = patch(stage, &stage.people.agent_direct, change)?;
        ensure!(refused.code != 0 && refused.err().contains(by), "{change}: {refused:?}");
    }
    Ok(())
}

fn an_agent_cannot_start_it(stage: &mut Stage) -> anyhow::Result<()> {
    suspending(stage, "{mode: Suspended}", |stage| {
        let id = created(stage, "apply", job(stage, "name: late-guarded"))?;
        all_refused(stage, "created suspended by Kustody")?;
        // By kustody itself, where the native policy is not.
        let guard = "validatingadmissionpolicybinding/suspended.kustody.dev";
        stage.cluster.admin(&["delete", guard])?;
        let by_itself = eventually(Duration::from_secs(10), || all_refused(stage, "policy built-in"));
        stage.cluster.admin(&["apply", "-f", &opt_in()])?;
        by_itself?;
        stage.kustody.kill()?;
        let dead = eventually(Duration::from_secs(10), || all_refused(stage, "suspended.kustody.dev"));
        let person = stage.cluster.admin(&["label", "job", "late-guarded", "-n", "shop", "seen=yes"]);
        stage.kustody.launch()?;
        dead?;
        person?;
        ensure!(pods(stage)? == 0, "it runs");
        let by_hand = r#"{"spec": {"suspend": false}, "metadata": {"annotations": {"kustody.dev/suspended": null}}}"#;
        patch(stage, &stage.cluster.admin, by_hand)?.ok()?;
        decide(stage, "approve", &id)?;
        became(stage, &id, "Freed").map(drop)
    })
}

fn a_restart_loses_nothing(stage: &mut Stage) -> anyhow::Result<()> {
    suspending(stage, "{mode: Suspended}", |stage| {
        let id = created(stage, "apply", job(stage, "name: late-restarted"))?;
        stage.kustody.kill()?;
        let approved = decide(stage, "approve", &id);
        stage.kustody.launch()?;
        approved?;
        let wait = ["wait", "--for=condition=complete", "-n", "shop", "job/late-restarted", "--timeout=60s"];
        stage.cluster.admin(&wait)?;
        became(stage, &id, "Freed").map(drop)
    })
}

fn what_changed_is_not_started(stage: &mut Stage) -> anyhow::Result<()> {
    suspending(stage, "{mode: Suspended}", |stage| {
        let id = created(stage, "apply", deployment(stage, "late-changed"))?;
        stage.cluster.admin(&["scale", "deployment", "late-changed", "-n", "shop", "--replicas=3"])?;
        decide(stage, "approve", &id)?;
        let why = became(stage, &id, "Kept")?;
        ensure!(why.contains("its spec is not the one people were shown"), "{why}");
        let gone = created(stage, "apply", job(stage, "name: late-gone"))?;
        stage.cluster.admin(&["delete", "job", "late-gone", "-n", "shop"])?;
        decide(stage, "approve", &gone)?;
        became(stage, &gone, "Gone")?;
        ensure!(pods(stage)? == 0, "something runs");
        Ok(())
    })
}

fn applying_again_changes_nothing(stage: &mut Stage) -> anyhow::Result<()> {
    suspending(stage, "{mode: Suspended}", |stage| {
        let gateway = stage.people.agent.clone();
        let manifest = deployment(stage, "late-again");
        let by = |argv: &[&str]| stage.run_argv(&gateway, argv).input(manifest.clone()).done();
        let server_side = ["kubectl", "apply", "--server-side", "-f", "-"];
        let first = by(&server_side)?.ok()?;
        let id = first.err().split_whitespace().find(|word| word.starts_with("apr-")).context("no id")?.to_owned();
        for argv in [&server_side[..], &["kubectl", "apply", "-f", "-"]] {
            by(argv)?.ok()?;
            let there = get(stage, &["deployment", "late-again"])?;
            ensure!(there["spec"]["paused"] == true && mark(&there) == id, "{argv:?}: {there}");
        }
        let twice = by(&["kubectl", "create", "-f", "-"])?;
        ensure!(twice.code != 0 && twice.err().contains("already exists"), "{twice:?}");
        let listed = stage.run_argv(&stage.people.approver, &["kustody", "approvals", "-o", "name"]).ok()?.out();
        let other = listed.lines().filter_map(|line| line.split('/').nth(1)).find(|name| *name != id);
        let other = other.context("the second creation asked nobody")?.to_owned();
        became(stage, &other, "Gone")?;
        decide(stage, "approve", &id)?;
        became(stage, &id, "Freed")?;
        by(&server_side)?.ok()?;
        stage.cluster.admin(&["rollout", "status", "deployment/late-again", "-n", "shop", "--timeout=60s"])?;
        let doctor = stage.run(&stage.cluster.admin, "kustody doctor").done()?.out();
        ensure!(doctor.contains("new objects are created suspended where a rule says so"), "{doctor}");
        Ok(())
    })
}

fn without_the_opt_in(stage: &mut Stage) -> anyhow::Result<()> {
    suspending(stage, "{mode: Suspended}", |stage| {
        let id = created(stage, "apply", job(stage, "name: late-blocked"))?;
        stage.cluster.admin(&["delete", "clusterrolebinding", "kustody-suspended"])?;
        std::thread::sleep(Duration::from_secs(1));
        decide(stage, "approve", &id)?;
        let why = became(stage, &id, "Blocked")?;
        let right = "cannot get resource \"jobs\" in API group \"batch\" in the namespace \"shop\"";
        ensure!(why.contains(right), "{why}");
        stage.cluster.admin(&["apply", "-f", &opt_in()])?;
        became(stage, &id, "Freed")?;
        stage.cluster.admin(&["delete", "mutatingwebhookconfiguration", "kustody-suspend"])?;
        std::thread::sleep(Duration::from_secs(2));
        let argv = ["kubectl", "apply", "-f", "-"];
        let waiting = stage.run_argv(&stage.people.agent_direct, &argv).input(job(stage, "name: late-held")).start()?;
        let held = crate::stage::story::held_of(stage, "jobs")?;
        ensure!(stage.cluster.admin(&["get", "job", "late-held", "-n", "shop"]).is_err(), "it was created");
        decide(stage, "approve", &held)?;
        waiting.done()?.ok()?;
        ensure!(get(stage, &["job", "late-held"])?["spec"]["suspend"] != true, "it is suspended");
        stage.cluster.admin(&["apply", "-f", &opt_in()]).map(drop)
    })
}
