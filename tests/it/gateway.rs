//! The gateway between raw sockets and a scripted API server: who gets through, with which headers, and how
//! untouched the answer comes back.

use crate::approvals_api::FakeApi as ApprovalsApi;
use crate::fake_api::FakeApi;
use crate::spool::{events, manifest, open_with};
use base64::Engine;
use bytes::{Bytes, BytesMut};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kustody::core::keys::SigningKey;
use kustody::core::policy::{ClassSpec, PolicySnapshot, PolicySpec};
use kustody::core::recording::{Cause, Channel, Direction, EventKind, SessionId};
use kustody::core::wire::websocket::{Decoder, MAX_MESSAGE, Message, Opcode, Side, encode, encode_close};
use kustody::edge::budgets::Budgets;
use kustody::edge::cluster::aggregated::Aggregated;
use kustody::edge::cluster::approvals::{self, Approvals};
use kustody::edge::cluster::grants::{self, Grants};
use kustody::edge::cluster::identity::Reviewer;
use kustody::edge::cluster::registration::GateState;
use kustody::edge::cluster::terminations::Terminations;
use kustody::edge::keys::generate;
use kustody::edge::net::upstream::Upstream;
use kustody::edge::store::wal::{self, Wal};
use kustody::service::gateway::{Config, Edges, Gateway};
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const KEY: [u8; 4] = [9, 8, 7, 6];

pub(crate) struct Stage {
    pub(crate) api: FakeApi,
    pub(crate) address: SocketAddr,
    gate: watch::Sender<GateState>,
    pub(crate) policies: watch::Sender<Arc<PolicySnapshot>>,
    aggregated: watch::Sender<Aggregated>,
    pub(crate) spool: TempDir,
    pub(crate) key: Arc<SigningKey>,
    stop: CancellationToken,
}

pub(crate) fn rules() -> Arc<PolicySnapshot> {
    let class: ClassSpec =
        serde_json::from_value(json!({"subjects": {"serviceAccountNamespaces": ["agents"]}})).expect("class");
    let policy: PolicySpec = serde_json::from_value(json!({"rules": [
        {"id": "no-tokens", "reason": "credentials outlive the run", "action": "Deny",
         "match": {"operations": ["CREATE"], "resources": [{"apiGroups": [""], "resources": ["serviceaccounts/token"]}]}},
        {"id": "no-config-updates", "reason": "test", "action": "Deny",
         "match": {"operations": ["UPDATE"], "resources": [{"apiGroups": [""], "resources": ["configmaps"]}]}},
        {"id": "no-secret-reads", "reason": "test", "action": "Deny",
         "match": {"operations": ["READ"], "resources": [{"apiGroups": [""], "resources": ["secrets"]}]}},
        {"id": "flunders", "reason": "test", "action": "Allow",
         "match": {"operations": ["CREATE", "UPDATE"], "resources": [{"apiGroups": ["wardle.example.com"], "resources": ["flunders"]}]}},
        {"id": "fischers", "reason": "test", "action": "Allow",
         "match": {"operations": ["UPDATE"], "resources": [{"apiGroups": ["wardle.example.com"], "resources": ["fischers"]}]}},
        {"id": "no-flunders-in-prod", "reason": "not in prod", "action": "Deny",
         "match": {"namespaces": ["prod"], "resources": [{"apiGroups": ["wardle.example.com"], "resources": ["flunders"]}]}},
        {"id": "big-flunders", "reason": "big ones", "action": "Deny", "when": ["has(object.spec) && object.spec.big"],
         "match": {"namespaces": ["big"], "resources": [{"apiGroups": ["wardle.example.com"], "resources": ["flunders"]}]}},
        {"id": "hold-held", "reason": "test", "action": "Hold",
         "match": {"operations": ["CONNECT"], "names": ["held"], "resources": [{"apiGroups": [""], "resources": ["pods/exec"]}]}},
        {"id": "no-prod", "reason": "not in prod", "action": "Deny",
         "match": {"operations": ["CONNECT"], "namespaces": ["prod"], "resources": [{"apiGroups": [""], "resources": ["pods/exec"]}]}},
        {"id": "exec", "reason": "recorded", "action": "Allow",
         "match": {"operations": ["CONNECT"], "resources": [{"apiGroups": [""], "resources": ["pods/exec"]}]}}
    ]})).expect("policy");
    let classes = BTreeMap::from([("agents".to_owned(), class)]);
    let (snapshot, problems) = PolicySnapshot::load(&classes, &BTreeMap::from([("p".to_owned(), policy)]));
    assert_eq!(problems, []);
    Arc::new(snapshot)
}

impl Stage {
    pub(crate) async fn new() -> Stage {
        Self::with_quota(1 << 30).await
    }

    /// With room for so many bytes of recordings and log.
    pub(crate) async fn with_quota(quota: u64) -> Stage {
        Self::changed(quota, |_| {}).await
    }

    /// With another configuration.
    pub(crate) async fn changed(quota: u64, change: impl FnOnce(&mut Config)) -> Stage {
        Self::beside(ApprovalsApi::default(), quota, change).await
    }

    /// One more replica in the cluster of `people`.
    pub(crate) async fn beside(people: ApprovalsApi, quota: u64, change: impl FnOnce(&mut Config)) -> Stage {
        let api = FakeApi::start().await;
        let spool = tempfile::tempdir().expect("folder");
        let key = Arc::new(generate().expect("key"));
        let (gate, gated) = watch::channel(GateState::Registered);
        let elsewhere = [("wardle.example.com", "v1alpha1"), ("gated.example.com", "v1")];
        let (aggregated, known) = watch::channel(Aggregated::of(&elsewhere));
        let client = kube::Client::try_from(api.config.clone()).expect("client");
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let (approvals, keeper) = Approvals::new(people.client(), approvals::Config::default());
        tokio::spawn(keeper.run(stop.clone()));
        let recordings = open_with(spool.path(), &key, quota).await;
        let (ruling, policies) = watch::channel(rules());
        let (grants, keeper) = Grants::new(people.client(), grants::Config::default(), policies.clone());
        tokio::spawn(keeper.run(stop.clone()));
        let (terminations, keeper) = Terminations::new(people.client(), "local");
        tokio::spawn(keeper.run(stop.clone()));
        let edges = Edges {
            terminations,
            reviewer: Reviewer::new(client, "kustody"),
            policies,
            grants,
            budgets: Budgets::new(1),
            gate: gated,
            aggregated: known,
            approvals,
            upstream: Upstream::new(&api.config, tracker.clone()).expect("upstream"),
            log: Wal::open(&recordings, wal::Config::default(), &tracker).await.expect("log"),
            spool: recordings,
            key: key.clone(),
            tracker,
            stop: stop.clone(),
        };
        let gated_apis = vec!["gated.example.com".to_owned()];
        let mut config = Config { hold: Duration::from_millis(200), gated_apis, ..Config::default() };
        change(&mut config);
        let gateway = Gateway::new(config, edges);
        tokio::spawn(gateway.clone().oversee(stop.clone()));
        let address = serve(gateway).await;
        Stage { api, address, gate, policies: ruling, aggregated, spool, key, stop }
    }

    /// Begins the gateway's end.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Sends bytes as they are and gives everything that comes back until the gateway closes or falls silent.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        stream.write_all(bytes).await.expect("write");
        let mut answer = Vec::new();
        loop {
            let read = tokio::time::timeout(Duration::from_millis(700), stream.read_buf(&mut answer)).await;
            match read {
                Ok(Ok(0)) | Err(_) | Ok(Err(_)) => return String::from_utf8_lossy(&answer).into_owned(),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// A request with a good token and `more` header lines.
    pub(crate) async fn ask(&self, line: &str, more: &str) -> String {
        let head =
            format!("{line} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\nConnection: close\r\n{more}\r\n");
        self.raw(head.as_bytes()).await
    }
}

async fn serve(gateway: Arc<Gateway>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let gateway = gateway.clone();
            let service = service_fn(move |request| {
                let answered = gateway.clone().handle(request, peer);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http1::Builder::new();
                drop(builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
            });
        }
    });
    address
}

pub(crate) fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

const EXEC: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";

pub(crate) fn exec_head(pod: &str, query: &str) -> String {
    format!(
        "GET /api/v1/namespaces/a/pods/{pod}/exec?{query} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\nConnection: Upgrade\r\n{EXEC}\r\n"
    )
}

#[tokio::test]
async fn a_request_goes_on_as_the_agent_and_comes_back_untouched() {
    let mut stage = Stage::new().await;
    let more = "Cookie: a=b\r\nX-Remote-User: root\r\nAudit-ID: mine\r\nX-Forwarded-For: 1.1.1.1\r\nAccept: application/vnd.kubernetes.protobuf\r\n";
    let answer = stage.ask("GET /api/v1/namespaces/a/pods/web?limit=500&x=%2F", more).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(
        answer.contains("warning: 299 - \"careful\"") && answer.ends_with("\"/api/v1/namespaces/a/pods/web\"}"),
        "{answer}"
    );
    let seen = stage.api.next().await;
    assert_eq!(seen.target, "/api/v1/namespaces/a/pods/web?limit=500&x=%2F");
    assert_eq!(seen.headers["impersonate-user"], "system:serviceaccount:agents:bot");
    let groups: Vec<_> = seen.headers.get_all("impersonate-group").iter().collect();
    assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:agents"]);
    assert_eq!(seen.headers["impersonate-uid"], "u1");
    assert_eq!(seen.headers["authorization"], "Bearer kustody-own");
    assert_eq!(seen.headers["accept"], "application/vnd.kubernetes.protobuf");
    assert_eq!(seen.headers["audit-id"], seen.headers["impersonate-extra-kustody.dev%2frequest"]);
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    for name in ["cookie", "x-remote-user", "connection"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn who_is_no_agent_gets_no_further() {
    let mut stage = Stage::new().await;
    let with = |auth: &str| format!("GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}Connection: close\r\n\r\n");
    for auth in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer  agent x\r\n",
        "Authorization: Basic YTpi\r\n",
        "Authorization: Bearer agent\r\nAuthorization: Bearer agent\r\n",
        "Authorization: \r\n agent\r\n",
    ] {
        let answer = stage.raw(with(auth).as_bytes()).await;
        assert!(matches!(code(&answer), "401" | "400"), "{auth}: {answer}");
    }
    let answer = stage.raw(with("Authorization: Bearer alice\r\n").as_bytes()).await;
    assert!(code(&answer) == "403" && answer.contains("belongs to no AgentClass"), "{answer}");
    assert!(stage.api.untouched());
}

#[tokio::test]
async fn a_token_in_a_subprotocol_is_taken_and_not_passed_on() {
    let mut stage = Stage::new().await;
    let head = "GET /api/v1/pods HTTP/1.1\r\nHost: g\r\nConnection: close\r\nSec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.YWdlbnQ\r\n\r\n";
    assert_eq!(code(&stage.raw(head.as_bytes()).await), "200");
    assert!(!stage.api.next().await.headers.contains_key("sec-websocket-protocol"));
}

fn ambiguous() -> Vec<(&'static str, String)> {
    let auth = "Authorization: Bearer agent\r\n";
    vec![
        (
            "bare LF smuggles a header",
            format!("GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}X-A: b\nImpersonate-User: nobody\r\n\r\n"),
        ),
        (
            "folded line",
            format!("GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}X-A: b\r\n Impersonate-User: nobody\r\n\r\n"),
        ),
        (
            "folded impersonation",
            format!("GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}Impersonate-User:\r\n nobody\r\n\r\n"),
        ),
        (
            "two lengths",
            format!(
                "POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: g\r\n{auth}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"
            ),
        ),
        (
            "signed length",
            format!("POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: g\r\n{auth}Content-Length: +4\r\n\r\nabcd"),
        ),
        (
            "odd TE",
            format!(
                "POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: g\r\n{auth}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "space before colon",
            format!("GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}Impersonate-User : nobody\r\n\r\n"),
        ),
        ("bare CR", format!("GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}X-A: b\rImpersonate-User: nobody\r\n\r\n")),
        ("impersonation", format!("GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}Impersonate-User: nobody\r\n\r\n")),
        ("empty impersonation", format!("GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}Impersonate-User:\r\n\r\n")),
        (
            "impersonation named hop-by-hop",
            format!(
                "GET /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}Connection: Impersonate-User\r\nImpersonate-User: x\r\n\r\n"
            ),
        ),
        ("CONNECT", format!("CONNECT g:443 HTTP/1.1\r\nHost: g\r\n{auth}\r\n")),
        ("TRACE", format!("TRACE /api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}\r\n")),
        ("encoded slash", format!("GET /api/v1/namespaces/a/pods%2fweb%2fexec HTTP/1.1\r\nHost: g\r\n{auth}\r\n")),
        ("double slash", format!("GET //api/v1/pods HTTP/1.1\r\nHost: g\r\n{auth}\r\n")),
        ("semicolon", format!("DELETE /api/v1/namespaces/a/pods/web?dryRun=All;x=y HTTP/1.1\r\nHost: g\r\n{auth}\r\n")),
        (
            "upgrade of a watch to SPDY",
            format!(
                "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: g\r\n{auth}Origin: http://x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
            ),
        ),
    ]
}

#[tokio::test]
async fn requests_that_two_parsers_could_read_differently_do_not_get_through() {
    let mut stage = Stage::new().await;
    for (what, bytes) in ambiguous() {
        let answer = stage.raw(bytes.as_bytes()).await;
        assert!(matches!(code(&answer), "400" | "403" | "405" | "501"), "{what}: {answer}");
        assert!(stage.api.untouched(), "{what} got through");
    }
}

#[tokio::test]
async fn a_length_beside_a_transfer_encoding_hides_no_second_request() {
    let mut stage = Stage::new().await;
    for lengths in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let hidden =
            "GET /api/v1/namespaces/kube-system/pods HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\n\r\n";
        let head = format!(
            "POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\n{lengths}\r\n\r\n0\r\n\r\n{hidden}"
        );
        let answer = stage.raw(head.as_bytes()).await;
        assert!(answer.contains("connection: close") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
        let seen = stage.api.next().await;
        assert_eq!((seen.method, seen.body), (http::Method::POST, Bytes::new()));
        assert!(!seen.headers.contains_key("content-length"), "framed anew");
        assert!(stage.api.untouched());
    }
}

#[tokio::test]
async fn an_absolute_target_is_read_by_its_path() {
    let mut stage = Stage::new().await;
    assert_eq!(code(&stage.ask("GET http://root@elsewhere/api/v1/namespaces/a/secrets", "").await), "403");
    assert_eq!(code(&stage.ask("GET ftp://elsewhere/api/v1/namespaces/a/pods", "").await), "200");
    assert_eq!(stage.api.next().await.target, "/api/v1/namespaces/a/pods");
}

#[tokio::test]
async fn writes_go_on_to_the_webhook_only_while_it_is_registered() {
    let mut stage = Stage::new().await;
    let head = "POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(code(&stage.raw(head.as_bytes()).await), "200");
    assert_eq!(stage.api.next().await.body, Bytes::from_static(b"{}"));
    stage.gate.send_replace(GateState::Missing { why: "deleted".into() });
    let answer = stage.raw(head.as_bytes()).await;
    assert!(code(&answer) == "503" && answer.contains("gate is not registered"), "{answer}");
    assert!(stage.api.untouched());
    assert_eq!(code(&stage.ask("GET /api/v1/namespaces/a/pods", "").await), "200");
}

#[tokio::test]
async fn what_another_server_serves_is_decided_without_its_content_or_refused() {
    let mut stage = Stage::new().await;
    let flunder = "/apis/wardle.example.com/v1alpha1/namespaces/a/flunders";
    let length = "Content-Length: 0\r\n";
    for line in [format!("POST {flunder}"), format!("PUT {flunder}/f"), format!("PATCH {flunder}/f")] {
        let answer = stage.ask(&line, length).await;
        assert_eq!(code(&answer), "200", "{line}: {answer}");
        assert!(!stage.api.next().await.headers.contains_key("impersonate-extra-kustody.dev%2fticket"));
    }
    for (line, why) in [
        (format!("DELETE {flunder}/f"), "A person has to do this"),
        (format!("DELETE {flunder}"), "A person has to do this"),
        // A rule about the content, of which nothing is seen.
        (format!("POST {}", flunder.replace("/a/", "/big/")), "A person has to do this"),
        (format!("POST {}", flunder.replace("/a/", "/prod/")), "not in prod"),
        // A patch may create what only may be updated.
        ("PATCH /apis/wardle.example.com/v1alpha1/fischers/f".to_owned(), "A person has to do this"),
    ] {
        let answer = stage.ask(&line, length).await;
        assert!(code(&answer) == "403" && answer.contains(why), "{line}: {answer}");
        assert!(stage.api.untouched(), "{line} got through");
    }
}

#[tokio::test]
async fn what_another_server_asks_the_webhook_about_is_left_to_it() {
    let mut stage = Stage::new().await;
    let line = "DELETE /apis/gated.example.com/v1/namespaces/a/things/t";
    assert_eq!(code(&stage.ask(line, "").await), "200");
    stage.api.next().await;
    stage.gate.send_replace(GateState::Missing { why: "deleted".into() });
    assert_eq!(code(&stage.ask(line, "").await), "503");
    assert!(stage.api.untouched());
}

#[tokio::test]
async fn nothing_is_changed_before_it_is_known_who_serves_it() {
    let mut stage = Stage::new().await;
    stage.aggregated.send_replace(Aggregated::default());
    let answer = stage.ask("POST /apis/apps/v1/namespaces/a/deployments", "Content-Length: 0\r\n").await;
    assert!(code(&answer) == "503" && answer.contains("not known yet"), "{answer}");
    assert!(stage.api.untouched());
    assert_eq!(code(&stage.ask("GET /apis/apps/v1/namespaces/a/deployments", "").await), "200");
    stage.api.next().await;
    assert_eq!(code(&stage.ask("POST /api/v1/namespaces/a/pods", "Content-Length: 0\r\n").await), "200");
}

#[tokio::test]
async fn a_rule_that_needs_no_object_denies_before_forwarding() {
    let mut stage = Stage::new().await;
    let answer = stage.ask("POST /api/v1/namespaces/a/serviceaccounts/s/token", "Content-Length: 0\r\n").await;
    assert!(code(&answer) == "403" && answer.contains("no-tokens") && answer.contains("KustodyDeny"), "{answer}");
    assert_eq!(code(&stage.ask("GET /api/v1/namespaces/a/secrets/s", "").await), "403");
    assert_eq!(code(&stage.ask("GET /metrics", "").await), "403");
    assert!(stage.api.untouched());
    // A patch may create, which nothing denies: the webhook knows which it is.
    assert_eq!(code(&stage.ask("PATCH /api/v1/namespaces/a/configmaps/c", "Content-Length: 0\r\n").await), "200");
    assert_eq!(code(&stage.ask("GET /openapi/v3", "").await), "200");
}

#[tokio::test]
async fn a_watch_passes_event_by_event() {
    let stage = Stage::new().await;
    let mut stream = TcpStream::connect(stage.address).await.expect("connect");
    let head = "GET /api/v1/namespaces/a/pods?watch=true HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("write");
    let mut answer = BytesMut::new();
    for event in ["{\"one\":1}\n", "{\"two\":2}\n"] {
        stage.api.watch.send(Bytes::from(event)).await.expect("sent");
        while !String::from_utf8_lossy(&answer).contains(event) {
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut answer)).await;
            assert_ne!(read.expect("at once").expect("read"), 0);
        }
    }
    // A client that goes away ends the watch at the API server too.
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), stage.api.watch.closed()).await.expect("called off");
}

/// Asks for a WebSocket; gives the head of the answer, and the connection with what came behind the head.
async fn switched(stage: &Stage, target: &str, protocol: &str) -> (String, TcpStream, Decoder) {
    let mut stream = TcpStream::connect(stage.address).await.expect("connect");
    let asked = format!(
        "GET {target} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    );
    stream.write_all(asked.as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    loop {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut answer)).await;
        assert_ne!(read.expect("in time").expect("read"), 0, "{}", String::from_utf8_lossy(&answer));
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let mut decoder = Decoder::new(Side::Server, MAX_MESSAGE);
            decoder.push(&answer.split_off(end + 4));
            return (String::from_utf8_lossy(&answer).into_owned(), stream, decoder);
        }
    }
}

async fn said(stream: &mut TcpStream, decoder: &mut Decoder) -> Option<Message> {
    loop {
        if let Some(message) = decoder.next_message().expect("frames") {
            return Some(message);
        }
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(decoder.buffer())).await;
        if read.expect("in time").expect("read") == 0 {
            return None;
        }
    }
}

#[tokio::test]
async fn a_watch_over_a_websocket_is_a_message_an_event_and_ends_with_its_client() {
    let mut stage = Stage::new().await;
    let (head, mut stream, mut decoder) = switched(&stage, "/api/v1/namespaces/a/pods?watch=true", "").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let seen = stage.api.next().await;
    assert!(!seen.headers.contains_key("upgrade") && !seen.headers.contains_key("sec-websocket-key"), "{seen:?}");
    assert_eq!(seen.headers["impersonate-user"], "system:serviceaccount:agents:bot");
    for piece in ["{\"one\"", ":1}\n{\"two\":2}\n"] {
        stage.api.watch.send(Bytes::from(piece)).await.expect("sent");
    }
    for event in ["{\"one\":1}\n", "{\"two\":2}\n"] {
        assert_eq!(said(&mut stream, &mut decoder).await, Some(Message::Data(Bytes::from(event))));
    }
    let mut out = BytesMut::new();
    encode(&mut out, Opcode::Ping, Some(KEY), &[b"there?"]);
    encode_close(&mut out, Some(1000), b"", Some(KEY));
    stream.write_all(&out).await.expect("write");
    assert_eq!(said(&mut stream, &mut decoder).await, Some(Message::Pong(Bytes::from_static(b"there?"))));
    let close = Message::Close { code: Some(1000), reason: Bytes::new() };
    assert_eq!(said(&mut stream, &mut decoder).await, Some(close));
}

#[tokio::test]
async fn a_log_over_a_websocket_has_the_form_that_was_asked_for() {
    let mut stage = Stage::new().await;
    let log = "/api/v1/namespaces/a/pods/web/log?follow=1";
    let plain = stage.ask(&format!("GET {log}"), "").await;
    let plain = plain.split_once("\r\n\r\n").expect("a body").1.as_bytes().to_vec();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&plain).into_bytes();
    for (protocol, content) in [("", &plain), ("binary.k8s.io", &plain), ("base64.binary.k8s.io", &base64)] {
        let line = if protocol.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {protocol}\r\n") };
        let (head, mut stream, mut decoder) = switched(&stage, log, &line).await;
        let named = head.split("sec-websocket-protocol: ").nth(1).map(|rest| rest.lines().next().expect("a line"));
        assert_eq!(named.unwrap_or_default(), protocol);
        let mut heard = Vec::new();
        assert_eq!(said(&mut stream, &mut decoder).await, Some(Message::Data(Bytes::new())));
        let end = loop {
            match said(&mut stream, &mut decoder).await {
                Some(Message::Data(bytes)) => heard.extend_from_slice(&bytes),
                end => break end,
            }
        };
        assert_eq!(end, Some(Message::Close { code: Some(1000), reason: Bytes::new() }));
        assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(content));
    }
    while !stage.api.untouched() {
        stage.api.next().await;
    }
    let (refused, ..) = switched(&stage, log, "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n").await;
    assert_eq!(code(&refused), "403", "{refused}");
    assert!(stage.api.untouched());
}

#[tokio::test]
async fn a_kept_connection_is_used_again_and_a_closed_one_is_not() {
    let mut stage = Stage::new().await;
    for _ in 0..20 {
        assert_eq!(code(&stage.ask("GET /api/v1/namespaces/a/pods", "").await), "200");
        stage.api.next().await;
    }
    // One for reviewing tokens, one for everything else, and one more for a slow machine.
    let connections = stage.api.connections.load(Ordering::Relaxed);
    assert!(connections <= 3, "{connections} connections for 20 requests");
    for _ in 0..3 {
        assert_eq!(code(&stage.ask("GET /api/v1/namespaces/a/pods/last", "").await), "200");
        stage.api.next().await;
    }
}

#[tokio::test]
async fn an_exec_is_recorded_and_relayed() {
    let mut stage = Stage::new().await;
    let mut client = TcpStream::connect(stage.address).await.expect("connect");
    let head = exec_head("web", "command=sh&command=-c&command=a+%26&stdin=1&stdout=yes&stderr=0&tty=FALSE&evil=1");
    client.write_all(head.as_bytes()).await.expect("write");
    let mut answer = BytesMut::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        assert_ne!(client.read_buf(&mut answer).await.expect("read"), 0);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols"), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    let seen = stage.api.next().await;
    assert_eq!(
        seen.target,
        "/api/v1/namespaces/a/pods/web/exec?command=sh&command=%2Dc&command=a%20%26&stdin=true&stdout=true"
    );
    assert_eq!(seen.headers["sec-websocket-protocol"], "v5.channel.k8s.io");
    assert!(seen.headers["impersonate-extra-kustody.dev%2fticket"].to_str().expect("text").starts_with("k1."));
    let mut server = stage.api.execs.recv().await.expect("stream");
    let mut out = BytesMut::new();
    encode(&mut out, Opcode::Binary, Some(KEY), &[b"\0hello"]);
    client.write_all(&out).await.expect("write");
    let mut decoder = Decoder::new(Side::Client, MAX_MESSAGE);
    let heard = loop {
        if let Some(message) = decoder.next_message().expect("frames") {
            break message;
        }
        assert_ne!(server.read_buf(decoder.buffer()).await.expect("read"), 0);
    };
    assert_eq!(heard, Message::Data(Bytes::from_static(b"\0hello")));
    let mut out = BytesMut::new();
    encode(&mut out, Opcode::Binary, None, &[b"\x01world"]);
    encode(&mut out, Opcode::Binary, None, &[b"\x03{\"metadata\":{},\"status\":\"Success\"}"]);
    encode_close(&mut out, Some(1000), b"", None);
    server.write_all(&out).await.expect("write");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("end");
    assert!(rest.windows(5).any(|five| five == b"world"));
    drop((client, server));
    let session = only_session(&stage).await;
    assert_eq!(manifest(stage.spool.path(), &session, &stage.key).reason.cause, Cause::Completed);
    let kept = events(stage.spool.path(), &session);
    let stdin = EventKind::Data {
        channel: Channel::Stdin,
        direction: Direction::ToContainer,
        bytes: Bytes::from_static(b"hello"),
    };
    assert!(kept.contains(&stdin), "{kept:?}");
}

/// The one session in the spool, when it has been sealed.
pub(crate) async fn only_session(stage: &Stage) -> SessionId {
    let mut tries = 0;
    loop {
        let sealed = std::fs::read_dir(stage.spool.path())
            .expect("spool")
            .filter_map(Result::ok)
            .find(|entry| entry.path().join("manifest.json").exists());
        if let Some(entry) = sealed {
            return entry.file_name().to_string_lossy().parse().expect("session");
        }
        tries += 1;
        assert!(tries < 100, "no session was sealed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_the_api_server_answers_instead_reaches_both_attempts_of_kubectl() {
    let mut stage = Stage::new().await;
    let answer = stage.raw(exec_head("gone", "command=id").as_bytes()).await;
    assert!(code(&answer) == "404" && answer.contains("not found"), "{answer}");
    assert_eq!(manifest(stage.spool.path(), &only_session(&stage).await, &stage.key).reason.cause, Cause::Refused);
    stage.api.next().await;
    let spdy = "POST /api/v1/namespaces/a/pods/gone/exec?command=id HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
    let again = stage.raw(spdy.as_bytes()).await;
    assert!(code(&again) == "404" && again.contains("not found"), "{again}");
    assert!(stage.api.untouched());
    // Not an attempt after a refusal, but a client of its own.
    let third = stage.raw(spdy.as_bytes()).await;
    assert!(code(&third) == "404", "{third}");
    assert_eq!(stage.api.next().await.headers["upgrade"], "SPDY/3.1");
}

#[tokio::test]
async fn spdy_is_asked_of_the_api_server_as_the_client_asked_for_it() {
    let mut stage = Stage::new().await;
    let head = "POST /api/v1/namespaces/a/pods/web/exec?command=id&stdout=1 HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer agent\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n";
    let offer = ["v5", "v4", "nonsense"].map(|v| format!("X-Stream-Protocol-Version: {v}.channel.k8s.io\r\n")).concat();
    let answer = stage.raw(format!("{head}{offer}\r\n").as_bytes()).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(answer.contains("x-stream-protocol-version: v4.channel.k8s.io\r\n"), "{answer}");
    let seen = stage.api.next().await;
    assert_eq!(
        (seen.method, seen.target.as_str()),
        (http::Method::POST, "/api/v1/namespaces/a/pods/web/exec?command=id&stdout=true")
    );
    let lines: Vec<_> = seen.headers.get_all("x-stream-protocol-version").iter().collect();
    assert_eq!(lines, ["v5.channel.k8s.io", "v4.channel.k8s.io"], "each on a line of its own");
    let answer = stage.raw(format!("{head}X-Stream-Protocol-Version: v9.channel.k8s.io\r\n\r\n").as_bytes()).await;
    assert!(code(&answer) == "403" && answer.contains("v4.channel.k8s.io"), "{answer}");
    let answer = stage.raw(format!("{head}{offer}Content-Length: 5\r\n\r\nhello").as_bytes()).await;
    assert_eq!(code(&answer), "400");
    assert!(stage.api.untouched());
}

#[tokio::test]
async fn a_denied_or_held_exec_never_reaches_the_api_server() {
    let mut stage = Stage::new().await;
    let answer = stage.raw(exec_head("web", "command=id").replace("namespaces/a", "namespaces/prod").as_bytes()).await;
    assert!(code(&answer) == "403" && answer.contains("NOT EXECUTED. Denied by rule no-prod"), "{answer}");
    let answer = stage.raw(exec_head("held", "command=id").as_bytes()).await;
    assert!(code(&answer) == "403" && answer.contains("kubectl kustody approve apr-"), "{answer}");
    for bad in ["v5.channel.k8s.io\r\nContent-Length: 5", "v3.channel.k8s.io", "V5.CHANNEL.K8S.IO"] {
        let head = exec_head("web", "command=id").replace("v5.channel.k8s.io", bad);
        assert!(matches!(code(&stage.raw(head.as_bytes()).await), "400" | "403"), "{bad}");
    }
    assert!(stage.api.untouched());
}
