//! The real cluster and the real S3 server, through the one command-line of `tests/cluster` (which also drives kind).
//! Main types: [`Cluster`], [`S3`].

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use super::run::{Done, Run};

/// A booted cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its folder.
    pub dir: PathBuf,
    /// The API server's URL.
    pub server: String,
    /// The certificate authority's file.
    pub ca_file: PathBuf,
    /// The administrator's kubeconfig.
    pub admin: PathBuf,
    /// A kubectl of the cluster's own version.
    pub kubectl: PathBuf,
    /// The address at which the API server reaches processes of this machine.
    pub host_ip: String,
    /// A busybox image that is there, never to be pulled; empty without a node.
    pub image: String,
    /// The process that serves S3.
    pub s3_pid: Option<u64>,
    name: String,
}

/// A running S3 server with a bucket that has versioning and Object Lock.
#[derive(Debug, Clone)]
pub struct S3 {
    /// Its URL.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The access key.
    pub access_key: String,
    /// The secret key of this test server.
    pub secret_key: String,
    /// The certificate authority's file.
    pub ca_file: PathBuf,
    /// The folder in which the server keeps the bucket's objects as plain files.
    pub data_dir: PathBuf,
}

impl Cluster {
    /// Boots the cluster with an S3 server, or finds it up already.
    pub fn up(name: &str) -> anyhow::Result<(Self, S3)> {
        let release = std::env::var("KUSTODY_KUBERNETES").unwrap_or_default();
        let mut argv = vec!["up", "--name", name, "--with-s3"];
        if !release.is_empty() {
            argv.extend(["--kubernetes", &release]);
        }
        harness(&argv)?;
        let cluster = Self::find(name)?;
        let s3 = S3::find(&cluster.dir)?;
        Ok((cluster, s3))
    }

    /// Boots a control plane alone: no node, no S3 server.
    pub fn control_plane(name: &str) -> anyhow::Result<Self> {
        harness(&["up", "--name", name, "--control-plane-only"])?;
        Self::find(name)
    }

    /// The same with an API server that presents a client certificate to webhooks.
    pub fn control_plane_with_identity(name: &str) -> anyhow::Result<Self> {
        harness(&["up", "--name", name, "--control-plane-only", "--webhook-identity"])?;
        Self::find(name)
    }

    /// Starts or stops the aggregated API beside it, `up` or `down`, with these flags more.
    pub fn aggregated(&self, verb: &str, extra: &[&str]) -> anyhow::Result<()> {
        harness(&[&["aggregated", verb, "--name", &self.name], extra].concat())
    }

    /// Ends it; nothing of it is left.
    pub fn down(name: &str) -> anyhow::Result<()> {
        harness(&["down", "--name", name])
    }

    /// Ends these parts of it together, or every part where none is named, and starts them again. Returns when they
    /// serve, and the node has reported.
    pub fn restart(&self, parts: &[&str]) -> anyhow::Result<()> {
        harness(&[&["restart", "--name", &self.name, "--together"], parts].concat())
    }

    /// What `up` wrote.
    fn find(name: &str) -> anyhow::Result<Self> {
        let status = harness_output(&["status", "--name", name, "-o", "json"])?;
        let status: Value = serde_json::from_str(&status).context("cluster status is not JSON")?;
        Ok(Self {
            dir: PathBuf::from(text(&status, "dir")?),
            server: text(&status, "server")?,
            ca_file: PathBuf::from(text(&status, "ca_file")?),
            admin: PathBuf::from(text(&status, "kubeconfig")?),
            kubectl: PathBuf::from(text(&status, "kubectl")?),
            host_ip: text(&status, "host_ip")?,
            image: text(&status, "image").unwrap_or_default(),
            s3_pid: ["s3", "versitygw"].iter().find_map(|name| status["components"][*name].as_u64()),
            name: name.to_owned(),
        })
    }

    /// Runs kubectl as the administrator and fails unless it succeeds.
    pub fn admin(&self, argv: &[&str]) -> anyhow::Result<Done> {
        self.kubectl(&self.admin, argv).ok()
    }

    /// kubectl of the cluster's own version as somebody.
    pub fn kubectl(&self, who: &Path, argv: &[&str]) -> Run {
        let program = self.kubectl.to_string_lossy().into_owned();
        let mut all = vec![program.as_str()];
        all.extend(argv);
        Run::new(&all).env("KUBECONFIG", &who.to_string_lossy())
    }

    /// Puts a binary with its shared libraries into an image of the node.
    pub fn load_binary(&self, binary: &Path, image: &str) -> anyhow::Result<()> {
        harness(&["load-binary", "--name", &self.name, "--image", image, &binary.to_string_lossy()])
    }

    /// Writes a kubeconfig with a client certificate for a person.
    pub fn person(&self, user: &str, groups: &[&str], file: &Path) -> anyhow::Result<()> {
        let mut argv = vec!["kubeconfig", "--name", &self.name, "--user", user];
        for group in groups {
            argv.extend(["--group", group]);
        }
        std::fs::write(file, harness_output(&argv)?).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl S3 {
    /// What `up` wrote of it.
    fn find(cluster: &Path) -> anyhow::Result<Self> {
        let s3 = std::fs::read_to_string(cluster.join("s3.json")).context("the cluster has no S3 server")?;
        let s3: Value = serde_json::from_str(&s3).context("s3.json is not JSON")?;
        Ok(Self {
            endpoint: text(&s3, "endpoint")?,
            region: text(&s3, "region")?,
            bucket: text(&s3, "bucket")?,
            access_key: text(&s3, "access_key")?,
            secret_key: text(&s3, "secret_key")?,
            ca_file: PathBuf::from(text(&s3, "ca_file")?),
            data_dir: PathBuf::from(text(&s3, "data_dir")?),
        })
    }

    /// How the `kustody` commands find the recordings.
    pub fn store_environment(&self) -> Vec<(String, String)> {
        vec![
            ("KUSTODY_STORE".to_owned(), format!("s3://{}", self.bucket)),
            ("KUSTODY_STORE_ENDPOINT".to_owned(), self.endpoint.clone()),
            ("KUSTODY_STORE_REGION".to_owned(), self.region.clone()),
            ("KUSTODY_STORE_PATH_STYLE".to_owned(), "true".to_owned()),
            ("AWS_ACCESS_KEY_ID".to_owned(), self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), self.secret_key.clone()),
            ("KUSTODY_STORE_CA_FILE".to_owned(), self.ca_file.to_string_lossy().into_owned()),
        ]
    }
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("cluster status has no `{field}`: {value}"))
}

/// The program, built by `make` beforehand.
fn program() -> anyhow::Result<String> {
    std::env::var("KUSTODY_TEST_CLUSTER").context("KUSTODY_TEST_CLUSTER is not set: run this through `make`")
}

/// Runs the harness with its progress on this terminal.
fn harness(argv: &[&str]) -> anyhow::Result<()> {
    let program = program()?;
    let status = Command::new(&program).args(argv).status().with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("`{program} {}` failed: {status}", argv.join(" "));
    }
    Ok(())
}

fn harness_output(argv: &[&str]) -> anyhow::Result<String> {
    let program = program()?;
    let mut all = vec![program.as_str()];
    all.extend(argv);
    Ok(Run::new(&all).ok()?.out())
}
