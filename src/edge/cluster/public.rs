//! What everybody may know: the authority that Kustody's certificates are verified by, and the key that recordings are
//! verified with. Kept in the ConfigMap `kustody-public`, which the manifests create empty. Main function: [`publish`].

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::FIELD_MANAGER;
use crate::core::action::NAMESPACE;

/// Name of the ConfigMap.
pub const PUBLIC: &str = "kustody-public";
/// Entry with the certificate authority, PEM.
pub const AUTHORITY: &str = "ca.crt";
/// Entry with the public signing key, PEM.
pub const SIGNING_KEY: &str = "signing-key.pub";

/// Why it could not be published.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the config map {NAMESPACE}/{PUBLIC}")]
pub struct Error(#[source] Box<kube::Error>);

/// Writes both entries.
///
/// # Errors
/// Where the API server refuses, or the ConfigMap is not there.
pub async fn publish(client: &Client, authority: &str, signing_key: &str) -> Result<(), Error> {
    write(client, json!({ "data": { AUTHORITY: authority, SIGNING_KEY: signing_key } })).await
}

/// Writes the authority alone, after a rotation.
///
/// # Errors
/// Where the API server refuses, or the ConfigMap is not there.
pub async fn publish_authority(client: &Client, authority: &str) -> Result<(), Error> {
    write(client, json!({ "data": { AUTHORITY: authority } })).await
}

async fn write(client: &Client, entries: serde_json::Value) -> Result<(), Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    maps.patch(PUBLIC, &params, &Patch::Merge(entries)).await.map(drop).map_err(|error| Error(Box::new(error)))
}
