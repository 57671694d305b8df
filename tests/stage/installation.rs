//! Kustody on the real cluster: its manifests applied, `kustody serve` running under its own service account, with
//! nothing but the rights its manifests give it. Main type: [`Kustody`].

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::cluster::{Cluster, S3};
use super::run::{Processes, eventually};

/// How long Kustody may take until it is ready: it mints certificates, probes the store and loads policies.
const READY: Duration = Duration::from_secs(30);
/// What runs inside the cluster when Kustody does; here it runs beside it.
const ONLY_IN_CLUSTER: [&str; 2] = ["deployment.yaml", "service.yaml"];

/// The kubeconfig of the running process alone, in the stage's folder.
pub const OWN_KUBECONFIG: &str = "serve.kubeconfig";

/// A running `kustody serve`.
pub struct Kustody {
    /// Where agents' kubeconfigs point.
    pub gateway: String,
    /// Where the API server finds the webhook, without the path.
    pub webhook: String,
    /// Where liveness and readiness are answered, `host:port`.
    pub health: String,
    /// The configuration file.
    pub config: PathBuf,
    /// The log file.
    pub log: PathBuf,
    /// The spool's folder.
    pub spool: PathBuf,
    binary: PathBuf,
    environment: Vec<(String, String)>,
    processes: Arc<Processes>,
    pid: u32,
}

/// Applies everything in `manifests/` and `webhook-config/` that does not run pods.
pub fn install(cluster: &Cluster) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crds = root.join("manifests/crds.yaml");
    cluster.admin(&["apply", "--server-side", "-f", &crds.to_string_lossy()])?;
    cluster.admin(&["wait", "--for=condition=Established", "--timeout=30s", "-f", &crds.to_string_lossy()])?;
    for folder in ["manifests", "webhook-config"] {
        for file in manifests(&root.join(folder))? {
            // A kind that has just been defined may take a moment to be served.
            eventually(Duration::from_secs(10), || cluster.admin(&["apply", "-f", &file.to_string_lossy()]))?;
        }
    }
    // The one agent of the tests does, and is refused, more in a few minutes than a run should be.
    cluster.admin(&["delete", "agentpolicy", "default-budget", "--ignore-not-found"])?;
    Ok(())
}

/// The files of a folder that are applied here, `namespaces.yaml` first.
fn manifests(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".yaml") && !ONLY_IN_CLUSTER.contains(&name.as_str()) {
            files.push(path);
        }
    }
    files.sort_by_key(|path| (!path.ends_with("namespaces.yaml"), path.clone()));
    Ok(files)
}

impl Kustody {
    /// Starts it and waits until it is ready.
    pub fn start(cluster: &Cluster, s3: &S3, dir: &Path, processes: &Arc<Processes>) -> anyhow::Result<Self> {
        let kubeconfig = dir.join("kustody.kubeconfig");
        // Tests that try what the account may do come with another token, so that the audit log tells them apart.
        let own = dir.join(OWN_KUBECONFIG);
        for file in [&kubeconfig, &own] {
            let token = cluster.admin(&["create", "token", "kustody", "-n", "kustody-system", "--duration=24h"])?.out();
            std::fs::write(file, kubeconfig_with_token(&cluster.server, &cluster.ca_file, token.trim())?)?;
        }
        let [webhook, gateway, health] = free_ports()?;
        let host = &cluster.host_ip;
        let spool = dir.join("spool");
        let config = dir.join("kustody.yaml");
        let text = format!(
            "cluster:\n  name: {name}\n  kubeconfig: {kubeconfig}\n\
             webhook:\n  listen: {host}:{webhook}\n  url: https://{host}:{webhook}/admission\n  drain: 1s\n  \
             observe:\n    knownGroups: [approvers, onlookers]\n\
             gateway:\n  listen: {host}:{gateway}\n  url: https://{host}:{gateway}\n\
             health:\n  listen: {host}:{health}\n\
             tls:\n  hosts: [\"{host}\"]\n\
             store:\n  url: s3://{bucket}\n  endpoint: {endpoint}\n  region: {region}\n  pathStyle: true\n  caFile: {s3_ca}\n  \
             requireObjectLock: true\n\
             spool:\n  dir: {spool}\n",
            name = "demo",
            kubeconfig = own.display(),
            bucket = s3.bucket,
            endpoint = s3.endpoint,
            region = s3.region,
            s3_ca = s3.ca_file.display(),
            spool = spool.display(),
        );
        std::fs::write(&config, text)?;
        let mut kustody = Self {
            gateway: format!("https://{host}:{gateway}"),
            webhook: format!("https://{host}:{webhook}"),
            health: format!("{host}:{health}"),
            config,
            log: dir.join("kustody.log"),
            spool,
            binary: dir.join("bin/kustody"),
            environment: s3.store_environment(),
            processes: Arc::clone(processes),
            pid: 0,
        };
        kustody.launch()?;
        Ok(kustody)
    }

    /// Another Kustody, for another cluster, that ends with this one.
    pub fn beside(&self, cluster: &Cluster, s3: &S3, dir: &Path) -> anyhow::Result<Self> {
        Self::start(cluster, s3, dir, &self.processes)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts the process (again) and waits until it is ready.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.binary)
            .args(["serve", "--config"])
            .arg(&self.config)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.pid = self.processes.keep(child);
        eventually(READY, || self.ready()).with_context(|| format!("kustody is not ready; its log:\n{}", self.tail()))
    }

    /// Whether the process runs.
    pub fn runs(&self) -> bool {
        self.processes.runs(self.pid)
    }

    /// Ends the process as a crash would.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.processes.kill(self.pid)
    }

    fn ready(&self) -> anyhow::Result<()> {
        if !self.processes.runs(self.pid) {
            bail!("the process has ended");
        }
        let answer = ask_health(&self.health)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(())
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

/// The whole answer of a health listener about readiness.
pub fn ask_health(address: &str) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    connection.write_all(b"GET /readyz HTTP/1.1\r\nhost: kustody\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A kubeconfig that verifies the server and brings a token.
pub fn kubeconfig_with_token(server: &str, ca_file: &Path, token: &str) -> anyhow::Result<String> {
    let ca = ca_file.display();
    Ok(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: default\n\
         clusters: [{{name: default, cluster: {{server: \"{server}\", certificate-authority: \"{ca}\"}}}}]\n\
         users: [{{name: default, user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: default, context: {{cluster: default, user: default}}}}]\n"
    ))
}

/// Ports that were free a moment ago; Kustody's URLs must be known before it listens.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let listeners: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
