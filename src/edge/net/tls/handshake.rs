//! A look at oneself from outside: does what this listener serves hold against the authority that the API server was
//! told to trust? Kustody is not ready before it does. Main function: [`verify`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Error;

/// An own listener that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the listener on `address` as a client that knows it as `host` and trusts `bundle` (PEM) alone.
///
/// # Errors
/// Where it cannot be reached or verified.
pub async fn verify(address: SocketAddr, host: &str, bundle: &str) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Handshake(error.to_string());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(authority.map_err(|source| Error::Pem("published authority", source))?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
    let shake = async {
        let stream = TcpStream::connect(reachable(address)).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    match tokio::time::timeout(PATIENCE, shake).await {
        Ok(shaken) => shaken.map(drop).map_err(|error| failed(&error)),
        Err(_) => Err(failed(&format!("no answer within {PATIENCE:?}"))),
    }
}

/// Where a listener on every address is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}
