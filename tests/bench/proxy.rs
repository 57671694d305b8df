//! The peer of the gateway for streams: a proxy that ends TLS on both sides and knows nothing of what passes, as a
//! process of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::bare::{self, Bare};
use crate::load::trusting;
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
pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [_, told, server, ca] = arguments else { bail!("{KIND} is told where to tell, and of whom") };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(listen(Path::new(told), server, Path::new(ca)))
}

async fn listen(told: &Path, server: &str, ca: &Path) -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let connector = TlsConnector::from(Arc::new(trusting(&std::fs::read(ca)?)?));
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
