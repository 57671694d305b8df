//! The floor and the peer of the webhook: the smallest hyper and rustls handlers that answer a review, run as processes
//! of their own. `bare-raw` finds only the uid, `bare-tree` parses the whole review into a tree.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::stage::run::{Processes, eventually};

/// A running bare handler.
pub(crate) struct Bare {
    pub(crate) url: String,
    pub(crate) authority: Vec<u8>,
    pub(crate) pid: u32,
}

/// Starts one.
pub(crate) fn start(kind: &str, dir: &Path, processes: &Arc<Processes>) -> anyhow::Result<Bare> {
    let told = dir.join(format!("{kind}.told"));
    let child = Command::new(std::env::current_exe()?).arg(kind).arg(&told).stdin(Stdio::null()).spawn()?;
    self::told(&told, processes.keep(child))
}

/// Waits for what the process `pid` tells in a file: its URL, then its certificate.
pub(crate) fn told(told: &Path, pid: u32) -> anyhow::Result<Bare> {
    let text = eventually(Duration::from_secs(10), || {
        let text = std::fs::read_to_string(told)?;
        text.contains("END CERTIFICATE").then_some(text).context("not ready")
    })?;
    let (url, authority) = text.split_once('\n').context("no address")?;
    Ok(Bare { url: url.to_owned(), authority: authority.as_bytes().to_vec(), pid })
}

/// Serves until killed; writes its address and certificate to `told`.
pub(crate) fn serve(kind: &str, told: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(listen(kind == "bare-tree", told.context("no file to tell")?))
}

async fn listen(tree: bool, told: &Path) -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (config, certificate) = identity()?;
    tell(told, listener.local_addr()?, &certificate)?;
    let acceptor = TlsAcceptor::from(config);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let answer = service_fn(move |request| answer(request, tree));
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok();
        });
    }
}

/// A server's configuration with a fresh certificate for 127.0.0.1, and that certificate.
pub(crate) fn identity() -> anyhow::Result<(Arc<ServerConfig>, String)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private)?;
    Ok((Arc::new(config), certificate.pem()))
}

/// Tells the parent where to find this process.
pub(crate) fn tell(told: &Path, address: SocketAddr, certificate: &str) -> anyhow::Result<()> {
    std::fs::write(told, format!("https://{address}\n{certificate}")).context("cannot tell")
}

async fn answer(request: Request<Incoming>, tree: bool) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let uid = if tree {
        let review: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        review["request"]["uid"].as_str().unwrap_or_default().to_owned()
    } else {
        let text = String::from_utf8_lossy(&body);
        text.split("\"uid\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
    };
    let review = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{{"uid":"{uid}","allowed":true}}}}"#
    );
    Ok(Response::new(Full::new(Bytes::from(review))))
}
