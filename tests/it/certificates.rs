//! Certificates of a running listener: replaced under load without a failed call, own files taken up when they change,
//! and a caller's certificate asked for.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use kustody::edge::net::listen::{self, Listening};
use kustody::edge::net::tls::client_check::ClientCheck;
use kustody::edge::net::tls::files::{self, Files};
use kustody::edge::net::tls::rotation::{Lifetimes, Step};
use kustody::edge::net::tls::{Material, handshake};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const HOST: &str = "kustody.kustody-system.svc";
const LIFETIMES: Lifetimes =
    Lifetimes { authority: Duration::from_secs(600), leaf: Duration::from_secs(600), overlap: Duration::from_secs(10) };
/// So many calls share a connection before the caller makes a new one.
const CALLS_A_CONNECTION: usize = 20;

fn provider() {
    // Another test of this process may have been faster.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

fn material() -> Material {
    Material::mint(&[HOST.to_owned()], &LIFETIMES, Timestamp::now()).unwrap()
}

/// A listener that answers every request; ends with the token.
async fn listener(tls: watch::Receiver<Arc<ServerConfig>>, shutdown: &CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listening = Listening {
        tls: Some(tls),
        drain: CancellationToken::new(),
        shutdown: shutdown.clone(),
        tracker: TaskTracker::new(),
    };
    tokio::spawn(listen::serve(listener, listening, |_request, _peer| async {
        http::Response::new(Full::new(Bytes::from_static(b"ok")))
    }));
    address
}

fn client(bundle: &str, own: Option<(&str, &str)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    }
}

/// Opens a connection and makes some calls over it.
async fn calls(address: SocketAddr, config: ClientConfig, count: usize, done: &AtomicU64) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST)?, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    for _ in 0..count {
        let request = http::Request::post("/admission").header("host", HOST).body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        anyhow::ensure!(answer.status() == 200, "{}", answer.status());
        answer.into_body().collect().await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    drop(sender);
    driving.await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_rotation_under_load_fails_no_call() {
    provider();
    // Nine of its ten minutes have passed: the clock is an argument, so that nobody waits.
    let mut now = Timestamp::now();
    let made = now.checked_sub(Duration::from_secs(540)).unwrap();
    let mut current = Material::mint(&[HOST.to_owned()], &LIFETIMES, made).unwrap();
    let tls = watch::Sender::new(current.server_config(None).unwrap());
    let published = watch::Sender::new(current.authority.clone());
    let shutdown = CancellationToken::new();
    let address = listener(tls.subscribe(), &shutdown).await;
    let (done, ending) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (published, done, ending) = (published.subscribe(), Arc::clone(&done), ending.clone());
            tokio::spawn(async move {
                while !ending.is_cancelled() {
                    let config = client(&published.borrow().clone(), None);
                    calls(address, config, CALLS_A_CONNECTION, &done).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let started = Instant::now();
    let mut steps = Vec::new();
    for later in [0_u64, 0, 20, 20, 20] {
        tokio::time::sleep(Duration::from_millis(400)).await;
        now = now.checked_add(Duration::from_secs(later)).unwrap();
        let seen = published.borrow().clone();
        let due = current.next(&[HOST.to_owned()], &LIFETIMES, now, |bundle| bundle == seen).unwrap();
        let Some((next, step)) = due else { continue };
        steps.push(step);
        // As the running program does: whoever verifies is told first.
        published.send_replace(next.authority.clone());
        tls.send_replace(next.server_config(None).unwrap());
        current = next;
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    ending.cancel();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    let (calls, span) = (done.load(Ordering::Relaxed), started.elapsed());
    eprintln!("{calls} calls in {span:?}, {:.0} a second, none failed; {steps:?}", calls as f64 / span.as_secs_f64());
    assert_eq!(steps, [Step::Announced, Step::Switched, Step::Retired]);
    assert!(calls > 200, "only {calls} calls");
    shutdown.cancel();
}

#[tokio::test]
async fn the_look_at_oneself_fails_before_the_published_authority_fits_and_holds_then() {
    provider();
    let (own, other) = (material(), material());
    let tls = watch::Sender::new(own.server_config(None).unwrap());
    let shutdown = CancellationToken::new();
    let address = listener(tls.subscribe(), &shutdown).await;
    assert!(handshake::verify(address, HOST, &other.authority).await.is_err());
    assert!(handshake::verify(address, "elsewhere.example.com", &own.authority).await.is_err());
    handshake::verify(address, HOST, &own.authority).await.unwrap();
    shutdown.cancel();
}

#[tokio::test]
async fn own_files_are_taken_up_when_they_are_whole_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let files = Files { authority: at("ca.crt"), certificate: at("tls.crt"), key: at("tls.key") };
    let write = |material: &Material| {
        std::fs::write(&files.authority, &material.authority).unwrap();
        std::fs::write(&files.certificate, &material.certificate).unwrap();
        std::fs::write(&files.key, material.key.expose()).unwrap();
    };
    let (first, second) = (material(), material());
    write(&first);
    let (sender, mut seen) = watch::channel(Arc::new(files::read(&files).unwrap()));
    let shutdown = CancellationToken::new();
    let following = tokio::spawn(files::follow(files.clone(), sender, shutdown.clone()));
    std::fs::write(&files.certificate, &second.certificate).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(3), seen.changed()).await.is_err(), "half a change was taken up");
    write(&second);
    tokio::time::timeout(Duration::from_secs(5), seen.changed()).await.unwrap().unwrap();
    assert_eq!(seen.borrow().certificate, second.certificate);
    shutdown.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn only_a_caller_with_the_right_name_of_the_right_authority_gets_through() {
    provider();
    let own = material();
    let (authority, signer) = callers_authority();
    let check = ClientCheck::new(&authority, vec!["kube-apiserver".to_owned()]).unwrap();
    let tls = watch::Sender::new(own.server_config(Some(&check)).unwrap());
    let shutdown = CancellationToken::new();
    let address = listener(tls.subscribe(), &shutdown).await;
    let (_, strange) = callers_authority();
    let right = caller(&signer, "kube-apiserver");
    for (name, wrong) in [
        ("none", None),
        ("another name", Some(caller(&signer, "somebody"))),
        ("another authority", Some(caller(&strange, "kube-apiserver"))),
    ] {
        let certificate = wrong.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
        let tried = calls(address, client(&own.authority, certificate), 1, &AtomicU64::new(0)).await;
        assert!(tried.is_err(), "got through with {name}");
    }
    calls(address, client(&own.authority, Some((&right.0, &right.1))), 1, &AtomicU64::new(0)).await.unwrap();
    shutdown.cancel();
}

type Signer = rcgen::Issuer<'static, rcgen::KeyPair>;

fn callers_authority() -> (String, Signer) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "front");
    let certificate = params.self_signed(&key).unwrap().pem();
    (certificate, rcgen::Issuer::new(params, key))
}

fn caller(signer: &Signer, name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params.signed_by(&key, signer).unwrap().pem(), key.serialize_pem())
}
