//! Which cluster a command talks to, and as whom: the caller's own kubeconfig, as with kubectl.

use std::path::PathBuf;

use anyhow::Context;

use crate::edge::cluster;

/// The cluster and the identity to use.
#[derive(Debug, Clone, clap::Args)]
pub struct KubeArgs {
    /// Kubeconfig file; else $KUBECONFIG, ~/.kube/config, or the service account of the pod
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; else its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl KubeArgs {
    /// A client for that cluster and identity.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read or used.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        cluster::connect(self.kubeconfig.as_deref(), self.context.as_deref())
            .await
            .context("cannot connect to the cluster")
    }
}
