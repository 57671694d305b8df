//! What runs in a container for the lanes about many sessions, so that the container costs next to nothing: this very
//! program, put into an image. Behind an exec it is `paced`: prints so many bytes a second, by the clock. As the
//! container's own process it is `hold`: takes connections and leaves them alone. Main function: [`deploy`].

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::stage::Stage;
use crate::text;

/// Where it runs.
pub(crate) const NAMESPACE: &str = "crowd";
pub(crate) const POD: &str = "occupant";
/// Where it takes connections.
pub(crate) const PORT: u16 = 8090;
/// What `paced` says before it waits for a byte on its standard input.
pub(crate) const READY: &[u8] = b"ready\n";
/// The first arguments of its processes.
pub(crate) const KINDS: [&str; 2] = ["hold", "paced"];
/// The program's place in its image.
const PROGRAM: &str = "/usr/bin/occupant";
const IMAGE: &str = "local/bench:dev";
/// How often `paced` prints.
const TICK: Duration = Duration::from_millis(100);
/// As in the namespace of the tests, the agent may exec here without asking.
const SCENE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: crowd, labels: {kustody.dev/exec: allow}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: coder, namespace: crowd}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: coder, namespace: agents}]
---
apiVersion: v1
kind: Pod
metadata: {name: occupant, namespace: crowd}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  containers:
  - {name: occupant, image: IMAGE, imagePullPolicy: Never, args: [hold]}
"#;

/// Puts the pod there, once.
pub(crate) fn deploy(stage: &Stage) -> anyhow::Result<()> {
    let cluster = &stage.cluster;
    if cluster.admin(&["get", "pod", POD, "-n", NAMESPACE]).is_ok() {
        return Ok(());
    }
    let program = stage.dir.join("occupant");
    std::os::unix::fs::symlink(std::env::current_exe()?, &program)?;
    cluster.load_binary(&program, IMAGE)?;
    // The namespace's own account may come a moment after it.
    crate::stage::run::eventually(Duration::from_secs(20), || {
        cluster.kubectl(&cluster.admin, &["apply", "-f", "-"]).input(SCENE.replace("IMAGE", IMAGE)).ok()
    })?;
    cluster.admin(&["wait", "--for=condition=Ready", "--timeout=60s", "-n", NAMESPACE, "pod/occupant"])?;
    Ok(())
}

/// The command line of a process that prints so many bytes a second for some seconds.
pub(crate) fn paced_argv(rate: usize, seconds: usize) -> [String; 4] {
    [PROGRAM.to_owned(), "paced".to_owned(), rate.to_string(), seconds.to_string()]
}

/// Runs as one of the processes.
pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    match arguments {
        [kind] if kind == "hold" => hold(),
        [kind, rate, seconds] if kind == "paced" => paced(rate.parse()?, seconds.parse()?),
        _ => bail!("{} are: hold; paced BYTES SECONDS", KINDS.join(" and ")),
    }
}

fn hold() -> anyhow::Result<()> {
    kustody::edge::open_files::raise()?;
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    let mut held = Vec::new();
    loop {
        held.push(listener.accept()?);
    }
}

/// What is late is caught up with, so that what is asked for does not depend on how busy the machine is. Ends with its input.
fn paced(rate: usize, seconds: usize) -> anyhow::Result<()> {
    let mut out = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let seed = std::process::id();
    let text = text::fill(rate * seconds, u64::from(seed));
    out.write_all(READY)?;
    std::io::stdin().read_exact(&mut [0])?;
    // Not all at the same moment.
    let (started, phase) = (Instant::now(), TICK * (seed * 7 % 100) / 100);
    for (part, number) in text.chunks((rate / 10).max(1)).zip(0..) {
        std::thread::sleep((phase + TICK * number).saturating_sub(started.elapsed()));
        out.write_all(part)?;
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
