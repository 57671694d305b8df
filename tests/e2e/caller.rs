//! Who calls the webhook: with `webhook.clientCertificate` only the API server's own certificate opens it, on a control
//! plane whose API server presents one; with an API server that presents none, agents are refused and people work.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::Test;
use crate::stage::Stage;
use crate::stage::cluster::{Cluster, S3};
use crate::stage::installation::{self, Kustody, kubeconfig_with_token};
use crate::stage::run::{Done, eventually};

pub(super) const TESTS: &[Test] = &[
    (
        "gate: with a client check the API server's certificate opens the webhook, and no other does",
        only_the_api_server,
    ),
    ("gate: with a client check and an API server without a certificate agents are refused", without_one_nobody_passes),
];

const NAME: &str = "e2e-caller";

fn only_the_api_server(stage: &mut Stage) -> anyhow::Result<()> {
    let tried = Cluster::control_plane_with_identity(NAME).and_then(|cluster| with_identity(stage, &cluster));
    clean_up()?;
    tried
}

/// Ends what an interrupted test left.
pub(super) fn clean_up() -> anyhow::Result<()> {
    Cluster::down(NAME)
}

fn with_identity(stage: &Stage, cluster: &Cluster) -> anyhow::Result<()> {
    let dir = cluster.dir.join("stage");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?; // of an earlier cluster of this name
    }
    std::fs::create_dir_all(dir.join("bin"))?;
    std::os::unix::fs::symlink(stage.dir.join("bin/kustody"), dir.join("bin/kustody"))?;
    installation::install(cluster)?;
    let agent = agent_of(cluster, &dir)?;
    let s3 = S3 { bucket: format!("{}/caller", stage.s3.bucket), ..stage.s3.clone() };
    let mut kustody = stage.kustody.beside(cluster, &s3, &dir)?;
    let own = std::fs::read_to_string(&kustody.config)?;
    let tried = (|| {
        demand(&mut kustody, &own, &cluster.dir.join("pki/webhook-ca.crt"), "kube-apiserver")?;
        decided(cluster, &agent).context("the API server's own certificate")?;
        strangers(cluster, &kustody)?;
        demand(&mut kustody, &own, &cluster.dir.join("pki/webhook-ca.crt"), "somebody-else")?;
        refused(cluster, &agent).context("another name is demanded")?;
        demand(&mut kustody, &own, &cluster.ca_file, "kube-apiserver")?;
        refused(cluster, &agent).context("another authority is demanded")
    })();
    kustody.kill()?;
    tried
}

/// An agent that may write ConfigMaps in its namespace.
fn agent_of(cluster: &Cluster, dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    for argv in [
        &["create", "namespace", "agents"][..],
        &["create", "serviceaccount", "coder", "-n", "agents"],
        &["create", "rolebinding", "coder", "-n", "agents", "--clusterrole=edit", "--serviceaccount=agents:coder"],
    ] {
        let done = cluster.kubectl(&cluster.admin, argv).done()?;
        ensure!(done.code == 0 || done.err().contains("already exists"), "{done:?}");
    }
    let token = cluster.admin(&["create", "token", "coder", "-n", "agents"])?.out();
    let file = dir.join("agent.kubeconfig");
    std::fs::write(&file, kubeconfig_with_token(&cluster.server, &cluster.ca_file, token.trim())?)?;
    Ok(file)
}

/// Starts Kustody anew, with this certificate demanded of whoever calls the webhook.
fn demand(kustody: &mut Kustody, own: &str, authority: &Path, name: &str) -> anyhow::Result<()> {
    let section =
        format!("webhook:\n  clientCertificate: {{ caFile: \"{}\", names: [{name}] }}\n", authority.display());
    ensure!(own.contains("webhook:\n"), "the configuration has no webhook");
    std::fs::write(&kustody.config, own.replacen("webhook:\n", &section, 1))?;
    kustody.kill()?;
    kustody.launch()
}

fn create(cluster: &Cluster, agent: &Path) -> anyhow::Result<Done> {
    cluster.kubectl(agent, &["create", "configmap", "called", "-n", "agents"]).done()
}

fn decided(cluster: &Cluster, agent: &Path) -> anyhow::Result<()> {
    eventually(Duration::from_secs(15), || create(cluster, agent)?.ok())?;
    cluster.admin(&["delete", "configmap", "called", "-n", "agents"]).map(drop)
}

/// The agent is refused because the webhook takes no call, and nobody else notices.
fn refused(cluster: &Cluster, agent: &Path) -> anyhow::Result<()> {
    let done = create(cluster, agent)?;
    ensure!(done.code != 0 && done.err().contains("failed calling webhook \"gate.kustody.dev\""), "{done:?}");
    ensure!(stopped_by_tls(&done), "not for its certificate: {done:?}");
    cluster.admin(&["create", "configmap", "by-a-person", "-n", "agents"])?;
    cluster.admin(&["delete", "configmap", "by-a-person", "-n", "agents"]).map(drop)
}

/// Whether the connection ended before a request was answered. With TLS 1.3 the refusal of a certificate comes after the
/// caller's own handshake is done, so Go's HTTP/2 tells either the alert or that the fresh connection was of no use.
fn stopped_by_tls(done: &Done) -> bool {
    ["tls: ", "http2: client conn could not be established"].iter().any(|said| done.err().contains(said))
}

/// Calls from this machine, with nothing, with the cluster's own certificates, and with one of another name.
fn strangers(cluster: &Cluster, kustody: &Kustody) -> anyhow::Result<()> {
    for (who, certificate) in
        [("nobody", None), ("another authority", Some("admin")), ("another name", Some("webhook-stranger"))]
    {
        let called = call(cluster, kustody, certificate)?;
        ensure!(called.code != 0 && stopped_by_tls(&called), "{who} was answered: {called:?}");
    }
    let called = call(cluster, kustody, Some("webhook"))?;
    let answered = called.err().contains("Error from server") && !stopped_by_tls(&called);
    ensure!(answered, "the right certificate was not answered: {called:?}");
    Ok(())
}

/// An empty review, sent to the webhook by somebody with one of the cluster's certificates, or none.
fn call(cluster: &Cluster, kustody: &Kustody, certificate: Option<&str>) -> anyhow::Result<Done> {
    let dir = cluster.dir.join("stage");
    let public = ["get", "configmap", "kustody-public", "-n", "kustody-system", "-o", r"jsonpath={.data.ca\.crt}"];
    let authority = dir.join("kustody-ca.crt");
    std::fs::write(&authority, &cluster.admin(&public)?.stdout)?;
    let kubeconfig = dir.join("caller.kubeconfig");
    let mut text = kubeconfig_with_token(&kustody.webhook, &authority, "none")?;
    if let Some(name) = certificate {
        let file = cluster.dir.join("pki").join(name);
        let pair = format!("client-certificate: \"{0}.crt\", client-key: \"{0}.key\"", file.display());
        text = text.replace("token: \"none\"", &pair);
    }
    std::fs::write(&kubeconfig, text)?;
    cluster.kubectl(&kubeconfig, &["create", "--raw", "/admission", "-f", "-"]).input("{}").done()
}

fn without_one_nobody_passes(stage: &mut Stage) -> anyhow::Result<()> {
    let own = std::fs::read_to_string(&stage.kustody.config)?;
    let authority = stage.cluster.dir.join("pki/webhook-ca.crt");
    let tried = demand(&mut stage.kustody, &own, &authority, "kube-apiserver")
        .and_then(|()| refused(&stage.cluster, &stage.people.agent_direct));
    std::fs::write(&stage.kustody.config, &own)?;
    stage.kustody.kill()?;
    stage.kustody.launch()?;
    tried?;
    decided(&stage.cluster, &stage.people.agent_direct)
}
