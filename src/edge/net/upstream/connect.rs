//! Dials the API server: TCP, then TLS against the cluster's CA with Kustody's client certificate if
//! there is one. ALPN offers HTTP/1.1 alone. There is no way to switch verification off.

use super::Error;
use http::header::HeaderValue;
use kube::client::ConfigExt;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const CONNECT: Duration = Duration::from_secs(10);

pub(super) struct Connector {
    host: String,
    port: u16,
    authority: HeaderValue,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Connector {
    pub(super) fn new(config: &kube::Config) -> Result<Self, Error> {
        let uri = &config.cluster_url;
        if uri.scheme_str() != Some("https") {
            return Err(Error::Config(format!("{uri} is not an https URL")));
        }
        if !matches!(uri.path(), "" | "/") {
            return Err(Error::Config(format!("{uri} has a path, which is not supported")));
        }
        if config.accept_invalid_certs {
            return Err(Error::Config("insecure-skip-tls-verify is not accepted".into()));
        }
        if config.proxy_url.is_some() {
            return Err(Error::Config("proxy-url is not supported".into()));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let authority =
            HeaderValue::from_str(&authority).map_err(|_| Error::Config(format!("{authority} is not a host")))?;
        let name = config.tls_server_name.clone().unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name)
            .map_err(|_| Error::Config("the server name is neither a DNS name nor an address".into()))?;
        let mut tls = config.rustls_client_config().map_err(|error| Error::Tls(error.into()))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let port = uri.port_u16().unwrap_or(443);
        Ok(Connector { host, port, authority, name, tls: TlsConnector::from(Arc::new(tls)) })
    }

    pub(super) fn host(&self) -> &HeaderValue {
        &self.authority
    }

    pub(super) async fn dial(&self) -> Result<TlsStream<TcpStream>, Error> {
        let dialled = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(self.name.clone(), stream).await
        };
        let timed = tokio::time::timeout(CONNECT, dialled).await;
        let result = timed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        result.map_err(|source| Error::Connect { address: format!("{}:{}", self.host, self.port), source })
    }
}
