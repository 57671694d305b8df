//! Own certificate files, such as those of a Secret that cert-manager keeps and the kubelet mounts: read at the start and
//! again whenever their content changes. They are looked at by content, not by notification, as mounted Secrets
//! change by swapping links. Half a change (a certificate without its key) is waited out. Main function: [`follow`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Error, Material};
use crate::core::keys::Secret;

/// How often the files are read.
const EVERY: Duration = Duration::from_secs(2);

/// Own PEM files.
#[derive(Debug, Clone)]
pub struct Files {
    /// The authority that clients verify by.
    pub authority: PathBuf,
    /// The serving certificate, leaf first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Reads the files; what comes back makes a server.
///
/// # Errors
/// Where one cannot be read, or certificate and key do not fit.
pub fn read(files: &Files) -> Result<Material, Error> {
    let text = |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| Error::File(path.clone(), error));
    let material = Material {
        authority: text(&files.authority)?,
        authority_key: None,
        certificate: text(&files.certificate)?,
        key: Secret::new(text(&files.key)?),
        changed: Timestamp::UNIX_EPOCH,
    };
    material.server_config(None).map(|_| material)
}

/// Publishes the files' content whenever it is another and whole, until `shutdown`.
pub async fn follow(files: Files, material: watch::Sender<Arc<Material>>, shutdown: CancellationToken) {
    let mut told = String::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => (),
        }
        match read(&files) {
            Ok(found) => {
                told.clear();
                let changed = differs(&material.borrow(), &found);
                if changed {
                    tracing::info!(certificate = %files.certificate.display(), "the certificate's files changed");
                    material.send_replace(Arc::new(found));
                }
            }
            Err(error) if error.to_string() != told => {
                tracing::warn!(%error, "the certificate's files cannot be used; the last good ones stay in force");
                told = error.to_string();
            }
            Err(_) => {}
        }
    }
}

fn differs(one: &Material, other: &Material) -> bool {
    one.authority != other.authority || one.certificate != other.certificate || one.key.expose() != other.key.expose()
}
