//! Trouble on the real cluster: Kustody killed in the middle of a session, dead while people work, started with a store
//! or an API server that does not answer, with a configuration full of mistakes, and asked to end twice.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Test;
use crate::stage::Stage;
use crate::stage::installation::ask_health;
use crate::stage::run::{Run, eventually};

pub(super) const TESTS: &[Test] = &[
    ("kill -9 during an exec loses nothing that the client had seen", killed_during_an_exec),
    ("with kustody dead people work and agents are refused", people_work_while_kustody_is_dead),
    ("kustody's own rights are enough and not more", rights_are_narrow),
    ("a store that cannot be reached at start is told with its URL", an_unreachable_store_is_told),
    ("an API server that cannot be reached makes it not ready, and no crash", an_unreachable_cluster_is_waited_for),
    ("every mistake in the configuration is told at once", every_mistake_is_told),
    ("with the store away sessions go on, and are shipped when it is back", sessions_outlive_the_store),
    ("asked to end it ends, and cleanly", it_ends_when_asked),
    ("asked twice it ends at once, whatever runs", asked_twice_it_ends_at_once),
];

fn killed_during_an_exec(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; [ $((i % 40)) = 0 ] && sleep 0.2; done";
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "sh", "-c", script];
    let running = stage.run_argv(&stage.people.agent, &argv).start()?;
    std::thread::sleep(Duration::from_millis(1200));
    stage.kustody.kill()?;
    let seen = running.done()?;
    ensure!(seen.out().lines().count() > 20, "the client saw too little for a test: {seen:?}");
    stage.kustody.launch()?;
    let session = eventually(Duration::from_secs(20), || {
        let listed = stage.run(&stage.people.approver, "kustody sessions -o json").ok()?;
        let listed: Value = serde_json::from_slice(&listed.stdout)?;
        let mut all = listed.as_array().context("no list")?.iter();
        let recovered = all.find(|one| one["state"] == "recovered").context("no recovered session")?;
        Ok(recovered["session"].as_str().context("no id")?.to_owned())
    })?;
    stage.verify(&session)?.ok()?;
    let replayed = stage.run_argv(&stage.people.approver, &["kustody", "replay", &session, "--no-wait"]).done()?;
    ensure!(
        replayed.stdout.starts_with(&seen.stdout),
        "the client saw {} bytes, the recording has {}",
        seen.stdout.len(),
        replayed.stdout.len()
    );
    Ok(())
}

fn people_work_while_kustody_is_dead(stage: &mut Stage) -> anyhow::Result<()> {
    stage.web()?;
    stage.kustody.kill()?;
    let person = stage.cluster.admin(&["scale", "deployment", "web", "-n", "shop", "--replicas=2"]);
    let rolled = stage.cluster.admin(&["rollout", "restart", "deployment/web", "-n", "shop"]);
    let status = stage.cluster.admin(&["rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s"]);
    let agent = stage.run(&stage.people.agent_direct, "kubectl create configmap while-dead -n shop").done();
    stage.kustody.launch()?;
    for done in [person, rolled, status] {
        done?;
    }
    let agent = agent?;
    ensure!(agent.code != 0 && agent.err().contains("gate.kustody.dev"), "not refused: {agent:?}");
    stage.web()
}

fn rights_are_narrow(stage: &mut Stage) -> anyhow::Result<()> {
    let kustody = stage.dir.join("kustody.kubeconfig");
    let may = |argv: &[&str]| -> anyhow::Result<bool> {
        let all = [&["kubectl", "auth", "can-i"], argv].concat();
        Ok(stage.run_argv(&kustody, &all).done()?.out().trim() == "yes")
    };
    for argv in [
        &["get", "secrets", "-n", "default"][..],
        &["list", "secrets", "-n", "kustody-system"],
        &["get", "secret/other", "-n", "kustody-system"],
        &["approve", "approvalrequests.kustody.dev", "-n", "kustody-system"],
        &["impersonate", "users"],
        &["impersonate", "groups/system:masters"],
        &["impersonate", "serviceaccounts", "-n", "kube-system"],
        &["create", "pods", "-n", "shop"],
        &["get", "pods", "-n", "shop"],
        &["create", "pods/exec", "-n", "shop"],
        &["update", "validatingwebhookconfigurations/other"],
        &["delete", "validatingwebhookconfigurations/kustody"],
        &["update", "agentpolicies.kustody.dev"],
        &["escalate", "clusterroles"],
        &["bind", "clusterroles"],
    ] {
        ensure!(!may(argv)?, "kustody may {}", argv.join(" "));
    }
    for argv in [
        &["impersonate", "serviceaccounts", "-n", "agents"][..],
        &["watch", "agentpolicies.kustody.dev"],
        &["create", "tokenreviews.authentication.k8s.io"],
    ] {
        ensure!(may(argv)?, "kustody may not {}", argv.join(" "));
    }
    Ok(())
}

/// `kustody serve` on a copy of the stage's configuration in which some lines are others.
fn serve(stage: &Stage, name: &str, change: &[(&str, &str)]) -> anyhow::Result<(Run, String)> {
    let mut text = std::fs::read_to_string(&stage.kustody.config)?;
    let ports =
        [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let mut ports = ports.iter();
    let mut lines: Vec<String> = Vec::new();
    let mut health = String::new();
    for line in text.lines() {
        let changed = change.iter().find(|(field, _)| line.trim_start().starts_with(&format!("{field}:")));
        if let Some((field, value)) = changed {
            let indent = line.len() - line.trim_start().len();
            lines.push(format!("{}{field}: {value}", " ".repeat(indent)));
        } else if line.trim_start().starts_with("listen:") {
            let port = ports.next().context("more listeners than ports")?.local_addr()?.port();
            // The last listener of the file is health's.
            health = format!("127.0.0.1:{port}");
            lines.push(format!("  listen: {health}"));
        } else {
            lines.push(line.to_owned());
        }
    }
    text = lines.join("\n");
    let file = stage.dir.join(format!("{name}.yaml"));
    std::fs::File::create(&file)?.write_all(text.as_bytes())?;
    let argv = ["kustody", "serve", "--config", &file.to_string_lossy()];
    Ok((stage.run_argv(&stage.cluster.admin, &argv).limit(Duration::from_secs(60)), health))
}

fn an_unreachable_store_is_told(stage: &mut Stage) -> anyhow::Result<()> {
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let spool = stage.dir.join("spool-unreachable").display().to_string();
    let endpoint = format!("https://{closed}");
    let ended = serve(stage, "no-store", &[("endpoint", &endpoint), ("dir", &spool)])?.0.done()?;
    ensure!(ended.code == 1, "{ended:?}");
    let told = ended.err();
    ensure!(told.contains("s3://") && told.contains(&closed.port().to_string()), "neither URL nor cause: {told}");
    Ok(())
}

fn an_unreachable_cluster_is_waited_for(stage: &mut Stage) -> anyhow::Result<()> {
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let reachable = std::fs::read_to_string(stage.dir.join("kustody.kubeconfig"))?;
    let nowhere = stage.dir.join("nowhere.kubeconfig");
    std::fs::write(&nowhere, reachable.replace(&stage.cluster.server, &format!("https://{closed}")))?;
    let spool = stage.dir.join("spool-nowhere").display().to_string();
    let change = [("kubeconfig", &*nowhere.to_string_lossy()), ("dir", &spool)];
    let (run, health) = serve(stage, "no-cluster", &change)?;
    let mut running = run.start()?;
    let report = eventually(Duration::from_secs(10), || {
        let report = ask_health(&health)?;
        ensure!(report.contains("Connection refused") || report.contains("[-]cluster failed: S"), "{report}");
        Ok(report)
    })?;
    ensure!(report.starts_with("HTTP/1.1 503"), "it says that it is ready: {report}");
    std::thread::sleep(Duration::from_secs(3));
    ensure!(running.runs()?, "it ended: {:?}", running.done()?);
    Run::new(&["kill", &running.pid().to_string()]).ok()?;
    let ended = running.done()?;
    ensure!(ended.code == 0 && ended.err().contains("trying again"), "{ended:?}");
    Ok(())
}

fn every_mistake_is_told(stage: &mut Stage) -> anyhow::Result<()> {
    let changes = [("kubeconfig", "/nowhere"), ("region", "[1]"), ("requireObjectLock", "maybe"), ("url", "ftp://x")];
    let ended = serve(stage, "mistakes", &changes)?.0.done()?;
    ensure!(ended.code == 1, "{ended:?}");
    for field in ["cluster.kubeconfig", "store.region", "store.requireObjectLock", "store.url", "webhook.url"] {
        ensure!(ended.err().contains(field), "{field} is not told: {}", ended.err());
    }
    Ok(())
}

fn sessions_outlive_the_store(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let pid = stage.cluster.s3_pid.context("the S3 server's process is unknown")?.to_string();
    Run::new(&["kill", "-STOP", &pid]).ok()?;
    let marker = format!("away-{pid}");
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "echo", &marker];
    let ran = stage.run_argv(&stage.people.agent, &argv).limit(Duration::from_secs(20)).done();
    std::thread::sleep(Duration::from_secs(3));
    Run::new(&["kill", "-CONT", &pid]).ok()?;
    ensure!(ran?.ok()?.out().trim() == marker, "the session did not go on without the store");
    eventually(Duration::from_secs(60), || {
        let listed = stage.run(&stage.people.approver, "kustody sessions -o json").ok()?;
        let listed: Value = serde_json::from_slice(&listed.stdout)?;
        let mut all = listed.as_array().context("no list")?.iter();
        let shipped = all.find(|one| one["state"] == "complete" && one.to_string().contains(&marker));
        let id = shipped.and_then(|one| one["session"].as_str()).context("not shipped yet")?;
        stage.verify(id)?.ok().map(drop)
    })
}

fn asked_twice_it_ends_at_once(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "sleep", "60"];
    let running = stage.run_argv(&stage.people.agent, &argv).start()?;
    std::thread::sleep(Duration::from_secs(2));
    let pid = stage.kustody.pid().to_string();
    Run::new(&["kill", "-INT", &pid]).ok()?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(stage.kustody.runs(), "it did not wait for the running session");
    Run::new(&["kill", "-INT", &pid]).ok()?;
    eventually(Duration::from_secs(1), || {
        ensure!(!stage.kustody.runs(), "it runs still");
        Ok(())
    })?;
    ensure!(running.done()?.code != 0, "the session ended well");
    stage.kustody.launch()
}

fn it_ends_when_asked(stage: &mut Stage) -> anyhow::Result<()> {
    let pid = stage.kustody.pid().to_string();
    Run::new(&["kill", &pid]).ok()?;
    eventually(Duration::from_secs(15), || {
        ensure!(!stage.kustody.runs(), "it runs still");
        Ok(())
    })?;
    let log = std::fs::read_to_string(&stage.kustody.log)?;
    ensure!(log.lines().last().is_some_and(|line| line.contains("ended")), "the log does not end with its end");
    stage.kustody.launch()
}
