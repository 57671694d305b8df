//! The control plane and Kustody do not need each other to start: every part of the cluster is restarted with Kustody
//! dead and people roll out their work, and a Kustody that lives through such a restart goes on deciding.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use crate::Test;
use crate::stage::Stage;
use crate::stage::run::eventually;

pub(super) const TESTS: &[Test] = &[
    (
        "with kustody dead the whole cluster boots, and a person rolls out a deployment",
        the_cluster_boots_without_kustody,
    ),
    ("kustody outlives a restart of the API server and its store", kustody_outlives_a_restart),
];

/// How long a decision may take to come again: watches are opened anew with growing pauses, and a restarted API server
/// takes up to half a minute to find the kinds that native policies name.
const BACK: Duration = Duration::from_secs(60);

fn the_cluster_boots_without_kustody(stage: &mut Stage) -> anyhow::Result<()> {
    stage.web()?;
    let person = stage.dir.join("operator.kubeconfig");
    stage.cluster.person("operator", &["operators"], &person)?;
    let rights = ["create", "rolebinding", "operators", "-n", "shop", "--clusterrole=edit", "--group=operators"];
    stage.cluster.admin(&rights)?;
    stage.kustody.kill()?;
    let tried = boots_and_rolls(stage, &person);
    stage.kustody.launch()?;
    stage.cluster.admin(&["delete", "rolebinding", "operators", "-n", "shop"])?;
    tried?;
    decides(stage)
}

fn boots_and_rolls(stage: &Stage, person: &Path) -> anyhow::Result<()> {
    agents_are_refused(stage)?;
    let before = pods(stage)?;
    stage.cluster.restart(&[])?;
    for argv in
        [&["rollout", "restart", "deployment/web"][..], &["rollout", "status", "deployment/web", "--timeout=60s"]]
    {
        stage.cluster.kubectl(person, &[argv, &["-n", "shop"]].concat()).ok()?;
    }
    eventually(Duration::from_secs(60), || {
        let after = pods(stage)?;
        ensure!(!after.is_empty() && after.is_disjoint(&before), "{before:?} before, {after:?} after");
        Ok(())
    })?;
    agents_are_refused(stage)
}

/// The running pods of the deployment.
fn pods(stage: &Stage) -> anyhow::Result<BTreeSet<String>> {
    let argv = ["get", "pods", "-n", "shop", "--field-selector=status.phase=Running", "-o", "name"];
    Ok(stage.cluster.admin(&argv)?.out().lines().map(str::to_owned).collect())
}

fn agents_are_refused(stage: &Stage) -> anyhow::Result<()> {
    let done = stage.run(&stage.people.agent_direct, "kubectl create configmap while-dead -n shop").done()?;
    ensure!(done.code != 0 && done.err().contains("failed calling webhook \"gate.kustody.dev\""), "{done:?}");
    Ok(())
}

fn kustody_outlives_a_restart(stage: &mut Stage) -> anyhow::Result<()> {
    stage.web()?;
    stage.cluster.restart(&["etcd", "kube-apiserver"])?;
    ensure!(stage.kustody.runs(), "it ended along with the API server");
    decides(stage)
}

/// One call of the agent is allowed, and one is denied with Kustody's own words.
fn decides(stage: &Stage) -> anyhow::Result<()> {
    eventually(BACK, || stage.run(&stage.people.agent, "kubectl create configmap decided -n agents").ok())?;
    stage.cluster.admin(&["delete", "configmap", "decided", "-n", "agents"])?;
    let pod = stage.pod()?;
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "id"];
    let denied = stage.run_argv(&stage.people.agent_direct, &argv).done()?;
    ensure!(denied.code != 0 && denied.err().contains(&stage.kustody.gateway), "not denied by a rule: {denied:?}");
    Ok(())
}
