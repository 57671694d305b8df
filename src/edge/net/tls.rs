//! TLS for Kustody's own listeners: the material (authority, leaf, keys) and the rustls configurations made of it.
//! Minting, rotation, own files, the check of the API server's certificate and the look at oneself are files below.
//! Where material is kept is decided by the caller, and nothing here logs a key. Main type: [`Material`].

pub mod client_check;
pub mod files;
pub mod handshake;
pub mod mint;
pub mod rotation;

use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::core::keys::Secret;
use client_check::ClientCheck;
use rotation::Lifetimes;

/// What can be wrong with TLS material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The generator refused the names or the key.
    #[error("cannot mint a certificate")]
    Mint(#[from] rcgen::Error),
    /// A PEM text did not hold what it should.
    #[error("cannot read the {0} as PEM")]
    Pem(&'static str, #[source] rustls::pki_types::pem::Error),
    /// The certificate and the key do not make a server.
    #[error("certificate and key do not fit")]
    Server(#[from] rustls::Error),
    /// A certificate's fields could not be read.
    #[error("cannot read the certificate: {0}")]
    Certificate(String),
    /// An own file could not be read.
    #[error("cannot read {0}")]
    File(std::path::PathBuf, #[source] std::io::Error),
    /// The served certificate is not what the bundle verifies.
    #[error("the served certificate cannot be verified: {0}")]
    Handshake(String),
}

/// A serving certificate with its key, and the authorities that clients verify it by. All PEM.
#[derive(Debug)]
pub struct Material {
    /// The authorities' certificates, the newest first: `caBundle` for the API server, `certificate-authority` for a
    /// kubeconfig.
    pub authority: String,
    /// The newest authority's key, kept so that the next leaf is trusted without telling anyone. Absent for own files.
    pub authority_key: Option<Secret<String>>,
    /// The serving certificate, leaf first.
    pub certificate: String,
    /// The serving key.
    pub key: Secret<String>,
    /// When the last step of a rotation was taken.
    pub changed: Timestamp,
}

impl Material {
    /// Mints an authority and a leaf for `hosts` (DNS names and addresses).
    ///
    /// # Errors
    /// Where a host is no valid name.
    pub fn mint(hosts: &[String], lifetimes: &Lifetimes, now: Timestamp) -> Result<Self, Error> {
        let (authority, authority_key) = mint::authority(now, lifetimes.authority)?;
        let (certificate, key) = mint::leaf((&authority, &authority_key), hosts, now, lifetimes.leaf)?;
        let (authority_key, key) = (Some(Secret::new(authority_key)), Secret::new(key));
        Ok(Self { authority, authority_key, certificate, key, changed: now })
    }

    /// The rustls configuration of a listener: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. With a check, only peers that
    /// bring a certificate it accepts get through the handshake.
    ///
    /// # Errors
    /// Where the PEM is damaged or certificate and key do not fit.
    pub fn server_config(&self, check: Option<&ClientCheck>) -> Result<Arc<ServerConfig>, Error> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|source| Error::Pem("certificate", source))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes())
            .map_err(|source| Error::Pem("private key", source))?;
        let builder = match check {
            Some(check) => ServerConfig::builder().with_client_cert_verifier(check.verifier()),
            None => ServerConfig::builder().with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_leaf_serves_its_hosts_and_ends_no_later_than_its_authority() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let hosts = ["kustody.kustody-system.svc".to_owned(), "127.0.0.1".to_owned()];
        let lifetimes = Lifetimes { leaf: Lifetimes::default().authority * 2, ..Lifetimes::default() };
        let material = Material::mint(&hosts, &lifetimes, now).unwrap();
        let leaf = mint::read(&material.certificate).unwrap();
        assert_eq!(leaf.hosts, hosts);
        assert_eq!(leaf.ends, mint::read(&material.authority).unwrap().ends);
    }

    #[test]
    fn no_key_shows_in_debug_output() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let material = Material::mint(&["localhost".to_owned()], &Lifetimes::default(), now).unwrap();
        let shown = format!("{material:?}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
