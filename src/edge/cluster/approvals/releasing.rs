//! Frees what was created suspended once people have approved it, and writes onto the object why it stays so where they
//! have not. Each replica does it: the object itself says whether it was done already, and every patch names the
//! version of the object that was looked at, so that one of them succeeds. An approval is used up before its object is
//! freed, and only where a dry run of the patch went through: what cannot be freed leaves the approval as it is, and the
//! request says why. A restart finds everything that is left to do in the requests.

use super::{Approvals, Error};
use crate::core::{
    admission::suspended::{self, Standing, Suspendable},
    approval::{Release, Released, State, Suspended},
};
use crate::edge::cluster::{approval_request::ApprovalRequest, contested::patch_status};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often requests are looked at, whatever the watch says: some expire, some could not be dealt with.
const EVERY: Duration = Duration::from_secs(2);
/// What could not be done is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// So long after its request an object is there, or was never created.
const CREATED: Duration = Duration::from_secs(30);
/// An object that waits is looked after this often: whoever removes it has ended its request.
const LOOK: Duration = Duration::from_secs(300);
/// Longest text on an object.
const TEXT_LIMIT: usize = 512;
/// Longest message in a status.
const MESSAGE_LIMIT: usize = 1024;

/// See the module.
pub(super) struct Releaser {
    approvals: Approvals,
    client: Client,
    events: Recorder,
}

/// When a request has to be looked at next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Done,
    Again,
}

/// The object a request is about.
struct Subject<'a> {
    api: Api<DynamicObject>,
    kind: Suspendable,
    suspended: &'a Suspended,
    reference: ObjectReference,
}

/// What became of a patch.
enum Patched {
    Done,
    /// The object is not what was looked at.
    Moved,
    Refused(String),
}

impl Releaser {
    pub(super) fn new(approvals: Approvals, client: Client) -> Self {
        let events = Recorder::new(client.clone(), "kustody".into());
        Self { approvals, client, events }
    }

    /// Until `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut known = self.approvals.known.subscribe();
        let mut tick = tokio::time::interval(EVERY);
        let mut later: HashMap<(String, State), Instant> = HashMap::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
                changed = known.changed() => if changed.is_err() { return },
            }
            later.retain(|_, at| *at > Instant::now());
            for (id, state) in self.due() {
                if later.contains_key(&(id.clone(), state)) {
                    continue;
                }
                let pause = match self.settle(&id).await {
                    Ok(Next::Done) => LOOK,
                    Ok(Next::Again) => AGAIN,
                    Err(error) => {
                        tracing::warn!(%id, %error, "cannot look after an object that was created suspended");
                        AGAIN
                    }
                };
                later.insert((id, state), Instant::now() + pause);
            }
        }
    }

    /// Requests with something to do.
    fn due(&self) -> Vec<(String, State)> {
        let now = Timestamp::now();
        let known = self.approvals.known.borrow();
        let waiting = known.values().filter(|approval| approval.awaits_release);
        let with_state = waiting.map(|approval| (approval, approval.state(now)));
        with_state
            .filter(|(approval, state)| *state != State::Pending || is_older(approval.opened_at, CREATED, now))
            .map(|(approval, state)| (approval.id.clone(), state))
            .collect()
    }

    async fn settle(&self, id: &str) -> Result<Next, kube::Error> {
        let Some(request) = self.approvals.requests.get_opt(id).await? else { return Ok(Next::Done) };
        let Some(subject) = Subject::of(&self.client, &request).filter(|_| request.awaits_release()) else {
            return Ok(Next::Done);
        };
        let found = match subject.api.get_opt(&subject.name()).await {
            Ok(found) => found.filter(|found| found.uid().as_ref() == Some(&subject.suspended.uid)),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return self.say(&request, Released::Blocked, &status.message).await;
            }
            Err(error) => return Err(error),
        };
        let approval = request.approval();
        let state = approval.state(Timestamp::now());
        let Some(found) = found else {
            if !is_older(approval.opened_at, CREATED, Timestamp::now()) {
                return Ok(Next::Again);
            }
            return self.say(&request, Released::Gone, "the object was removed, or never came to be").await;
        };
        let whole = serde_json::to_value(&found).map_err(kube::Error::SerdeError)?;
        let standing = suspended::standing(subject.kind, &whole, &subject.suspended.mark, &subject.suspended.digest);
        let is_approved = matches!(state, State::Approved | State::Consumed);
        match standing {
            _ if state == State::Pending => Ok(Next::Done),
            Standing::Freed => self.say(&request, Released::Freed, "its mark is off").await,
            Standing::Untouched if is_approved => self.free(&request, &subject, &found).await,
            Standing::Changed(why) if is_approved => {
                let why = format!("not freed: {id} was approved, but {why}");
                self.keep(&request, &subject, &found, &why).await
            }
            Standing::Untouched | Standing::Changed(_) => {
                let why = match approval.denial() {
                    Some(vote) => {
                        format!("denied: {id} by {}: {}", vote.by, vote.reason.as_deref().unwrap_or("no reason given"))
                    }
                    None => format!("{}: {id}", state.as_str().to_lowercase()),
                };
                self.keep(&request, &subject, &found, &why).await
            }
        }
    }

    /// Uses the approval up and frees the object.
    async fn free(
        &self,
        request: &ApprovalRequest,
        subject: &Subject<'_>,
        found: &DynamicObject,
    ) -> Result<Next, kube::Error> {
        let patch = suspended::release(subject.kind, subject.suspended.by_author);
        let id = request.name_any();
        match subject.patch(found, patch.clone(), true).await? {
            Patched::Done => {}
            Patched::Moved => return Ok(Next::Again),
            Patched::Refused(why) => return self.say(request, Released::Blocked, &why).await,
        }
        if request.approval().consumed_at.is_none() {
            match self.approvals.consume(&id).await {
                Ok(()) => {}
                // Denied or used in this moment: the next look tells.
                Err(Error::NotUsable { .. } | Error::Busy(_) | Error::TooMany { .. }) => return Ok(Next::Again),
                Err(Error::Api { source, .. }) => return Err(*source),
            }
        }
        match subject.patch(found, patch, false).await? {
            Patched::Done => {
                tracing::info!(%id, target = %request.spec.action.target, "freed what was created suspended");
                self.tell(subject, EventType::Normal, "Freed", &format!("{id} was approved")).await;
                self.say(request, Released::Freed, "freed by the approval").await
            }
            Patched::Moved => Ok(Next::Again),
            Patched::Refused(why) => self.say(request, Released::Blocked, &why).await,
        }
    }

    /// Leaves the object suspended and writes onto it why.
    async fn keep(
        &self,
        request: &ApprovalRequest,
        subject: &Subject<'_>,
        found: &DynamicObject,
        why: &str,
    ) -> Result<Next, kube::Error> {
        let why = clip(why, TEXT_LIMIT);
        match subject.patch(found, suspended::keep(&why), false).await? {
            Patched::Done => {
                self.tell(subject, EventType::Warning, "StaysSuspended", &why).await;
                self.say(request, Released::Kept, &why).await
            }
            Patched::Moved => Ok(Next::Again),
            Patched::Refused(why) => self.say(request, Released::Blocked, &why).await,
        }
    }

    /// Writes into the request what became of its object.
    async fn say(&self, request: &ApprovalRequest, outcome: Released, message: &str) -> Result<Next, kube::Error> {
        let id = request.name_any();
        let next = if outcome.is_final() { Next::Done } else { Next::Again };
        let Some(there) = self.approvals.requests.get_opt(&id).await? else { return Ok(Next::Done) };
        let message = clip(message, MESSAGE_LIMIT);
        let said = there.status.as_ref().and_then(|status| status.release.as_ref());
        if !there.awaits_release() || said.is_some_and(|said| (said.outcome, &said.message) == (outcome, &message)) {
            return Ok(next);
        }
        let status = json!({"release": Release { outcome, message: message.clone(), at: Timestamp::now() }});
        match patch_status(&self.approvals.requests, &there, &status).await {
            Ok(Some(_)) => {
                if outcome == Released::Blocked {
                    tracing::warn!(%id, why = %message, "what was created suspended cannot be freed");
                }
                Ok(next)
            }
            Ok(None) => Ok(Next::Again),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Done),
            Err(error) => Err(error),
        }
    }

    /// An Event at the object, for whoever looks there.
    async fn tell(&self, subject: &Subject<'_>, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: "Decided".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.events.publish(&event, &subject.reference).await {
            tracing::debug!(%error, "an event could not be written");
        }
    }
}

impl<'a> Subject<'a> {
    fn of(client: &Client, request: &'a ApprovalRequest) -> Option<Self> {
        let (suspended, action) = (request.spec.suspended.as_ref()?, &request.spec.action);
        let kind = Suspendable::of(&action.resource)?;
        let (group, version) = (&action.resource.group, &action.resource.version);
        let resource = ApiResource {
            group: group.clone(),
            version: version.clone(),
            api_version: format!("{group}/{version}"),
            kind: kind.kind().to_owned(),
            plural: action.resource.resource.clone(),
        };
        let (namespace, name) = (action.namespace.clone()?, action.name.clone()?);
        let api = Api::namespaced_with(client.clone(), &namespace, &resource);
        let reference = ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            name: Some(name),
            namespace: Some(namespace),
            uid: Some(suspended.uid.clone()),
            ..ObjectReference::default()
        };
        Some(Self { api, kind, suspended, reference })
    }

    fn name(&self) -> String {
        self.reference.name.clone().unwrap_or_default()
    }

    /// Patches exactly the object that was found.
    async fn patch(&self, found: &DynamicObject, mut patch: Value, dry_run: bool) -> Result<Patched, kube::Error> {
        if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("uid".to_owned(), json!(found.uid()));
            metadata.insert("resourceVersion".to_owned(), json!(found.resource_version()));
        }
        let params = PatchParams { dry_run, ..PatchParams::default() };
        match self.api.patch(&self.name(), &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(Patched::Done),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Patched::Moved),
            Err(kube::Error::Api(status)) if matches!(status.code, 400..=499) => Ok(Patched::Refused(status.message)),
            Err(error) => Err(error),
        }
    }
}

fn is_older(at: Timestamp, than: Duration, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(at)).is_ok_and(|age| age >= than)
}

fn clip(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}
