//! The webhook without a socket: requests go into its handler, the API server behind it is [`FakeApi`].
#![expect(clippy::indexing_slicing, reason = "a test that fails says so by panicking")]

use crate::approvals_api::{FakeApi, eventually};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use kustody::core::approval::{Choice, Vote};
use kustody::core::policy::{ClassSpec, PolicySnapshot, PolicySpec};
use kustody::edge::budgets::Budgets;
use kustody::edge::cluster::approvals::{self, Approvals, Keeper};
use kustody::edge::cluster::grants::{self, Grants};
use kustody::edge::keys;
use kustody::edge::store::wal::{self, Wal};
use kustody::service::webhook::{Config, Edges, Webhook};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Stage {
    pub(crate) webhook: Arc<Webhook>,
    pub(crate) api: FakeApi,
    pub(crate) rules: watch::Sender<Arc<PolicySnapshot>>,
    shutdown: CancellationToken,
    /// The spool's folder.
    pub(crate) dir: tempfile::TempDir,
}

fn manifest<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(name);
    let value: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    serde_json::from_value(value["spec"].clone()).unwrap()
}

/// The rules of all default policies as one.
pub(crate) fn default_policies() -> PolicySpec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/default-policy.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    let specs = documents.into_iter().map(|document| serde_json::from_value::<PolicySpec>(document["spec"].clone()));
    PolicySpec { rules: specs.flat_map(|spec| spec.unwrap().rules).collect() }
}

pub(crate) fn snapshot(policy: PolicySpec) -> Arc<PolicySnapshot> {
    let class: ClassSpec = manifest("default-class.yaml");
    let classes = BTreeMap::from([("agents".to_owned(), class)]);
    let (snapshot, problems) = PolicySnapshot::load(&classes, &BTreeMap::from([("default".to_owned(), policy)]));
    assert_eq!(problems, []);
    let namespaces = ["agents", "default"].map(|name| (name.to_owned(), Arc::default()));
    Arc::new(snapshot.with_namespaces(Arc::new(namespaces.into())))
}

pub(crate) async fn stage(change: impl FnOnce(&mut Config)) -> Stage {
    stage_with(1 << 30, change).await
}

/// With room for so many bytes of the log.
pub(crate) async fn stage_with(quota: u64, change: impl FnOnce(&mut Config)) -> Stage {
    let limits = approvals::Config { max_open_per_agent: 32, ..approvals::Config::default() };
    stage_kept(quota, change, limits, |keeper| keeper).await
}

/// With other limits of approvals, and another keeper.
pub(crate) async fn stage_kept(
    quota: u64,
    change: impl FnOnce(&mut Config),
    limits: approvals::Config,
    kept: impl FnOnce(Keeper) -> Keeper,
) -> Stage {
    let api = FakeApi::default();
    let shutdown = CancellationToken::new();
    let (approvals, keeper) = Approvals::new(api.client(), limits);
    let keeper = kept(keeper);
    tokio::spawn(keeper.run(shutdown.clone()));
    let rules = watch::Sender::new(snapshot(default_policies()));
    let mut config = Config { gateway_url: "https://gateway.example:6443".to_owned(), ..Config::default() };
    change(&mut config);
    let key = keys::generate().unwrap();
    let (grants, keeper) = Grants::new(api.client(), grants::Config::default(), rules.subscribe());
    tokio::spawn(keeper.run(shutdown.clone()));
    let dir = tempfile::tempdir().unwrap();
    let spool = crate::spool::open_with(dir.path(), &Arc::new(keys::generate().unwrap()), quota).await;
    let log = Wal::open(&spool, wal::Config::default(), &TaskTracker::new()).await.unwrap();
    let edges = Edges {
        snapshot: rules.subscribe(),
        approvals,
        grants,
        budgets: Budgets::new(1),
        log,
        tickets: key.public().clone(),
        shutdown: shutdown.clone(),
    };
    Stage { webhook: Arc::new(Webhook::new(config, edges)), api, rules, shutdown, dir }
}

pub(crate) fn review(operation: &str, resource: &str, rest: Value) -> Value {
    let (group, path) = resource.split_once(':').unwrap_or(("", resource));
    let (name, sub) = path.split_once('/').unwrap_or((path, ""));
    let mut request = json!({
        "uid": "11111111-2222-3333-4444-555555555555",
        "resource": {"group": group, "version": "v1", "resource": name}, "subResource": sub,
        "operation": operation, "namespace": "default", "name": "web",
        "userInfo": {"username": "system:serviceaccount:agents:bot", "groups": ["system:authenticated"]},
        "object": null, "oldObject": null, "options": null, "dryRun": false
    });
    for (key, value) in rest.as_object().unwrap() {
        request[key] = value.clone();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

pub(crate) fn deletion() -> Value {
    review("DELETE", "apps:deployments", json!({"oldObject": {"metadata": {"name": "web", "uid": "u1"}}}))
}

impl Stage {
    pub(crate) async fn post(&self, query: &str, body: impl Into<Bytes>) -> (StatusCode, Bytes) {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/admission{query}"))
            .body(Full::new(body.into()))
            .unwrap();
        let response = self.webhook.handle(request).await;
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    }

    /// Asks whether a new object is to be suspended: the JSON patch, if it is.
    pub(crate) async fn suspend(&self, review: &Value) -> Option<Value> {
        let (status, body) = self.post("/suspend?timeout=3s", review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["response"]["allowed"], true);
        let patch = STANDARD.decode(answer["response"]["patch"].as_str()?).unwrap();
        Some(serde_json::from_slice(&patch).unwrap())
    }

    pub(crate) async fn ask(&self, query: &str, review: impl std::borrow::Borrow<Value>) -> Value {
        let review = review.borrow();
        let (status, body) = self.post(query, review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }

    /// About the object of a name.
    pub(crate) fn vote_for(&self, name: &str, by: &str, verdict: Choice) {
        let requests = self.api.requests();
        let position = requests.iter().position(|request| request["spec"]["action"]["name"] == name).unwrap();
        self.api.vote(position, &Vote { by: by.to_owned(), verdict, reason: Some("because".to_owned()) });
    }

    pub(crate) fn vote(&self, by: &str, verdict: Choice) {
        self.api.vote(0, &Vote { by: by.to_owned(), verdict, reason: Some("because".to_owned()) });
    }
}

#[tokio::test]
async fn what_no_agent_asks_passes_and_what_a_rule_allows_passes() {
    let stage = stage(|_| {}).await;
    let mut human = deletion();
    human["request"]["userInfo"]["username"] = json!("anna");
    assert_eq!(stage.ask("?timeout=30s", &human).await["allowed"], true);
    let note = review("CREATE", "configmaps", json!({"namespace": "agents", "object": {"metadata": {"name": "n"}}}));
    let answer = stage.ask("?timeout=30s", &note).await;
    assert_eq!((&answer["allowed"], &answer["auditAnnotations"]["rule"]), (&json!(true), &json!("default/configmaps")));
    assert_eq!(stage.api.requests().len(), 0);
}

#[tokio::test]
async fn a_held_delete_goes_through_within_a_second_of_its_approval_and_only_once() {
    let stage = stage(|_| {}).await;
    let (answer, approved_at) =
        tokio::join!(async { (stage.ask("?timeout=30s", deletion()).await, Instant::now()) }, async {
            eventually(|| stage.api.requests().len() == 1 && stage.webhook.parked() == 1).await;
            stage.vote("anna", Choice::Approve);
            Instant::now()
        });
    assert_eq!(answer.0["allowed"], true, "{}", answer.0);
    assert!(answer.1 - approved_at < Duration::from_secs(1));
    let request = stage.api.requests().remove(0);
    assert!(request["status"]["consumedAt"].is_string(), "used up before the answer: {request}");
    // The same object made anew is another one.
    let mut later = deletion();
    later["request"]["oldObject"]["metadata"]["uid"] = json!("u2");
    let answer = stage.ask("?timeout=2s", &later).await;
    assert_eq!(answer["status"]["code"], 429);
    assert_eq!(stage.api.requests().len(), 2);
}

#[tokio::test]
async fn nobody_decides_in_time_and_the_client_is_told_to_come_back() {
    let stage = stage(|config| config.park = Duration::from_millis(50)).await;
    let answer = stage.ask("?timeout=30s", deletion()).await;
    let status = &answer["status"];
    assert_eq!((&status["code"], &status["details"]["retryAfterSeconds"]), (&json!(429), &json!(1)));
    let id = status["details"]["causes"][0]["field"].as_str().unwrap();
    let message = status["message"].as_str().unwrap();
    assert!(id.starts_with("apr-") && id.len() == 16, "{id}");
    assert!(
        message.starts_with("NOT EXECUTED. Held for approval")
            && message.contains(&format!("kubectl kustody approve {id}"))
    );
    let again = stage.ask("?timeout=30s", deletion()).await;
    assert_eq!(again["status"]["details"]["causes"][0]["field"], id, "repeats find the same request");
    assert_eq!(stage.api.requests().len(), 1);
}

#[tokio::test]
async fn a_denied_request_is_refused_with_who_and_why_and_stays_refused() {
    let stage = stage(|_| {}).await;
    let (answer, ()) = tokio::join!(stage.ask("?timeout=30s", deletion()), async {
        eventually(|| stage.webhook.parked() == 1).await;
        stage.vote("anna", Choice::Deny);
    });
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(403)));
    assert!(answer["status"]["message"].as_str().unwrap().contains("denied by anna: because"), "{answer}");
    let again = stage.ask("?timeout=30s", deletion()).await;
    assert_eq!(again["status"]["code"], 403);
}

#[tokio::test]
async fn a_requester_cannot_approve_and_an_approval_fits_no_other_action() {
    let stage = stage(|config| config.park = Duration::from_millis(300)).await;
    stage.ask("?timeout=30s", deletion()).await;
    stage.vote("system:serviceaccount:agents:bot", Choice::Approve);
    assert_eq!(stage.ask("?timeout=30s", deletion()).await["status"]["code"], 429);
    stage.vote("anna", Choice::Approve);
    let mut other = deletion();
    other["request"]["options"] = json!({"propagationPolicy": "Orphan"});
    assert_eq!(stage.ask("?timeout=30s", &other).await["status"]["code"], 429);
    assert_eq!(stage.ask("?timeout=30s", deletion()).await["allowed"], true);
}

#[tokio::test]
async fn when_an_approval_cannot_be_used_up_nothing_is_allowed() {
    let stage = stage(|config| config.park = Duration::from_millis(200)).await;
    stage.ask("?timeout=30s", deletion()).await;
    stage.vote("anna", Choice::Approve);
    stage.api.fail(true);
    let answer = stage.ask("?timeout=30s", deletion()).await;
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(503)));
    let other = review("DELETE", "apps:deployments", json!({"oldObject": {"metadata": {"name": "web", "uid": "x"}}}));
    assert_eq!(stage.ask("?timeout=30s", &other).await["allowed"], false, "nor can a request be opened");
    stage.api.fail(false);
    assert_eq!(stage.ask("?timeout=30s", deletion()).await["allowed"], true);
}

#[tokio::test]
async fn a_direct_stream_is_refused_with_the_name_of_the_gateway() {
    let stage = stage(|_| {}).await;
    for extra in [json!({}), json!({"kustody.dev/ticket": ["k1.e30.AAAA"]})] {
        let mut exec = review("CONNECT", "pods/exec", json!({"object": {"kind": "PodExecOptions", "command": ["id"]}}));
        exec["request"]["userInfo"]["extra"] = extra;
        let answer = stage.ask("?timeout=30s", &exec).await;
        assert_eq!(answer["status"]["code"], 403);
        assert!(answer["status"]["message"].as_str().unwrap().contains("https://gateway.example:6443"));
    }
}

#[tokio::test]
async fn a_dry_run_opens_no_request_and_says_what_would_happen() {
    let stage = stage(|_| {}).await;
    let mut dry = deletion();
    dry["request"]["dryRun"] = json!(true);
    let answer = stage.ask("?timeout=30s", &dry).await;
    assert_eq!(answer["allowed"], true);
    assert!(answer["warnings"][0].as_str().unwrap().contains("would be held for approval"));
    assert_eq!(stage.api.requests().len(), 0);
}

#[tokio::test]
async fn a_new_rule_counts_for_a_call_that_already_waits() {
    let stage = stage(|_| {}).await;
    let (answer, ()) = tokio::join!(stage.ask("?timeout=30s", deletion()), async {
        eventually(|| stage.webhook.parked() == 1).await;
        let policy = json!({"rules": [{"id": "freeze", "reason": "freeze", "action": "Deny",
            "match": {"resources": [{"apiGroups": ["*"], "resources": ["*/*"]}]}}]});
        stage.rules.send_replace(snapshot(serde_json::from_value(policy).unwrap()));
        stage.vote("anna", Choice::Approve);
    });
    assert!(answer["status"]["message"].as_str().unwrap().contains("rule freeze"), "{answer}");
}

#[tokio::test]
async fn past_the_caps_calls_are_told_at_once_to_come_back_later_and_not_all_together() {
    let stage = stage(|config| config.max_parked_per_agent = 1).await;
    let started = Instant::now();
    let (first, second) = tokio::join!(stage.ask("?timeout=4s", deletion()), async {
        eventually(|| stage.webhook.parked() == 1).await;
        let mut other = deletion();
        other["request"]["oldObject"]["metadata"]["uid"] = json!("u9");
        (stage.ask("?timeout=4s", &other).await, started.elapsed())
    });
    assert_eq!((&first["status"]["code"], &second.0["status"]["code"]), (&json!(429), &json!(429)));
    assert_eq!(first["status"]["details"]["retryAfterSeconds"], 1);
    assert!(second.0["status"]["message"].as_str().unwrap().starts_with("NOT EXECUTED"), "{}", second.0);
    assert!(second.1 < Duration::from_secs(1));
    let (_, seconds) = tokio::join!(stage.ask("?timeout=6s", deletion()), async {
        eventually(|| stage.webhook.parked() == 1).await;
        let mut seconds = BTreeSet::new();
        for number in 0..40 {
            let mut other = deletion();
            other["request"]["uid"] = json!(format!("call-{number}"));
            let answer = stage.ask("?timeout=6s", &other).await;
            seconds.insert(answer["status"]["details"]["retryAfterSeconds"].as_u64().unwrap());
        }
        seconds
    });
    // Ten repeats by client-go outlast the minutes that parked calls wait.
    assert!(seconds.len() > 4 && seconds.iter().all(|seconds| (15..=30).contains(seconds)), "{seconds:?}");
}

#[tokio::test]
async fn on_shutdown_parked_calls_are_answered_at_once() {
    let stage = stage(|_| {}).await;
    let started = Instant::now();
    let (answer, ()) = tokio::join!(stage.ask("?timeout=30s", deletion()), async {
        eventually(|| stage.webhook.parked() == 1).await;
        stage.shutdown.cancel();
    });
    assert_eq!(answer["status"]["code"], 429);
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn bad_bodies_are_refused_by_what_is_known_of_them() {
    let stage = stage(|_| {}).await;
    let big = vec![b' '; 8 * 1024 * 1024 + 1];
    assert_eq!(stage.post("", big).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(stage.post("", "nonsense").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        stage.post("", r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#).await.0,
        StatusCode::BAD_REQUEST
    );
    let text = deletion().to_string();
    let (status, body) = stage.post("", text[..text.len() - 2].to_owned()).await;
    assert_eq!(status, StatusCode::OK, "the uid can be salvaged");
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&answer["response"]["allowed"], &answer["response"]["status"]["code"]), (&json!(false), &json!(400)));
    let get = Request::builder().uri("/admission").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(stage.webhook.handle(get).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}
