//! Exported rules on the real API server with Kustody dead: for a hit and a miss of every rule, and of rules that take what
//! the default ones do not (quantities, elements, agents and runs), the native verdict is the one that Kustody gave.

use std::time::Duration;

use anyhow::{Context, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::Test;
use crate::asking::Asker;
use crate::custody::{mighty_agent, without_right};
use crate::stage::Stage;
use crate::stage::run::eventually;

pub(super) const TESTS: &[Test] = &[(
    "export: with kustody dead the API server denies what kustody denied, rule by rule, and nothing else",
    same_verdicts,
)];

/// A request, and the rule that denies it; none where it is a miss. Nothing is ever changed: all are dry runs.
struct Row {
    rule: Option<&'static str>,
    run: Option<&'static str>,
    method: Method,
    path: String,
    body: Option<Value>,
}

fn hit(rule: &'static str, method: Method, path: &str, body: Value) -> Row {
    Row { rule: Some(rule), ..miss(method, path, body) }
}

fn miss(method: Method, path: &str, body: Value) -> Row {
    let joint = if path.contains('?') { '&' } else { '?' };
    let body = (!body.is_null()).then_some(body);
    // What only reads, and yet is a CONNECT, knows no dry run.
    let path = if method == Method::GET { path.to_owned() } else { format!("{path}{joint}dryRun=All") };
    Row { rule: None, run: None, method, path, body }
}

fn pod(spec: Value) -> Value {
    let mut pod =
        json!({"metadata": {"name": "export"}, "spec": {"containers": [{"name": "c", "image": "example.com/c:1"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn definition(conversion: Value) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    json!({"metadata": {"name": "gadgets.export.example.com"}, "spec": {
        "group": "export.example.com", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}], "conversion": conversion}})
}

fn role(verbs: &[&str]) -> Value {
    json!({"metadata": {"name": "export"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
}

fn rows_of_access() -> Vec<Row> {
    let rbac = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let secrets = "/api/v1/namespaces/export/secrets";
    let account = json!({"kubernetes.io/service-account.name": "default"});
    let token =
        json!({"metadata": {"name": "t", "annotations": account}, "type": "kubernetes.io/service-account-token"});
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let service = json!({"name": "a", "namespace": "b"});
    let api = json!({"metadata": {"name": "v1.export.example.com"}, "spec": {"group": "export.example.com", "version": "v1",
        "groupPriorityMinimum": 100, "versionPriority": 100, "service": service, "insecureSkipTLSVerify": true}});
    let approval =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}});
    let csr = "/apis/certificates.k8s.io/v1/certificatesigningrequests/export";
    vec![
        hit("rbac-escalate", Method::POST, rbac, role(&["*"])),
        miss(Method::POST, rbac, role(&["get"])),
        hit("token-mint", Method::POST, "/api/v1/namespaces/export/serviceaccounts/default/token", review),
        miss(Method::POST, "/api/v1/namespaces/export/serviceaccounts", json!({"metadata": {"name": "other"}})),
        hit("token-secret", Method::POST, secrets, token),
        miss(Method::POST, secrets, json!({"metadata": {"name": "t"}})),
        hit("csr", Method::PATCH, &format!("{csr}/approval"), approval),
        miss(Method::DELETE, csr, Value::Null),
        hit("admission-cfg", Method::POST, "/apis/apiregistration.k8s.io/v1/apiservices", api),
        miss(
            Method::POST,
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"metadata": {"name": "export"}, "value": 1}),
        ),
    ]
}

fn rows_of_the_gate() -> Vec<Row> {
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let address = json!({"url": "https://example.com/convert"});
    let webhook =
        json!({"strategy": "Webhook", "webhook": {"clientConfig": address, "conversionReviewVersions": ["v1"]}});
    let labelled = |key: &str| json!({"metadata": {"name": "export-new", "labels": {key: "allow"}}});
    vec![
        hit("crd-conversion", Method::POST, crds, definition(webhook)),
        miss(Method::POST, crds, definition(json!({"strategy": "None"}))),
        hit(
            "self-protect",
            Method::PATCH,
            "/apis/kustody.dev/v1alpha1/agentclasses/agents/status",
            json!({"status": {}}),
        ),
        hit("exemption", Method::POST, "/api/v1/namespaces", labelled("kustody.dev/writes")),
        miss(Method::POST, "/api/v1/namespaces", labelled("team")),
        hit("crd-delete", Method::DELETE, &format!("{crds}/things.export.example.com"), Value::Null),
        miss(Method::DELETE, "/api/v1/namespaces/export/configmaps/kept", Value::Null),
        hit(
            "kube-system",
            Method::POST,
            "/api/v1/namespaces/kube-system/configmaps",
            json!({"metadata": {"name": "x"}}),
        ),
        miss(Method::POST, "/api/v1/namespaces/export/configmaps", json!({"metadata": {"name": "x"}})),
    ]
}

fn rows_of_workloads(node: &str) -> Vec<Row> {
    let pods = "/api/v1/namespaces/export/pods";
    let privileged = json!([{"name": "c", "image": "example.com/c:1", "securityContext": {"privileged": true}}]);
    let tolerant = json!([{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]);
    vec![
        hit("pod-priv", Method::POST, pods, pod(json!({"hostPID": true}))),
        hit("pod-priv", Method::POST, pods, pod(json!({ "containers": privileged }))),
        hit("pod-node", Method::POST, pods, pod(json!({ "nodeName": node }))),
        hit("pod-node", Method::POST, pods, pod(json!({ "tolerations": tolerant }))),
        miss(Method::POST, pods, pod(json!({}))),
        hit("node-delete", Method::DELETE, &format!("/api/v1/nodes/{node}"), Value::Null),
        miss(Method::PATCH, &format!("/api/v1/nodes/{node}"), json!({"metadata": {"labels": {"export": "x"}}})),
        hit("nodes-proxy", Method::GET, &format!("/api/v1/nodes/{node}/proxy/healthz"), Value::Null),
        hit("ns-delete-protected", Method::DELETE, "/api/v1/namespaces/kube-node-lease", Value::Null),
        hit("ns-delete-labelled", Method::DELETE, "/api/v1/namespaces/export-guarded", Value::Null),
        miss(Method::DELETE, "/api/v1/namespaces/export", Value::Null),
        hit("storage-bound", Method::DELETE, "/api/v1/persistentvolumes/export-bound", Value::Null),
        miss(Method::DELETE, "/api/v1/persistentvolumes/export-kept", Value::Null),
    ]
}

/// Rows for the rules of [`MORE`].
fn more_rows() -> Vec<Row> {
    let deployment = "/apis/apps/v1/namespaces/export/deployments/many";
    let container = |image: &str, memory: &str| {
        let limits = json!({"limits": {"memory": memory}});
        json!({"spec": {"template": {"spec": {"containers": [
            {"name": "side", "image": "example.com/side:1"}, {"name": "c", "image": image, "resources": limits}]}}}})
    };
    let scaled = |count: u32| json!({"spec": {"replicas": count}});
    let maps = "/api/v1/namespaces/export/configmaps";
    let named = |name: &str| json!({"metadata": {"name": name}});
    let kept = format!("{maps}/kept");
    vec![
        hit("cut", Method::PATCH, deployment, scaled(2)),
        miss(Method::PATCH, deployment, scaled(3)),
        hit("cut", Method::PATCH, &format!("{deployment}/scale"), scaled(1)),
        hit("image", Method::PATCH, deployment, container("example.com/c:2", "512Mi")),
        hit("memory", Method::PATCH, deployment, container("example.com/c:1", "1536Mi")),
        miss(Method::PATCH, deployment, container("example.com/c:1", "1Gi")),
        hit("entry", Method::PATCH, &kept, json!({"data": {"a": null}})),
        miss(Method::PATCH, &kept, json!({"data": {"c": "3"}})),
        Row { run: Some("r1"), ..hit("known", Method::POST, maps, named("by-name")) },
        Row { run: Some("r2"), ..miss(Method::POST, maps, named("by-name")) },
        miss(Method::POST, maps, named("by-name")),
        Row { run: Some("r1"), ..miss(Method::POST, maps, named("other")) },
    ]
}

/// Rules that take more than the default ones do.
const MORE: &str = "
apiVersion: kustody.dev/v1alpha1
kind: AgentPolicy
metadata: {name: test-export}
spec:
  rules:
  - {id: cut, reason: too few, action: Deny, change: [{path: spec.replicas, decreasedBy: 50%}],
     match: {operations: [UPDATE], namespaces: [export], resources: [{apiGroups: [apps], resources: [deployments, deployments/scale]}]}}
  - {id: image, reason: another image, action: Deny, change: [{path: 'spec.template.spec.containers[*].image', changed: true}],
     match: {operations: [UPDATE], namespaces: [export], resources: [{apiGroups: [apps], resources: [deployments]}]}}
  - {id: memory, reason: a lot of memory, action: Deny,
     change: [{path: 'spec.template.spec.containers[*].resources.limits.memory', increasedBy: 1Gi}],
     match: {operations: [UPDATE], namespaces: [export], resources: [{apiGroups: [apps], resources: [deployments]}]}}
  - {id: entry, reason: an entry goes, action: Deny, change: [{path: 'data.*', removed: true}],
     match: {operations: [UPDATE], namespaces: [export], resources: [{apiGroups: [''], resources: [configmaps]}]}}
  - id: known
    reason: by its name, in this run, by this class
    action: Deny
    when: [\"agent.class == 'agents' && agent.user.endsWith(':mighty') && action.name == 'by-name' && run == 'r1'\"]
    match: {operations: [CREATE], namespaces: [export], resources: [{apiGroups: [''], resources: [configmaps]}]}
";

/// What the rows work on.
const SCENE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: export, labels: {kustody.dev/writes: allow}}
---
apiVersion: v1
kind: Namespace
metadata: {name: export-guarded, labels: {kustody.dev/protected: 'true'}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kept, namespace: export}
data: {a: '1', b: '2'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many, namespace: export}
spec:
  replicas: 4
  paused: true
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      nodeSelector: {nowhere: 'true'}
      containers:
      - {name: c, image: 'example.com/c:1', resources: {limits: {memory: 512Mi}}}
      - {name: side, image: 'example.com/side:1'}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.export.example.com}
spec:
  group: export.example.com
  scope: Namespaced
  names: {plural: things, kind: Thing}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: export-bound}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Delete
  storageClassName: export
  hostPath: {path: /tmp/export}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: export-kept}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: other
  hostPath: {path: /tmp/export}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: export, namespace: export}
spec: {accessModes: [ReadWriteOnce], storageClassName: export, volumeName: export-bound, resources: {requests: {storage: 1Mi}}}
";

fn same_verdicts(stage: &mut Stage) -> anyhow::Result<()> {
    mighty_agent(stage)?;
    let tried = set_up(stage).and_then(|(rows, export)| compare(stage, &rows, &export));
    let running = if stage.kustody.runs() { Ok(()) } else { stage.kustody.launch() };
    let cleaned = clean_up(stage);
    tried?;
    running?;
    cleaned
}

/// The rows, and what is exported.
fn set_up(stage: &Stage) -> anyhow::Result<(Vec<Row>, String)> {
    let admin = &stage.cluster.admin;
    let apply = |text: &str| stage.cluster.kubectl(admin, &["apply", "-f", "-"]).input(text).ok();
    apply(SCENE)?;
    apply(MORE)?;
    crate::coverage::signing_request(stage, "export")?;
    eventually(Duration::from_secs(30), || {
        let argv = ["get", "pv", "export-bound", "-o", "jsonpath={.status.phase}"];
        let phase = stage.cluster.admin(&argv)?.out();
        stage.cluster.admin(&["get", "serviceaccount", "default", "-n", "export"])?;
        ensure!(phase == "Bound", "{phase}");
        Ok(())
    })?;
    let file = stage.dir.join("test-export.yaml");
    std::fs::write(&file, MORE)?;
    let manifests = format!("{}/manifests", env!("CARGO_MANIFEST_DIR"));
    let files = [format!("{manifests}/default-class.yaml"), format!("{manifests}/default-policy.yaml")];
    let argv = [
        "kustody",
        "policy",
        "export",
        "--policies",
        &files[0],
        "--policies",
        &files[1],
        "--policies",
        &file.to_string_lossy(),
    ];
    let exported = stage.run_argv(&stage.people.approver, &argv).ok()?;
    ensure!(!exported.err().contains("not exported"), "{}", exported.err());
    let node = stage.cluster.admin(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?.out();
    let rows = [rows_of_access(), rows_of_the_gate(), rows_of_workloads(&node), more_rows()];
    Ok((rows.into_iter().flatten().collect(), exported.out()))
}

fn ask(stage: &Stage, row: &Row) -> anyhow::Result<(u16, String)> {
    let extras: Vec<(&str, &str)> = row.run.map(|run| ("kustody.dev/run", run)).into_iter().collect();
    Asker::new(stage, "mighty", &extras)?.ask(row.method.clone(), &row.path, row.body.as_ref())
}

fn compare(stage: &mut Stage, rows: &[Row], export: &str) -> anyhow::Result<()> {
    // Every rule that was exported has a row.
    let names = export.lines().filter_map(|line| line.trim().strip_prefix("name: kustody-"));
    for name in names {
        let tried = rows.iter().filter_map(|row| row.rule).any(|rule| name.trim_matches('\'').ends_with(rule));
        ensure!(tried, "no row for {name}");
    }
    std::thread::sleep(Duration::from_secs(2));
    let mut wrong = Vec::new();
    for row in rows {
        let (code, message) = ask(stage, row)?;
        let denied = code == 403
            && ["Refused by rule", "the Kustody gateway", "self-protection"].iter().any(|why| message.contains(why));
        if denied != row.rule.is_some() || (!denied && code != 200) {
            wrong.push(format!("kustody: {} {}: {code} {message}", row.method, row.path));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    stage.kustody.kill()?;
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(export).ok()?;
    // The API server takes a moment to compile new policies; the last one to be in force counts.
    for row in rows {
        let tried = eventually(Duration::from_secs(if row.rule.is_some() { 20 } else { 0 }), || native(stage, row));
        wrong.extend(tried.err().map(|error| format!("natively: {} {}: {error:#}", row.method, row.path)));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A hit is denied by an exported policy; a miss passes them all and reaches the webhook, which is dead.
fn native(stage: &Stage, row: &Row) -> anyhow::Result<()> {
    let (code, message) = ask(stage, row)?;
    match row.rule {
        Some(_) => {
            ensure!(message.contains("ValidatingAdmissionPolicy") && message.contains("denied"), "{code} {message}")
        }
        None => ensure!(message.contains("failed calling webhook"), "{code} {message}"),
    }
    // Of several policies that deny, the API server names one.
    let several = ["self-protect", "ns-delete-protected"];
    let named = row.rule.is_none_or(|rule| several.contains(&rule) || message.contains(&format!("rule {rule}:")));
    ensure!(named, "denied by another rule: {message}");
    Ok(())
}

fn clean_up(stage: &Stage) -> anyhow::Result<()> {
    for kind in ["validatingadmissionpolicybindings", "validatingadmissionpolicies"] {
        stage.cluster.admin(&["delete", kind, "-l", "kustody.dev/exported=true"])?;
    }
    for argv in [
        &["delete", "agentpolicy", "test-export", "--ignore-not-found"][..],
        &["delete", "csr/export", "--ignore-not-found"],
        &["delete", "crd/things.export.example.com", "--ignore-not-found"],
        &["delete", "pvc/export", "-n", "export", "--ignore-not-found", "--wait=false"],
        &["delete", "pv/export-bound", "pv/export-kept", "--ignore-not-found", "--wait=false"],
        &["delete", "namespace/export", "namespace/export-guarded", "--ignore-not-found", "--wait=false"],
    ] {
        stage.cluster.admin(argv)?;
    }
    without_right(stage).context("the agent keeps its rights")
}
