//! Lays what webhook and gateway stand on: the cluster's client, keys, certificate, store, spool, rules, approvals,
//! the registration of the webhook. An API server that does not answer is waited for; a store that does not is an
//! error, since nothing could ever be shipped to it. Main type: [`Foundation`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::certificate::{Serving, Sources};
use super::parts::Parts;
use super::{Lifetimes, archive};
use crate::config::Config;
use crate::core::keys::SigningKey;
use crate::core::policy::PolicySnapshot;
use crate::core::recording::manifest::Worm;
use crate::edge::budgets::Budgets;
use crate::edge::cluster::aggregated::{self, Aggregated};
use crate::edge::cluster::approvals::Approvals;
use crate::edge::cluster::grants::Grants;
use crate::edge::cluster::identity::Reviewer;
use crate::edge::cluster::policies::Policies;
use crate::edge::cluster::registration::{GateState, Registration, Suspending};
use crate::edge::cluster::terminations::Terminations;
use crate::edge::cluster::{self, public, reachability, replica, secrets};
use crate::edge::keys;
use crate::edge::net::tls::Material;
use crate::edge::net::upstream::Upstream;
use crate::edge::store::Store;
use crate::edge::store::spool::{self, Spool};
use crate::edge::store::uploader::Uploader;
use crate::edge::store::wal::Wal;

/// The first pause before the API server is asked again at start, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How often the spool is asked whether it takes sessions.
const SPOOL_LOOK: Duration = Duration::from_secs(2);

/// What the services need.
pub(super) struct Foundation {
    /// For the gateway, and for the webhook, which may ask who calls.
    pub(super) tls: Sources,
    pub(super) key: Arc<SigningKey>,
    pub(super) policies: watch::Receiver<Arc<PolicySnapshot>>,
    pub(super) gate: watch::Receiver<GateState>,
    pub(super) aggregated: watch::Receiver<Aggregated>,
    /// The cluster's client, and what the store was found to enforce.
    pub(super) client: kube::Client,
    pub(super) store: Probed,
    pub(super) material: watch::Receiver<Arc<Material>>,
    pub(super) approvals: Approvals,
    pub(super) grants: Grants,
    pub(super) terminations: Terminations,
    pub(super) budgets: Budgets,
    /// Whether replicas are counted, because nobody said how many there are.
    pub(super) counts_replicas: bool,
    pub(super) reviewer: Reviewer,
    pub(super) upstream: Upstream,
    pub(super) spool: Spool,
    pub(super) log: Wal,
}

/// What the store was found to enforce.
pub(super) struct Probed {
    pub(super) words: String,
    pub(super) worm: Worm,
}

impl Foundation {
    /// Lays everything; `None` where shutdown came first.
    pub(super) async fn lay(config: &Config, lifetimes: &Lifetimes, parts: &Parts) -> anyhow::Result<Option<Self>> {
        let (store, probed) = open_store(config).await?;
        drop(parts.store.send_replace(Ok(())));
        let api = cluster::configuration(config.cluster.kubeconfig.as_deref(), config.cluster.context.as_deref());
        let api = api.await?;
        let client = kube::Client::try_from(api.clone()).context("cannot make a client of the API server")?;
        let work = &lifetimes.working;
        work.spawn(reachability::follow(client.clone(), parts.cluster.clone(), lifetimes.background.clone()));
        let stop = &lifetimes.stop;
        let Some(key) = patiently(stop, || signing_key(config, &client)).await? else { return Ok(None) };
        let Some(replicas) = patiently(stop, || replicas(config, &client)).await? else { return Ok(None) };
        let Some(serving) = patiently(stop, || Serving::prepare(config, &client)).await? else { return Ok(None) };
        publish(&client, serving.authority(), key.public().to_pem(), lifetimes).await;
        let key = Arc::new(key);
        let spool =
            open_spool(spool::Config { worm: probed.worm, ..config.spool.clone() }, store, &key, lifetimes, parts)
                .await?;
        let log = open_log(&spool, config, lifetimes).await?;
        let mut watching = Policies::new(client.clone());
        let Some(policies) = watching.first(stop).await else { return Ok(None) };
        drop(parts.policies.send_replace(Ok(())));
        work.spawn(watching.run(lifetimes.background.clone()));
        let (approvals, keeper) = Approvals::new(client.clone(), config.approvals);
        let keeper = keeper.archiving(archive::into_log(log.clone()));
        work.spawn(keeper.run(lifetimes.background.clone()));
        let (grants, keeper) = Grants::new(client.clone(), config.grants, policies.clone());
        work.spawn(keeper.run(lifetimes.background.clone()));
        let (terminations, keeper) = Terminations::new(client.clone(), config.replica.as_str());
        work.spawn(keeper.run(lifetimes.background.clone()));
        let site = config.webhook.site.clone();
        let suspending = Suspending::new(client.clone(), site.clone(), serving.bundle(), policies.clone());
        work.spawn(suspending.run(lifetimes.background.clone()));
        let (registration, outlook) = Registration::new(client.clone(), site, serving.bundle(), policies.clone());
        work.spawn(registration.run(lifetimes.background.clone()));
        let (telling, aggregated) = watch::channel(Aggregated::default());
        work.spawn(aggregated::follow(client.clone(), telling, lifetimes.background.clone()));
        let material = serving.material();
        let tls = serving.start(&outlook, lifetimes, parts);
        let audience = config.gateway.as_ref().map_or("kustody", |gateway| gateway.audience.as_str());
        Ok(Some(Self {
            tls,
            key,
            policies,
            gate: outlook.gate,
            aggregated,
            approvals,
            grants,
            terminations,
            budgets: Budgets::new(replicas),
            counts_replicas: config.replicas.is_none(),
            reviewer: Reviewer::new(client.clone(), audience),
            client,
            store: probed,
            material,
            upstream: Upstream::new(&api, lifetimes.serving.clone())?,
            spool,
            log,
        }))
    }
}

/// Opens and probes the store; says what it enforces, and what manifests may therefore claim.
async fn open_store(config: &Config) -> anyhow::Result<(Store, Probed)> {
    let location = &config.store.location;
    let store = Store::open(&config.store).await.with_context(|| format!("cannot open the store {location}"))?;
    let report = store.probe().await.with_context(|| format!("cannot use the store {location}"))?;
    info!(store = %location, "{report}");
    if !report.conditional_create {
        bail!("the store {location} overwrites what is there: it ignores conditional creates");
    }
    if config.require_object_lock && !report.object_lock {
        bail!("the store {location} does not enforce object lock, and store.requireObjectLock is set");
    }
    if report.retention.locks() && !report.object_lock {
        bail!("the store {location} does not enforce object lock, and store.retention asks for locks");
    }
    let probed = Probed { words: format!("{location}: {report}"), worm: report.worm() };
    Ok((store, probed))
}

/// Opens the spool, seals what a crash left in it, and starts shipping.
async fn open_spool(
    config: spool::Config,
    store: Store,
    key: &Arc<SigningKey>,
    lifetimes: &Lifetimes,
    parts: &Parts,
) -> anyhow::Result<Spool> {
    let spool = Spool::open(config, Arc::clone(key), lifetimes.spooling.clone()).await?;
    lifetimes.working.spawn(Uploader::new(spool.clone(), store).run(lifetimes.shipping.clone()));
    lifetimes.working.spawn(look_at(spool.clone(), parts.spool.clone(), lifetimes.background.clone()));
    Ok(spool)
}

/// Opens the log, seals what a crash left in it, and has it sealed when nothing is decided any more.
async fn open_log(spool: &Spool, config: &Config, lifetimes: &Lifetimes) -> anyhow::Result<Wal> {
    let log = Wal::open(spool, config.audit.clone(), &lifetimes.spooling).await?;
    let (closing, decided) = (log.clone(), lifetimes.decided.clone());
    lifetimes.spooling.spawn(async move {
        decided.cancelled().await;
        closing.close().await;
    });
    Ok(log)
}

async fn look_at(spool: Spool, state: watch::Sender<Result<(), String>>, shutdown: CancellationToken) {
    loop {
        drop(state.send_replace(spool.has_room()));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(SPOOL_LOOK) => (),
        }
    }
}

/// The signing key: from its file, else from its Secret; made on the first start.
async fn signing_key(config: &Config, client: &kube::Client) -> anyhow::Result<SigningKey> {
    match &config.signing_key_file {
        Some(file) => Ok(keys::load_or_create(file)?),
        None => Ok(secrets::signing_key(client, keys::generate()?).await?),
    }
}

/// How many replicas share the budgets from the first request on.
async fn replicas(config: &Config, client: &kube::Client) -> anyhow::Result<u32> {
    match config.replicas {
        Some(count) => Ok(count),
        None => replica::count(client, &config.replica).await.context("cannot count the replicas"),
    }
}

/// Publishes authority and key, once before anything else; where that fails, later and beside everything else. A
/// restarted API server refuses writes to Kustody's namespace for half a minute, until it has found the kind that the
/// native policies name, and nobody needs to wait for what was published before.
async fn publish(client: &kube::Client, authority: String, key: String, lifetimes: &Lifetimes) {
    let Err(error) = public::publish(client, &authority, &key).await else { return };
    warn!("{:#}; serving all the same", anyhow::Error::from(error));
    let (client, stop) = (client.clone(), lifetimes.stop.clone());
    lifetimes.working.spawn(async move {
        let again = || async { Ok(public::publish(&client, &authority, &key).await?) };
        if let Err(error) = patiently(&stop, again).await {
            warn!("{error:#}; not published");
        }
    });
}

/// Tries until it succeeds, with growing pauses; `None` where shutdown came first.
async fn patiently<T, F, W>(stop: &CancellationToken, mut work: W) -> anyhow::Result<Option<T>>
where
    F: Future<Output = anyhow::Result<T>>,
    W: FnMut() -> F,
{
    let mut pause = PAUSES.0;
    loop {
        match work().await {
            Ok(done) => return Ok(Some(done)),
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => warn!("{error:#}; trying again in {pause:?}"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => (),
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Whether trying again cannot help: what the API server answered with a refusal is still tried again, since rights
/// and Secrets may come; what has nothing to do with it is not.
fn is_final(error: &anyhow::Error) -> bool {
    !error.chain().any(|cause| cause.is::<kube::Error>() || cause.is::<Box<kube::Error>>())
}
