//! The stage of the demo and of the end-to-end tests: a real cluster, a real S3 server, Kustody installed from its
//! manifests and running, an agent and an approver with kubeconfigs of their own. Everything that was started is
//! ended by [`Stage::down`], also when setting up failed half way. Main type: [`Stage`].

pub mod cluster;
pub mod installation;
pub mod people;
pub mod run;
pub mod story;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use cluster::{Cluster, S3};
use installation::Kustody;
use people::People;
use run::{Processes, Run};

/// Everything the story or a test needs, ready to use.
pub struct Stage {
    /// The folder of this stage: kubeconfigs, configuration, logs.
    pub dir: PathBuf,
    /// The real cluster.
    pub cluster: Cluster,
    /// The real S3 server.
    pub s3: S3,
    /// `kustody serve`, running.
    pub kustody: Kustody,
    /// Kubeconfigs of the agent and the approver.
    pub people: People,
}

/// How a stage is set up.
#[derive(Clone)]
pub struct Plan {
    /// The cluster's name; two stages with different names run side by side.
    pub name: &'static str,
    /// The `kustody` binary.
    pub kustody: PathBuf,
    /// Says what is being done, a line a step.
    pub say: fn(&str),
}

impl Stage {
    /// Sets everything up. On an error, what was started is registered in `processes` and the cluster's name is
    /// known, so that [`tear_down`] ends it.
    pub fn up(plan: &Plan, processes: &Arc<Processes>) -> anyhow::Result<Self> {
        (plan.say)("building and booting a real cluster with a real S3 server");
        let (cluster, s3) = Cluster::up(plan.name)?;
        let dir = cluster.dir.join("stage");
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        std::fs::create_dir_all(dir.join("bin"))?;
        link(&plan.kustody, &dir.join("bin/kustody"))?;
        link(&plan.kustody, &dir.join("bin/kubectl-kustody"))?;
        link(&cluster.kubectl, &dir.join("bin/kubectl"))?;
        (plan.say)("installing Kustody's resources, RBAC, admission policies and webhook configuration");
        installation::install(&cluster)?;
        people::settle(&cluster)?;
        (plan.say)("starting `kustody serve` under its own service account");
        let kustody = Kustody::start(&cluster, &s3, &dir, processes)?;
        let people = People::arrive(&cluster, &kustody, &dir)?;
        Ok(Self { dir, cluster, s3, kustody, people })
    }

    /// A command with this stage's `kubectl` and `kustody` first on the PATH, as `who`.
    pub fn run(&self, who: &Path, line: &str) -> Run {
        self.run_argv(who, &line.split_whitespace().collect::<Vec<_>>())
    }

    /// The same for arguments that hold spaces.
    pub fn run_argv(&self, who: &Path, argv: &[&str]) -> Run {
        Run::new(argv)
            .path_first(&self.dir.join("bin"))
            .env("KUBECONFIG", &who.to_string_lossy())
            .envs(self.s3.store_environment())
    }
}

/// Ends everything: processes first, then the cluster with its S3 server. Never stops half way.
pub fn tear_down(plan: &Plan, processes: &Processes) -> anyhow::Result<()> {
    processes.end();
    Cluster::down(plan.name)
}

fn link(target: &Path, name: &Path) -> anyhow::Result<()> {
    let target = std::fs::canonicalize(target).with_context(|| format!("no {}", target.display()))?;
    std::os::unix::fs::symlink(&target, name).with_context(|| format!("cannot link {}", name.display()))
}
