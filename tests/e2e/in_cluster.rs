//! Kustody inside the cluster, from the same manifests that people apply: hardened pod, Service, webhook by Service.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::Test;
use crate::stage::Stage;
use crate::stage::installation::kubeconfig_with_token;
use crate::stage::run::eventually;
use crate::stage::story::held;

pub(super) const TESTS: &[Test] =
    &[("deployed by its manifests it gates, holds and records inside the cluster", it_works_inside)];

/// The image that the test's node has; registries are not reached.
pub(super) const IMAGE: &str = "local/kustody:test";
pub(super) const WORKLOAD: [&str; 2] = ["service.yaml", "deployment.yaml"];

fn it_works_inside(stage: &mut Stage) -> anyhow::Result<()> {
    stage.web()?;
    // One Kustody at a time keeps the registration of the webhook.
    stage.kustody.kill()?;
    let tried = inside(stage);
    let told = if tried.is_err() { logs(stage) } else { String::new() };
    let removed = remove(stage);
    stage.kustody.launch()?;
    tried.context(told)?;
    removed
}

fn inside(stage: &Stage) -> anyhow::Result<()> {
    stage.cluster.load_binary(Path::new(env!("CARGO_BIN_EXE_kustody")), IMAGE)?;
    for file in WORKLOAD {
        let text = workload(file)?;
        stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(text).ok()?;
    }
    let argv = ["rollout", "status", "deployment/kustody", "-n", "kustody-system", "--timeout=60s"];
    stage.cluster.admin(&argv)?;
    let agent = agent(stage)?;
    stage.run(&agent, "kubectl get pods -n shop").ok()?;
    let pod = stage.pod()?;
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "sh", "-c", "echo inside; exit 4"];
    let ran = stage.run_argv(&agent, &argv).done()?;
    ensure!(ran.code == 4 && ran.out() == "inside\n", "{ran:?}");
    stage.cluster.admin(&["delete", "configmap", "inside", "-n", "shop", "--ignore-not-found"])?;
    stage.cluster.admin(&["create", "configmap", "inside", "-n", "shop"])?;
    let waiting = stage.run(&agent, "kubectl delete configmap inside -n shop").start()?;
    let id = held(stage)?;
    stage.run_argv(&stage.people.approver, &["kustody", "approve", &id, "--reason", "test"]).ok()?;
    waiting.done()?.ok()?;
    Ok(())
}

/// A manifest with what differs here: the image, and no volume that would need a provisioner.
pub(super) fn workload(file: &str) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(file);
    let text = std::fs::read_to_string(path)?;
    let image = format!("image: kustody:{}", env!("CARGO_PKG_VERSION"));
    let claim = "persistentVolumeClaim:\n          claimName: kustody-recordings";
    if file == "deployment.yaml" {
        ensure!(text.contains(&image) && text.contains(claim), "the deployment does not look as expected");
    }
    Ok(text.replace(&image, &format!("image: {IMAGE}")).replace(claim, "emptyDir: {}"))
}

/// The agent's kubeconfig for the Service's address; there is no DNS on this host, so the name is given apart.
fn agent(stage: &Stage) -> anyhow::Result<std::path::PathBuf> {
    let argv = ["get", "service", "kustody", "-n", "kustody-system", "-o", "jsonpath={.spec.clusterIP}"];
    let address = stage.cluster.admin(&argv)?.out();
    let token = stage.cluster.admin(&["create", "token", "coder", "-n", "agents", "--audience=kustody"])?.out();
    let text =
        kubeconfig_with_token(&format!("https://{address}:6443"), &stage.dir.join("kustody-ca.crt"), token.trim())?;
    let named = text.replace("cluster: {", "cluster: {tls-server-name: kustody.kustody-system.svc, ");
    let file = stage.dir.join("agent-inside.kubeconfig");
    std::fs::write(&file, named)?;
    eventually(Duration::from_secs(20), || stage.run(&file, "kubectl version").ok())?;
    Ok(file)
}

pub(super) fn logs(stage: &Stage) -> String {
    let argv = ["logs", "deployment/kustody", "-n", "kustody-system", "--tail=40"];
    let described = ["describe", "pods", "-n", "kustody-system"];
    let tell = |argv: &[&str]| stage.cluster.admin(argv).map_or_else(|error| error.to_string(), |done| done.out());
    format!("{}\n{}", tell(&described), tell(&argv))
}

pub(super) fn remove(stage: &Stage) -> anyhow::Result<()> {
    for file in WORKLOAD {
        let text = workload(file)?;
        let argv = ["delete", "--ignore-not-found", "--wait=true", "-f", "-"];
        stage.cluster.kubectl(&stage.cluster.admin, &argv).input(text).ok()?;
    }
    Ok(())
}
