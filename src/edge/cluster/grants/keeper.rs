//! The task behind [`Grants`]: keeps the one watch, shows people the state of each grant, keeps RoleBindings in step
//! with what is in force, to the second, and puts away what is long over. It decides nothing.

use super::{Grants, Known, Resource, bindings::Bindings};
use crate::core::grant::{Grant, Origin, State};
use crate::edge::cluster::{back_off::BackOff, contested};
use futures_util::StreamExt;
use jiff::Timestamp;
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often everything is looked at again, whatever the watch says.
const SWEEP: Duration = Duration::from_secs(15);
/// How long a decided grant that is over stays to be looked at.
const RETENTION: Duration = Duration::from_secs(24 * 3600);
/// How long one that nobody decided does.
const UNDECIDED: Duration = Duration::from_secs(3600);

/// What the status of a grant says: state, RoleBinding, message.
type Shown = (Option<State>, Option<String>, Option<String>);

/// The task behind [`Grants`].
pub struct Keeper {
    grants: Grants,
    bindings: Bindings,
    /// By name, as the watch last said.
    shown: BTreeMap<String, Shown>,
}

impl Keeper {
    pub(super) fn new(grants: Grants, client: Client) -> Self {
        Self { grants, bindings: Bindings::new(client), shown: BTreeMap::new() }
    }

    /// Watches until `shutdown`; lost watches are taken up again with growing pauses.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let resources = self.grants.grants.clone();
        let mut events = watcher(resources, watcher::Config::default()).backoff(BackOff::default()).boxed();
        let mut sweep = tokio::time::interval(SWEEP);
        let mut listed: Option<Known> = None;
        // Nothing is removed before it is known what is in force.
        let mut is_complete = false;
        loop {
            let next_end = self.next_end();
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        is_complete |= matches!(event, watcher::Event::InitDone);
                        if !self.take(event, &mut listed) {
                            continue;
                        }
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the watch of grants was lost");
                        continue;
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(next_end) => {}
                _ = sweep.tick() => {}
            }
            if is_complete {
                self.reconcile().await;
            }
        }
    }

    /// Takes one event; whether what is known changed.
    fn take(&mut self, event: watcher::Event<Resource>, listed: &mut Option<Known>) -> bool {
        match &event {
            watcher::Event::InitApply(grant) | watcher::Event::Apply(grant) => {
                self.shown.insert(grant.name_any(), shown(grant));
            }
            watcher::Event::Init | watcher::Event::InitDone => {}
            watcher::Event::Delete(grant) => drop(self.shown.remove(&grant.name_any())),
        }
        let known = &self.grants.known;
        match event {
            watcher::Event::Init => *listed = Some(Known::new()),
            watcher::Event::InitApply(grant) => {
                if let Some(listed) = listed {
                    listed.insert(grant.name_any(), grant.grant());
                }
            }
            watcher::Event::InitDone => {
                if let Some(listed) = listed.take() {
                    self.shown.retain(|name, _| listed.contains_key(name));
                    known.send_modify(|known| *known = listed);
                    return true;
                }
            }
            watcher::Event::Apply(grant) => {
                known.send_modify(|known| drop(known.insert(grant.name_any(), grant.grant())));
                return true;
            }
            watcher::Event::Delete(grant) => {
                known.send_modify(|known| drop(known.remove(&grant.name_any())));
                return true;
            }
        }
        false
    }

    /// When the next grant ends that is in force or asked for.
    fn next_end(&self) -> Instant {
        let now = Timestamp::now();
        let known = self.grants.known.borrow();
        let ends = known.values().map(|grant| grant.end(self.grants.config.longest)).filter(|end| *end > now);
        let left = ends.min().and_then(|end| Duration::try_from(end.duration_since(now)).ok()).unwrap_or(SWEEP);
        // A millisecond more, so that it is over when looked at again.
        Instant::now() + left.min(SWEEP) + Duration::from_millis(1)
    }

    /// Brings RoleBindings, shown states and what is kept in line with what is known.
    async fn reconcile(&self) {
        let now = Timestamp::now();
        let known: Vec<Grant> = self.grants.known.borrow().values().cloned().collect();
        let active: Vec<&Grant> = known.iter().filter(|grant| self.grants.state(grant, now) == State::Active).collect();
        if let Err(error) = self.bindings.remove_all_but(&active, &self.grants).await {
            tracing::warn!(%error, "cannot remove the role bindings of ended grants; trying again");
        }
        for grant in &known {
            let state = self.grants.state(grant, now);
            let binding = if state == State::Active { self.bindings.keep(grant).await } else { Ok(None) };
            self.show(grant, state, binding).await;
            if is_old(grant, state, self.grants.config.longest, now) {
                self.put_away(&grant.id).await;
            }
        }
    }

    /// Copies what follows from the rest into the status, for people.
    async fn show(&self, grant: &Grant, state: State, binding: Result<Option<String>, String>) {
        let next = match binding {
            Ok(name) => (Some(state), name, None),
            Err(message) => (Some(state), None, Some(message.chars().take(1024).collect())),
        };
        if self.shown.get(&grant.id) == Some(&next) {
            return;
        }
        let Ok(Some(there)) = self.grants.grants.get_opt(&grant.id).await else { return };
        // Somebody wrote meanwhile: the watch brings the newer one along.
        if there.grant() != *grant || shown(&there) == next {
            return;
        }
        let status = json!({"state": next.0, "roleBinding": next.1, "message": next.2});
        match contested::patch_status(&self.grants.grants, &there, &status).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!(id = %grant.id, %error, "cannot show the state of a grant"),
        }
    }

    async fn put_away(&self, id: &str) {
        let Ok(Some(there)) = self.grants.grants.get_opt(id).await else { return };
        let preconditions = Preconditions { resource_version: there.resource_version(), uid: there.uid() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        if let Err(error) = self.grants.grants.delete(id, &params).await {
            tracing::warn!(%id, %error, "cannot remove an old grant");
        }
    }
}

fn shown(grant: &Resource) -> Shown {
    let status = grant.status.clone().unwrap_or_default();
    (status.state, status.role_binding, status.message)
}

fn is_old(grant: &Grant, state: State, longest: Duration, now: Timestamp) -> bool {
    let undecided = state == State::Expired && grant.votes.is_empty() && grant.spec.origin == Origin::Requested;
    let kept = if undecided { UNDECIDED } else { RETENTION };
    state.is_over() && Duration::try_from(now.duration_since(grant.end(longest))).is_ok_and(|age| age > kept)
}
