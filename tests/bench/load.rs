//! A closed-loop load: some connections, each sending its next request when the last is answered, over keep-alive HTTP
//! and verified TLS. Connections are opened before the clock starts. Main type: [`Lane`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::figures::Spell;

/// What is asked, of whom.
#[derive(Clone)]
pub(crate) struct Target {
    uri: Uri,
    tls: Option<Arc<ClientConfig>>,
    token: String,
    body: Option<Bytes>,
    expected: Option<String>,
}

/// A target with a name in the table.
pub(crate) struct Lane {
    name: String,
    target: Target,
    server: Option<u32>,
}

impl Target {
    /// A POST of JSON.
    pub(crate) fn post(url: &str, authority: &[u8], body: &str) -> anyhow::Result<Self> {
        Ok(Self { body: Some(Bytes::copy_from_slice(body.as_bytes())), ..Self::get(url, authority, "")? })
    }

    /// A GET with a bearer token.
    pub(crate) fn get(url: &str, authority: &[u8], token: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => Some(Arc::new(trusting(authority)?)),
            _ => None,
        };
        Ok(Self { uri, tls, token: token.to_owned(), body: None, expected: None })
    }

    /// With a bearer token.
    pub(crate) fn by(mut self, token: &str) -> Self {
        self.token = token.to_owned();
        self
    }

    /// Whose answers must hold a text.
    pub(crate) fn expecting(mut self, text: &str) -> Self {
        self.expected = Some(text.to_owned());
        self
    }

    fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().context("no host")?.as_str();
        let builder = Request::builder().uri(path).header("host", host);
        let builder = if self.token.is_empty() {
            builder
        } else {
            builder.header("authorization", format!("Bearer {}", self.token))
        };
        Ok(match &self.body {
            Some(body) => {
                builder.method("POST").header("content-type", "application/json").body(Full::new(body.clone()))?
            }
            None => builder.body(Full::default())?,
        })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let (host, port) = (self.uri.host().context("no host")?, self.uri.port_u16().context("no port")?);
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => open(TokioIo::new(stream)).await,
            Some(config) => {
                let name = ServerName::try_from(host.to_owned())?;
                open(TokioIo::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?)).await
            }
        }
    }

    async fn ask(&self, connection: &mut SendRequest<Full<Bytes>>) -> anyhow::Result<Duration> {
        let request = self.request()?;
        let started = Instant::now();
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let took = started.elapsed();
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        if let Some(expected) = &self.expected {
            ensure!(String::from_utf8_lossy(&body).contains(expected), "{}", String::from_utf8_lossy(&body));
        }
        Ok(took)
    }
}

async fn open<I>(io: I) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(connection);
    Ok(sender)
}

pub(crate) fn trusting(authority: &[u8]) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl Lane {
    pub(crate) fn new(name: &str, target: Target) -> Self {
        Self { name: name.to_owned(), target, server: None }
    }

    /// Whose server is this process, so that its processor time is counted.
    pub(crate) fn served_by(mut self, pid: u32) -> Self {
        self.server = Some(pid);
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Loads the target for a spell.
    pub(crate) async fn load(&self, connections: usize, spell: Duration) -> anyhow::Result<Spell> {
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut connection = self.target.connect().await?;
            self.target.ask(&mut connection).await?;
            open.push(connection);
        }
        let before = self.server.map(processor_time).transpose()?;
        let started = Instant::now();
        let ask_on = open.into_iter().map(|mut connection| async move {
            let mut times = Vec::new();
            while started.elapsed() < spell {
                times.push(self.target.ask(&mut connection).await?);
            }
            anyhow::Ok(times)
        });
        let times = futures_util::future::try_join_all(ask_on).await?;
        let took = started.elapsed();
        let after = self.server.map(processor_time).transpose()?;
        let spent = after.zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok(Spell::of(times.into_iter().flatten().collect(), took, spent))
    }

    /// Asks on `count` connections at once and hands them over once `meanwhile` is done; their answers are not awaited.
    pub(crate) async fn crowd<T>(
        &self,
        count: usize,
        meanwhile: impl AsyncFn(&'static str) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, T)> {
        let mut open = Vec::new();
        for _ in 0..count {
            open.push(self.target.connect().await?);
        }
        let idle = meanwhile("connected").await?;
        let mut waiting = Vec::new();
        for mut connection in open {
            connection.ready().await?;
            waiting.push(tokio::spawn(connection.send_request(self.target.request()?)));
        }
        let parked = meanwhile("asked").await?;
        let (answered, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|task| task.is_finished());
        let early = answered.len();
        for task in &waiting {
            task.abort();
        }
        if let Some(first) = answered.into_iter().next() {
            let body = first.await??.into_body().collect().await?.to_bytes();
            bail!("{early} of {count} were answered, not parked; the first: {}", String::from_utf8_lossy(&body));
        }
        Ok((idle, parked))
    }
}

/// Processor time a process has taken.
pub(crate) fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name in parentheses: state is the third field, utime and stime the 14th and 15th, in hundredths of a second.
    let rest = stat.rsplit_once(") ").context("no process name")?.1;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
