//! `kustody serve`: runs the webhook and the gateway in one process. Start-up is a sequence: configuration, cluster,
//! keys, store, spool, rules, registration, listeners. Shutdown is one too, with deadlines: it says that it is not ready
//! and answers parked calls while it goes on serving until nobody sends any more, running sessions get their grace,
//! recordings are sealed and shipped. A second signal ends the process at once.

mod archive;
mod certificate;
mod foundation;
mod listeners;
mod parts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::Config;
use crate::edge::{open_files, telemetry};
use foundation::Foundation;

/// After parked calls and sessions are over, connections get this long to close.
const CONNECTIONS_CLOSE: Duration = Duration::from_secs(5);
/// What is left in the spool at the end gets this long to be shipped; the rest is shipped after the next start.
const LAST_SHIPMENT: Duration = Duration::from_secs(20);
/// The exit code of a process that a second signal ended: 128 + SIGINT.
const ENDED_AT_ONCE: i32 = 130;

/// Arguments of `kustody serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kustody serve --config /etc/kustody/kustody.yaml\n  \
    kustody serve --config kustody.yaml --check")]
pub struct Args {
    /// The configuration file
    #[arg(short, long, env = "KUSTODY_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Only check the configuration file
    #[arg(long)]
    check: bool,
}

/// The tasks of a running Kustody, by when they end.
#[derive(Default)]
struct Lifetimes {
    /// First: not ready, parked calls are answered, every answer asks the peer to connect anew elsewhere.
    drain: CancellationToken,
    /// Then: no new connections and sessions, running sessions have their grace.
    stop: CancellationToken,
    /// Then: nothing is decided any more, the log is sealed.
    decided: CancellationToken,
    /// Then: watches and the like, which the last answers still needed.
    background: CancellationToken,
    /// Last: shipping.
    shipping: CancellationToken,
    /// Connections and sessions.
    serving: TaskTracker,
    /// Keepers of the spool, the writer of the log.
    spooling: TaskTracker,
    /// Watches, reconcilers, the uploader.
    working: TaskTracker,
}

/// Runs until a signal.
///
/// # Errors
/// Where the configuration is wrong, the store cannot be reached, or a listener cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    if args.check {
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::start(&config.telemetry)?;
    match open_files::raise() {
        Ok(files) => info!(files, "as many files and connections may be open as the system lets"),
        Err(error) => warn!(%error, "no more files and connections may be open than at the start"),
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let lifetimes = Lifetimes::default();
    let grace = config.gateway.as_ref().map_or(Duration::ZERO, |gateway| gateway.service.grace);
    let drain = config.webhook.drain;
    let serving = serve(config, &lifetimes);
    tokio::pin!(serving);
    let started = tokio::select! {
        started = serving.as_mut() => started,
        _ = interrupt.recv() => Ok(false),
        _ = terminate.recv() => Ok(false),
    };
    if matches!(started, Ok(true)) {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    }
    info!("ending");
    let drain = if matches!(started, Ok(true)) { drain } else { Duration::ZERO };
    tokio::select! {
        () = end(&lifetimes, drain, grace) => started.map(|_| ExitCode::SUCCESS),
        _ = interrupt.recv() => std::process::exit(ENDED_AT_ONCE),
        _ = terminate.recv() => std::process::exit(ENDED_AT_ONCE),
    }
}

/// Starts everything; `false` where shutdown came first.
async fn serve(config: Config, lifetimes: &Lifetimes) -> anyhow::Result<bool> {
    let readiness = listeners::health(config.health, lifetimes).await?;
    let foundation = Foundation::lay(&config, lifetimes, &readiness).await?;
    let Some(foundation) = foundation else { return Ok(false) };
    listeners::open(config, foundation, lifetimes, &readiness).await.context("cannot start serving")?;
    Ok(true)
}

/// The shutdown sequence. Nothing in it can fail; what is late is told and left to the next start.
async fn end(lifetimes: &Lifetimes, drain: Duration, grace: Duration) {
    lifetimes.drain.cancel();
    tokio::time::sleep(drain).await;
    lifetimes.stop.cancel();
    close("connections and sessions", &lifetimes.serving, grace + CONNECTIONS_CLOSE).await;
    lifetimes.decided.cancel();
    close("recordings and the log", &lifetimes.spooling, CONNECTIONS_CLOSE).await;
    lifetimes.background.cancel();
    lifetimes.shipping.cancel();
    close("background work", &lifetimes.working, LAST_SHIPMENT).await;
    info!("ended");
}

async fn close(what: &str, tracker: &TaskTracker, deadline: Duration) {
    tracker.close();
    if tokio::time::timeout(deadline, tracker.wait()).await.is_err() {
        warn!(left = tracker.len(), "{what} did not end within {deadline:?}");
    }
}
