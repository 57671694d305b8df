//! `kustody grants`: who may do what without asking again, until when. Reads only.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt, watcher};

use super::kube_args::KubeArgs;
use super::output::{self, Format};
use crate::core::action::NAMESPACE;
use crate::core::grant::State;
use crate::edge::cluster::grant::Grant;

const HEAD: [&str; 7] = ["NAME", "STATE", "AGENT", "ACTIONS", "NAMESPACES", "USES", "ENDS IN"];
const MORE: [&str; 4] = ["CLASS", "REQUESTER", "ROLE BINDING", "REASON"];

/// List grants: who may do what without asking again, until when
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody grants                     # what is asked for or in force\n  \
    kustody grants --all -o wide       # also what is over\n  \
    kubectl kustody grants --watch")]
pub struct Args {
    /// Also those that are over
    #[arg(short, long)]
    all: bool,
    /// Go on and print changes as they come
    #[arg(short, long)]
    watch: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs the command.
///
/// # Errors
/// When the API server cannot be reached or refuses.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let grants: Api<Grant> = Api::namespaced(args.kube.client().await?, NAMESPACE);
    if args.watch {
        return follow(grants, &args).await;
    }
    let mut list = grants.list(&ListParams::default()).await.context("cannot list the grants")?.items;
    list.retain(|grant| args.all || is_open(grant));
    list.sort_by_key(|grant| std::cmp::Reverse(grant.grant().created_at));
    if !args.output.is_table() {
        output::print_value(args.output, &list)?;
    } else if list.is_empty() {
        output::print("nothing is granted or asked for\n")?;
    } else {
        output::print_table(&head(args.output), list.iter().map(|grant| row(grant, args.output)).collect())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints each grant as it is and then each change, one line or document each, until interrupted.
async fn follow(grants: Api<Grant>, args: &Args) -> anyhow::Result<ExitCode> {
    let mut events = watcher(grants, watcher::Config::default()).default_backoff().applied_objects().boxed();
    if args.output.is_table() {
        output::print(&format!("{}\n", head(args.output).join("\t")))?;
    }
    while let Some(event) = events.next().await {
        match event {
            Ok(grant) if args.output.is_table() => {
                let cells: Vec<String> = row(&grant, args.output).iter().map(|cell| output::plain(cell)).collect();
                output::print(&format!("{}\n", cells.join("\t")))?;
            }
            Ok(grant) => output::print_value(args.output, &grant)?,
            Err(error) => tracing::warn!(%error, "the watch was lost, taking it up again"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// As Kustody last said; what it has not looked at yet is asked for.
pub(super) fn state(grant: &Grant) -> State {
    grant.status.as_ref().and_then(|status| status.state).unwrap_or(State::Requested)
}

fn is_open(grant: &Grant) -> bool {
    !state(grant).is_over() && grant.spec.0.until > Timestamp::now()
}

fn head(format: Format) -> Vec<&'static str> {
    let more = if format == Format::Wide { MORE.as_slice() } else { &[] };
    HEAD.iter().chain(more).copied().collect()
}

fn row(grant: &Grant, format: Format) -> Vec<String> {
    let (spec, known) = (&grant.spec.0, grant.grant());
    let left = Duration::try_from(spec.until.duration_since(Timestamp::now())).ok();
    let mut row = vec![
        grant.name_any(),
        state(grant).as_str().to_owned(),
        spec.agent.clone().unwrap_or_else(|| "all of the class".to_owned()),
        actions(grant),
        if spec.namespaces.is_empty() { "-".to_owned() } else { spec.namespaces.join(",") },
        format!("{}/{}", known.uses, spec.max_uses),
        left.map_or_else(|| "-".to_owned(), output::duration),
    ];
    if format == Format::Wide {
        let bound = grant.status.as_ref().and_then(|status| status.role_binding.clone());
        row.extend([
            spec.class.clone(),
            spec.requester.clone(),
            bound.unwrap_or_else(|| "-".to_owned()),
            spec.reason.clone(),
        ]);
    }
    row
}

/// `DELETE deployments.apps; UPDATE pods`.
pub(super) fn actions(grant: &Grant) -> String {
    let one = |action: &crate::core::grant::AllowedAction| {
        let operations: Vec<String> = action.operations.iter().map(ToString::to_string).collect();
        let group = match action.api_groups.join(",") {
            group if group.is_empty() => group,
            group => format!(".{group}"),
        };
        let resources: Vec<String> = action.resources.iter().map(|resource| format!("{resource}{group}")).collect();
        format!("{} {}", operations.join(","), resources.join(","))
    };
    let all: Vec<String> = grant.spec.0.actions.iter().map(one).collect();
    if all.is_empty() { "-".to_owned() } else { all.join("; ") }
}
