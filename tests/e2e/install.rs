//! The README's installing commands, run as they stand there, on a control plane that has never seen Kustody.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::Test;
use crate::stage::Stage;
use crate::stage::cluster::Cluster;
use crate::stage::run::{Done, Run};

pub(super) const TESTS: &[Test] =
    &[("the README's installing commands work on a fresh cluster", the_commands_work_as_written)];

const NAME: &str = "e2e-install";

fn the_commands_work_as_written(_stage: &mut Stage) -> anyhow::Result<()> {
    let tried = Cluster::control_plane(NAME).and_then(|cluster| install(&cluster));
    clean_up()?;
    tried
}

/// Ends what an interrupted test left.
pub(super) fn clean_up() -> anyhow::Result<()> {
    Cluster::down(NAME)
}

fn install(cluster: &Cluster) -> anyhow::Result<()> {
    let commands = commands()?;
    ensure!(commands.len() >= 3, "the README installs with {commands:?}");
    for command in &commands {
        as_written(cluster, command)?;
    }
    let registered = ["get", "validatingwebhookconfiguration/kustody", "deployment/kustody", "-n", "kustody-system"];
    cluster.admin(&registered)?;
    let default = cluster.admin(&["get", "agentclasses,agentpolicies", "-o", "name"])?.out();
    ensure!(default.contains("agentclass") && default.contains("agentpolic"), "no default rules: {default}");
    Ok(())
}

/// The kubectl lines under the heading about installing.
fn commands() -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))?;
    let section = text.split("## Install it for real").nth(1).context("the README does not say how to install")?;
    let block = section.split("```bash").nth(1).and_then(|rest| rest.split("```").next()).context("no commands")?;
    let lines = block.lines().filter_map(|line| line.split('#').next()).map(str::trim);
    Ok(lines.filter(|line| line.starts_with("kubectl ")).map(str::to_owned).collect())
}

/// By a shell in the project's folder, with the cluster's kubectl first on the PATH.
fn as_written(cluster: &Cluster, command: &str) -> anyhow::Result<Done> {
    let folder = cluster.kubectl.parent().context("kubectl lies nowhere")?;
    let line = format!("cd '{}' && {command}", env!("CARGO_MANIFEST_DIR"));
    Run::new(&["sh", "-c", &line]).path_first(folder).env("KUBECONFIG", &cluster.admin.to_string_lossy()).ok()
}
