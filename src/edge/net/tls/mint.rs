//! Minting certificates, and reading back what a certificate says. Knows no Secret, no file and no clock: the time is
//! an argument. Main functions: `authority`, `leaf`, `read`.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use super::Error;

/// Clocks of a cluster's machines differ; a certificate is valid a little before it was made.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is: the distinguished name, as bytes.
    pub subject: Vec<u8>,
    /// Who signed it.
    pub issuer: Vec<u8>,
    /// When it ends.
    pub ends: Timestamp,
    /// DNS names and addresses.
    pub hosts: Vec<String>,
    /// The common name of its subject, for people and for allow lists.
    pub common_name: Option<String>,
}

/// A self-signed authority and its key, both PEM. Its name is its own, so that a leaf tells which one signed it.
///
/// # Errors
/// Where the generator fails.
pub(super) fn authority(now: Timestamp, lifetime: Duration) -> Result<(String, String), Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, format!("kustody {}", uuid::Uuid::now_v7().simple()));
    (params.not_before, params.not_after) = validity(now, later(now, lifetime));
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// A serving certificate for `hosts` and its key, both PEM, that ends no later than its authority.
///
/// # Errors
/// Where a host is no valid name, or authority and key do not fit.
pub(super) fn leaf(
    (authority, authority_key): (&str, &str),
    hosts: &[String],
    now: Timestamp,
    lifetime: Duration,
) -> Result<(String, String), Error> {
    let signer = rcgen::Issuer::from_ca_cert_pem(authority, KeyPair::from_pem(authority_key)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(hosts.to_vec())?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name.push(DnType::CommonName, "kustody");
    (params.not_before, params.not_after) = validity(now, later(now, lifetime).min(read(authority)?.ends));
    Ok((params.signed_by(&key, &signer)?.pem(), key.serialize_pem()))
}

/// What the first certificate of a PEM text says.
///
/// # Errors
/// Where there is none, or it is damaged.
pub fn read(pem: &str) -> Result<Certificate, Error> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|source| Error::Pem("certificate", source))?;
    of_der(&der)
}

/// Every certificate of a PEM text, each as PEM of its own.
pub(super) fn split(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END).filter(|one| one.contains(END)).map(|one| format!("{}\n", one.trim_start())).collect()
}

pub(super) fn of_der(der: &CertificateDer<'_>) -> Result<Certificate, Error> {
    let damaged = |error: &dyn std::fmt::Display| Error::Certificate(error.to_string());
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|error| damaged(&error))?;
    let hosts = parsed
        .subject_alternative_name()
        .map_err(|error| damaged(&error))?
        .map(|found| found.value.general_names.iter().filter_map(host_of).collect())
        .unwrap_or_default();
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    Ok(Certificate {
        subject: parsed.subject().as_raw().to_vec(),
        issuer: parsed.issuer().as_raw().to_vec(),
        ends: Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|error| damaged(&error))?,
        hosts,
        common_name: name,
    })
}

fn later(now: Timestamp, span: Duration) -> Timestamp {
    now.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// From when to when a certificate made `now` is valid, in the dates rcgen takes.
fn validity(now: Timestamp, end: Timestamp) -> (OffsetDateTime, OffsetDateTime) {
    let date =
        |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (date(now.checked_sub(CLOCK_SKEW).unwrap_or(now)), date(end))
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
