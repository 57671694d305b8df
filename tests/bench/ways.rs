//! The ways to a pod that are compared: directly at the API server, through a plain TLS proxy before it, and through
//! Kustody, which records. Owns what every lane about streams does on them; measures nothing. Main type: [`Way`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, AttachedProcess};
use kube::config::Kubeconfig;
use kube::{Api, Client, Config};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::stage::Stage;
use crate::stage::installation::kubeconfig_with_token;
use crate::stage::run::{Processes, eventually};
use crate::{proxy, ungated};

/// Most uses a grant may have.
pub(crate) const USES: usize = 1000;
/// Bytes read or written at a time.
pub(crate) const BUFFER: usize = 256 * 1024;
/// Sealing and shipping go on for a moment after a stream has ended; their processor time counts.
pub(crate) const SETTLED: Duration = Duration::from_millis(2500);
/// The longest a recording takes until it is complete in the store.
const COMPLETE: Duration = Duration::from_secs(120);

/// A way to the pods.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// For clients that are programs of their own.
    pub(crate) kubeconfig: PathBuf,
    client: Client,
}

impl Way {
    /// All of them: the direct one, the peer, Kustody.
    pub(crate) async fn all(stage: &Stage, processes: &Arc<Processes>) -> anyhow::Result<[Way; 3]> {
        let cluster = &stage.cluster;
        let token = ungated(stage)?;
        let proxy =
            proxy::start(&stage.dir, cluster.server.trim_start_matches("https://"), &cluster.ca_file, processes)?;
        let authority = stage.dir.join("plain-proxy.crt");
        std::fs::write(&authority, &proxy.authority)?;
        let file = |name: &str, server: &str, ca: &Path| {
            let file = stage.dir.join(format!("bench-{name}.kubeconfig"));
            std::fs::write(&file, kubeconfig_with_token(server, ca, &token)?)?;
            anyhow::Ok(file)
        };
        Ok([
            Way::new("direct", file("direct", &cluster.server, &cluster.ca_file)?).await?,
            Way::new("plain proxy", file("proxy", &proxy.url, &authority)?).await?,
            Way::kustody(stage).await?,
        ])
    }

    /// The agent's.
    pub(crate) async fn kustody(stage: &Stage) -> anyhow::Result<Way> {
        Way::new("kustody", stage.people.agent.clone()).await
    }

    async fn new(name: &'static str, kubeconfig: PathBuf) -> anyhow::Result<Way> {
        let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(&kubeconfig)?, &Default::default()).await?;
        Ok(Way { name, kubeconfig, client: Client::try_from(config)? })
    }

    pub(crate) fn is_kustody(&self) -> bool {
        self.name == "kustody"
    }

    /// The pods of a namespace, by this way.
    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Lets the agent forward ports, [`USES`] times.
pub(crate) fn grant(stage: &Stage, namespace: &str, name: &str) -> anyhow::Result<()> {
    let what = format!("--connect pods/portforward -n {namespace} --for 60m --uses {USES} --reason bench");
    stage.run(&stage.people.approver, &format!("kustody grant give --name {name} {what}")).ok().map(drop)
}

pub(crate) async fn shell(
    pods: &Api<Pod>,
    pod: &str,
    script: &str,
    stdin: bool,
    tty: bool,
) -> anyhow::Result<AttachedProcess> {
    exec(pods, pod, &["sh", "-c", script], (stdin, tty)).await
}

/// Runs a command; whether it has a standard input and a terminal.
pub(crate) async fn exec(
    pods: &Api<Pod>,
    pod: &str,
    argv: &[&str],
    (stdin, tty): (bool, bool),
) -> anyhow::Result<AttachedProcess> {
    let params = AttachParams {
        stdin,
        stdout: true,
        stderr: false,
        tty,
        max_stdin_buf_size: Some(BUFFER),
        max_stdout_buf_size: Some(BUFFER),
        ..AttachParams::default()
    };
    Ok(pods.exec(pod, argv.iter().copied(), &params).await?)
}

/// Reads so many bytes.
pub(crate) async fn drain(mut from: impl AsyncRead + Unpin, wanted: usize) -> anyhow::Result<()> {
    let (mut buffer, mut total) = (vec![0; BUFFER], 0);
    while total < wanted {
        match from.read(&mut buffer).await? {
            0 => bail!("only {total} of {wanted} bytes came"),
            read => total += read,
        }
    }
    Ok(())
}

/// What every session that begins later is named after.
pub(crate) fn now() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The newest session, once one that began after `begun` is complete in the store.
pub(crate) fn complete_after(stage: &Stage, begun: &str) -> anyhow::Result<String> {
    eventually(COMPLETE, || {
        let listed = stage.run(&stage.people.approver, "kustody sessions --state complete --limit 1 -o name").ok()?;
        let id = listed.out().trim().to_owned();
        ensure!(id.as_str() > begun, "not complete yet");
        Ok(id)
    })
}
