//! The self-managed certificate: kept in the Secret `kustody-tls`, renewed while running, shared by all replicas.
//!
//! No replica leads. Each watches the Secret and takes the next step of `edge/net/tls/rotation.rs` when it is due; a
//! step is written only over the version it was decided on, so that of several replicas one succeeds and the others
//! read what it wrote. Main type: [`Certificates`].

use super::registration::Published;
use super::secrets::{self, Entries, Kept};
use crate::core::keys::Secret as Hidden;
use crate::edge::net::tls::{self, Material, rotation::Lifetimes};
use futures_util::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Entries of the Secret.
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const CHANGED: &str = "changed";
/// Steps are looked for this often; tests that rotate within seconds look more often.
const LOOK: Duration = Duration::from_secs(30);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Secret cannot be read or written.
    #[error("cannot keep the serving certificate")]
    Secret(#[from] secrets::Error),
    /// An entry is missing.
    #[error("the secret kustody-tls has no entry {0}")]
    Missing(&'static str),
    /// What is kept is damaged, or nothing can be minted.
    #[error("the serving certificate cannot be made")]
    Tls(#[from] tls::Error),
}

/// Keeps the certificate.
pub struct Certificates {
    client: Client,
    hosts: Vec<String>,
    lifetimes: Lifetimes,
    kept: Kept,
    material: watch::Sender<Arc<Material>>,
}

impl Certificates {
    /// Reads the Secret, or makes it; whoever is first wins.
    ///
    /// # Errors
    /// Where the API server refuses or what is kept is damaged.
    pub async fn load(client: &Client, hosts: &[String], lifetimes: &Lifetimes) -> Result<Self, Error> {
        let fresh = Material::mint(hosts, lifetimes, Timestamp::now())?;
        let kept = secrets::load_or_create(client, secrets::TLS, entries_of(&fresh)).await?;
        let material = watch::Sender::new(Arc::new(material_of(&kept.entries)?));
        let mut this = Self { client: client.clone(), hosts: hosts.to_vec(), lifetimes: *lifetimes, kept, material };
        // What is over, or lacks a host, is renewed before anything is served; nothing is published yet.
        while this.advance(&Published::Unknown).await? {}
        Ok(this)
    }

    /// What is to be served, now and from then on.
    #[must_use]
    pub fn material(&self) -> watch::Receiver<Arc<Material>> {
        self.material.subscribe()
    }

    /// Follows the Secret and takes the steps that are due, until `shutdown`.
    pub async fn run(mut self, published: watch::Receiver<Published>, shutdown: CancellationToken) {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), crate::core::action::NAMESPACE);
        let by_name = watcher::Config::default().fields(&format!("metadata.name={}", secrets::TLS));
        let mut events = watcher(api, by_name).backoff(super::back_off::BackOff::default()).applied_objects().boxed();
        let look = LOOK.min(self.lifetimes.overlap / 4).max(Duration::from_millis(200));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(secret)) => self.take(secret),
                    Some(Err(error)) => tracing::warn!(%error, "the watch of the serving certificate was lost"),
                    None => return,
                },
                () = tokio::time::sleep(look) => (),
            }
            let seen = published.borrow().clone();
            if let Err(error) = self.advance(&seen).await {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, ?cause, "the serving certificate cannot be renewed");
            }
        }
    }

    fn take(&mut self, secret: Secret) {
        let read = secrets::kept(secrets::TLS, secret).map_err(Error::from);
        match read.and_then(|kept| material_of(&kept.entries).map(|material| (kept, material))) {
            Ok((kept, material)) => self.accept(kept, material),
            Err(error) => tracing::error!(%error, "the kept certificate is damaged; the last good one stays in force"),
        }
    }

    fn accept(&mut self, kept: Kept, material: Material) {
        if kept.version == self.kept.version {
            return;
        }
        self.kept = kept;
        self.material.send_replace(Arc::new(material));
    }

    /// Takes one step if one is due; `true` where it was taken.
    async fn advance(&mut self, published: &Published) -> Result<bool, Error> {
        let current = Arc::clone(&self.material.borrow());
        let is_published = |bundle: &str| match published {
            Published::Bundle(seen) => seen.trim() == bundle.trim(),
            // Nobody verifies by anything.
            Published::NotRegistered => true,
            Published::Unknown | Published::Nothing => false,
        };
        let Some((next, step)) = current.next(&self.hosts, &self.lifetimes, Timestamp::now(), is_published)? else {
            return Ok(false);
        };
        match secrets::replace(&self.client, secrets::TLS, &self.kept.version, &entries_of(&next)).await? {
            Some(kept) => {
                tracing::info!(?step, "the serving certificate was changed");
                self.accept(kept, next);
                Ok(true)
            }
            // Another replica was faster.
            None => {
                let kept = secrets::load_or_create(&self.client, secrets::TLS, entries_of(&next)).await?;
                let material = material_of(&kept.entries)?;
                self.accept(kept, material);
                Ok(true)
            }
        }
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

fn entries_of(material: &Material) -> Entries {
    let authority_key = material.authority_key.as_ref().map(|key| key.expose().clone()).unwrap_or_default();
    [
        (AUTHORITY, material.authority.clone()),
        (AUTHORITY_KEY, authority_key),
        (CERTIFICATE, material.certificate.clone()),
        (KEY, material.key.expose().clone()),
        (CHANGED, material.changed.to_string()),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), Hidden::new(text)))
    .collect()
}

fn material_of(entries: &Entries) -> Result<Material, Error> {
    let entry = |name: &'static str| entries.get(name).map(|text| text.expose().clone()).ok_or(Error::Missing(name));
    let changed = entry(CHANGED).ok().and_then(|text| text.parse().ok());
    let material = Material {
        authority: entry(AUTHORITY)?,
        authority_key: Some(Hidden::new(entry(AUTHORITY_KEY)?)),
        certificate: entry(CERTIFICATE)?,
        key: Hidden::new(entry(KEY)?),
        changed: changed.unwrap_or(Timestamp::UNIX_EPOCH),
    };
    material.server_config(None)?;
    Ok(material)
}
