//! The peer of the gateway for streams: a proxy that ends TLS on both sides and knows nothing of what passes, as a
//! process of its own.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::bare::{self, Bare};
use crate::stage::run::Processes;

/// The first argument of the process.
pub(crate) const KIND: &str = "plain-proxy";

/// Starts one before the server at `host:port`.
pub(crate) fn start(dir: &Path, server: &str, ca: &Path, processes: &Arc<Processes>) -> anyhow::Result<Bare> {
    let told = dir.join(format!("{KIND}.told"));
    let mut command = Command::new(std::env::current_exe()?);
    let child = command.arg(KIND).arg(&told).arg(server).arg(ca).stdin(Stdio::null()).spawn()?;
    bare::told(&told, processes.keep(child))
}

/// Serves until killed: `told`, the server's `host:port`, the file of its authority.
pub(crate) fn serve(arguments: &[String]) -> ExitCode {
    let [_, told, server, ca] = arguments else { return ExitCode::FAILURE };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::new);
    match runtime.and_then(|runtime| runtime.block_on(listen(Path::new(told), server, Path::new(ca)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn listen(told: &Path, server: &str, ca: &Path) -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(ca)? {
        roots.add(authority?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let host = server.rsplit_once(':').context("no port")?.0.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (config, certificate) = bare::identity()?;
    bare::tell(told, listener.local_addr()?, &certificate)?;
    let acceptor = TlsAcceptor::from(config);
    loop {
        let (near, _) = listener.accept().await?;
        near.set_nodelay(true)?;
        let (acceptor, connector) = (acceptor.clone(), connector.clone());
        let (server, name) = (server.to_owned(), ServerName::try_from(host.clone())?);
        tokio::spawn(async move {
            let mut near = acceptor.accept(near).await?;
            let far = TcpStream::connect(server).await?;
            far.set_nodelay(true)?;
            let mut far = connector.connect(name, far).await?;
            tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, 64 * 1024, 64 * 1024).await
        });
    }
}
