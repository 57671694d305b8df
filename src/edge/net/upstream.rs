//! The way to the API server: HTTP/1.1 over verified TLS, with Kustody's own credential.
//!
//! HTTP/1.1 because upgrades need it and because an HTTP/2 connection there ends at 100 streams, which
//! a hundred watches would fill. Connections are kept and used again; an upgrade gets its own, which is
//! never used again whatever the answer. Bodies stream both ways. It decides nothing, and sends nothing
//! without a [`Warrant`]. Main type: [`Upstream`].

use crate::core::api_path::parse;
use crate::core::policy::Permit;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

mod connect;
mod credential;
mod pool;
mod warrant;

pub use pool::PooledBody;
pub use warrant::{Registered, Warrant};

use connect::Connector;
use credential::Credential;
use pool::Pool;

/// A request body on its way up.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// Whatever went wrong while a body was read.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Sender = http1::SendRequest<Body>;

/// Requests on kept connections are sent this often at most, when a kept one turns out to be dead.
const ATTEMPTS: usize = 4;
/// How long the API server may take to answer an upgrade; it pulls no images and starts no pods for it.
const UPGRADE: Duration = Duration::from_secs(60);

/// The API server. Clones share one pool.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

/// The API server's answer to an upgrade.
pub enum Switch {
    /// 101: the response head, and the connection.
    Done(Response<()>, Upgraded),
    /// Anything else, to be passed on as it is.
    Refused(Response<Incoming>),
}

/// Why a request could not be sent or answered. The client is told 502 or 503.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration names something this upstream does not do.
    #[error("the API server's configuration is not usable: {0}")]
    Config(String),
    /// TLS material is broken.
    #[error("cannot set up TLS to the API server")]
    Tls(#[source] BoxError),
    /// Kustody's own token cannot be read.
    #[error("cannot read kustody's own token from {path}")]
    Token {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No connection.
    #[error("cannot connect to the API server at {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection was lost before an answer came.
    #[error("the API server did not answer")]
    Exchange(#[source] hyper::Error),
    /// The warrant is for another request.
    #[error("the request is not the one that was permitted")]
    Misfit,
    /// The API server took too long to answer an upgrade.
    #[error("the API server did not answer the upgrade in time")]
    Slow,
    /// The API server redirected, which it never does for a good reason.
    #[error("the API server answered with a redirect")]
    Redirect,
}

struct Shared {
    connector: Connector,
    credential: Credential,
    pool: Arc<Pool>,
    /// Connections that became streams; a shutdown waits for these.
    streams: TaskTracker,
    /// All others: in use they are waited for by whoever reads the answer, idle by nobody. They end when
    /// their senders are dropped, at the latest with the pool.
    kept: TaskTracker,
}

impl Upstream {
    /// An upstream for the cluster a kubeconfig or the pod's own service account names. Connections that
    /// become streams run as tasks of `streams`.
    ///
    /// # Errors
    /// TLS material or a credential that cannot be used.
    pub fn new(config: &kube::Config, streams: TaskTracker) -> Result<Upstream, Error> {
        let shared = Shared {
            connector: Connector::new(config)?,
            credential: Credential::new(&config.auth_info)?,
            pool: Arc::new(Pool::default()),
            streams,
            kept: TaskTracker::new(),
        };
        Ok(Upstream { shared: Arc::new(shared) })
    }

    /// Sends the warranted request and gives the head of its answer; the body streams. The target's
    /// authority and any credential in the request are replaced.
    ///
    /// # Errors
    /// See [`Error`]; nothing is sent a second time unless it is sure that it did not arrive, or is a
    /// `GET` or `HEAD` without a body.
    pub async fn request(&self, warrant: Warrant, request: Request<Body>) -> Result<Response<PooledBody>, Error> {
        if !warrant.fits(&request) {
            return Err(Error::Misfit);
        }
        let mut request = self.prepare(request).await?;
        for _ in 0..ATTEMPTS {
            let Some(mut sender) = self.shared.pool.take().await else {
                break;
            };
            let again = repeat(&request);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.pooled(response, sender)),
                Err(mut failed) => match failed.take_message().or(again) {
                    Some(unsent) => request = unsent,
                    None => return Err(Error::Exchange(failed.into_error())),
                },
            }
        }
        let mut sender = self.dial(false).await?;
        let response = sender.send_request(request).await.map_err(Error::Exchange)?;
        Ok(self.pooled(response, sender))
    }

    /// Asks for the permitted upgrade on a connection of its own.
    ///
    /// # Errors
    /// See [`Error`]. An answer that is not 101 is no error here.
    pub async fn upgrade(&self, permit: Permit, request: Request<Body>) -> Result<Switch, Error> {
        let uri = request.uri();
        let target = parse(request.method(), uri.path(), uri.query());
        if !target.is_ok_and(|target| warrant::permits(&permit, &target)) {
            return Err(Error::Misfit);
        }
        let request = self.prepare(request).await?;
        let mut sender = self.dial(true).await?;
        let answered = tokio::time::timeout(UPGRADE, sender.send_request(request)).await;
        let response = answered.map_err(|_| Error::Slow)?.map_err(Error::Exchange)?;
        if response.status().is_redirection() {
            return Err(Error::Redirect);
        }
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Switch::Refused(response));
        }
        let mut head = Response::new(());
        *head.status_mut() = response.status();
        *head.headers_mut() = response.headers().clone();
        let upgraded = hyper::upgrade::on(response).await.map_err(Error::Exchange)?;
        Ok(Switch::Done(head, upgraded))
    }

    async fn prepare(&self, mut request: Request<Body>) -> Result<Request<Body>, Error> {
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map(Uri::from).unwrap_or_default();
        *request.version_mut() = http::Version::HTTP_11;
        let headers = request.headers_mut();
        headers.insert(HOST, self.shared.connector.host().clone());
        headers.remove(AUTHORIZATION);
        if let Some(value) = self.shared.credential.header().await? {
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    async fn dial(&self, upgrades: bool) -> Result<Sender, Error> {
        let stream = self.shared.connector.dial().await?;
        let io = TokioIo::new(stream);
        let (sender, connection) =
            http1::Builder::new().max_headers(256).handshake(io).await.map_err(Error::Exchange)?;
        let ended = |result: Result<(), hyper::Error>| {
            if let Err(error) = result {
                tracing::debug!(%error, "upstream connection ended");
            }
        };
        if upgrades {
            self.shared.streams.spawn(async move { ended(connection.with_upgrades().await) });
        } else {
            self.shared.kept.spawn(async move { ended(connection.await) });
        }
        Ok(sender)
    }

    fn pooled(&self, response: Response<Incoming>, sender: Sender) -> Response<PooledBody> {
        response.map(|body| PooledBody::new(body, sender, Arc::clone(&self.shared.pool)))
    }
}

/// A copy of a request that may be sent twice: reading, and without a body.
fn repeat(request: &Request<Body>) -> Option<Request<Body>> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    (reads && request.body().is_end_stream()).then(|| {
        let mut copy = Request::new(empty());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        copy
    })
}

/// A body of no bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn header(value: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Error::Config("a credential holds characters that no header can".into()))?;
    value.set_sensitive(true);
    Ok(value)
}
