//! Opens the listeners of `kustody serve`: health first, so that "not ready" can be asked from the first moment, then
//! webhook and gateway on what [`super::foundation`] laid.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Lifetimes;
use super::foundation::Foundation;
use super::parts::Parts;
use crate::config::Config;
use crate::core::recording::manifest::Worm;
use crate::edge::cluster::registration::GateState;
use crate::edge::cluster::replica::{Report, Reporter};
use crate::edge::net::listen::{self, Listening};
use crate::edge::net::tls::mint;
use crate::service::gateway::{self, Gateway};
use crate::service::webhook::{self, Webhook};

/// Opens the health listener; nothing is ready yet.
pub(super) async fn health(address: SocketAddr, lifetimes: &Lifetimes) -> anyhow::Result<Parts> {
    let (parts, readiness) = Parts::starting();
    let listener = bind("health", address).await?;
    // Health outlives the stop, so that "ending" can be asked too.
    let listening = Listening {
        tls: None,
        drain: CancellationToken::new(),
        shutdown: lifetimes.background.clone(),
        tracker: lifetimes.working.clone(),
    };
    let serving = listen::serve(listener, listening, move |request, peer| readiness.clone().handle(request, peer));
    lifetimes.working.spawn(serving);
    Ok(parts)
}

/// Opens webhook and gateway.
pub(super) async fn open(
    config: Config,
    foundation: Foundation,
    lifetimes: &Lifetimes,
    parts: &Parts,
) -> anyhow::Result<()> {
    let listening = Listening {
        tls: Some(foundation.tls.webhook.clone()),
        drain: lifetimes.drain.clone(),
        shutdown: lifetimes.stop.clone(),
        tracker: lifetimes.serving.clone(),
    };
    let listener = bind("webhook", config.webhook.listen).await?;
    let webhook_edges = webhook::Edges {
        snapshot: foundation.policies.clone(),
        approvals: foundation.approvals.clone(),
        grants: foundation.grants.clone(),
        budgets: foundation.budgets.clone(),
        log: foundation.log.clone(),
        tickets: foundation.key.public().clone(),
        shutdown: lifetimes.drain.clone(),
    };
    let webhook = Arc::new(Webhook::new(config.webhook.service, webhook_edges));
    report(&foundation, &webhook, &config.replica, lifetimes, parts);
    lifetimes.serving.spawn(listen::serve(listener, listening.clone(), move |request, _peer| {
        let webhook = Arc::clone(&webhook);
        async move { webhook.handle(request).await }
    }));
    if let Some(settings) = config.gateway {
        let listener = bind("gateway", settings.listen).await?;
        let listening = Listening { tls: Some(foundation.tls.gateway.clone()), ..listening };
        let gateway = Gateway::new(settings.service, gateway_edges(foundation, lifetimes));
        lifetimes.working.spawn(Arc::clone(&gateway).oversee(lifetimes.background.clone()));
        lifetimes
            .serving
            .spawn(listen::serve(listener, listening, move |request, peer| Arc::clone(&gateway).handle(request, peer)));
    }
    drop(parts.listeners.send_replace(Ok(())));
    let (drain, listeners) = (lifetimes.drain.clone(), parts.listeners.clone());
    lifetimes.working.spawn(async move {
        drain.cancelled().await;
        drop(listeners.send_replace(Err("ending".to_owned())));
    });
    Ok(())
}

/// Starts saying how this replica is.
fn report(foundation: &Foundation, webhook: &Webhook, replica: &str, lifetimes: &Lifetimes, parts: &Parts) {
    let (policies, gate, material) =
        (foundation.policies.clone(), foundation.gate.clone(), foundation.material.clone());
    let (strangers, readiness) = (webhook.strangers(), parts.readiness.clone());
    let (store, worm) = (foundation.store.words.clone(), foundation.store.worm == Worm::Verified);
    let describe = move || {
        let snapshot = policies.borrow().clone();
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy: snapshot.hash().to_string(),
            broken: snapshot.broken().to_vec(),
            not_gated: match &*gate.borrow() {
                GateState::Registered => None,
                GateState::Missing { why } => Some(why.clone()),
            },
            not_ready: readiness.failing().into_iter().map(|(part, why)| (part.to_owned(), why)).collect(),
            store: store.clone(),
            worm,
            certificate_ends: mint::read(&material.borrow().certificate).ok().map(|leaf| leaf.ends),
            strangers: strangers.borrow().clone(),
        }
    };
    let reporter = Reporter::new(foundation.client.clone(), replica, describe);
    let reporter = if foundation.counts_replicas { reporter.counting(foundation.budgets.clone()) } else { reporter };
    lifetimes.working.spawn(reporter.run(foundation.gate.clone(), lifetimes.background.clone()));
}

fn gateway_edges(foundation: Foundation, lifetimes: &Lifetimes) -> gateway::Edges {
    gateway::Edges {
        reviewer: foundation.reviewer,
        policies: foundation.policies,
        gate: foundation.gate,
        aggregated: foundation.aggregated,
        approvals: foundation.approvals,
        grants: foundation.grants,
        terminations: foundation.terminations,
        budgets: foundation.budgets,
        upstream: foundation.upstream,
        spool: foundation.spool,
        log: foundation.log,
        key: foundation.key,
        tracker: lifetimes.serving.clone(),
        stop: lifetimes.stop.clone(),
    }
}

async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("the {what} cannot listen on {address}"))?;
    info!(address = %listener.local_addr()?, "{what} listens");
    Ok(listener)
}
