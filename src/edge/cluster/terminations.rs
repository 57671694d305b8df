//! Terminations in the cluster: watched, answered, put away. Never ordered.
//!
//! [`Terminations`] is the handle services keep, [`Keeper`] the task behind it with the one watch. Every replica sees
//! every order; the one that has the session ends it and says so in the status. Old ones are deleted by whichever
//! replica comes first.

use super::{FIELD_MANAGER, back_off::BackOff, termination::Termination as Resource};
use crate::core::{action::NAMESPACE, recording::SessionId};
use futures_util::StreamExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often it is looked for old ones.
const SWEEP: Duration = Duration::from_secs(60);
/// How long an order stays to be looked at.
pub const RETENTION: Duration = Duration::from_secs(600);

/// An order that nobody has carried out yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// Which session.
    pub session: SessionId,
    /// Whose order it is.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Orders that nobody has carried out yet, by the name of the resource.
pub type Open = BTreeMap<String, Termination>;

/// The handle services keep; cheap to clone.
#[derive(Clone)]
pub struct Terminations {
    resources: Api<Resource>,
    open: watch::Sender<Open>,
    replica: String,
}

/// The task behind [`Terminations`].
pub struct Keeper {
    terminations: Terminations,
    retention: Duration,
    sweep: Duration,
    /// All there are, with when they were written.
    written: BTreeMap<String, Written>,
}

struct Written {
    at: Timestamp,
    preconditions: Preconditions,
}

impl Terminations {
    /// The handle, and the task that must run behind it.
    #[must_use]
    pub fn new(client: Client, replica: impl Into<String>) -> (Self, Keeper) {
        let terminations = Self {
            resources: Api::namespaced(client, NAMESPACE),
            open: watch::Sender::default(),
            replica: replica.into(),
        };
        let (retention, written) = (RETENTION, BTreeMap::new());
        (terminations.clone(), Keeper { terminations, retention, sweep: SWEEP, written })
    }

    /// The open orders, and every change of them.
    #[must_use]
    pub fn open(&self) -> watch::Receiver<Open> {
        self.open.subscribe()
    }

    /// Says that this replica ended the session of an order.
    pub async fn carried_out(&self, name: &str) {
        let status = json!({"status": {"endedAt": Time(Timestamp::now()), "replica": self.replica}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        if let Err(error) = self.resources.patch_status(name, &params, &Patch::Merge(&status)).await {
            tracing::warn!(name, %error, "cannot say that a session was ended");
        }
    }
}

impl Keeper {
    /// The same with other times: how long an order stays, and how often that is looked at.
    #[must_use]
    pub fn keeping(self, retention: Duration, sweep: Duration) -> Self {
        Self { retention, sweep, ..self }
    }

    /// Watches until `shutdown`; lost watches are taken up again with growing pauses.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let resources = self.terminations.resources.clone();
        let mut events = watcher(resources, watcher::Config::default()).backoff(BackOff::default()).boxed();
        let mut sweep = tokio::time::interval(self.sweep);
        let mut listed: Option<Vec<Resource>> = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(event)) => self.take(event, &mut listed),
                    Some(Err(error)) => tracing::warn!(%error, "the watch of terminations was lost"),
                    None => return,
                },
                _ = sweep.tick() => self.put_away().await,
            }
        }
    }

    fn take(&mut self, event: watcher::Event<Resource>, listed: &mut Option<Vec<Resource>>) {
        match event {
            watcher::Event::Init => *listed = Some(Vec::new()),
            watcher::Event::InitApply(one) => listed.get_or_insert_default().push(one),
            watcher::Event::InitDone => {
                let all = listed.take().unwrap_or_default();
                self.written = all.iter().map(|one| (one.name_any(), written(one))).collect();
                let open = all.iter().filter_map(|one| Some((one.name_any(), still_open(one)?))).collect();
                self.terminations.open.send_replace(open);
            }
            watcher::Event::Apply(one) => {
                self.written.insert(one.name_any(), written(&one));
                self.terminations.open.send_modify(|open| {
                    match still_open(&one) {
                        Some(termination) => open.insert(one.name_any(), termination),
                        None => open.remove(&one.name_any()),
                    };
                });
            }
            watcher::Event::Delete(one) => {
                self.written.remove(&one.name_any());
                self.terminations.open.send_modify(|open| drop(open.remove(&one.name_any())));
            }
        }
    }

    async fn put_away(&self) {
        let now = Timestamp::now();
        for (name, written) in &self.written {
            let age = Duration::try_from(now.duration_since(written.at)).unwrap_or_default();
            if age < self.retention {
                continue;
            }
            let params = DeleteParams { preconditions: Some(written.preconditions.clone()), ..DeleteParams::default() };
            match self.terminations.resources.delete(name, &params).await {
                Ok(_) => {}
                // Another replica was first, or has written to it: then the watch tells.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => tracing::warn!(name, %error, "cannot remove an old termination"),
            }
        }
    }
}

fn written(resource: &Resource) -> Written {
    let preconditions = Preconditions { resource_version: resource.resource_version(), uid: resource.uid() };
    // Without a time of its own it was written long ago.
    let at = resource.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Written { at, preconditions }
}

fn still_open(resource: &Resource) -> Option<Termination> {
    if resource.status.as_ref().is_some_and(|status| status.ended_at.is_some()) {
        return None;
    }
    let session = resource.spec.session.parse().ok()?;
    Some(Termination { session, by: resource.spec.by.clone(), reason: resource.spec.reason.clone() })
}
