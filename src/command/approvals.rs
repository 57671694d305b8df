//! `kustody approvals`: what waits for people, and what became of it. Reads only.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use jiff::Timestamp;
use kube::Resource;
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt, watcher};

use super::approve::find;
use super::kube_args::KubeArgs;
use super::output::{self, Format};
use crate::core::action::NAMESPACE;
use crate::core::approval::State;
use crate::edge::cluster::approval_request::ApprovalRequest;

const HEAD: [&str; 8] = ["ID", "STATE", "REQUESTER", "OPERATION", "RESOURCE", "OBJECT", "RULE", "AGE"];
const MORE: [&str; 3] = ["EXPIRES IN", "DECISIONS", "REASON"];

/// List what waits for approval, or show one request whole
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody approvals                  # what waits, newest first\n  \
    kustody approvals apr-64           # who, what, why, and the object that would go\n  \
    kustody approvals --all -o wide\n  \
    kubectl kustody approvals --watch")]
pub struct Args {
    /// Show this request whole (a unique beginning of its id will do)
    #[arg(value_name = "ID")]
    id: Option<String>,
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

/// Runs the command.
///
/// # Errors
/// When the API server cannot be reached or refuses.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = args.kube.client().await?;
    if let Some(id) = &args.id {
        let request = find(&client, id).await?;
        if args.output.is_table() {
            output::print(&page(&request, Timestamp::now()))?;
        } else {
            output::print_value(args.output, &request)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let requests: Api<ApprovalRequest> = Api::namespaced(client, NAMESPACE);
    if args.watch {
        return follow(requests, &args).await;
    }
    let mut list = requests.list(&ListParams::default()).await.context("cannot list the approval requests")?.items;
    list.retain(|request| args.all || is_open(request));
    list.sort_by_key(|request| std::cmp::Reverse(request.meta().creation_timestamp.as_ref().map(|time| time.0)));
    if !args.output.is_table() {
        output::print_value(args.output, &list)?;
    } else if list.is_empty() {
        output::print("nothing waits for approval\n")?;
    } else {
        output::print_table(&head(args.output), list.iter().map(|request| row(request, args.output)).collect())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints each request as it is and then each change, one line or document each, until interrupted.
async fn follow(requests: Api<ApprovalRequest>, args: &Args) -> anyhow::Result<ExitCode> {
    let mut events = watcher(requests, watcher::Config::default()).default_backoff().applied_objects().boxed();
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
        spec.requester.user.clone(),
        spec.action.operation.to_string(),
        spec.action.path.clone(),
        spec.action.target.clone(),
        spec.rule.clone(),
        request.meta().creation_timestamp.as_ref().map_or_else(String::new, |time| span(time.0, now)),
    ];
    if format == Format::Wide {
        let left = if approval.is_over(now) { "-".to_owned() } else { span(now, approval.expires_at) };
        row.extend([left, votes(request), spec.reason.clone()]);
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

/// Everything an approver wants to know, for reading.
fn page(request: &ApprovalRequest, now: Timestamp) -> String {
    let (spec, approval) = (&request.spec, request.approval());
    let mut lines = vec![
        ("Request", approval.id.clone()),
        ("State", approval.state(now).as_str().to_owned()),
        ("Requester", format!("{} (class {})", spec.requester.user, spec.requester.class)),
        ("Action", format!("{} {} {}", spec.action.operation, spec.action.path, spec.action.target)),
    ];
    if let Some(run) = &spec.requester.run {
        lines.push(("Run", run.clone()));
    }
    if let Some(stream) = &spec.action.stream {
        lines.push(("Command", output::command_line(&stream.command)));
    }
    lines.extend([
        ("Held by", format!("rule {} of policy {}: {}", spec.rule, spec.policy, spec.reason)),
        ("Quorum", format!("{} of {}", approval.approvers().len(), approval.quorum)),
        ("Expires", format!("{}", approval.expires_at)),
    ]);
    for vote in &approval.votes {
        lines.push((
            "Decision",
            format!("{:?} by {}: {}", vote.verdict, vote.by, vote.reason.as_deref().unwrap_or("-")),
        ));
    }
    let mut text: String =
        lines.iter().map(|(key, value)| format!("{:<11}{}\n", format!("{key}:"), output::plain(value))).collect();
    if !spec.exhibit.changes.is_empty() {
        text.push_str("Changes:\n");
        text.extend(spec.exhibit.changes.iter().map(|change| format!("  {}\n", output::plain(&change.to_string()))));
    }
    text.push_str(&object(request));
    text
}

/// The object as YAML where it is whole, else as it was kept.
fn object(request: &ApprovalRequest) -> String {
    let exhibit = &request.spec.exhibit;
    let value: Option<serde_json::Value> =
        serde_json::from_str(&exhibit.object).ok().filter(|value| *value != serde_json::Value::Null);
    let text = match value.map(|value| serde_saphyr::to_string(&value)) {
        Some(Ok(yaml)) => yaml,
        Some(Err(_)) => exhibit.object.clone(),
        None if exhibit.truncated => format!("{}\n(too large to show whole)", exhibit.object),
        None => return String::new(),
    };
    let indented: String = text.lines().map(|line| format!("  {}\n", output::plain(line))).collect();
    format!("Object:\n{indented}")
}
