//! Approval requests in the cluster: opened, waited for, consumed, put away. Never decided.
//!
//! One shared watch feeds every waiter; nobody polls. [`Approvals`] is the handle services keep, [`Keeper`]
//! the task behind it. Opening is create-if-absent under a name that derives from the fingerprint, and
//! consuming is an update with the resource version, so that replicas agree through the API server alone.
//! What one agent may have open is capped before anything is written.

mod inquiry;
mod keeper;
mod opening;
mod releasing;
mod trial;
mod turns;

use super::{approval_request::ApprovalRequest, contested};
use crate::core::{
    action::{Action, NAMESPACE},
    approval::{
        Approval, Because, Exhibit, Fingerprint, State, Supersedes, Suspended,
        intake::{Entry, Intake},
    },
    policy::{Content, Decision, HoldTerms},
};
use inquiry::Inquiry;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use keeper::{Archive, Keeper};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use opening::Place;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use turns::Turns;

/// How often one consumption is tried again when somebody wrote at the same time.
const CONFLICTS: usize = 8;
/// Most requests that can follow each other for one fingerprint before old ones are put away.
const GENERATIONS: u32 = 64;
/// An agent's requests of every state are at most this many times those it may have open.
const ALL_TO_OPEN: usize = 4;
/// Most requests in the cluster, of every agent and state.
const LIMIT: usize = 5_000;

/// How many requests there may be, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Most open requests of one agent.
    pub max_open_per_agent: usize,
    /// How long a request that is over stays to be looked at.
    pub retention: Duration,
    /// How often states are brought up to date and old requests put away.
    pub sweep_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_open_per_agent: 50, retention: Duration::from_secs(3_600), sweep_every: Duration::from_secs(15) }
    }
}

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
    /// Too many requests are there already.
    #[error(
        "{user} has {open} open approval requests, of at most {most}: wait until people have decided some, and do not \
         try another way"
    )]
    TooMany {
        /// Who.
        user: String,
        /// How many.
        open: usize,
        /// How many there may be.
        most: usize,
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
    /// Digest of the object it starts from.
    pub basis: Option<String>,
    /// What people are shown.
    pub exhibit: Exhibit,
    /// What is tried and looked into after the request is open.
    pub content: Content<'a>,
    /// The object, where it is being created suspended.
    pub suspended: Option<Suspended>,
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
    /// A newer request took its place: what waits for this one is out of date.
    Superseded,
    /// The deadline came first.
    StillPending,
}

type Known = BTreeMap<String, Approval>;

/// The handle services keep; cheap to clone.
#[derive(Clone)]
pub struct Approvals {
    requests: Api<ApprovalRequest>,
    known: watch::Sender<Known>,
    intake: Arc<Mutex<Intake>>,
    inquiries: mpsc::Sender<Inquiry>,
    turns: Turns,
    config: Config,
}

/// A request that is being opened; counted until it is dropped.
struct Opening<'a> {
    approvals: &'a Approvals,
    user: &'a str,
    id: String,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.approvals.intake().end(self.user, &self.id);
    }
}

impl Approvals {
    /// The handle, and the task that must run behind it.
    #[must_use]
    pub fn new(client: Client, config: Config) -> (Self, Keeper) {
        let (inquiries, asked) = mpsc::channel(inquiry::QUEUE);
        let approvals = Self {
            requests: Api::namespaced(client.clone(), NAMESPACE),
            known: watch::Sender::default(),
            intake: Arc::default(),
            inquiries,
            turns: Turns::default(),
            config,
        };
        (approvals.clone(), Keeper::new(approvals, client, asked))
    }

    /// The approval request of this name, as far as the watch knows.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Approval> {
        self.known.borrow().get(id).cloned()
    }

    /// The approval request in force for a fingerprint and the object it starts from, as far as the watch knows. A
    /// denial stays in force whatever became of the object.
    #[must_use]
    pub fn current(&self, fingerprint: &Fingerprint, basis: Option<&str>) -> Option<Approval> {
        let mut family = self.family(fingerprint);
        family.retain(|approval| approval.basis.as_deref() == basis || approval.denial().is_some());
        family.pop()
    }

    /// All requests for a fingerprint that are not over, the newest last.
    fn family(&self, fingerprint: &Fingerprint) -> Vec<Approval> {
        self.family_in(fingerprint, opening::names(fingerprint))
    }

    /// The same, by the names they can have.
    fn family_in(&self, fingerprint: &Fingerprint, names: impl Iterator<Item = String>) -> Vec<Approval> {
        let now = Timestamp::now();
        let known = self.known.borrow();
        names
            .filter_map(|id| known.get(&id))
            .filter(|approval| approval.fingerprint == *fingerprint && !approval.is_over(now))
            .cloned()
            .collect()
    }

    /// Opens a request, or finds the one that is open.
    ///
    /// # Errors
    /// When the API server refuses, or the agent has too many open requests.
    pub async fn request(&self, ask: &Ask<'_>) -> Result<Opened, Error> {
        let first = opening::names_of(ask).next().unwrap_or_default();
        let _turn = self.turns.take(&first).await;
        let mut family = self.family_in(ask.fingerprint, opening::names_of(ask));
        let fits = |approval: &Approval| {
            approval.denial().is_some() || (approval.basis == ask.basis && approval.satisfies(&ask.terms))
        };
        if let Some(approval) = family.iter().rfind(|approval| fits(approval)) {
            return Ok(Opened { id: approval.id.clone(), is_new: false, approval: approval.clone() });
        }
        let user = ask.action.agent.user.as_str();
        let _opening = self.begin(user, first.clone())?;
        let older = family.pop();
        let place = self.place(ask, older.as_ref());
        for id in opening::names_of(ask) {
            if self.known.borrow().contains_key(&id) {
                continue;
            }
            let wrap = |operation| {
                let id = id.clone();
                move |source| Error::Api { operation, id, source: Box::new(source) }
            };
            let fresh = opening::fresh(&id, ask, place.clone());
            match self.requests.create(&PostParams::default(), &fresh).await {
                Ok(created) => {
                    self.supersede(older.as_ref(), &id).await;
                    self.inquire(&id, ask);
                    return Ok(self.opened(&created, true));
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let there = self.requests.get_opt(&id).await.map_err(wrap("read"))?;
                    let Some(there) = there else { continue };
                    let approval = there.approval();
                    let is_same = approval.fingerprint == *ask.fingerprint && !approval.is_over(Timestamp::now());
                    if is_same && fits(&approval) {
                        return Ok(self.opened(&there, false));
                    }
                }
                Err(source) => return Err(wrap("open")(source)),
            }
        }
        Err(Error::Busy(first))
    }

    /// Refuses what would be too many, and counts what is on its way.
    fn begin<'a>(&'a self, user: &'a str, id: String) -> Result<Opening<'a>, Error> {
        let most = self.config.max_open_per_agent;
        let now = Timestamp::now();
        let known = self.known.borrow();
        let own: Vec<&Approval> = known.values().filter(|approval| approval.requester == user).collect();
        let open = own.iter().filter(|approval| approval.state(now) == State::Pending).count();
        let has_room = own.len() < most.saturating_mul(ALL_TO_OPEN) && known.len() < LIMIT;
        if !has_room || !self.intake().begin(user, &id, open, most) {
            return Err(Error::TooMany { user: user.to_owned(), open, most });
        }
        Ok(Opening { approvals: self, user, id })
    }

    fn place(&self, ask: &Ask<'_>, older: Option<&Approval>) -> Place {
        let now = Timestamp::now();
        let (user, run) = (ask.action.agent.user.as_str(), opening::run(ask.action));
        let mut intake = self.intake();
        Place {
            group: intake.group(user, run.as_deref(), ask.fingerprint.short(), now),
            asked_today: intake.asked(user, &opening::wish_of(ask.action), now),
            supersedes: older.map(|older| Supersedes {
                id: older.id.clone(),
                because: if older.basis == ask.basis { Because::RulesChanged } else { Because::ObjectChanged },
            }),
        }
    }

    /// Marks the older request, for people; it fits nothing any more in any case.
    async fn supersede(&self, older: Option<&Approval>, by: &str) {
        let Some(older) = older.filter(|older| older.consumed_at.is_none()) else { return };
        let patch = json!({"status": {"supersededBy": by, "state": State::Superseded}});
        match self.requests.patch_status(&older.id, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(marked) => self.learn(&marked),
            Err(error) => tracing::warn!(id = %older.id, %by, %error, "cannot mark an approval request as superseded"),
        }
    }

    /// Has looked into what would follow, if there is time: nobody waits for it.
    fn inquire(&self, id: &str, ask: &Ask<'_>) {
        if self.inquiries.try_send(Inquiry::new(id, ask)).is_err() {
            tracing::warn!(%id, "too many requests at once: what would follow is not looked into");
        }
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
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
        let _turn = self.turns.take(id).await;
        // Written by whoever had the turn before, or read by the watch.
        if self.find(id).is_some_and(|known| known.consumed_at.is_some() && known.is_usable(Timestamp::now())) {
            return Ok(());
        }
        for _ in 0..CONFLICTS {
            let request = self.requests.get(id).await.map_err(wrap("read"))?;
            let now = Timestamp::now();
            let approval = request.approval();
            if !approval.is_usable(now) {
                return Err(Error::NotUsable { id: id.to_owned(), state: approval.state(now) });
            }
            if approval.consumed_at.is_some() {
                return Ok(());
            }
            let status = json!({"state": State::Consumed, "consumedAt": Time(now)});
            let written = contested::patch_status(&self.requests, &request, &status).await;
            if let Some(consumed) = written.map_err(wrap("consume"))? {
                self.learn(&consumed);
                return Ok(());
            }
        }
        Err(Error::Busy(id.to_owned()))
    }

    fn opened(&self, request: &ApprovalRequest, is_new: bool) -> Opened {
        self.learn(request);
        let approval = request.approval();
        Opened { id: approval.id.clone(), is_new, approval }
    }

    /// Takes note before the watch does; the watch's word, which may be newer, is kept.
    fn learn(&self, request: &ApprovalRequest) {
        let approval = request.approval();
        self.note(request, &approval);
        self.known.send_modify(|known| match known.get_mut(&approval.id) {
            Some(there) if there.consumed_at.is_none() && there.votes.len() <= approval.votes.len() => {
                *there = approval
            }
            Some(_) => {}
            None => drop(known.insert(approval.id.clone(), approval)),
        });
    }
}

impl Approvals {
    /// Counts a request and remembers its group, however it became known.
    fn note(&self, request: &ApprovalRequest, approval: &Approval) {
        let wish = request.wish();
        let mut intake = self.intake();
        let entry = Entry { id: &approval.id, user: &approval.requester, wish: &wish, opened_at: approval.opened_at };
        intake.count(&entry, Timestamp::now());
        let last = approval.consumed_at.map_or(approval.opened_at, |used| used.max(approval.opened_at));
        intake.note_group(&approval.requester, approval.run.as_deref(), &approval.group, last);
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
        State::Consumed if approval.is_usable(now) => Some(Settled::Approved),
        State::Superseded => Some(Settled::Superseded),
        State::Consumed | State::Expired => Some(Settled::Expired),
    }
}
