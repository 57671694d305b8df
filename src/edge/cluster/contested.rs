//! Writing to a status that others write to as well: only as it was read, or not at all.

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Merges `status` into that of `read`, as long as nobody has written to it since. `None`: somebody has, read it again.
///
/// # Errors
/// When the API server cannot be reached or refuses.
pub async fn patch_status<K>(api: &Api<K>, read: &K, status: &Value) -> Result<Option<K>, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let patch = json!({"metadata": {"resourceVersion": read.resource_version()}, "status": status});
    match api.patch_status(&read.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}
