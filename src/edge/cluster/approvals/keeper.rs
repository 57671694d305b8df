//! The task behind [`Approvals`]: keeps the one watch, shows people the state of each request, has what would follow
//! looked into and what was created suspended freed, and puts away what is over, once it is archived. It decides
//! nothing and never touches a decision.

use super::inquiry::{Inquirer, Inquiry};
use super::releasing::Releaser;
use super::{Approvals, Known};
use crate::core::approval::Approval;
use crate::edge::cluster::{approval_request::ApprovalRequest, back_off::BackOff, contested};
use futures_util::{StreamExt, future::BoxFuture};
use jiff::Timestamp;
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A request whose object could neither be freed nor marked is kept for so long.
const OWED: Duration = Duration::from_secs(24 * 3600);

/// Writes a request that is over where it is kept for good. Only what was archived is removed from the cluster; an
/// error says why it was not.
pub type Archive = Arc<dyn Fn(ApprovalRequest) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The task behind [`Approvals`]: keeps the watch, shows states, puts old requests away.
pub struct Keeper {
    approvals: Approvals,
    client: Client,
    asked: mpsc::Receiver<Inquiry>,
    archive: Archive,
}

impl Keeper {
    pub(super) fn new(approvals: Approvals, client: Client, asked: mpsc::Receiver<Inquiry>) -> Self {
        Self { approvals, client, asked, archive: Arc::new(|request| Box::pin(std::future::ready(told(&request)))) }
    }

    /// The same, archiving elsewhere than in the process's own log.
    #[must_use]
    pub fn archiving(self, archive: Archive) -> Self {
        Self { archive, ..self }
    }

    /// Watches and looks into things until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (none, asked) = mpsc::channel(1);
        drop(none);
        let asked = std::mem::replace(&mut self.asked, asked);
        let inquirer = Inquirer::new(self.client.clone(), self.approvals.requests.clone());
        let releaser = Releaser::new(self.approvals.clone(), self.client.clone());
        tokio::join!(self.watch(shutdown.clone()), inquirer.run(asked, shutdown.clone()), releaser.run(shutdown));
    }

    /// Lost watches are taken up again with growing pauses.
    async fn watch(&self, shutdown: CancellationToken) {
        let requests = self.approvals.requests.clone();
        let mut events = watcher(requests, watcher::Config::default()).backoff(BackOff::default()).boxed();
        let mut sweep = tokio::time::interval(self.approvals.config.sweep_every);
        let mut listed: Option<Known> = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(event)) => self.take(event, &mut listed).await,
                    Some(Err(error)) => tracing::warn!(%error, "the watch of approval requests was lost"),
                    None => return,
                },
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    async fn take(&self, event: watcher::Event<ApprovalRequest>, listed: &mut Option<Known>) {
        let known = &self.approvals.known;
        match event {
            watcher::Event::Init => *listed = Some(Known::new()),
            watcher::Event::InitApply(request) => {
                let approval = request.approval();
                self.approvals.note(&request, &approval);
                if let Some(listed) = listed {
                    listed.insert(request.name_any(), approval);
                }
                self.show_state(&request).await;
            }
            watcher::Event::InitDone => {
                if let Some(listed) = listed.take() {
                    known.send_modify(|known| *known = listed);
                }
            }
            watcher::Event::Apply(request) => {
                let approval = request.approval();
                self.approvals.note(&request, &approval);
                known.send_modify(|known| drop(known.insert(request.name_any(), approval)));
                self.show_state(&request).await;
            }
            watcher::Event::Delete(request) => known.send_modify(|known| drop(known.remove(&request.name_any()))),
        }
    }

    /// Copies the state that follows from the rest into `status.state`, for people.
    async fn show_state(&self, request: &ApprovalRequest) {
        let shown = request.status.as_ref().and_then(|status| status.state);
        let state = request.approval().state(Timestamp::now());
        if shown == Some(state) {
            return;
        }
        let id = request.name_any();
        match contested::patch_status(&self.approvals.requests, request, &json!({"state": state})).await {
            // When somebody wrote meanwhile, the watch brings the newer one along.
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                tracing::warn!(%id, %error, "cannot show the state of an approval request")
            }
        }
    }

    /// Marks what has expired meanwhile and puts away what is over for long enough, or too much of one agent.
    async fn sweep(&self) {
        let now = Timestamp::now();
        let (old, ended) = {
            let known = self.approvals.known.borrow();
            let ended: Vec<String> = known
                .values()
                .filter(|approval| approval.is_over(now) && age(approval, now) < 3 * self.approvals.config.sweep_every)
                .map(|approval| approval.id.clone())
                .collect();
            (self.to_put_away(&known, now), ended)
        };
        for id in ended.iter().filter(|id| !old.contains(*id)) {
            if let Ok(Some(request)) = self.approvals.requests.get_opt(id).await {
                self.show_state(&request).await;
            }
        }
        for id in &old {
            if let Ok(Some(request)) = self.approvals.requests.get_opt(id).await
                && request.approval().is_over(now)
            {
                self.put_away(request).await;
            }
        }
    }

    /// Requests over for longer than the retention, and of each agent the oldest beyond as many as it may have open.
    fn to_put_away(&self, known: &Known, now: Timestamp) -> BTreeSet<String> {
        let config = self.approvals.config;
        let mut of_agents: BTreeMap<&str, Vec<&Approval>> = BTreeMap::new();
        for approval in known.values().filter(|approval| approval.is_over(now) && !is_owed(approval, now)) {
            of_agents.entry(&approval.requester).or_default().push(approval);
        }
        let mut old = BTreeSet::new();
        for mut ended in of_agents.into_values() {
            ended.sort_by_key(|approval| std::cmp::Reverse(approval.ended_at(now)));
            let beyond = ended.iter().skip(config.max_open_per_agent);
            let late = ended.iter().filter(|approval| age(approval, now) >= config.retention);
            old.extend(beyond.chain(late).map(|approval| approval.id.clone()));
        }
        old
    }

    async fn put_away(&self, request: ApprovalRequest) {
        let id = request.name_any();
        let preconditions = Preconditions { resource_version: request.resource_version(), uid: request.uid() };
        if let Err(why) = (self.archive)(request).await {
            tracing::warn!(%id, %why, "an approval request is kept, since it could not be archived");
            return;
        }
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.approvals.requests.delete(&id, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => tracing::warn!(%id, %error, "cannot remove an old approval request"),
        }
    }
}

/// The archive where there is no other: a line of the process's own log with who asked what and who decided.
fn told(request: &ApprovalRequest) -> Result<(), String> {
    let approval = request.approval();
    let decisions = serde_json::to_string(&approval.votes).map_err(|error| error.to_string())?;
    tracing::info!(
        id = %approval.id, state = approval.state(Timestamp::now()).as_str(), requester = %approval.requester,
        wish = %request.wish(), rule = %request.spec.rule, fingerprint = %approval.fingerprint, %decisions,
        "an approval request is put away"
    );
    Ok(())
}

/// Whether an object still waits to be freed or marked by it; not for ever.
fn is_owed(approval: &Approval, now: Timestamp) -> bool {
    approval.awaits_release && age(approval, now) < OWED
}

/// How long it has been over.
fn age(approval: &Approval, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(approval.ended_at(now))).unwrap_or_default()
}
