//! `kustody grant …`: asks for a grant, gives one, decides and revokes, under the caller's own identity.
//!
//! The API server checks who may (`manifests/grant-policy.yaml`); nothing here is a safeguard. What a grant says on
//! the command line is `terms.rs`'s business.

mod terms;

use std::process::ExitCode;

use anyhow::{Context, bail};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::approve::{CONFLICTS, plain_refusal, told_if_refused, user_name};
use super::grants::{actions, state};
use super::kube_args::KubeArgs;
use super::output::{self, Format};
use crate::core::action::NAMESPACE;
use crate::core::approval::Choice;
use crate::core::grant::Origin;
use crate::edge::cluster::{contested, grant::Grant};
use terms::Terms;

/// Ask for a grant, give one, decide about one, or take one back
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody grant request --delete deployments.apps -n shop --for 2h --uses 5 --reason 'clearing up'\n  \
    kustody grant give --agent system:serviceaccount:agents:coder --update 'deployments.apps/scale' -n 'shop-*' --for 1h --reason 'load test'\n  \
    kustody grant approve grant-x7k2q\n  \
    kustody grant revoke grant-x7k2q --reason 'the release is out'")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Ask for a grant, for yourself; people approve it
    Request(Writing),
    /// Give a grant; needs the verb approve on grants.kustody.dev
    Give(Writing),
    /// Approve a grant that is asked for
    Approve(Approving),
    /// Deny a grant that is asked for
    Deny(Refusing),
    /// Take a grant in force back; what it bound is unbound at once
    Revoke(Refusing),
    /// Show one grant whole
    Show(Showing),
}

#[derive(Debug, clap::Args)]
struct Writing {
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    kube: KubeArgs,
}

#[derive(Debug, clap::Args)]
struct Approving {
    /// Name of the grant, or a unique beginning of it
    name: String,
    /// Why; kept with the decision
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    kube: KubeArgs,
}

#[derive(Debug, clap::Args)]
struct Refusing {
    /// Name of the grant, or a unique beginning of it
    name: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    kube: KubeArgs,
}

#[derive(Debug, clap::Args)]
struct Showing {
    /// Name of the grant, or a unique beginning of it
    name: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs the command.
///
/// # Errors
/// When there is no such grant, or the API server cannot be reached or refuses.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Request(writing) => write(&writing, Origin::Requested).await?,
        Command::Give(writing) => write(&writing, Origin::Given).await?,
        Command::Approve(args) => decide(&args.kube, &args.name, Choice::Approve, args.reason).await?,
        Command::Deny(args) | Command::Revoke(args) => {
            decide(&args.kube, &args.name, Choice::Deny, Some(args.reason)).await?;
        }
        Command::Show(args) => {
            let grant = find(&args.kube.client().await?, &args.name).await?;
            let format = if args.output.is_table() { Format::Yaml } else { args.output };
            output::print_value(format, &grant)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn write(writing: &Writing, origin: Origin) -> anyhow::Result<()> {
    let client = writing.kube.client().await?;
    let grant = writing.terms.grant(origin, user_name(&client).await?)?;
    let grants: Api<Grant> = Api::namespaced(client, NAMESPACE);
    let written = match grants.create(&PostParams::default(), &grant).await {
        Ok(written) => written,
        Err(kube::Error::Api(status)) => bail!("nothing was written: {}", plain_refusal(&status.message)),
        Err(error) => return Err(error).context("cannot write the grant"),
    };
    let name = written.name_any();
    output::print(&match origin {
        Origin::Requested => {
            format!("asked for {name}: {}. A person approves with: kustody grant approve {name}\n", actions(&written))
        }
        Origin::Given => format!("gave {name}: {}\n", actions(&written)),
    })
}

async fn decide(kube: &KubeArgs, name: &str, verdict: Choice, reason: Option<String>) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let decision = json!({"by": user_name(&client).await?, "verdict": verdict, "reason": reason});
    let name = find(&client, name).await?.name_any();
    let grants: Api<Grant> = Api::namespaced(client, NAMESPACE);
    for _ in 0..CONFLICTS {
        let grant = grants.get(&name).await.with_context(|| format!("cannot read {name}"))?;
        if state(&grant).is_over() {
            bail!("{name} is {} already", state(&grant).as_str().to_lowercase());
        }
        let mut decisions = serde_json::to_value(grant.status.clone().unwrap_or_default().decisions)?;
        decisions.as_array_mut().context("the decisions are no list")?.push(decision.clone());
        let status = json!({"decisions": decisions});
        if told_if_refused(&name, contested::patch_status(&grants, &grant, &status).await)?.is_some() {
            let word = if verdict == Choice::Approve { "approved" } else { "refused or revoked" };
            return output::print(&format!("{word} {name}: {}\n", output::plain(&actions(&grant))));
        }
    }
    bail!("{name} was not decided: somebody else keeps writing to it, try again")
}

/// The one grant whose name begins so. Agents may read one by its whole name only.
async fn find(client: &Client, name: &str) -> anyhow::Result<Grant> {
    let grants: Api<Grant> = Api::namespaced(client.clone(), NAMESPACE);
    if let Some(exact) = grants.get_opt(name).await.context("cannot read the grant")? {
        return Ok(exact);
    }
    let all = grants.list(&ListParams::default()).await.context("cannot list the grants")?;
    let mut found: Vec<Grant> = all.items.into_iter().filter(|grant| grant.name_any().starts_with(name)).collect();
    match (found.len(), found.pop()) {
        (1, Some(only)) => Ok(only),
        (0, _) | (_, None) => bail!("there is no grant {name}; `kustody grants` lists them"),
        (count, Some(_)) => bail!("{name} is the beginning of {count} grants"),
    }
}
