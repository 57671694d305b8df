//! Certificates of a running listener: replaced under load without a failed call, own files taken up when they change,
//! and a caller's certificate asked for.

use bytes::Bytes;
use http_body_util::Full;
use jiff::Timestamp;
use kustody::edge::net::listen::{self, Listening};
use kustody::edge::net::tls::client_check::ClientCheck;
use kustody::edge::net::tls::files::{self, Files};
use kustody::edge::net::tls::rotation::{Lifetimes, Step};
use kustody::edge::net::tls::{Material, handshake};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Interval;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const HOST: &str = "kustody.kustody-system.svc";
const LIFETIMES: Lifetimes =
    Lifetimes { authority: Duration::from_secs(600), leaf: Duration::from_secs(600), overlap: Duration::from_secs(10) };
/// So many calls share a connection before the caller makes a new one: the API server keeps its connections.
const CALLS_A_CONNECTION: u64 = 50;
const CALLERS: u32 = 16;
/// Calls a second that all callers together aim at; who is late catches up.
const PACE: u32 = 1250;

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

/// One call over a fresh connection.
async fn call(address: SocketAddr, config: ClientConfig) -> anyhow::Result<()> {
    one_after_another(address, &Arc::new(config), 1, &mut tokio::time::interval(Duration::from_secs(1))).await.map(drop)
}

/// Opens a connection and makes so many calls over it, each when its turn has come. The caller is bytes alone: a whole HTTP
/// client would take more of the machine than what is tested.
async fn one_after_another(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    count: u64,
    turns: &mut Interval,
) -> anyhow::Result<u64> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(HOST)?, stream).await?;
    let request = format!("POST /admission HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 0\r\n\r\n");
    let mut answer = Vec::new();
    for _ in 0..count {
        turns.tick().await;
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        while !answer.ends_with(b"\r\n\r\nok") {
            anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "closed within an answer");
        }
        anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
    Ok(count)
}

/// Calls at its pace until the end: connection after connection, each verified by what is published then. Nothing of an
/// earlier handshake is used again.
async fn caller(
    address: SocketAddr,
    published: watch::Receiver<String>,
    ending: CancellationToken,
) -> anyhow::Result<(u64, u64)> {
    let (mut calls, mut connections) = (0, 0);
    let mut turns = tokio::time::interval(Duration::from_secs(1) * CALLERS / PACE);
    let mut known = (String::new(), None);
    while !ending.is_cancelled() {
        let bundle = published.borrow().clone();
        if known.0 != bundle {
            let mut config = client(&bundle, None);
            config.resumption = Resumption::disabled();
            known = (bundle, Some(Arc::new(config)));
        }
        let Some(config) = &known.1 else { continue };
        calls += one_after_another(address, config, CALLS_A_CONNECTION, &mut turns).await?;
        connections += 1;
    }
    Ok((calls, connections))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_rotation_under_a_thousand_calls_a_second_fails_none() {
    provider();
    // Other tests may need the machine at the same time; no call of any try may fail.
    let mut rates = Vec::new();
    while rates.len() < 4 && rates.iter().all(|rate| *rate < 1000.0) {
        rates.push(rotation_under_load().await);
    }
    assert!(rates.last().is_some_and(|rate| *rate >= 1000.0), "only {rates:.0?} calls a second");
}

/// A whole rotation; how many calls a second there were.
async fn rotation_under_load() -> f64 {
    // Nine of its ten minutes have passed: the clock is an argument, so that nobody waits.
    let mut now = Timestamp::now();
    let made = now.checked_sub(Duration::from_secs(540)).unwrap();
    let mut current = Material::mint(&[HOST.to_owned()], &LIFETIMES, made).unwrap();
    let tls = watch::Sender::new(current.server_config(None).unwrap());
    let published = watch::Sender::new(current.authority.clone());
    let shutdown = CancellationToken::new();
    let address = listener(tls.subscribe(), &shutdown).await;
    let ending = CancellationToken::new();
    let started = Instant::now();
    let callers: Vec<_> =
        (0..CALLERS).map(|_| tokio::spawn(caller(address, published.subscribe(), ending.clone()))).collect();
    let mut steps = Vec::new();
    for later in [0_u64, 0, 20, 20, 20] {
        tokio::time::sleep(Duration::from_millis(600)).await;
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
    tokio::time::sleep(Duration::from_millis(600)).await;
    ending.cancel();
    let (mut calls, mut connections) = (0, 0);
    for caller in callers {
        let (made, over) = caller.await.unwrap().unwrap();
        calls += made;
        connections += over;
    }
    let span = started.elapsed();
    let rate = calls as f64 / span.as_secs_f64();
    eprintln!("{calls} calls over {connections} connections in {span:?}, {rate:.0} a second, none failed; {steps:?}");
    assert_eq!(steps, [Step::Announced, Step::Switched, Step::Retired]);
    assert!(connections > 40, "only {connections} handshakes");
    shutdown.cancel();
    rate
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
    let right = callers_own(&signer, "kube-apiserver");
    for (name, wrong) in [
        ("none", None),
        ("another name", Some(callers_own(&signer, "somebody"))),
        ("another authority", Some(callers_own(&strange, "kube-apiserver"))),
    ] {
        let certificate = wrong.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
        let tried = call(address, client(&own.authority, certificate)).await;
        assert!(tried.is_err(), "got through with {name}");
    }
    call(address, client(&own.authority, Some((&right.0, &right.1)))).await.unwrap();
    shutdown.cancel();
}

#[tokio::test]
async fn whoever_is_turned_away_reads_why_while_still_sending() {
    provider();
    let own = material();
    let check = ClientCheck::new(&callers_authority().0, vec!["kube-apiserver".to_owned()]).unwrap();
    let tls = watch::Sender::new(own.server_config(Some(&check)).unwrap());
    let shutdown = CancellationToken::new();
    let address = listener(tls.subscribe(), &shutdown).await;
    let connector = TlsConnector::from(Arc::new(client(&own.authority, None)));
    // With TLS 1.3 the handshake is done on this side before the other has looked at the certificate.
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from(HOST).unwrap(), stream).await.unwrap();
    for _ in 0..5 {
        stream.write_all(&[b'a'; 1000]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = stream.read_u8().await.unwrap_err();
    assert!(told.to_string().contains("CertificateRequired"), "{told}");
    // Who never stops is cut off.
    let until_the_end = async { while stream.write_all(&[b'a'; 16_384]).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), until_the_end).await.unwrap();
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

fn callers_own(signer: &Signer, name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params.signed_by(&key, signer).unwrap().pem(), key.serialize_pem())
}
