//! Who acts on the stage: the agent `coder`, a service account of the namespace `agents` that may edit the namespace
//! `shop`, and a human approver with a client certificate. Main type: [`People`].

use std::path::{Path, PathBuf};

use super::cluster::Cluster;
use super::installation::{Kustody, kubeconfig_with_token};

/// The agent's namespace, its account, and a deployment to work on.
const SCENE: &str = include_str!("scene.yaml");

/// The kubeconfigs.
#[derive(Debug, Clone)]
pub struct People {
    /// The agent through the gateway: its token is worth nothing at the API server.
    pub agent: PathBuf,
    /// The agent directly at the API server, with an ordinary token.
    pub agent_direct: PathBuf,
    /// The agent's gateway token, shown to the API server itself.
    pub agent_around: PathBuf,
    /// A person who may approve.
    pub approver: PathBuf,
    /// Another who may, and asks for something themself.
    pub requester: PathBuf,
    /// A person who may look at approvals but not decide.
    pub onlooker: PathBuf,
}

/// Creates namespaces, accounts, rights and the deployment.
pub fn settle(cluster: &Cluster) -> anyhow::Result<()> {
    let scene = SCENE.replace("IMAGE", &cluster.image);
    cluster.kubectl(&cluster.admin, &["apply", "-f", "-"]).input(scene).ok()?;
    cluster.admin(&["rollout", "status", "-n", "shop", "deployment/web", "--timeout=60s"])?;
    Ok(())
}

impl People {
    /// Writes everybody's kubeconfig.
    pub fn arrive(cluster: &Cluster, kustody: &Kustody, dir: &Path) -> anyhow::Result<Self> {
        let authority = dir.join("kustody-ca.crt");
        let encoded = cluster.admin(&[
            "get",
            "configmap",
            "kustody-public",
            "-n",
            "kustody-system",
            "-o",
            r"jsonpath={.data.ca\.crt}",
        ])?;
        std::fs::write(&authority, &encoded.stdout)?;
        let key = cluster.admin(&[
            "get",
            "configmap",
            "kustody-public",
            "-n",
            "kustody-system",
            "-o",
            r"jsonpath={.data.signing-key\.pub}",
        ])?;
        std::fs::write(dir.join("kustody-signing-key.pub"), &key.stdout)?;
        let token = |audience: &[&str]| -> anyhow::Result<String> {
            let mut argv = vec!["create", "token", "coder", "-n", "agents", "--duration=8h"];
            argv.extend(audience);
            Ok(cluster.admin(&argv)?.out().trim().to_owned())
        };
        let people = Self {
            agent: dir.join("agent.kubeconfig"),
            agent_direct: dir.join("agent-direct.kubeconfig"),
            agent_around: dir.join("agent-around.kubeconfig"),
            approver: dir.join("approver.kubeconfig"),
            requester: dir.join("requester.kubeconfig"),
            onlooker: dir.join("onlooker.kubeconfig"),
        };
        let for_gateway = token(&["--audience=kustody"])?;
        std::fs::write(&people.agent, kubeconfig_with_token(&kustody.gateway, &authority, &for_gateway)?)?;
        std::fs::write(&people.agent_around, kubeconfig_with_token(&cluster.server, &cluster.ca_file, &for_gateway)?)?;
        std::fs::write(&people.agent_direct, kubeconfig_with_token(&cluster.server, &cluster.ca_file, &token(&[])?)?)?;
        cluster.person("approver", &["approvers"], &people.approver)?;
        cluster.person("requester", &["approvers"], &people.requester)?;
        cluster.person("onlooker", &["onlookers"], &people.onlooker)?;
        Ok(people)
    }
}
