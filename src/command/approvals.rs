//! `kustody approvals`: what waits for people, and what became of it. Reads only. One request whole is `page.rs`'s.

mod page;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};

use super::kube_args::KubeArgs;
use super::output::{self, Format};
use super::show;
use crate::core::action::NAMESPACE;
use crate::core::approval::State;
use crate::edge::cluster::approval_request::{ApprovalRequest, GROUP_LABEL};
pub(super) use page::page;

const HEAD: [&str; 9] = ["ID", "STATE", "GROUP", "REQUESTER", "OPERATION", "RESOURCE", "OBJECT", "RULE", "AGE"];
const MORE: [&str; 5] = ["RUN", "EXPIRES IN", "DECISIONS", "DRY RUN", "REASON"];

/// List what waits for approval, or show one request whole
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody approvals                  # what waits, newest first\n  \
    kustody approvals --group grp-1f0c52aa\n  \
    kustody approvals show apr-64      # who, what, why, what changes and what would follow\n  \
    kustody approvals --all -o wide\n  \
    kubectl kustody approvals --watch")]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
    /// Show this request whole (a unique beginning of its id will do)
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Only this group
    #[arg(short, long, value_name = "GROUP", conflicts_with = "id")]
    group: Option<String>,
    /// Also those that were used or have expired
    #[arg(short, long)]
    all: bool,
    /// Go on and print changes as they come
    #[arg(short, long, conflicts_with = "id")]
    watch: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    kube: KubeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    /// Show one request whole
    Show(show::Args),
}

/// Runs the command.
///
/// # Errors
/// When the API server cannot be reached or refuses.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(Sub::Show(args)) = args.command {
        return show::run(args).await;
    }
    let client = args.kube.client().await?;
    if let Some(id) = &args.id {
        return show::show(&client, id, args.output).await;
    }
    let requests: Api<ApprovalRequest> = Api::namespaced(client, NAMESPACE);
    if args.watch {
        return follow(requests, &args).await;
    }
    let list = requests.list(&selected(&args)).await.context("cannot list the approval requests")?;
    print(list.items, &args)?;
    Ok(ExitCode::SUCCESS)
}

fn selected(args: &Args) -> ListParams {
    let all = ListParams::default();
    args.group.as_ref().map_or(all.clone(), |group| all.labels(&format!("{GROUP_LABEL}={group}")))
}

fn print(mut list: Vec<ApprovalRequest>, args: &Args) -> anyhow::Result<()> {
    list.retain(|request| args.all || is_open(request));
    let opened = |request: &ApprovalRequest| request.meta().creation_timestamp.as_ref().map(|time| time.0);
    // Newest group first, and in it everything in the order it was asked.
    let mut newest: BTreeMap<String, Option<Timestamp>> = BTreeMap::new();
    for request in &list {
        let at = newest.entry(group(request)).or_default();
        *at = (*at).max(opened(request));
    }
    list.sort_by_key(|request| {
        let group = group(request);
        (std::cmp::Reverse(newest.get(&group).copied().flatten()), group, opened(request), request.name_any())
    });
    match args.output {
        Format::Json | Format::Yaml => output::print_value(args.output, &list),
        Format::Name => output::print(&list.iter().map(name).collect::<String>()),
        Format::Table | Format::Wide if list.is_empty() => output::print("nothing waits for approval\n"),
        Format::Table | Format::Wide => {
            let rows = list.iter().map(|request| row(request, args.output)).collect();
            output::print_table(&head(args.output), rows)?;
            output::print(&groups(&list))
        }
    }
}

/// How to decide each group that has more than one request waiting.
fn groups(list: &[ApprovalRequest]) -> String {
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    for request in list.iter().filter(|request| request.approval().state(Timestamp::now()) == State::Pending) {
        *waiting.entry(&request.spec.group).or_default() += 1;
    }
    let several = waiting.into_iter().filter(|(group, count)| *count > 1 && !group.is_empty());
    several
        .map(|(group, count)| {
            let group = output::plain(group);
            format!("{count} of one command wait: kustody approve --group {group} --expect {count}\n")
        })
        .collect()
}

/// Requests without a group are each their own.
fn group(request: &ApprovalRequest) -> String {
    Some(request.spec.group.clone()).filter(|group| !group.is_empty()).unwrap_or_else(|| request.name_any())
}

fn name(request: &ApprovalRequest) -> String {
    format!("approvalrequest.kustody.dev/{}\n", request.name_any())
}

/// Prints each request as it is and then each change, one line or document each, until interrupted.
async fn follow(requests: Api<ApprovalRequest>, args: &Args) -> anyhow::Result<ExitCode> {
    let config = match &args.group {
        Some(group) => watcher::Config::default().labels(&format!("{GROUP_LABEL}={group}")),
        None => watcher::Config::default(),
    };
    let mut events = watcher(requests, config).default_backoff().applied_objects().boxed();
    if args.output.is_table() {
        output::print(&format!("{}\n", head(args.output).join("\t")))?;
    }
    while let Some(event) = events.next().await {
        match event {
            Ok(request) if !args.all && !is_open(&request) => {}
            Ok(request) if args.output.is_table() => {
                let cells: Vec<String> = row(&request, args.output).iter().map(|cell| output::plain(cell)).collect();
                output::print(&format!("{}\n", cells.join("\t")))?;
            }
            Ok(request) if args.output == Format::Name => output::print(&name(&request))?,
            Ok(request) => output::print_value(args.output, &request)?,
            Err(error) => tracing::warn!(%error, "the watch was lost, taking it up again"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_open(request: &ApprovalRequest) -> bool {
    matches!(request.approval().state(Timestamp::now()), State::Pending | State::Approved | State::Denied)
}

fn head(format: Format) -> Vec<&'static str> {
    let more = if format == Format::Wide { MORE.as_slice() } else { &[] };
    HEAD.iter().chain(more).copied().collect()
}

fn row(request: &ApprovalRequest, format: Format) -> Vec<String> {
    let now = Timestamp::now();
    let (spec, approval) = (&request.spec, request.approval());
    let mut row = vec![
        approval.id.clone(),
        approval.state(now).as_str().to_owned(),
        spec.group.clone(),
        spec.requester.user.clone(),
        spec.action.operation.to_string(),
        spec.action.path.clone(),
        spec.action.target.clone(),
        spec.rule.clone(),
        request.meta().creation_timestamp.as_ref().map_or_else(String::new, |time| span(time.0, now)),
    ];
    if format == Format::Wide {
        let left = if approval.is_over(now) { "-".to_owned() } else { span(now, approval.expires_at) };
        let run = spec.requester.run.clone().unwrap_or_else(|| "-".to_owned());
        let findings = request.status.as_ref().and_then(|status| status.findings.as_ref());
        let tried = findings.map_or_else(|| "-".to_owned(), |findings| format!("{:?}", findings.dry_run.outcome));
        row.extend([run, left, votes(request), tried, spec.reason.clone()]);
    }
    row
}

fn votes(request: &ApprovalRequest) -> String {
    let approval = request.approval();
    let votes: Vec<String> = approval.votes.iter().map(|vote| format!("{} {:?}", vote.by, vote.verdict)).collect();
    if votes.is_empty() { format!("0 of {}", approval.quorum) } else { votes.join(", ") }
}

fn span(from: Timestamp, to: Timestamp) -> String {
    output::duration(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}
