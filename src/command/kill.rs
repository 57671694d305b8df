//! `kustody kill`: ends a running session, by a Termination written under the caller's own identity.
//!
//! The API server checks who may (`manifests/termination-policy.yaml`); whichever replica has the session cuts it and
//! says so, which this command waits for.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kube::Client;
use kube::api::{Api, PostParams};

use super::approve::{plain_refusal, user_name};
use super::kube_args::KubeArgs;
use super::output;
use crate::core::action::NAMESPACE;
use crate::core::recording::SessionId;
use crate::edge::cluster::termination::{Termination, TerminationSpec};

/// How long it is waited for a replica to end the session.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// End a running session: both connections are cut, and the agent is told who and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody kill 019aa8c0-4a3b-7e50-8f21-6d1c0b2a9e77 --reason 'wrong cluster'\n  \
    kubectl get terminations -n kustody-system      # who ended what, for ten minutes")]
pub struct Args {
    /// The session, as `kustody sessions` names it
    session: SessionId,
    /// Why; the agent is told, and the recording says it
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs the command.
///
/// # Errors
/// When no replica runs the session, or the API server cannot be reached or refuses.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = args.kube.client().await?;
    let session = args.session.to_string();
    order(&client, &session, args.reason).await?;
    let replica = carried_out(&client, &session).await?;
    output::print(&format!("killed {session} (replica {})\n", output::plain(&replica)))?;
    Ok(ExitCode::SUCCESS)
}

/// One order for each session: whoever orders the same again is told whose it was.
async fn order(client: &Client, session: &str, reason: String) -> anyhow::Result<()> {
    let terminations: Api<Termination> = Api::namespaced(client.clone(), NAMESPACE);
    let spec = TerminationSpec { session: session.to_owned(), reason, by: user_name(client).await? };
    match terminations.create(&PostParams::default(), &Termination::new(session, spec)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let earlier = terminations.get(session).await.context("cannot read the earlier order")?;
            bail!("{session} was killed already by {}", output::plain(&earlier.spec.by))
        }
        Err(kube::Error::Api(status)) => bail!("nothing was killed: {}", plain_refusal(&status.message)),
        Err(error) => Err(error).context("cannot write the order"),
    }
}

/// The replica that had the session.
async fn carried_out(client: &Client, session: &str) -> anyhow::Result<String> {
    let terminations: Api<Termination> = Api::namespaced(client.clone(), NAMESPACE);
    let look = async {
        loop {
            let there = terminations.get(session).await.context("cannot read the order")?;
            if let Some(replica) = there.status.and_then(|status| status.replica) {
                return anyhow::Ok(replica);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let Ok(replica) = tokio::time::timeout(PATIENCE, look).await else {
        bail!(
            "no replica has ended {session} within {PATIENCE:?}: it is over already, or Kustody is not running. The \
             order stays for ten minutes; `kustody sessions` shows what runs"
        )
    };
    replica
}
