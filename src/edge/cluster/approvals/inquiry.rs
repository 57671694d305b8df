//! Looks into what would follow from a held action, after its request is open: lists what hangs on the object, has
//! the action tried (`trial.rs`), and writes both into the request's status for people. Nobody waits for it; what
//! does not answer in time, or may not be read, is told as unknown.

use super::{Ask, trial};
use crate::core::{
    action::{Action, Operation},
    approval::blast::{self, Finding, Findings, Question},
};
use crate::edge::cluster::approval_request::ApprovalRequest;
use futures_util::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json, value::RawValue};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Most inquiries that wait; more are not made.
pub(super) const QUEUE: usize = 64;
/// How many are made at once.
const AT_ONCE: usize = 4;
/// How many lists of one inquiry are read at once.
const LISTS_AT_ONCE: usize = 4;
/// How long everything of one kind may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most objects read of one list.
const PAGE: usize = 500;
/// Objects larger than this are not looked into.
const LARGEST: usize = 512 * 1024;

/// One request to look into.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) id: String,
    pub(super) action: Action,
    pub(super) object: Option<Box<RawValue>>,
    pub(super) old_object: Option<Box<RawValue>>,
    pub(super) options: Option<Box<RawValue>>,
    pub(super) is_too_large: bool,
    /// It is being created already.
    pub(super) is_there: bool,
}

/// A list, or why it could not be read.
type Listed = Result<(Vec<Value>, Option<u64>), String>;

impl Inquiry {
    pub(super) fn new(id: &str, ask: &Ask<'_>) -> Self {
        let (action, content) = (ask.action, &ask.content);
        let size = |raw: Option<&RawValue>| raw.map_or(0, |raw| raw.get().len());
        let is_too_large = size(content.object) + size(content.old_object) > LARGEST;
        let own = |raw: Option<&RawValue>| raw.filter(|_| !is_too_large).map(ToOwned::to_owned);
        Self {
            id: id.to_owned(),
            action: action.clone(),
            object: own(content.object),
            old_object: own(content.old_object),
            options: own(content.options),
            is_too_large,
            is_there: ask.suspended.is_some(),
        }
    }

    /// The object as it is, or as it would be where there is none yet.
    fn subject(&self) -> Value {
        let raw = match self.action.operation {
            Operation::Update | Operation::Delete => self.old_object.as_deref(),
            Operation::Create | Operation::Connect | Operation::Read => self.object.as_deref(),
        };
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }
}

/// Makes inquiries, a few at once.
#[derive(Clone)]
pub(super) struct Inquirer {
    client: Client,
    requests: Api<ApprovalRequest>,
}

impl Inquirer {
    pub(super) fn new(client: Client, requests: Api<ApprovalRequest>) -> Self {
        Self { client, requests }
    }

    pub(super) async fn run(self, asked: mpsc::Receiver<Inquiry>, shutdown: CancellationToken) {
        let asked = stream::unfold(asked, |mut asked| async move { Some((asked.recv().await?, asked)) });
        let all = asked.for_each_concurrent(AT_ONCE, |inquiry| {
            let own = self.clone();
            async move { own.make(inquiry).await }
        });
        tokio::select! {
            () = all => (),
            () = shutdown.cancelled() => (),
        }
    }

    async fn make(&self, inquiry: Inquiry) {
        let (blast_radius, dry_run) = tokio::join!(self.blast_radius(&inquiry), async {
            let tried = tokio::time::timeout(DEADLINE, trial::of(&self.client, &inquiry)).await;
            tried.unwrap_or_else(|_| trial::unknown(format!("no answer within {DEADLINE:?}")))
        });
        let patch = json!({"status": {"findings": Findings { blast_radius, dry_run }}});
        let id = &inquiry.id;
        match self.requests.patch_status(id, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!(%id, %error, "cannot tell approvers what would follow"),
        }
    }

    async fn blast_radius(&self, inquiry: &Inquiry) -> Vec<Finding> {
        if inquiry.is_too_large {
            let why = Some(format!("the object is larger than {LARGEST} bytes"));
            return vec![Finding { subject: "what hangs on it".into(), unknown: why, ..Finding::default() }];
        }
        let subject = inquiry.subject();
        let mut found = blast::known(&inquiry.action, &subject);
        let questions = blast::questions(&inquiry.action, &subject);
        let paths: BTreeSet<String> = questions.iter().map(|question| question.list.clone()).collect();
        let lists: BTreeMap<String, Listed> = stream::iter(paths)
            .map(|path| {
                let client = self.client.clone();
                async move {
                    let read = tokio::time::timeout(DEADLINE, list(&client, &path)).await;
                    (path, read.unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}"))))
                }
            })
            .buffer_unordered(LISTS_AT_ONCE)
            .collect()
            .await;
        found.extend(questions.iter().map(|question| answer(question, &lists)));
        found
    }
}

async fn list(client: &Client, path: &str) -> Listed {
    let separator = if path.contains('?') { '&' } else { '?' };
    let request = http::Request::get(format!("{path}{separator}limit={PAGE}"))
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    let mut list: Value = client.request(request).await.map_err(|error| {
        let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
        match code {
            403 => "kustody may not read it".to_owned(),
            404 => "the cluster does not serve it".to_owned(),
            _ => error.to_string(),
        }
    })?;
    let more = match list.pointer("/metadata/continue").and_then(Value::as_str) {
        None | Some("") => None,
        Some(_) => Some(list.pointer("/metadata/remainingItemCount").and_then(Value::as_u64).unwrap_or_default()),
    };
    let items = list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    Ok((items, more))
}

fn answer(question: &Question, lists: &BTreeMap<String, Listed>) -> Finding {
    match lists.get(&question.list) {
        Some(Ok((items, more))) => question.answer(items, *more),
        Some(Err(why)) => question.unknown(why),
        None => question.unknown("it was not read"),
    }
}
