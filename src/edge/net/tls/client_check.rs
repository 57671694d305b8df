//! The check of who calls the webhook: a client certificate of a given authority, and of a given name. Optional, as
//! most API servers present none unless they are told to. Main type: [`ClientCheck`].

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::{Error, mint};

/// Accepts certificates of an authority whose common name is on a list.
#[derive(Debug, Clone)]
pub struct ClientCheck(Arc<Verifier>);

#[derive(Debug)]
struct Verifier {
    by_authority: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl ClientCheck {
    /// A check by the authorities of a PEM text; without names every certificate of theirs will do.
    ///
    /// # Errors
    /// Where the text holds no authority.
    pub fn new(authorities: &str, names: Vec<String>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority.map_err(|source| Error::Pem("client authority", source))?)?;
        }
        let by_authority = WebPkiClientVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|error| Error::Certificate(error.to_string()))?;
        Ok(Self(Arc::new(Verifier { by_authority, names })))
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.0) as Arc<dyn ClientCertVerifier>
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.by_authority.verify_client_cert(leaf, intermediates, now)?;
        let name = mint::of_der(leaf).ok().and_then(|leaf| leaf.common_name).unwrap_or_default();
        if self.names.is_empty() || self.names.contains(&name) {
            return Ok(verified);
        }
        tracing::warn!(%name, "a caller of the webhook has a certificate of another name");
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}
