//! `kustody approve` and what it shares with `kustody deny`: one decision for each request, appended under the
//! caller's own identity.
//!
//! The API server checks it (`manifests/approval-policy.yaml`); nothing here is a safeguard, only courtesy: a
//! clear word before or instead of the API server's.

use std::process::ExitCode;

use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::kube_args::KubeArgs;
use super::output;
use crate::core::action::NAMESPACE;
use crate::core::approval::{Choice, State, Vote};
use crate::edge::cluster::approval_request::{ApprovalRequest, GROUP_LABEL};
use crate::edge::cluster::contested;

/// How often a decision is tried again when somebody wrote at the same time.
pub(super) const CONFLICTS: usize = 8;

/// Approve a held request, or a group of them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody approve apr-6494190e4cfd --reason 'agreed with the team'\n  \
    kubectl kustody approve apr-64          # any unique beginning will do\n  \
    kustody approve --group grp-1f0c52aa --expect 12 --reason 'the new shop'")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Why; kept with the decision
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Which requests are decided.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Which {
    /// Id of the request, or a unique beginning of it
    #[arg(value_name = "ID", conflicts_with = "group")]
    id: Option<String>,
    /// Every request of this group that waits now
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// Decide only when exactly so many of the group wait: as many as were looked at
    #[arg(long, value_name = "N", requires = "group")]
    expect: Option<usize>,
}

/// Runs the command.
///
/// # Errors
/// When the request is not there or not open, or the API server refuses the decision.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    decide(&args.kube, &args.which, Choice::Approve, args.reason).await
}

/// Appends one decision to each request and says what came of it; the exit code is 1 where one of a group was not
/// decided.
pub(super) async fn decide(
    kube: &KubeArgs,
    which: &Which,
    verdict: Choice,
    reason: Option<String>,
) -> anyhow::Result<ExitCode> {
    let client = kube.client().await?;
    let vote = Vote { by: user_name(&client).await?, verdict, reason };
    if let Some(id) = &which.id {
        let id = find(&client, id).await?.name_any();
        let decided = append(&client, &id, &vote).await?;
        output::print(&format!("{}\n", told(&decided, verdict)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = 0;
    let ids = waiting(&client, which).await?;
    for id in &ids {
        match append(&client, id, &vote).await {
            Ok(decided) => output::print(&format!("{}\n", told(&decided, verdict)))?,
            Err(error) => {
                failed += 1;
                output::print(&format!("not decided: {}\n", output::plain(&format!("{error:#}"))))?;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} requests of the group were not decided", ids.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// The requests of a group that wait, in the order they were asked.
async fn waiting(client: &Client, which: &Which) -> anyhow::Result<Vec<String>> {
    let group = which.group.as_deref().context("name a request or a group")?;
    let requests: Api<ApprovalRequest> = Api::namespaced(client.clone(), NAMESPACE);
    let selected = ListParams::default().labels(&format!("{GROUP_LABEL}={group}"));
    let mut list = requests.list(&selected).await.context("cannot list the group")?.items;
    list.retain(|request| request.approval().state(Timestamp::now()) == State::Pending);
    list.sort_by_key(|request| (request.approval().opened_at, request.name_any()));
    if list.is_empty() {
        bail!("nothing of the group {group} waits for approval");
    }
    if let Some(expected) = which.expect.filter(|expected| *expected != list.len()) {
        bail!("nothing was decided: {} requests of {group} wait, not {expected}; look at them again", list.len());
    }
    Ok(list.iter().map(ResourceExt::name_any).collect())
}

/// Who the caller is, in the API server's words.
pub(super) async fn user_name(client: &Client) -> anyhow::Result<String> {
    let review = Api::<SelfSubjectReview>::all(client.clone())
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .context("cannot ask the API server who you are")?;
    review
        .status
        .and_then(|status| status.user_info)
        .and_then(|user| user.username)
        .context("the API server does not say who you are")
}

/// The one request whose id begins with `id`.
pub(super) async fn find(client: &Client, id: &str) -> anyhow::Result<ApprovalRequest> {
    let requests: Api<ApprovalRequest> = Api::namespaced(client.clone(), NAMESPACE);
    if let Some(exact) = requests.get_opt(id).await.context("cannot read the approval request")? {
        return Ok(exact);
    }
    let all = requests.list(&ListParams::default()).await.context("cannot list the approval requests")?;
    let mut found: Vec<ApprovalRequest> =
        all.items.into_iter().filter(|request| request.name_any().starts_with(id)).collect();
    match (found.len(), found.pop()) {
        (1, Some(only)) => Ok(only),
        (0, _) | (_, None) => bail!("there is no approval request {id}; `kustody approvals` lists them"),
        (count, Some(last)) => {
            let names: Vec<String> = found.iter().chain([&last]).map(ResourceExt::name_any).collect();
            bail!("{id} is the beginning of {count} approval requests: {}", names.join(", "))
        }
    }
}

async fn append(client: &Client, id: &str, vote: &Vote) -> anyhow::Result<ApprovalRequest> {
    let requests: Api<ApprovalRequest> = Api::namespaced(client.clone(), NAMESPACE);
    for _ in 0..CONFLICTS {
        let request = requests.get(id).await.with_context(|| format!("cannot read {id}"))?;
        check_open(&request, vote)?;
        let mut decisions = request.status.clone().unwrap_or_default().decisions;
        decisions.push(vote.clone());
        let status = json!({"decisions": decisions});
        if let Some(decided) = told_if_refused(id, contested::patch_status(&requests, &request, &status).await)? {
            return Ok(decided);
        }
    }
    bail!("{id} was not decided: somebody else keeps writing to it, try again")
}

/// What became of a decision, with the API server's refusal in plain words.
pub(super) fn told_if_refused<K>(id: &str, written: Result<Option<K>, kube::Error>) -> anyhow::Result<Option<K>> {
    match written {
        Err(kube::Error::Api(status)) => bail!("{id} was not decided: {}", plain_refusal(&status.message)),
        other => other.with_context(|| format!("cannot decide {id}")),
    }
}

fn check_open(request: &ApprovalRequest, vote: &Vote) -> anyhow::Result<()> {
    let approval = request.approval();
    let id = &approval.id;
    match approval.state(Timestamp::now()) {
        State::Pending => {}
        State::Approved => bail!("{id} is approved already"),
        State::Denied => {
            let by = approval.denial().map(|denial| denial.by.clone()).unwrap_or_default();
            bail!("{id} was denied already by {by}")
        }
        State::Consumed => bail!("{id} was approved and used already"),
        State::Expired => bail!("{id} expired: the agent must ask again"),
        State::Superseded => bail!("{id} is out of date: a newer request took its place"),
    }
    if approval.requester == vote.by {
        bail!("{id} is your own request: somebody else must decide it");
    }
    if approval.votes.iter().any(|earlier| earlier.by == vote.by) {
        bail!("you have decided {id} already");
    }
    Ok(())
}

/// The reason at the end of the API server's message.
pub(super) fn plain_refusal(message: &str) -> &str {
    message.rsplit_once("denied request: ").map_or(message, |(_, reason)| reason)
}

fn told(request: &ApprovalRequest, verdict: Choice) -> String {
    let approval = request.approval();
    let action = &request.spec.action;
    let what = format!(
        "{} {} {} by {}",
        action.operation,
        output::plain(&action.path),
        output::plain(&action.target),
        output::plain(&request.spec.requester.user)
    );
    match verdict {
        Choice::Deny => format!("denied {}: {what}", approval.id),
        Choice::Approve if approval.state(Timestamp::now()) == State::Pending => {
            format!("approved {} ({} of {}): {what}", approval.id, approval.approvers().len(), approval.quorum)
        }
        Choice::Approve => format!("approved {}: {what}", approval.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_reason() {
        let message = "approvalrequests.kustody.dev \"apr-1\" is forbidden: ValidatingAdmissionPolicy 'approvals.kustody.dev' \
                       with binding 'approvals.kustody.dev' denied request: you have decided already";
        assert_eq!(plain_refusal(message), "you have decided already");
        assert_eq!(plain_refusal("no such verb"), "no such verb");
    }
}
