//! Listeners: accept, TLS handshake, HTTP/1.1 and HTTP/2 with upgrades, and drain. Every bound that a peer could
//! lean on is here: handshake and header time, connections, streams. Knows nothing of what is served.
//! Main function: [`serve`].

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// A peer that has not finished its TLS handshake by then is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So long, and for so many bytes, a peer whose handshake failed may go on sending before it is cut off.
const LINGER: Duration = Duration::from_secs(1);
const ALERTED: u64 = 64 * 1024;
/// A peer that has not sent a request's headers by then is let go; with HTTP/2 its first one's.
const HEADERS: Duration = Duration::from_secs(30);
/// HTTP/2 peers are pinged this often, and let go when no answer comes for as long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Open connections per listener; the next ones wait in the kernel's queue.
const CONNECTIONS: usize = 16_384;
/// Concurrent HTTP/2 streams on a connection: what the API server itself allows is 100; watches are many.
const STREAMS: u32 = 1_000;
/// HTTP/2 as TLS agrees on it.
const ALPN_H2: &[u8] = b"h2";
/// After a failed `accept` (out of file descriptors, usually) the next one waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The TLS configuration in force; a new one counts from the next connection on.
pub type TlsSource = watch::Receiver<Arc<ServerConfig>>;

/// What a listener needs besides its service.
#[derive(Clone)]
pub struct Listening {
    /// TLS, or none for a plain listener (health).
    pub tls: Option<TlsSource>,
    /// From here on every HTTP/1.1 answer asks the peer to close, so that its next request goes elsewhere; connections
    /// are accepted all the same, as peers learn of the end with a delay.
    pub drain: CancellationToken,
    /// No new connections from here on; open ones finish their requests.
    pub shutdown: CancellationToken,
    /// Every connection is a task here, so that shutdown can wait for them.
    pub tracker: TaskTracker,
}

/// Serves connections until shutdown. `service` gets each request with the peer's address.
pub async fn serve<S, F, B>(listener: TcpListener, listening: Listening, service: S)
where
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = listening.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (listening_here, service) = (listening.clone(), service.clone());
        listening.tracker.spawn(async move {
            connection(stream, peer, listening_here, service).await;
            drop(place);
        });
    }
}

async fn connection<S, F, B>(stream: TcpStream, peer: SocketAddr, listening: Listening, service: S)
where
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    let Some(tls) = &listening.tls else {
        return http(TokioIo::new(stream), (peer, false), &listening, service).await;
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => {
            let is_two = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
            http(TokioIo::new(stream), (peer, is_two), &listening, service).await;
        }
        Ok(Err((error, stream))) => {
            debug!(%peer, %error, "TLS handshake failed");
            turned_away(stream).await;
        }
        Err(_) => debug!(%peer, "TLS handshake took too long"),
    }
}

/// Lets a peer whose handshake failed read the alert that says why. With TLS 1.3 it may be sending its request already,
/// and a socket that is closed with unread bytes resets the connection, alert and all (RFC 1122, section 4.2.2.13).
async fn turned_away(mut stream: TcpStream) {
    let left = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(ALERTED), &mut tokio::io::sink()).await
    };
    if !matches!(tokio::time::timeout(LINGER, left).await, Ok(Ok(_))) {
        debug!("a peer whose handshake failed did not close");
    }
}

/// Serves one connection. Which HTTP it is, TLS has said: looking at the first bytes would cost every connection a buffer.
async fn http<I, S, F, B>(io: I, (peer, is_two): (SocketAddr, bool), listening: &Listening, service: S)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (drain, asked) = (listening.drain.clone(), Arc::new(AtomicBool::new(false)));
    let heard = Arc::clone(&asked);
    let answer = service_fn(move |request: Request<Incoming>| {
        heard.store(true, Ordering::Relaxed);
        let is_one = request.version() <= Version::HTTP_11;
        let (service, drain) = (service.clone(), drain.clone());
        async move {
            // Made in here: one that is moved in is held twice, and every connection holds one.
            let mut answer = service(request, peer).await;
            if is_one && drain.is_cancelled() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let finished = if is_two {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
        let connection = builder.max_concurrent_streams(STREAMS).serve_connection(io, answer);
        let silent = async {
            tokio::time::sleep(HEADERS).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let ask = http2::Connection::graceful_shutdown;
        // Apart: connections of HTTP/1.1 are many, and would be as large.
        Box::pin(async move {
            let connection = std::pin::pin!(connection);
            tokio::select! {
                ended = to_the_end(connection, &listening.shutdown, ask) => ended,
                () = silent => {
                    debug!(%peer, "a peer asked nothing");
                    Ok(())
                }
            }
        })
        .await
    } else {
        let mut builder = http1::Builder::new();
        let connection = builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).serve_connection(io, answer);
        let connection = std::pin::pin!(connection.with_upgrades());
        to_the_end(connection, &listening.shutdown, http1::UpgradeableConnection::graceful_shutdown).await
    };
    if let Err(error) = finished {
        debug!(%peer, %error, "connection ended");
    }
}

/// Drives a connection; from the shutdown on it is asked to take no more requests.
async fn to_the_end<C>(
    mut connection: Pin<&mut C>,
    shutdown: &CancellationToken,
    ask: fn(Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        finished = connection.as_mut() => return finished,
        () = shutdown.cancelled() => ask(connection.as_mut()),
    }
    connection.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;
    use hyper::body::Bytes;
    use hyper::client::conn::http2 as client;
    use tokio::io::{DuplexStream, duplex};
    use tokio::time::{Instant, sleep, timeout};

    /// What a client of HTTP/2 says first (RFC 9113, section 3.4), with empty settings.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    async fn served(io: DuplexStream, is_two: bool) {
        let listening = Listening {
            tls: None,
            drain: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            tracker: TaskTracker::new(),
        };
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        let answer = |_, _| async { Response::new(Empty::<Bytes>::new()) };
        http(TokioIo::new(io), (peer, is_two), &listening, answer).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_asks_nothing_is_let_go() {
        for (is_two, says) in [(false, &b""[..]), (false, b"GET / HTTP/1.1\r\n"), (true, b""), (true, PREFACE)] {
            let (mut peer, io) = duplex(1 << 16);
            let begun = Instant::now();
            peer.write_all(says).await.unwrap();
            let mut told = Vec::new();
            let both = async { tokio::join!(served(io, is_two), peer.read_to_end(&mut told)) };
            timeout(2 * HEADERS, both).await.unwrap().1.unwrap();
            assert!((HEADERS..HEADERS + LINGER).contains(&begun.elapsed()), "{says:?}: {:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_asked_may_be_silent() {
        let (peer, io) = duplex(1 << 16);
        tokio::spawn(served(io, true));
        let (mut ask, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(peer)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..2 {
            let request = Request::builder().uri("https://kustody.test/").body(Empty::<Bytes>::new()).unwrap();
            assert_eq!(ask.send_request(request).await.unwrap().status(), StatusCode::OK);
            sleep(4 * HEADERS).await;
        }
    }
}
