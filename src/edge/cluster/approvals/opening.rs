//! What a new ApprovalRequest says, and how it is named: `apr-<12 hex of the fingerprint>`, then `…-2` and so on. One
//! about an object that was created suspended is named by the object's mark.

use super::{Ask, GENERATIONS};
use crate::core::{
    action::{Action, EXTRA_ON_BEHALF_OF},
    approval::{Fingerprint, Supersedes},
    policy::HoldTerms,
};
use crate::edge::cluster::approval_request::{
    ApprovalRequest, ApprovalRequestSpec, GROUP_LABEL, RequestedAction, Requester, wish,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// Most groups of a requester that are kept.
const GROUPS: usize = 64;
/// Longest group, run or sponsor.
const NAME: usize = 256;

/// What is decided about a request before it is opened.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) group: String,
    pub(super) asked_today: u32,
    pub(super) supersedes: Option<Supersedes>,
}

/// Every name a request for this fingerprint can have, in order.
pub(super) fn names(fingerprint: &Fingerprint) -> impl Iterator<Item = String> {
    generations(format!("apr-{}", fingerprint.short()))
}

/// Every name the request that `ask` opens can have: that of the mark, where the object already bears one.
pub(super) fn names_of(ask: &Ask<'_>) -> impl Iterator<Item = String> {
    let by_fingerprint = || format!("apr-{}", ask.fingerprint.short());
    generations(ask.suspended.as_ref().map_or_else(by_fingerprint, |suspended| suspended.mark.clone()))
}

fn generations(first: String) -> impl Iterator<Item = String> {
    (1..=GENERATIONS).map(move |generation| match generation {
        1 => first.clone(),
        more => format!("{first}-{more}"),
    })
}

/// What `ask` is counted as.
pub(super) fn wish_of(action: &Action) -> String {
    wish(action.operation, &path(action), &action.target())
}

/// The object to create.
pub(super) fn fresh(id: &str, ask: &Ask<'_>, place: Place) -> ApprovalRequest {
    let labels = BTreeMap::from([(GROUP_LABEL.to_owned(), place.group.clone())]);
    let mut request = ApprovalRequest::new(id, spec(ask, place));
    request.metadata.labels = Some(labels);
    request
}

fn spec(ask: &Ask<'_>, place: Place) -> ApprovalRequestSpec {
    let action = ask.action;
    let now = Timestamp::now();
    let clip = |text: &str, limit: usize| text.chars().take(limit).collect::<String>();
    ApprovalRequestSpec {
        requester: Requester {
            user: action.agent.user.clone(),
            groups: action.agent.groups.iter().take(GROUPS).map(|group| clip(group, NAME)).collect(),
            class: action.class.to_string(),
            run: run(action),
            on_behalf_of: action.agent.extra(EXTRA_ON_BEHALF_OF).map(|person| clip(person, NAME)),
        },
        action: RequestedAction {
            operation: action.operation,
            path: path(action),
            target: action.target(),
            resource: action.resource.clone(),
            namespace: action.namespace.clone(),
            name: action.name.clone(),
            stream: action.stream.clone(),
        },
        exhibit: ask.exhibit.clone(),
        fingerprint: ask.fingerprint.clone(),
        policy: ask.decision.policy.clone(),
        rule: ask.decision.rule.clone(),
        reason: clip(&ask.decision.reason, 1024),
        quorum: ask.terms.quorum,
        approvers: approvers(&ask.terms),
        group: place.group,
        asked_today: place.asked_today,
        basis: ask.basis.clone(),
        supersedes: place.supersedes,
        suspended: ask.suspended.clone(),
        expires_at: Time(now.checked_add(ask.terms.expires_after).unwrap_or(now)),
    }
}

/// Each list of groups once: rules of the same team name the same groups.
fn approvers(terms: &HoldTerms) -> Vec<Vec<String>> {
    let mut lists = terms.approvers.clone();
    lists.sort_unstable();
    lists.dedup();
    lists
}

/// The run, as it is written down.
pub(super) fn run(action: &Action) -> Option<String> {
    action.agent.run().map(|run| run.as_str().chars().take(NAME).collect())
}

/// `deployments.apps/scale`, the way kubectl names resources.
fn path(action: &Action) -> String {
    let resource = &action.resource;
    let mut path = resource.resource.clone();
    if !resource.group.is_empty() {
        path.push('.');
        path.push_str(&resource.group);
    }
    if let Some(subresource) = &resource.subresource {
        path.push('/');
        path.push_str(subresource);
    }
    path
}
