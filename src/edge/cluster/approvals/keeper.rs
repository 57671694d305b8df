//! The task behind [`Approvals`]: keeps the one watch, shows people the state of each request, and puts away what is
//! long over. It decides nothing and never touches a decision.

use super::{Approvals, Known};
use crate::core::approval::Approval;
use crate::edge::cluster::{approval_request::ApprovalRequest, back_off::BackOff};
use futures_util::StreamExt;
use jiff::Timestamp;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often states are brought up to date and old requests put away.
const SWEEP: Duration = Duration::from_secs(15);
/// How long a request that is over stays to be looked at.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// The task behind [`Approvals`]: keeps the watch, shows states, puts old requests away.
pub struct Keeper {
    approvals: Approvals,
}

impl Keeper {
    pub(super) fn new(approvals: Approvals) -> Self {
        Self { approvals }
    }

    /// Watches until `shutdown`; lost watches are taken up again with growing pauses.
    pub async fn run(self, shutdown: CancellationToken) {
        let requests = self.approvals.requests.clone();
        let mut events = watcher(requests, watcher::Config::default()).backoff(BackOff::default()).boxed();
        let mut sweep = tokio::time::interval(SWEEP);
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
                if let Some(listed) = listed {
                    listed.insert(request.name_any(), request.approval());
                }
                self.show_state(&request).await;
            }
            watcher::Event::InitDone => {
                if let Some(listed) = listed.take() {
                    known.send_modify(|known| *known = listed);
                }
            }
            watcher::Event::Apply(request) => {
                known.send_modify(|known| drop(known.insert(request.name_any(), request.approval())));
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
        let patch = json!({
            "metadata": {"resourceVersion": request.resource_version()},
            "status": {"state": state}
        });
        let id = request.name_any();
        match self.approvals.requests.patch_status(&id, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {}
            // Somebody wrote meanwhile: the watch brings the newer one along.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                tracing::warn!(%id, %error, "cannot show the state of an approval request")
            }
        }
    }

    /// Marks what has expired meanwhile and removes what is long over.
    async fn sweep(&self) {
        let now = Timestamp::now();
        let over: Vec<(String, bool)> = self
            .approvals
            .known
            .borrow()
            .values()
            .filter(|approval| approval.is_over(now))
            .map(|approval| (approval.id.clone(), age(approval, now)))
            .filter(|(_, age)| *age > RETENTION || *age < 3 * SWEEP)
            .map(|(id, age)| (id, age > RETENTION))
            .collect();
        for (id, is_old) in over {
            let Ok(Some(request)) = self.approvals.requests.get_opt(&id).await else {
                continue;
            };
            if is_old && age(&request.approval(), now) > RETENTION {
                let preconditions = Preconditions { resource_version: request.resource_version(), uid: request.uid() };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                if let Err(error) = self.approvals.requests.delete(&id, &params).await {
                    tracing::warn!(%id, %error, "cannot remove an old approval request");
                }
            } else {
                self.show_state(&request).await;
            }
        }
    }
}

/// How long it has been over.
fn age(approval: &Approval, now: Timestamp) -> Duration {
    let end = approval.consumed_at.unwrap_or(approval.expires_at);
    Duration::try_from(now.duration_since(end)).unwrap_or_default()
}
