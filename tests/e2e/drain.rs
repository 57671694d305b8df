//! Ending one of two replicas inside the cluster while twenty kubectl wait for approval: none of them fails.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Test;
use crate::in_cluster::{IMAGE, WORKLOAD, logs, remove, workload};
use crate::stage::Stage;
use crate::stage::run::{Running, eventually};

pub(super) const TESTS: &[Test] =
    &[("drain: one of two replicas ends while twenty kubectl wait, and all twenty finish", nobody_is_dropped)];

/// So many wait at once.
const WAITING: usize = 20;

fn nobody_is_dropped(stage: &mut Stage) -> anyhow::Result<()> {
    stage.kustody.kill()?;
    let tried = with_two(stage);
    let told = if tried.is_err() { logs(stage) } else { String::new() };
    let removed = remove(stage);
    stage.kustody.launch()?;
    tried.context(told)?;
    removed
}

fn with_two(stage: &Stage) -> anyhow::Result<()> {
    stage.cluster.load_binary(Path::new(env!("CARGO_BIN_EXE_kustody")), IMAGE)?;
    for file in WORKLOAD {
        let text = workload(file)?.replace("replicas: 1", "replicas: 2").replace(
            "    gateway:\n      url:",
            "    webhook:\n      maxParkedPerAgent: 64\n      observe:\n        enabled: false\n    gateway:\n      url:",
        );
        ensure!(
            file != "deployment.yaml" || text.contains("maxParkedPerAgent"),
            "the configuration is not as expected"
        );
        stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(text).ok()?;
    }
    let argv = ["rollout", "status", "deployment/kustody", "-n", "kustody-system", "--timeout=90s"];
    stage.cluster.admin(&argv)?;
    let waiting = deletes(stage)?;
    let ids = eventually(Duration::from_secs(40), || {
        let ids = open(stage)?;
        ensure!(ids.len() >= WAITING, "{} of {WAITING} are held", ids.len());
        Ok(ids)
    })?;
    let pods = [
        "get",
        "pods",
        "-n",
        "kustody-system",
        "-l",
        "app.kubernetes.io/name=kustody",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ];
    let pod = stage.cluster.admin(&pods)?.out();
    stage.cluster.admin(&["delete", "pod", pod.trim(), "-n", "kustody-system", "--wait=false"])?;
    std::thread::sleep(Duration::from_secs(4));
    for id in &ids {
        stage.run_argv(&stage.people.approver, &["kustody", "approve", id, "--reason", "test"]).ok()?;
    }
    for one in waiting {
        one.done()?.ok()?;
    }
    Ok(())
}

fn deletes(stage: &Stage) -> anyhow::Result<Vec<Running>> {
    let names: Vec<String> = (0..WAITING).map(|number| format!("drain-{number}")).collect();
    for name in &names {
        stage.cluster.admin(&["delete", "configmap", name, "-n", "shop", "--ignore-not-found"])?;
        stage.cluster.admin(&["create", "configmap", name, "-n", "shop"])?;
    }
    let delete = |name: &String| {
        let argv = ["kubectl", "delete", "configmap", name.as_str(), "-n", "shop"];
        stage.run_argv(&stage.people.agent_direct, &argv).start()
    };
    names.iter().map(delete).collect()
}

/// What waits for people about these objects.
fn open(stage: &Stage) -> anyhow::Result<Vec<String>> {
    let listed = stage.cluster.admin(&["get", "approvals", "-n", "kustody-system", "-o", "json"])?;
    let listed: Value = serde_json::from_slice(&listed.stdout)?;
    let all = listed["items"].as_array().context("no list")?.iter();
    let ours = all.filter(|one| {
        one["spec"]["action"]["target"].as_str().is_some_and(|target| target.contains("drain-"))
            && one["status"]["state"].as_str().is_none_or(|state| state == "Pending")
    });
    Ok(ours.filter_map(|one| one["metadata"]["name"].as_str().map(str::to_owned)).collect())
}
