//! Every way of changing something through the API server reaches the gate, and what Kustody makes of it: a table of
//! requests, each with the action that was derived and the verdict, as the API server's own audit log has them.
//!
//! Aggregated APIs have a table of their own (`aggregated.rs`): what is seen of them is in another server's log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kube::{Client, Config, client::Body, config::KubeConfigOptions, config::Kubeconfig};
use serde_json::Value;

use crate::Test;
use crate::custody::{mighty_agent, without_right};
use crate::stage::Stage;
use crate::stage::run::eventually;

pub(super) const TESTS: &[Test] =
    &[("coverage: every kind of request is seen as what it is, and gets its verdict", every_request_is_seen)];

/// How a request is written, which objects it finds, what is derived and what is decided.
pub(super) struct Row {
    method: &'static str,
    path: &'static str,
    kind: &'static str,
    body: &'static str,
    /// The derived action; a name that the API server makes up is left out at its end.
    action: &'static str,
    verdict: &'static str,
}

pub(super) const fn row(
    (method, path, kind): (&'static str, &'static str, &'static str),
    body: &'static str,
    action: &'static str,
    verdict: &'static str,
) -> Row {
    Row { method, path, kind, body, action, verdict }
}

pub(super) const JSON: &str = "application/json";
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";
pub(super) const LABEL: &str = r#"{"metadata":{"labels":{"x":"y"}}}"#;

/// In this order: later rows find what earlier ones made. Deletes are held, what leaves the namespace's objects is denied.
const ROWS: &[Row] = &[
    row(
        ("POST", "/api/v1/namespaces/coverage/configmaps", JSON),
        r#"{"metadata":{"name":"made"}}"#,
        "CREATE v1/configmaps coverage/made",
        "allow",
    ),
    row(
        ("POST", "/api/v1/namespaces/coverage/configmaps?dryRun=All", JSON),
        r#"{"metadata":{"name":"dry"}}"#,
        "CREATE v1/configmaps coverage/dry (dry run)",
        "allow",
    ),
    row(
        ("POST", "/api/v1/namespaces/coverage/configmaps", JSON),
        r#"{"metadata":{"generateName":"some-"}}"#,
        "CREATE v1/configmaps coverage/some-",
        "allow",
    ),
    row(
        ("PUT", "/api/v1/namespaces/coverage/configmaps/kept", JSON),
        r#"{"metadata":{"name":"kept"},"data":{"a":"1"}}"#,
        "UPDATE v1/configmaps coverage/kept",
        "allow",
    ),
    row(
        ("PATCH", "/api/v1/namespaces/coverage/configmaps/kept", JSON_PATCH),
        r#"[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#,
        "UPDATE v1/configmaps coverage/kept",
        "allow",
    ),
    row(
        ("PATCH", "/api/v1/namespaces/coverage/configmaps/kept", MERGE),
        LABEL,
        "UPDATE v1/configmaps coverage/kept",
        "allow",
    ),
    row(
        ("PATCH", "/api/v1/namespaces/coverage/configmaps/kept", STRATEGIC),
        LABEL,
        "UPDATE v1/configmaps coverage/kept",
        "allow",
    ),
    row(
        ("PATCH", "/api/v1/namespaces/coverage/configmaps/kept?fieldManager=t&force=true", APPLY),
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kept"},"data":{"b":"2"}}"#,
        "UPDATE v1/configmaps coverage/kept",
        "allow",
    ),
    row(
        ("PATCH", "/api/v1/namespaces/coverage/configmaps/applied?fieldManager=t", APPLY),
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"applied"}}"#,
        "CREATE v1/configmaps coverage/applied",
        "allow",
    ),
    row(
        ("DELETE", "/api/v1/namespaces/coverage/configmaps/kept", JSON),
        "",
        "DELETE v1/configmaps coverage/kept",
        "hold",
    ),
    row(("DELETE", "/api/v1/namespaces/coverage/secrets", JSON), "", "DELETE v1/secrets coverage/only", "hold"),
    row(
        ("POST", "/api/v1/namespaces/coverage/pods/idle/exec?command=id&stdout=true", JSON),
        "",
        "CONNECT v1/pods/exec coverage/idle",
        "deny",
    ),
    row(
        ("POST", "/api/v1/namespaces/coverage/pods/idle/attach?stdout=true", JSON),
        "",
        "CONNECT v1/pods/attach coverage/idle",
        "deny",
    ),
    row(
        ("POST", "/api/v1/namespaces/coverage/pods/idle/portforward?ports=80", JSON),
        "",
        "CONNECT v1/pods/portforward coverage/idle",
        "deny",
    ),
    row(
        ("GET", "/api/v1/namespaces/coverage/pods/idle/proxy/", JSON),
        "",
        "CONNECT v1/pods/proxy coverage/idle",
        "deny",
    ),
    row(
        ("GET", "/api/v1/namespaces/coverage/services/front/proxy/", JSON),
        "",
        "CONNECT v1/services/proxy coverage/front",
        "deny",
    ),
    row(("GET", "/api/v1/nodes/nobody/proxy/metrics", JSON), "", "CONNECT v1/nodes/proxy nobody", "deny"),
    row(
        ("PATCH", "/api/v1/namespaces/coverage/pods/idle/ephemeralcontainers", STRATEGIC),
        r#"{"spec":{"ephemeralContainers":[{"name":"e","image":"x"}]}}"#,
        "UPDATE v1/pods/ephemeralcontainers coverage/idle",
        "deny",
    ),
    row(
        ("PATCH", "/api/v1/namespaces/coverage/pods/idle/resize", STRATEGIC),
        r#"{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"2m"}}}]}}"#,
        "UPDATE v1/pods/resize coverage/idle",
        "allow",
    ),
    row(
        ("PATCH", "/api/v1/namespaces/coverage/pods/idle/status", MERGE),
        r#"{"status":{"message":"m"}}"#,
        "UPDATE v1/pods/status coverage/idle",
        "allow",
    ),
    row(
        ("POST", "/api/v1/namespaces/coverage/pods/idle/eviction", JSON),
        r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"idle","namespace":"coverage"}}"#,
        "CREATE v1/pods/eviction coverage/idle",
        "deny",
    ),
    row(
        ("POST", "/api/v1/namespaces/coverage/pods/idle/binding", JSON),
        r#"{"apiVersion":"v1","kind":"Binding","metadata":{"name":"idle"},"target":{"kind":"Node","name":"nobody"}}"#,
        "CREATE v1/pods/binding coverage/idle",
        "deny",
    ),
    row(
        ("POST", "/api/v1/namespaces/coverage/bindings", JSON),
        r#"{"apiVersion":"v1","kind":"Binding","metadata":{"name":"idle"},"target":{"kind":"Node","name":"nobody"}}"#,
        "CREATE v1/bindings coverage/idle",
        "deny",
    ),
    row(
        ("POST", "/api/v1/namespaces/coverage/serviceaccounts/default/token", JSON),
        r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}"#,
        "CREATE v1/serviceaccounts/token coverage/default",
        "deny",
    ),
    row(
        ("PATCH", "/apis/apps/v1/namespaces/coverage/deployments/none/scale", MERGE),
        r#"{"spec":{"replicas":0}}"#,
        "UPDATE apps/v1/deployments/scale coverage/none",
        "allow",
    ),
    row(
        ("PATCH", "/apis/apps/v1/namespaces/coverage/deployments/none/status", MERGE),
        r#"{"status":{"observedGeneration":1}}"#,
        "UPDATE apps/v1/deployments/status coverage/none",
        "allow",
    ),
    row(
        ("PATCH", "/apis/certificates.k8s.io/v1/certificatesigningrequests/coverage/approval", MERGE),
        r#"{"status":{"conditions":[{"type":"Approved","status":"True","reason":"r","message":"m"}]}}"#,
        "UPDATE certificates.k8s.io/v1/certificatesigningrequests/approval coverage",
        "deny",
    ),
    row(
        ("PUT", "/api/v1/namespaces/coverage/finalize", JSON),
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"coverage"},"spec":{"finalizers":[]}}"#,
        "UPDATE v1/namespaces/finalize coverage",
        "deny",
    ),
    row(
        ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", JSON),
        r#"{"metadata":{"name":"coverage"},"rules":[]}"#,
        "CREATE rbac.authorization.k8s.io/v1/clusterroles coverage",
        "allow",
    ),
    row(
        ("PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/coverage", MERGE),
        LABEL,
        "UPDATE rbac.authorization.k8s.io/v1/clusterroles coverage",
        "allow",
    ),
    row(
        ("DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterroles/coverage", JSON),
        "",
        "DELETE rbac.authorization.k8s.io/v1/clusterroles coverage",
        "hold",
    ),
    row(
        ("POST", "/apis/coverage.example.com/v1/namespaces/coverage/widgets", JSON),
        r#"{"apiVersion":"coverage.example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"replicas":1}}"#,
        "CREATE coverage.example.com/v1/widgets coverage/w",
        "allow",
    ),
    row(
        ("PATCH", "/apis/coverage.example.com/v1/namespaces/coverage/widgets/w", MERGE),
        LABEL,
        "UPDATE coverage.example.com/v1/widgets coverage/w",
        "allow",
    ),
    row(
        ("PATCH", "/apis/coverage.example.com/v1/namespaces/coverage/widgets/w?fieldManager=t&force=true", APPLY),
        r#"{"apiVersion":"coverage.example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"replicas":2}}"#,
        "UPDATE coverage.example.com/v1/widgets coverage/w",
        "allow",
    ),
    row(
        ("PATCH", "/apis/coverage.example.com/v1/namespaces/coverage/widgets/w/status", MERGE),
        r#"{"status":{"replicas":1}}"#,
        "UPDATE coverage.example.com/v1/widgets/status coverage/w",
        "allow",
    ),
    row(
        ("PATCH", "/apis/coverage.example.com/v1/namespaces/coverage/widgets/w/scale", MERGE),
        r#"{"spec":{"replicas":3}}"#,
        "UPDATE coverage.example.com/v1/widgets/scale coverage/w",
        "allow",
    ),
    row(
        ("DELETE", "/apis/coverage.example.com/v1/namespaces/coverage/widgets/w", JSON),
        "",
        "DELETE coverage.example.com/v1/widgets coverage/w",
        "hold",
    ),
    row(
        ("DELETE", "/apis/coverage.example.com/v1/namespaces/coverage/widgets", JSON),
        "",
        "DELETE coverage.example.com/v1/widgets coverage/w",
        "hold",
    ),
    row(("DELETE", "/api/v1/namespaces/coverage", JSON), "", "DELETE v1/namespaces coverage", "hold"),
];

/// What the rows work on, and rules of which every verdict is known.
const SCENE: &str = include_str!("coverage.yaml");

fn every_request_is_seen(stage: &mut Stage) -> anyhow::Result<()> {
    let mighty = mighty_agent(stage)?;
    under_the_rules(stage, "", |stage| all_seen(stage, ROWS, &mighty, &audit_log(stage)?))
}

/// Sends every row as `who` and compares with what the log says of it.
pub(super) fn all_seen(stage: &Stage, rows: &[Row], who: &Path, log: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let client = runtime.block_on(client(who))?;
    let mut wrong = Vec::new();
    for row in rows {
        if let Err(error) = runtime.block_on(check(stage, &client, row, log)) {
            wrong.push(format!("{} {} ({}): {error:#}", row.method, row.path, row.kind));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    Ok(())
}

/// Tries something under the scene's rules, with held requests told at once so that a table takes seconds and with
/// these lines more about the gateway, and puts everything back.
pub(super) fn under_the_rules(
    stage: &mut Stage,
    gateway: &str,
    attempt: impl FnOnce(&Stage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let own = std::fs::read_to_string(&stage.kustody.config)?;
    let quick = own.replacen("webhook:\n", "webhook:\n  park: 0s\n", 1);
    let quick = quick.replacen("gateway:\n", &format!("gateway:\n  hold: 0s\n{gateway}"), 1);
    std::fs::write(&stage.kustody.config, quick)?;
    stage.kustody.kill()?;
    stage.kustody.launch()?;
    let tried = rules_in_force(stage).and_then(|()| attempt(stage));
    std::fs::write(&stage.kustody.config, own)?;
    let back = restore(stage);
    stage.kustody.kill()?;
    stage.kustody.launch()?;
    tried?;
    back
}

fn rules_in_force(stage: &Stage) -> anyhow::Result<()> {
    let defaults = format!("{}/manifests/default-policy.yaml", env!("CARGO_MANIFEST_DIR"));
    stage.cluster.admin(&["delete", "-f", &defaults, "--ignore-not-found"])?;
    let admin = &stage.cluster.admin;
    eventually(Duration::from_secs(15), || {
        stage.cluster.kubectl(admin, &["apply", "-f", "-"]).input(SCENE).ok()?;
        stage.cluster.admin(&["get", "serviceaccount", "default", "-n", "coverage"]).map(drop)
    })?;
    signing_request(stage, "coverage")?;
    stage.cluster.admin(&[
        "patch",
        "agentclass",
        "agents",
        "--type=merge",
        "-p",
        r#"{"spec":{"gateway":"Nothing"}}"#,
    ])?;
    std::thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// A request for a certificate that nobody will sign.
pub(super) fn signing_request(stage: &Stage, name: &str) -> anyhow::Result<()> {
    use base64::Engine;
    let key = rcgen::KeyPair::generate()?;
    let request = rcgen::CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
    let text = serde_json::json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {
            "signerName": "coverage.example.com/none", "usages": ["client auth"],
            "request": base64::engine::general_purpose::STANDARD.encode(request)
        }
    });
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(text.to_string()).ok().map(drop)
}

fn restore(stage: &Stage) -> anyhow::Result<()> {
    without_right(stage)?;
    for file in ["default-class.yaml", "default-policy.yaml"] {
        let path = format!("{}/manifests/{file}", env!("CARGO_MANIFEST_DIR"));
        stage.cluster.admin(&["apply", "-f", &path])?;
    }
    for argv in [
        &["delete", "agentpolicy", "coverage"][..],
        &["delete", "csr", "coverage"],
        &["delete", "clusterrole", "coverage", "--ignore-not-found"],
        &["delete", "crd", "widgets.coverage.example.com"],
        &["delete", "namespace", "coverage", "--wait=false"],
    ] {
        stage.cluster.admin(argv)?;
    }
    Ok(())
}

async fn client(kubeconfig: &std::path::Path) -> anyhow::Result<Client> {
    let mut config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

async fn check(stage: &Stage, client: &Client, row: &Row, log: &Path) -> anyhow::Result<()> {
    let id = uuid::Uuid::now_v7().to_string();
    let request = http::Request::builder()
        .method(row.method)
        .uri(row.path)
        .header("content-type", row.kind)
        .header("audit-id", &id)
        .body(body(stage, row)?.into_bytes())?;
    // What comes of it is in the audit log, however the object itself liked the request.
    let answer = client.send(request.map(Body::from)).await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let answer = String::from_utf8(answer.into_body().collect_bytes().await?.to_vec())?;
    // The gateway gives every request an id of its own.
    let id = headers.get("audit-id").and_then(|id| id.to_str().ok()).context("no audit id")?;
    let event = seen(log, id).with_context(|| format!("the answer was {status}: {answer}"))?;
    let said =
        |key: &str| event["annotations"][format!("gate.kustody.dev/{key}")].as_str().unwrap_or_default().to_owned();
    let (action, verdict) = (said("action"), said("decision"));
    let fits = action == row.action || (ends_open(row) && action.starts_with(row.action));
    ensure!(
        fits && verdict == row.verdict,
        "seen as {action:?} and {verdict:?}, not {:?} and {:?}; {status}: {answer}",
        row.action,
        row.verdict
    );
    ensure!(verdict == "allow" || status.is_client_error(), "went through all the same: {status}: {answer}");
    Ok(())
}

/// The body of a row; a whole update has to say of which version, and finds it as late as possible.
fn body(stage: &Stage, row: &Row) -> anyhow::Result<String> {
    if !row.body.contains("VERSION") {
        return Ok(row.body.to_owned());
    }
    let object: Value = serde_json::from_slice(&stage.cluster.admin(&["get", "--raw", row.path])?.stdout)?;
    let version = object["metadata"]["resourceVersion"].as_str().context("an object without a version")?;
    Ok(row.body.replace("VERSION", version))
}

/// Whether the API server makes up the rest of the name.
fn ends_open(row: &Row) -> bool {
    row.action.ends_with('-')
}

/// Where the API server writes what it did.
fn audit_log(stage: &Stage) -> anyhow::Result<PathBuf> {
    let cluster: Value = serde_json::from_str(&std::fs::read_to_string(stage.cluster.dir.join("cluster.json"))?)?;
    Ok(PathBuf::from(cluster["audit_log"].as_str().context("the cluster has no audit log")?))
}

/// The audit event of a request, once it is written.
fn seen(log: &Path, id: &str) -> anyhow::Result<Value> {
    eventually(Duration::from_secs(5), || {
        let text = std::fs::read_to_string(log)?;
        let lines = text.lines().rev().filter(|line| line.contains(id));
        let mut events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        match events.find(|event| event["stage"] == "ResponseComplete") {
            Some(event) => Ok(event),
            None => bail!("no audit event"),
        }
    })
}
