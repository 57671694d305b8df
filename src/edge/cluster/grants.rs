//! Grants in the cluster: watched, used, put away, their RoleBindings kept. Never given and never decided.
//!
//! [`Grants`] is the handle services keep, [`Keeper`] the task behind it with the one watch. A use is counted by an
//! update with the resource version before the answer, so that replicas agree through the API server alone; where
//! that fails, nothing is allowed.

mod bindings;
mod keeper;
mod requests;
mod turns;

use super::{contested, grant::Grant as Resource};
use crate::core::{
    action::{Action, Identity, NAMESPACE},
    grant::{ActiveGrant, Grant, State},
    policy::{HoldTerms, PolicySnapshot},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use keeper::Keeper;
use kube::{Api, Client, ResourceExt};
use requests::Requests;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;
use turns::Turns;

/// Beginning of the name of every RoleBinding of a grant.
pub const BINDING_PREFIX: &str = "kustody-grant-";
/// Label of every RoleBinding of a grant: the grant's uid.
pub const GRANT_LABEL: &str = "kustody.dev/grant";

/// How often one use is tried again when somebody wrote at the same time.
const CONFLICTS: usize = 32;

/// How grants are kept.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Longest that any grant lasts, whatever it says.
    pub longest: Duration,
    /// Most undecided grants one agent may have asked for.
    pub max_open_per_agent: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { longest: Duration::from_secs(24 * 3600), max_open_per_agent: 8 }
    }
}

/// Why a grant cannot be used or asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("cannot {operation} the grant {id}")]
    Api {
        /// `read`, `use`.
        operation: &'static str,
        /// Its name.
        id: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It is not in force any more, or another one by now.
    #[error("the grant {id} cannot be used: it is {}", state.map_or("gone", State::as_str).to_lowercase())]
    NotUsable {
        /// Its name.
        id: String,
        /// Where it stands.
        state: Option<State>,
    },
    /// Somebody else wrote at the same time, again and again.
    #[error("the grant {0} changes too often")]
    Busy(String),
    /// The agent has asked for too many already.
    #[error("{user} has asked for {open} grants that nobody has decided yet; wait for a decision")]
    TooMany {
        /// Who.
        user: String,
        /// How many.
        open: usize,
    },
}

/// Every grant there is, by name.
pub type Known = BTreeMap<String, Grant>;

/// The handle services keep; cheap to clone.
#[derive(Clone)]
pub struct Grants {
    grants: Api<Resource>,
    known: watch::Sender<Known>,
    policies: watch::Receiver<Arc<PolicySnapshot>>,
    requests: Requests,
    turns: Arc<Turns>,
    config: Config,
}

impl Grants {
    /// The handle, and the task that must run behind it. `policies` say who is an agent: what agents decide counts
    /// for nothing.
    #[must_use]
    pub fn new(client: Client, config: Config, policies: watch::Receiver<Arc<PolicySnapshot>>) -> (Self, Keeper) {
        let grants = Self {
            grants: Api::namespaced(client.clone(), NAMESPACE),
            known: watch::Sender::default(),
            policies,
            requests: Requests::default(),
            turns: Arc::default(),
            config,
        };
        (grants.clone(), Keeper::new(grants, client))
    }

    /// The grants in force that speak of `action`, the one that ends first first.
    #[must_use]
    pub fn active(&self, action: &Action) -> Vec<ActiveGrant> {
        let now = Timestamp::now();
        let known = self.known.borrow();
        let mut found: Vec<(Timestamp, ActiveGrant)> = known
            .values()
            .filter(|grant| self.state(grant, now) == State::Active)
            .map(|grant| self.in_force(grant))
            .filter(|(_, grant)| grant.speaks_of(action, now))
            .collect();
        found.sort_by(|(until, one), (other_until, other)| (until, &one.name).cmp(&(other_until, &other.name)));
        found.into_iter().map(|(_, grant)| grant).collect()
    }

    /// What is known of grants, and every change of it.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Whether the grant `name`, by which something was let through, holds no more: its time is over, somebody took it
    /// back, or it is gone. One that was used as often as it could be still stands for what it let through.
    #[must_use]
    pub fn is_over(&self, name: &str) -> bool {
        let now = Timestamp::now();
        let known = self.known.borrow();
        known.get(name).is_none_or(|grant| {
            now >= grant.end(self.config.longest) || matches!(self.state(grant, now), State::Revoked | State::Denied)
        })
    }

    /// Waits until a grant covers `action`, for a call that is held on `terms`.
    pub async fn covered(&self, action: &Action, terms: &HoldTerms) {
        let mut known = self.known.subscribe();
        loop {
            let now = Timestamp::now();
            if self.active(action).iter().any(|grant| grant.covers(action, terms, now)) {
                return;
            }
            if known.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Counts one use, on this very grant.
    ///
    /// # Errors
    /// When it is not in force any more, or the API server cannot be reached: then nothing may be done.
    pub async fn consume(&self, grant: &ActiveGrant) -> Result<(), Error> {
        let id = grant.name.as_str();
        let wrap = |operation| move |source| Error::Api { operation, id: id.to_owned(), source: Box::new(source) };
        let Some(_turn) = self.turns.take(id).await else { return Err(Error::Busy(id.to_owned())) };
        for _ in 0..CONFLICTS {
            let there = self.grants.get_opt(id).await.map_err(wrap("read"))?;
            let there = there.filter(|there| there.uid().as_deref() == Some(&grant.uid));
            let Some(there) = there else { return Err(Error::NotUsable { id: id.to_owned(), state: None }) };
            let now = Timestamp::now();
            let known = there.grant();
            let state = self.state(&known, now);
            if state != State::Active {
                self.learn(&there);
                return Err(Error::NotUsable { id: id.to_owned(), state: Some(state) });
            }
            let used = Grant { uses: known.uses.saturating_add(1), ..known };
            let status = json!({"uses": used.uses, "lastUsedAt": Time(now), "state": self.state(&used, now)});
            let written = contested::patch_status(&self.grants, &there, &status).await;
            if let Some(used) = written.map_err(wrap("use"))? {
                self.learn(&used);
                return Ok(());
            }
        }
        Err(Error::Busy(id.to_owned()))
    }

    /// Takes note that the agent `user` asks for the grant `name`.
    ///
    /// # Errors
    /// When it has asked for too many that are not decided.
    pub fn admit(&self, user: &str, name: &str) -> Result<(), Error> {
        let known = self.known.borrow();
        let now = Timestamp::now();
        let undecided = |grant: &&Grant| {
            grant.spec.requester == user
                && match self.state(grant, now) {
                    State::Requested => true,
                    // Those nobody decided count until they are put away, so that short ones cannot pile up.
                    State::Expired => grant.people(&|_| false).is_empty(),
                    State::Active | State::Exhausted | State::Revoked | State::Denied => false,
                }
        };
        let open = known.values().filter(undecided).count();
        let is_known = |name: &str| known.contains_key(name);
        let most = self.config.max_open_per_agent;
        self.requests
            .admit(user, name, most.saturating_sub(open), is_known)
            .map_err(|waiting| Error::TooMany { user: user.to_owned(), open: open + waiting })
    }

    fn state(&self, grant: &Grant, now: Timestamp) -> State {
        let snapshot = self.policies.borrow();
        grant.state(self.config.longest, &|user| is_agent(&snapshot, user), now)
    }

    fn in_force(&self, grant: &Grant) -> (Timestamp, ActiveGrant) {
        let snapshot = self.policies.borrow();
        let people = grant.people(&|user| is_agent(&snapshot, user)).len();
        let until = grant.end(self.config.longest);
        let people = u32::try_from(people).unwrap_or(u32::MAX);
        (until, ActiveGrant::new((&grant.id, &grant.uid), &grant.spec, until, people))
    }

    /// Keeps what an answer of the API server said, unless the watch knows something newer.
    fn learn(&self, resource: &Resource) {
        let grant = resource.grant();
        self.known.send_if_modified(|known| {
            let is_newer = known.get(&grant.id).is_some_and(|there| {
                there.uid == grant.uid && (there.uses, there.votes.len()) < (grant.uses, grant.votes.len())
            });
            if is_newer {
                drop(known.insert(grant.id.clone(), grant));
            }
            is_newer
        });
    }
}

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grants").field("known", &self.known.borrow().len()).finish_non_exhaustive()
    }
}

/// Whether a user is an agent by name, or by the groups that every service account of its namespace has.
fn is_agent(snapshot: &PolicySnapshot, user: &str) -> bool {
    let mut groups = vec!["system:authenticated".to_owned()];
    if let Some((namespace, _)) = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    snapshot.classify(&Identity { user: user.to_owned(), groups, ..Identity::default() }).is_some()
}
