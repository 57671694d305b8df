//! Approval requests in the cluster: opened, waited for, consumed, put away. Never decided.
//!
//! One shared watch feeds every waiter; nobody polls. [`Approvals`] is the handle services keep, [`Keeper`]
//! the task behind it. Opening is create-if-absent under a name that derives from the fingerprint, and
//! consuming is an update with the resource version, so that replicas agree through the API server alone.

mod keeper;

use super::approval_request::{ApprovalRequest, ApprovalRequestSpec, RequestedAction, Requester};
use crate::core::{
    action::{Action, NAMESPACE},
    approval::{Approval, Exhibit, Fingerprint, State},
    policy::{Decision, HoldTerms},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use keeper::Keeper;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How often one consumption is tried again when somebody wrote at the same time.
const CONFLICTS: usize = 8;
/// Most requests that can follow each other for one fingerprint before old ones are put away.
const GENERATIONS: u32 = 64;

/// Why an approval request cannot be opened or consumed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("cannot {operation} the approval request {id}")]
    Api {
        /// `open`, `read`, `consume`.
        operation: &'static str,
        /// Its name.
        id: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It is not approved, or used up.
    #[error("the approval request {id} cannot be used: it is {}", state.as_str().to_lowercase())]
    NotUsable {
        /// Its name.
        id: String,
        /// Where it stands.
        state: State,
    },
    /// Somebody else wrote at the same time, again and again.
    #[error("the approval request {0} changes too often")]
    Busy(String),
    /// Too many requests of one agent are open.
    #[error("{user} has {open} open approval requests already")]
    TooMany {
        /// Who.
        user: String,
        /// How many.
        open: usize,
    },
}

/// What is asked of people.
#[derive(Debug)]
pub struct Ask<'a> {
    /// What the agent wants.
    pub action: &'a Action,
    /// Why it is held.
    pub decision: &'a Decision,
    /// How it gets decided.
    pub terms: HoldTerms,
    /// Which one action it is.
    pub fingerprint: &'a Fingerprint,
    /// What people are shown.
    pub exhibit: Exhibit,
}

/// An open approval request.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its name.
    pub id: String,
    /// True when it was not there before.
    pub is_new: bool,
    /// As it stands.
    pub approval: Approval,
}

/// How waiting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Enough people said yes.
    Approved,
    /// Somebody said no.
    Denied {
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Nobody decided in time, or the request was removed or used.
    Expired,
    /// The deadline came first.
    StillPending,
}

type Known = BTreeMap<String, Approval>;

/// The handle services keep; cheap to clone.
#[derive(Clone)]
pub struct Approvals {
    requests: Api<ApprovalRequest>,
    known: watch::Sender<Known>,
    max_open_per_agent: usize,
}

impl Approvals {
    /// The handle, and the task that must run behind it.
    #[must_use]
    pub fn new(client: Client, max_open_per_agent: usize) -> (Self, Keeper) {
        let approvals =
            Self { requests: Api::namespaced(client, NAMESPACE), known: watch::Sender::default(), max_open_per_agent };
        (approvals.clone(), Keeper::new(approvals))
    }

    /// The approval request in force for a fingerprint, as far as the watch knows.
    #[must_use]
    pub fn current(&self, fingerprint: &Fingerprint) -> Option<Approval> {
        let now = Timestamp::now();
        let prefix = name(fingerprint, 1);
        self.known
            .borrow()
            .range(prefix.clone()..)
            .take_while(|(id, _)| id.starts_with(&prefix))
            .map(|(_, approval)| approval)
            .find(|approval| approval.fingerprint == *fingerprint && !approval.is_over(now))
            .cloned()
    }

    /// Opens a request, or finds the one that is open.
    ///
    /// # Errors
    /// When the API server refuses, or the agent has too many open requests.
    pub async fn request(&self, ask: &Ask<'_>) -> Result<Opened, Error> {
        if let Some(approval) = self.current(ask.fingerprint) {
            return Ok(Opened { id: approval.id.clone(), is_new: false, approval });
        }
        self.check_open(&ask.action.agent.user)?;
        for generation in 1..=GENERATIONS {
            let id = name(ask.fingerprint, generation);
            if self.known.borrow().contains_key(&id) {
                continue;
            }
            let wrap = |operation| {
                let id = id.clone();
                move |source| Error::Api { operation, id, source: Box::new(source) }
            };
            let fresh = ApprovalRequest::new(&id, spec(ask));
            match self.requests.create(&PostParams::default(), &fresh).await {
                Ok(created) => return Ok(self.opened(&created, true)),
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let there = self.requests.get_opt(&id).await.map_err(wrap("read"))?;
                    let Some(there) = there else { continue };
                    let approval = there.approval();
                    if approval.fingerprint == *ask.fingerprint && !approval.is_over(Timestamp::now()) {
                        return Ok(self.opened(&there, false));
                    }
                }
                Err(source) => return Err(wrap("open")(source)),
            }
        }
        Err(Error::Busy(name(ask.fingerprint, GENERATIONS)))
    }

    /// Waits until people decide, the request ends, or `deadline`.
    pub async fn settled(&self, id: &str, deadline: Instant) -> Settled {
        let mut known = self.known.subscribe();
        loop {
            let (settled, expires_at) = {
                let known = known.borrow_and_update();
                let Some(approval) = known.get(id) else {
                    return Settled::Expired;
                };
                (outcome(approval, Timestamp::now()), approval.expires_at)
            };
            if let Some(settled) = settled {
                return settled;
            }
            let left = Duration::try_from(expires_at.duration_since(Timestamp::now())).unwrap_or_default();
            // A millisecond more, so that it is over when looked at again.
            let wake = deadline.min(Instant::now() + left + Duration::from_millis(1));
            tokio::select! {
                changed = known.changed() => if changed.is_err() { return Settled::StillPending },
                () = tokio::time::sleep_until(wake) => {}
            }
            if Instant::now() >= deadline {
                let now = Timestamp::now();
                let last = known.borrow().get(id).and_then(|approval| outcome(approval, now));
                return last.unwrap_or(Settled::StillPending);
            }
        }
    }

    /// Uses an approval up. Using it again within the idempotency window is the same use.
    ///
    /// # Errors
    /// When it is not approved or used up, or the API server cannot be reached: then nothing may be done.
    pub async fn consume(&self, id: &str) -> Result<(), Error> {
        let wrap = |operation| move |source| Error::Api { operation, id: id.to_owned(), source: Box::new(source) };
        for _ in 0..CONFLICTS {
            let request = self.requests.get(id).await.map_err(wrap("read"))?;
            let now = Timestamp::now();
            let approval = request.approval();
            if !approval.covers(approval.quorum, now) {
                return Err(Error::NotUsable { id: id.to_owned(), state: approval.state(now) });
            }
            if approval.consumed_at.is_some() {
                return Ok(());
            }
            let patch = json!({
                "metadata": {"resourceVersion": request.resource_version()},
                "status": {"state": State::Consumed, "consumedAt": Time(now)}
            });
            match self.requests.patch_status(id, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(consumed) => {
                    self.learn(&consumed);
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(source) => return Err(wrap("consume")(source)),
            }
        }
        Err(Error::Busy(id.to_owned()))
    }

    fn check_open(&self, user: &str) -> Result<(), Error> {
        let now = Timestamp::now();
        let is_open = |approval: &&Approval| approval.requester == user && approval.state(now) == State::Pending;
        let open = self.known.borrow().values().filter(is_open).count();
        if open >= self.max_open_per_agent {
            return Err(Error::TooMany { user: user.to_owned(), open });
        }
        Ok(())
    }

    fn opened(&self, request: &ApprovalRequest, is_new: bool) -> Opened {
        self.learn(request);
        let approval = request.approval();
        Opened { id: approval.id.clone(), is_new, approval }
    }

    /// Takes note before the watch does; the watch's word, which may be newer, is kept.
    fn learn(&self, request: &ApprovalRequest) {
        let approval = request.approval();
        self.known.send_modify(|known| match known.get_mut(&approval.id) {
            Some(there) if there.consumed_at.is_none() && there.votes.len() <= approval.votes.len() => {
                *there = approval
            }
            Some(_) => {}
            None => drop(known.insert(approval.id.clone(), approval)),
        });
    }
}

impl std::fmt::Debug for Approvals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Approvals").field("known", &self.known.borrow().len()).finish_non_exhaustive()
    }
}

fn outcome(approval: &Approval, now: Timestamp) -> Option<Settled> {
    match approval.state(now) {
        State::Pending => None,
        State::Approved => Some(Settled::Approved),
        State::Denied => {
            approval.denial().map(|vote| Settled::Denied { by: vote.by.clone(), reason: vote.reason.clone() })
        }
        State::Consumed if approval.covers(approval.quorum, now) => Some(Settled::Approved),
        State::Consumed | State::Expired => Some(Settled::Expired),
    }
}

/// `apr-<12 hex>`, then `apr-<12 hex>-2` and so on.
fn name(fingerprint: &Fingerprint, generation: u32) -> String {
    let short = fingerprint.short();
    if generation <= 1 { format!("apr-{short}") } else { format!("apr-{short}-{generation}") }
}

fn spec(ask: &Ask<'_>) -> ApprovalRequestSpec {
    let action = ask.action;
    let now = Timestamp::now();
    let clip = |text: &str, limit: usize| text.chars().take(limit).collect::<String>();
    ApprovalRequestSpec {
        requester: Requester {
            user: action.agent.user.clone(),
            groups: action.agent.groups.iter().take(64).map(|group| clip(group, 256)).collect(),
            class: action.class.to_string(),
            run: action.agent.run().map(|run| clip(run.as_str(), 256)),
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
        expires_at: Time(now.checked_add(ask.terms.expires_after).unwrap_or(now)),
    }
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
