//! As much of an API server as approvals need, in memory: create, read, list, watch and patch of
//! approvalrequests with resource versions and conflicts, and failure on demand.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test that fails says so by panicking")]

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use kustody::core::approval::Vote;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::broadcast;

/// The plural of approval requests.
const APPROVALS: &str = "approvalrequests";
/// What can be created suspended; patched whole, and not by status alone.
const WORKLOADS: [&str; 3] = ["jobs", "cronjobs", "deployments"];

type BoxBody = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, Infallible>;

/// The server; clones are the same one.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<(String, String)>,
}

#[derive(Default)]
struct State {
    /// By plural and name.
    objects: BTreeMap<(String, String), Value>,
    version: u64,
    is_failing: bool,
    /// Verbs that nobody may.
    forbidden: Vec<(Method, &'static str)>,
    /// How often whole objects were patched.
    merges: usize,
}

impl Default for FakeApi {
    fn default() -> Self {
        Self { state: Arc::default(), events: broadcast::channel(64).0 }
    }
}

impl FakeApi {
    /// A client of it.
    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(Server(self.clone()), "default")
    }

    /// From now on every request fails, or none.
    pub(crate) fn fail(&self, is_failing: bool) {
        self.state.lock().unwrap().is_failing = is_failing;
    }

    /// From now on nobody may do this to objects of a kind.
    pub(crate) fn forbid(&self, method: Method, plural: &'static str) {
        self.state.lock().unwrap().forbidden.push((method, plural));
    }

    /// Whoever could not may again.
    pub(crate) fn permit_everything(&self) {
        self.state.lock().unwrap().forbidden.clear();
    }

    /// How often whole objects were patched.
    pub(crate) fn merges(&self) -> usize {
        self.state.lock().unwrap().merges
    }

    /// All approval requests, oldest first.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let mut all = self.all(APPROVALS);
        all.sort_by_key(|object| object["metadata"]["generation"].as_u64());
        all
    }

    /// All objects of a kind, by name.
    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.objects.iter().filter(|((there, _), _)| there == plural).map(|(_, object)| object.clone()).collect()
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, plural: &str, object: Value) {
        self.create(plural, object).unwrap();
    }

    /// Changes the status of an object, as somebody else would.
    pub(crate) fn set_status(&self, plural: &str, name: &str, status: &Value) {
        self.change(plural, name, &json!({ "status": status }), "").unwrap();
    }

    /// Appends a decision, as a person would.
    pub(crate) fn vote(&self, position: usize, vote: &Vote) {
        let name = self.requests()[position]["metadata"]["name"].as_str().unwrap().to_owned();
        let mut decisions = self.requests()[position]["status"]["decisions"].as_array().cloned().unwrap_or_default();
        decisions.push(serde_json::to_value(vote).unwrap());
        self.change(APPROVALS, &name, &json!({"status": {"decisions": decisions}}), "").unwrap();
    }

    fn change(&self, plural: &str, name: &str, patch: &Value, version: &str) -> Result<Value, StatusCode> {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let next = state.version.to_string();
        let object = state.objects.get_mut(&key(plural, name)).ok_or(StatusCode::NOT_FOUND)?;
        if !version.is_empty() && object["metadata"]["resourceVersion"] != version {
            return Err(StatusCode::CONFLICT);
        }
        for (key, value) in patch["status"].as_object().into_iter().flatten() {
            object["status"][key] = value.clone();
        }
        object["metadata"]["resourceVersion"] = json!(next);
        let object = object.clone();
        self.tell(plural, "MODIFIED", &object);
        Ok(object)
    }

    /// Merges a patch into a whole object, as somebody else would.
    pub(crate) fn merge(&self, plural: &str, name: &str, patch: &Value) {
        self.merged(plural, name, patch, false).unwrap();
    }

    fn merged(&self, plural: &str, name: &str, patch: &Value, dry_run: bool) -> Result<Value, StatusCode> {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let next = state.version.to_string();
        let there = state.objects.get_mut(&key(plural, name)).ok_or(StatusCode::NOT_FOUND)?;
        for guard in ["uid", "resourceVersion"] {
            let wanted = &patch["metadata"][guard];
            if !wanted.is_null() && *wanted != there["metadata"][guard] {
                return Err(StatusCode::CONFLICT);
            }
        }
        let mut object = there.clone();
        merge_into(&mut object, patch);
        if !dry_run {
            state.merges += 1;
            let there = state.objects.get_mut(&key(plural, name)).ok_or(StatusCode::NOT_FOUND)?;
            object["metadata"]["resourceVersion"] = json!(next);
            *there = object.clone();
            self.tell(plural, "MODIFIED", &object);
        }
        Ok(object)
    }

    fn create(&self, plural: &str, mut object: Value) -> Result<Value, StatusCode> {
        let mut state = self.state.lock().unwrap();
        let key = key(plural, object["metadata"]["name"].as_str().unwrap());
        if state.objects.contains_key(&key) {
            return Err(StatusCode::CONFLICT);
        }
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        object["metadata"]["generation"] = json!(state.version);
        object["metadata"]["creationTimestamp"] = json!(jiff::Timestamp::now());
        state.objects.insert(key, object.clone());
        self.tell(plural, "ADDED", &object);
        Ok(object)
    }

    fn remove(&self, plural: &str, name: &str) -> Result<Value, StatusCode> {
        let object = self.state.lock().unwrap().objects.remove(&key(plural, name)).ok_or(StatusCode::NOT_FOUND)?;
        self.tell(plural, "DELETED", &object);
        Ok(object)
    }

    fn tell(&self, plural: &str, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        drop(self.events.send((plural.to_owned(), line)));
    }

    fn list(&self, plural: &str) -> Value {
        let items = self.all(plural);
        let version = self.state.lock().unwrap().version.to_string();
        let metadata = json!({"resourceVersion": version});
        json!({"apiVersion": "kustody.dev/v1alpha1", "kind": "List", "metadata": metadata, "items": items})
    }

    async fn answer(self, request: Request<Body>) -> Response<BoxBody> {
        let (parts, body) = request.into_parts();
        if self.state.lock().unwrap().is_failing && !parts.uri.query().unwrap_or_default().contains("watch=true") {
            return failure(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if parts.uri.query().unwrap_or_default().contains("watch=true") {
            return self.watch(parts.uri.path().split('/').next_back().unwrap_or_default());
        }
        let body = body.collect().await.unwrap().to_bytes();
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path: Vec<&str> = parts.uri.path().split('/').collect();
        let name = path.get(7).copied().unwrap_or_default();
        let plural = path.get(6).copied().unwrap_or_default();
        if self.state.lock().unwrap().forbidden.iter().any(|(method, kind)| *method == parts.method && *kind == plural)
        {
            return failure(StatusCode::FORBIDDEN);
        }
        if ![APPROVALS, "grants", "terminations"].contains(&plural) && !WORKLOADS.contains(&plural) {
            return failure(StatusCode::NOT_FOUND);
        }
        let find = |name: &str| self.all(plural).into_iter().find(|object| object["metadata"]["name"] == name);
        let answer = match (&parts.method, name) {
            (&Method::GET, "") => Ok(self.list(plural)),
            (&Method::DELETE, name) => self.remove(plural, name),
            (&Method::GET, name) => find(name).ok_or(StatusCode::NOT_FOUND),
            (&Method::POST, _) => self.create(plural, sent),
            (&Method::PATCH, name) if WORKLOADS.contains(&plural) => {
                let dry_run = parts.uri.query().unwrap_or_default().contains("dryRun=All");
                self.merged(plural, name, &sent, dry_run)
            }
            (&Method::PATCH, name) => {
                self.change(plural, name, &sent, sent["metadata"]["resourceVersion"].as_str().unwrap_or_default())
            }
            _ => Err(StatusCode::METHOD_NOT_ALLOWED),
        };
        match answer {
            Ok(value) => Response::new(Full::from(value.to_string()).boxed_unsync()),
            Err(status) => failure(status),
        }
    }

    fn watch(&self, plural: &str) -> Response<BoxBody> {
        let wanted = plural.to_owned();
        let stream = futures_util::stream::unfold((self.events.subscribe(), wanted), |(mut events, wanted)| async {
            loop {
                let (plural, event) = events.recv().await.ok()?;
                if plural == wanted {
                    return Some((Ok(Frame::data(bytes::Bytes::from(event))), (events, wanted)));
                }
            }
        });
        Response::new(StreamBody::new(stream).boxed_unsync())
    }
}

/// RFC 7396.
fn merge_into(object: &mut Value, patch: &Value) {
    let Some(members) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in members {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge_into(&mut object[key], value);
        }
    }
}

fn key(plural: &str, name: &str) -> (String, String) {
    (plural.to_owned(), name.to_owned())
}

fn failure(status: StatusCode) -> Response<BoxBody> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status.as_u16(),
        "reason": status.canonical_reason(), "message": "no"
    });
    Response::builder().status(status).body(Full::from(body.to_string()).boxed_unsync()).unwrap()
}

struct Server(FakeApi);

impl tower_service::Service<Request<Body>> for Server {
    type Response = Response<BoxBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.0.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}

/// Waits until something is true; fails after five seconds.
pub(crate) async fn eventually(mut is_true: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within five seconds");
}
