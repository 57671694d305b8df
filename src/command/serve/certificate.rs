//! The serving certificate of a running Kustody: where it comes from (a Secret it manages, or own files), who is told
//! when it changes (both listeners, the registration, the public ConfigMap), and whether what is served holds against
//! what the API server was told to trust. Main type: [`Serving`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Lifetimes;
use super::parts::Parts;
use crate::config::{ClientCertificate, Config};
use crate::core::admission::registration::{Address, SERVICE_HOST};
use crate::edge::cluster::certificates::Certificates;
use crate::edge::cluster::public;
use crate::edge::cluster::registration::{Outlook, Published};
use crate::edge::net::listen::TlsSource;
use crate::edge::net::tls::client_check::ClientCheck;
use crate::edge::net::tls::files::{self, Files};
use crate::edge::net::tls::{Material, handshake};
use crate::service::health::State;

/// How often the look at oneself is repeated while all is well, and while it is not.
const LOOK: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(500));
/// A public authority that could not be written is written again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// What the listeners serve, and go on serving after a change.
#[derive(Clone)]
pub(super) struct Sources {
    /// The gateway's.
    pub(super) gateway: TlsSource,
    /// The webhook's, which may ask for the caller's certificate.
    pub(super) webhook: TlsSource,
}

/// A certificate that is there, and will be kept.
pub(super) struct Serving {
    client: kube::Client,
    material: watch::Receiver<Arc<Material>>,
    keeper: Keeper,
    telling: Telling,
    own: Own,
}

enum Keeper {
    Managed(Box<Certificates>),
    Files(Files, watch::Sender<Arc<Material>>),
}

/// Who is told of a change.
struct Telling {
    check: Option<ClientCheck>,
    gateway: watch::Sender<Arc<ServerConfig>>,
    webhook: watch::Sender<Arc<ServerConfig>>,
    bundle: watch::Sender<String>,
}

/// Where this process finds its own webhook, and by which name the API server does.
struct Own {
    address: SocketAddr,
    host: String,
}

impl Serving {
    /// Reads own files, else the Secret; makes it on the first start.
    pub(super) async fn prepare(config: &Config, client: &kube::Client) -> anyhow::Result<Self> {
        let (material, keeper) = match &config.tls.files {
            Some(files) => {
                let (sender, material) = watch::channel(Arc::new(files::read(files)?));
                (material, Keeper::Files(files.clone(), sender))
            }
            None => {
                let certificates = Certificates::load(client, &config.tls.hosts, &config.tls.lifetimes).await?;
                (certificates.material(), Keeper::Managed(Box::new(certificates)))
            }
        };
        let check = config.webhook.client.as_ref().map(client_check).transpose()?;
        let first = Arc::clone(&material.borrow());
        let telling = Telling {
            gateway: watch::Sender::new(first.server_config(None)?),
            webhook: watch::Sender::new(first.server_config(check.as_ref())?),
            bundle: watch::Sender::new(first.authority.clone()),
            check,
        };
        let own = Own { address: config.webhook.listen, host: host_of(&config.webhook.site.address) };
        Ok(Self { client: client.clone(), material, keeper, telling, own })
    }

    /// What is served, now and from then on.
    pub(super) fn material(&self) -> watch::Receiver<Arc<Material>> {
        self.material.clone()
    }

    /// The authority that clients verify by, now.
    pub(super) fn authority(&self) -> String {
        self.telling.bundle.borrow().clone()
    }

    /// The same, and its successors.
    pub(super) fn bundle(&self) -> watch::Receiver<String> {
        self.telling.bundle.subscribe()
    }

    /// Starts keeping it, telling everybody, and looking at oneself.
    pub(super) fn start(self, outlook: &Outlook, lifetimes: &Lifetimes, parts: &Parts) -> Sources {
        let (work, stop) = (&lifetimes.working, &lifetimes.background);
        let (gateway, webhook) = (self.telling.gateway.subscribe(), self.telling.webhook.subscribe());
        match self.keeper {
            Keeper::Managed(certificates) => work.spawn(certificates.run(outlook.published.clone(), stop.clone())),
            Keeper::Files(files, sender) => work.spawn(files::follow(files, sender, stop.clone())),
        };
        work.spawn(publish(self.client, self.telling.bundle.subscribe(), stop.clone()));
        work.spawn(look(self.own, outlook.published.clone(), parts.certificate.clone(), stop.clone()));
        work.spawn(self.telling.run(self.material, stop.clone()));
        Sources { gateway, webhook }
    }
}

impl Telling {
    async fn run(self, mut material: watch::Receiver<Arc<Material>>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = material.changed() => if changed.is_err() { return },
            }
            let next = Arc::clone(&material.borrow_and_update());
            // The bundle is told first: whoever verifies may know too much, never too little.
            self.bundle.send_if_modified(|bundle| {
                let changed = *bundle != next.authority;
                bundle.clone_from(&next.authority);
                changed
            });
            match (next.server_config(None), next.server_config(self.check.as_ref())) {
                (Ok(gateway), Ok(webhook)) => {
                    self.gateway.send_replace(gateway);
                    self.webhook.send_replace(webhook);
                    info!("new connections get the new certificate");
                }
                (Err(error), _) | (_, Err(error)) => warn!(%error, "the new certificate cannot be served"),
            }
        }
    }
}

/// Keeps the public copy of the authority right.
async fn publish(client: kube::Client, mut bundle: watch::Receiver<String>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = bundle.changed() => if changed.is_err() { return },
        }
        let authority = bundle.borrow_and_update().clone();
        while let Err(error) = public::publish_authority(&client, &authority).await {
            warn!(%error, "the new authority is not public yet");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => (),
            }
        }
    }
}

/// Says whether what this process serves holds against what the API server verifies by.
async fn look(
    own: Own,
    mut published: watch::Receiver<Published>,
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    loop {
        let seen = published.borrow_and_update().clone();
        let found = match &seen {
            Published::Unknown => Err("the registration of the webhook has not been read yet".to_owned()),
            Published::NotRegistered => Ok(()),
            Published::Nothing => Err("the registration names no authority yet".to_owned()),
            Published::Bundle(bundle) => {
                handshake::verify(own.address, &own.host, bundle).await.map_err(|error| error.to_string())
            }
        };
        let pause = if found.is_ok() { LOOK.0 } else { LOOK.1 };
        state.send_if_modified(|known| {
            let changed = *known != found;
            if let (true, Err(why)) = (changed, &found) {
                warn!(%why, host = %own.host, "the API server could not verify this webhook");
            }
            *known = found;
            changed
        });
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = published.changed() => (),
            () = tokio::time::sleep(pause) => (),
        }
    }
}

fn client_check(client: &ClientCertificate) -> anyhow::Result<ClientCheck> {
    let path = &client.authority;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    ClientCheck::new(&text, client.names.clone())
        .with_context(|| format!("{} cannot be used to check callers", path.display()))
}

/// The name by which the API server verifies.
fn host_of(address: &Address) -> String {
    let Address::Url(url) = address else { return SERVICE_HOST.to_owned() };
    let authority: Option<http::Uri> = url.parse().ok();
    let host = authority.as_ref().and_then(http::Uri::host).unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_knows_a_webhook_by_its_service_or_by_the_host_of_its_url() {
        assert_eq!(host_of(&Address::Service), "kustody.kustody-system.svc");
        assert_eq!(host_of(&Address::Url("https://[::1]:9443/admission".to_owned())), "::1");
        assert_eq!(host_of(&Address::Url("https://gate.example.com/admission".to_owned())), "gate.example.com");
    }
}
