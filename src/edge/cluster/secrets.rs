//! Key material in Secrets of Kustody's namespace: read, or made once and kept.
//!
//! Replicas that start together agree by put-if-absent: whoever creates the Secret first wins, the others read
//! it. Values are never logged.

use crate::core::{
    action::NAMESPACE,
    keys::{self, Secret as Hidden, SigningKey},
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, api::PostParams};
use std::collections::BTreeMap;

/// Secret with the Ed25519 key that signs tickets and manifests.
pub const SIGNING_KEY: &str = "kustody-signing-key";
/// Secret with the CA and the serving certificate of the webhook and the gateway.
pub const TLS: &str = "kustody-tls";
/// Entry of [`SIGNING_KEY`].
const PRIVATE_KEY: &str = "private.pem";
const PUBLIC_KEY: &str = "public.pem";

/// Why there is no key material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Secret can be neither read nor created.
    #[error("cannot read or create the secret {NAMESPACE}/{name}")]
    Api {
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The Secret is there without what it should hold.
    #[error("the secret {NAMESPACE}/{name} has no entry {entry}")]
    Missing {
        /// Its name.
        name: String,
        /// What is missing.
        entry: String,
    },
    /// An entry is not text.
    #[error("the entry {entry} of the secret {NAMESPACE}/{name} is not text")]
    NotText {
        /// Its name.
        name: String,
        /// Which.
        entry: String,
    },
    /// The key itself is bad.
    #[error("the secret {NAMESPACE}/{SIGNING_KEY} holds no usable key")]
    Key(#[source] keys::Error),
}

/// PEM texts by file name.
pub type Entries = BTreeMap<String, Hidden<String>>;

/// A Secret as it was read.
#[derive(Debug)]
pub struct Kept {
    /// What it holds.
    pub entries: Entries,
    /// The version that was read; a change over it fails where somebody else was faster.
    pub version: String,
}

/// Reads a Secret; when it is absent it is created with `made`, unless somebody was faster.
///
/// # Errors
/// When the API server refuses, or an entry is not text.
pub async fn load_or_create(client: &Client, name: &str, made: Entries) -> Result<Kept, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let wrap = |source| Error::Api { name: name.to_owned(), source: Box::new(source) };
    if let Some(found) = secrets.get_opt(name).await.map_err(wrap)? {
        return kept(name, found);
    }
    match secrets.create(&PostParams::default(), &secret_of(name, &made)).await {
        Ok(created) => kept(name, created),
        Err(kube::Error::Api(status)) if status.code == 409 => kept(name, secrets.get(name).await.map_err(wrap)?),
        Err(source) => Err(wrap(source)),
    }
}

/// Replaces the entries of a Secret, provided that it is still what `version` was; `None` where it is not.
///
/// # Errors
/// When the API server refuses for another reason.
pub async fn replace(client: &Client, name: &str, version: &str, made: &Entries) -> Result<Option<Kept>, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let mut next = secret_of(name, made);
    next.metadata.resource_version = Some(version.to_owned());
    match secrets.replace(name, &PostParams::default(), &next).await {
        Ok(replaced) => kept(name, replaced).map(Some),
        // Changed or removed in between.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(None),
        Err(source) => Err(Error::Api { name: name.to_owned(), source: Box::new(source) }),
    }
}

fn secret_of(name: &str, entries: &Entries) -> Secret {
    let bytes =
        |(key, value): (&String, &Hidden<String>)| (key.clone(), ByteString(value.expose().clone().into_bytes()));
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    secret.metadata.namespace = Some(NAMESPACE.to_owned());
    secret.metadata.labels = Some(BTreeMap::from([("app.kubernetes.io/name".to_owned(), "kustody".to_owned())]));
    secret.type_ = Some("Opaque".to_owned());
    secret.data = Some(entries.iter().map(bytes).collect());
    secret
}

/// The signing key: read, or `fresh` is kept.
///
/// # Errors
/// When the Secret cannot be read or created, or holds no usable key.
pub async fn signing_key(client: &Client, fresh: SigningKey) -> Result<SigningKey, Error> {
    let private = fresh.to_pem().map_err(Error::Key)?;
    let made = Entries::from([
        (PRIVATE_KEY.to_owned(), private),
        (PUBLIC_KEY.to_owned(), Hidden::new(fresh.public().to_pem())),
    ]);
    let entries = load_or_create(client, SIGNING_KEY, made).await?.entries;
    let private = entries
        .get(PRIVATE_KEY)
        .ok_or_else(|| Error::Missing { name: SIGNING_KEY.to_owned(), entry: PRIVATE_KEY.to_owned() })?;
    SigningKey::from_pkcs8_pem(private.expose()).map_err(Error::Key)
}

/// What a Secret that was read holds.
pub(super) fn kept(name: &str, secret: Secret) -> Result<Kept, Error> {
    let version = secret.metadata.resource_version.clone().unwrap_or_default();
    let entries = secret
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(entry, ByteString(bytes))| match String::from_utf8(bytes) {
            Ok(text) => Ok((entry, Hidden::new(text))),
            Err(_) => Err(Error::NotText { name: name.to_owned(), entry }),
        })
        .collect::<Result<_, _>>()?;
    Ok(Kept { entries, version })
}
