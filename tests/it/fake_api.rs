//! An API server that does what a test tells it: TLS, HTTP/1.1, TokenReviews, approval requests, and whatever else
//! is asked it notes and answers by script.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kustody::core::wire::handshake;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What an upgrade at the fake turns into.
pub(crate) type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// A request as the API server saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) struct FakeApi {
    pub(crate) config: kube::Config,
    /// Requests other than Kustody's own, in order.
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    /// Accepted exec streams.
    pub(crate) execs: mpsc::UnboundedReceiver<Upgraded>,
    /// Connections accepted so far.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Feeds the body of the one watch; each is sent at once.
    pub(crate) watch: mpsc::Sender<Bytes>,
    /// No token of an agent is valid any more.
    pub(crate) revoked: Arc<AtomicBool>,
}

struct Script {
    seen: mpsc::UnboundedSender<Seen>,
    execs: mpsc::UnboundedSender<Upgraded>,
    watch: Mutex<Option<mpsc::Receiver<Bytes>>>,
    revoked: Arc<AtomicBool>,
}

impl FakeApi {
    pub(crate) async fn start() -> FakeApi {
        // The provider may be installed already by another test of this binary.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let key = KeyPair::generate().expect("key");
        let certificate = CertificateParams::new(vec!["127.0.0.1".into()])
            .expect("parameters")
            .self_signed(&key)
            .expect("certificate");
        let der: CertificateDer<'static> = certificate.der().clone();
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
        let tls =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![der.clone()], private).expect("tls");
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (seen_in, seen) = mpsc::unbounded_channel();
        let (execs_in, execs) = mpsc::unbounded_channel();
        let (watch, watched) = mpsc::channel(8);
        let revoked = Arc::new(AtomicBool::new(false));
        let watch_out = Mutex::new(Some(watched));
        let script = Script { seen: seen_in, execs: execs_in, watch: watch_out, revoked: revoked.clone() };
        let script = Arc::new(script);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (acceptor, script) = (acceptor.clone(), script.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, script).await;
                    }
                });
            }
        });
        let url = format!("https://127.0.0.1:{port}").parse().expect("url");
        let mut config = kube::Config::new(url);
        config.root_cert = Some(vec![der.to_vec()]);
        config.auth_info.token = Some("kustody-own".to_owned().into());
        FakeApi { config, seen, execs, connections, watch, revoked }
    }

    /// The next request that came through.
    pub(crate) async fn next(&mut self) -> Seen {
        let next = tokio::time::timeout(std::time::Duration::from_secs(5), self.seen.recv());
        next.await.expect("a request in time").expect("a request")
    }

    /// Nothing came through.
    pub(crate) fn untouched(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }
}

async fn serve(stream: TlsStream<TcpStream>, script: Arc<Script>) {
    let service = service_fn(move |request| {
        let script = script.clone();
        async move { Ok::<_, Infallible>(script.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    drop(connection.with_upgrades().await);
}

impl Script {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if path.ends_with("/tokenreviews") {
            return review(request, self.revoked.load(Ordering::Relaxed)).await;
        }
        if path.starts_with("/apis/kustody.dev/") {
            return approval(request).await;
        }
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let target = parts.uri.to_string();
        let headers = parts.headers.clone();
        let text = |name: &str| headers.get(name).map(|value| value.to_str().expect("text").to_owned());
        let key = text("sec-websocket-key");
        drop(self.seen.send(Seen { method: parts.method, target: target.clone(), headers, body }));
        if path.ends_with("/exec") || path.ends_with("/portforward") {
            return self.exec(&target, key.as_deref(), on_upgrade);
        }
        if target.contains("watch=") {
            let watched = self.watch.lock().expect("lock").take().expect("one watch");
            return stream(watched);
        }
        let mut response = json_response(StatusCode::OK, &json!({"kind": "Anything", "path": path}));
        if path.ends_with("/last") {
            response.headers_mut().insert("connection", "close".parse().expect("value"));
        }
        response.headers_mut().insert("warning", "299 - \"careful\"".parse().expect("value"));
        response
    }

    fn exec(&self, target: &str, key: Option<&str>, on_upgrade: hyper::upgrade::OnUpgrade) -> Response<Body> {
        if target.contains("/pods/gone/") {
            let status =
                json!({"kind": "Status", "status": "Failure", "message": "pods \"gone\" not found", "code": 404});
            return json_response(StatusCode::NOT_FOUND, &status);
        }
        // A pod of an API server, or of something before it, that knows no WebSocket.
        let refusal = target.split("/pods/no-websocket-").nth(1).and_then(|rest| rest.get(..3)?.parse().ok());
        if let (Some(code), Some(_)) = (refusal, key) {
            let mut response = Response::new(full(Bytes::new()));
            *response.status_mut() = StatusCode::from_u16(code).expect("a code");
            return response;
        }
        let execs = self.execs.clone();
        tokio::spawn(async move {
            if let Ok(upgraded) = on_upgrade.await {
                drop(execs.send(TokioIo::new(upgraded)));
            }
        });
        let Some(key) = key else {
            let mut builder =
                Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
            // One that names no version speaks the first.
            if !target.contains("/pods/no-version/") {
                let forwards = target.contains("/portforward?");
                let version = if forwards { "portforward.k8s.io" } else { "v4.channel.k8s.io" };
                builder = builder.header("x-stream-protocol-version", version);
            }
            return builder.body(full(Bytes::new())).expect("response");
        };
        Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", handshake::accept(key))
            .header("sec-websocket-protocol", "v5.channel.k8s.io")
            .body(full(Bytes::new()))
            .expect("response")
    }
}

async fn review(request: Request<Incoming>, revoked: bool) -> Response<Body> {
    assert_eq!(request.headers().get("authorization").expect("a credential"), "Bearer kustody-own");
    let body = request.collect().await.expect("body").to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("json");
    let user = match review.pointer("/spec/token").and_then(Value::as_str) {
        Some("agent") if !revoked => json!({"username": "system:serviceaccount:agents:bot", "uid": "u1",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:agents", "system:authenticated"]}),
        Some("alice") => json!({"username": "alice", "groups": ["system:authenticated"]}),
        _ => Value::Null,
    };
    let status = json!({"authenticated": user != Value::Null, "user": user, "audiences": ["kustody"]});
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": status});
    json_response(StatusCode::CREATED, &review)
}

/// Approval requests are taken and stay undecided.
async fn approval(request: Request<Incoming>) -> Response<Body> {
    let is_create = request.method() == Method::POST;
    let body = request.collect().await.expect("body").to_bytes();
    if is_create {
        let mut object: Value = serde_json::from_slice(&body).expect("json");
        let metadata = object.pointer_mut("/metadata").and_then(Value::as_object_mut).expect("metadata");
        metadata.insert("resourceVersion".into(), json!("1"));
        return json_response(StatusCode::CREATED, &object);
    }
    json_response(StatusCode::NOT_FOUND, &json!({"kind": "Status", "status": "Failure", "code": 404}))
}

fn stream(mut watched: mpsc::Receiver<Bytes>) -> Response<Body> {
    let frames = futures_util::stream::poll_fn(move |context| {
        watched.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))))
    });
    let body = BodyExt::boxed_unsync(StreamBody::new(frames));
    Response::builder().header(CONTENT_TYPE, "application/json").body(body).expect("response")
}

fn json_response(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(value.to_string())));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("value"));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}
