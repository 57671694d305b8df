//! TLS for Kustody's own listeners: mints a certificate authority and a serving certificate, and turns PEM into a
//! rustls configuration. Where the material is kept (a Secret, files) is decided by the caller, and nothing here
//! logs a key. Main type: [`Material`].

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::core::keys::Secret;

/// How long a certificate authority minted here is valid.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long a serving certificate minted here is valid.
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// A leaf that ends sooner than this is minted anew at start.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 86_400);
/// Clocks of a cluster's machines differ; a certificate is valid a little before it was made.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

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
}

/// A serving certificate with its key, and the authority that clients verify it by. All PEM.
#[derive(Debug)]
pub struct Material {
    /// The authority's certificate: `caBundle` for the API server, `certificate-authority` for a kubeconfig.
    pub authority: String,
    /// The authority's key, kept so that the next leaf is trusted without telling anyone. Absent for own files.
    pub authority_key: Option<Secret<String>>,
    /// The serving certificate, leaf first.
    pub certificate: String,
    /// The serving key.
    pub key: Secret<String>,
}

impl Material {
    /// Mints an authority and a leaf for `hosts` (DNS names and addresses).
    ///
    /// # Errors
    /// Where a host is no valid name.
    pub fn mint(hosts: &[String], now: Timestamp) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "kustody");
        (params.not_before, params.not_after) = validity(now, AUTHORITY_LIFETIME);
        let authority = params.self_signed(&key)?.pem();
        Self::leaf(authority, &key.serialize_pem(), hosts, now)
    }

    /// The same authority with a new leaf for `hosts`.
    ///
    /// # Errors
    /// Where this material has no authority key, or a host is no valid name.
    pub fn renew(&self, hosts: &[String], now: Timestamp) -> Result<Self, Error> {
        let Some(key) = &self.authority_key else {
            return Err(Error::Certificate("the authority's key is not here".to_owned()));
        };
        Self::leaf(self.authority.clone(), key.expose(), hosts, now)
    }

    /// Whether the leaf serves every one of `hosts` and does not end soon.
    #[must_use]
    pub fn serves(&self, hosts: &[String], now: Timestamp) -> bool {
        names_and_end(&self.certificate)
            .is_ok_and(|(names, end)| end > offset(now, RENEW_BEFORE) && hosts.iter().all(|host| names.contains(host)))
    }

    /// The rustls configuration of a listener: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// Where the PEM is damaged or certificate and key do not fit.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|source| Error::Pem("certificate", source))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes())
            .map_err(|source| Error::Pem("private key", source))?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn leaf(authority: String, authority_key: &str, hosts: &[String], now: Timestamp) -> Result<Self, Error> {
        let signer = rcgen::Issuer::from_ca_cert_pem(&authority, KeyPair::from_pem(authority_key)?)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(hosts.to_vec())?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "kustody");
        (params.not_before, params.not_after) = validity(now, LEAF_LIFETIME);
        let certificate = params.signed_by(&key, &signer)?.pem();
        Ok(Self {
            authority,
            authority_key: Some(Secret::new(authority_key.to_owned())),
            certificate,
            key: Secret::new(key.serialize_pem()),
        })
    }
}

/// From when to when a certificate made `now` is valid, in the dates rcgen takes.
fn validity(now: Timestamp, lifetime: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let date =
        |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (date(now.checked_sub(CLOCK_SKEW).unwrap_or(now)), date(offset(now, lifetime)))
}

fn offset(now: Timestamp, span: Duration) -> Timestamp {
    now.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// The DNS names and addresses of a leaf, and when it ends.
fn names_and_end(certificate: &str) -> Result<(Vec<String>, Timestamp), Error> {
    let der =
        CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|source| Error::Pem("certificate", source))?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| Error::Certificate(error.to_string()))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| Error::Certificate(error.to_string()))?
        .map(|found| found.value.general_names.iter().filter_map(host_of).collect())
        .unwrap_or_default();
    let end = Timestamp::from_second(parsed.validity().not_after.timestamp())
        .map_err(|error| Error::Certificate(error.to_string()))?;
    Ok((names, end))
}

fn host_of(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    if let GeneralName::DNSName(host) = name {
        return Some((*host).to_owned());
    }
    let GeneralName::IPAddress(octets) = name else { return None };
    match octets.len() {
        4 => <[u8; 4]>::try_from(*octets).ok().map(|raw| std::net::IpAddr::from(raw).to_string()),
        16 => <[u8; 16]>::try_from(*octets).ok().map(|raw| std::net::IpAddr::from(raw).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<String> {
        vec!["kustody.kustody-system.svc".to_owned(), "127.0.0.1".to_owned()]
    }

    #[test]
    fn a_minted_leaf_serves_its_hosts_and_no_others() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let material = Material::mint(&hosts(), now).unwrap();
        assert!(material.serves(&hosts(), now));
        assert!(!material.serves(&["elsewhere".to_owned()], now));
        assert!(!material.serves(&hosts(), offset(now, LEAF_LIFETIME - RENEW_BEFORE)));
    }

    #[test]
    fn a_renewed_leaf_keeps_the_authority() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let first = Material::mint(&hosts(), now).unwrap();
        let second = first.renew(&["other".to_owned()], now).unwrap();
        assert_eq!(first.authority, second.authority);
        assert_ne!(first.certificate, second.certificate);
        assert!(second.serves(&["other".to_owned()], now));
    }

    #[test]
    fn no_key_shows_in_debug_output() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let shown = format!("{:?}", Material::mint(&hosts(), now).unwrap());
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
