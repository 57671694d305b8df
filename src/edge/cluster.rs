//! The cluster: Kustody's custom resources, who somebody is, and the registration of its webhook.
//!
//! Everything here goes through one [`kube::Client`] without retries of its own ([`connect`]): a held request
//! must not wait for a back-off that nobody sees. Proxied traffic does not come through here; that is
//! `edge/net/upstream.rs`.

pub mod agent_class;
pub mod agent_policy;
pub mod aggregated;
pub mod approval_request;
pub mod approvals;
mod back_off;
pub mod certificates;
mod conditions;
pub mod contested;
pub mod grant;
pub mod grants;
pub mod identity;
mod namespaces;
pub mod policies;
pub mod public;
pub mod reachability;
pub mod registration;
pub mod replica;
pub mod secrets;
pub mod termination;
pub mod terminations;

use std::path::Path;

/// Group of every custom resource.
pub const GROUP: &str = "kustody.dev";
/// Version of every custom resource.
pub const VERSION: &str = "v1alpha1";
/// Field manager of what Kustody writes.
pub const FIELD_MANAGER: &str = "kustody";

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig {
        /// Where it is, or how it was looked for.
        path: String,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a kubeconfig nor a service account.
    #[error("found neither a kubeconfig nor the service account of a pod")]
    Nowhere(#[source] Box<kube::config::InferConfigError>),
    /// No client can be made of the configuration.
    #[error("cannot make a client of the configuration")]
    Client(#[source] Box<kube::Error>),
}

/// The configuration of the API server connection: the given kubeconfig, else `$KUBECONFIG` and the default
/// place, else the service account of the pod.
///
/// # Errors
/// When none is there or it cannot be read.
pub async fn configuration(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<kube::Config, Error> {
    let options = kube::config::KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
    let mut config = match (kubeconfig, context) {
        (Some(path), _) => {
            let wrap = |source| Error::Kubeconfig { path: path.display().to_string(), source: Box::new(source) };
            let kubeconfig = kube::config::Kubeconfig::read_from(path).map_err(wrap)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrap)?
        }
        (None, Some(_)) => kube::Config::from_kubeconfig(&options)
            .await
            .map_err(|source| Error::Kubeconfig { path: "of the environment".to_owned(), source: Box::new(source) })?,
        (None, None) => kube::Config::infer().await.map_err(|source| Error::Nowhere(Box::new(source)))?,
    };
    config.default_retry = false;
    Ok(config)
}

/// A client that does not retry by itself.
///
/// # Errors
/// When the configuration cannot be read or used.
pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<kube::Client, Error> {
    let config = configuration(kubeconfig, context).await?;
    kube::Client::try_from(config).map_err(|source| Error::Client(Box::new(source)))
}
