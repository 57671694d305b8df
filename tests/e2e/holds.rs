//! Holding on the real cluster: tickets and groups, what an approver reads, who may approve, what changed meanwhile,
//! and a storm of requests that leaves no more than the cap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kustody::core::policy::{ClassSpec, PolicySnapshot, PolicySpec};
use kustody::edge::budgets::Budgets;
use kustody::edge::cluster::approval_request::ApprovalRequest;
use kustody::edge::cluster::approvals::{self, Approvals};
use kustody::edge::cluster::grants::{self, Grants};
use kustody::edge::keys;
use kustody::edge::store::spool::{self, Spool};
use kustody::edge::store::wal::{self, Wal};
use kustody::service::webhook::{self, Edges, Webhook};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Test;
use crate::stage::Stage;
use crate::stage::run::{Done, eventually};

pub(super) const TESTS: &[Test] = &[
    ("holds: twelve objects of one apply are one group, decided at once", an_apply_is_one_group),
    ("holds: an approver reads what changes, what hangs on it and what a dry run says", an_approver_reads_what_follows),
    (
        "holds: an object that changed since the approval is held again, and the agent is told",
        a_changed_object_is_held_again,
    ),
    ("holds: only members of the groups a rule names approve", only_named_groups_approve),
    ("holds: no agent approves, whatever rights it was given", no_agent_approves),
    ("holds: a storm of ten thousand held requests leaves no more than the cap", a_storm_leaves_the_cap),
];

/// Holds ConfigMaps of the namespace `shop` whose names begin with `held-`, on these terms.
fn policy(terms: &str) -> String {
    format!(
        "apiVersion: kustody.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: test-holds}}\nspec:\n  rules:\n  \
         - id: look-first\n    reason: somebody looks first\n    action: Hold\n    hold: {terms}\n    match:\n      \
         namespaces: [shop]\n      names: [\"held-*\"]\n      resources: [{{apiGroups: [\"\"], resources: [configmaps]}}]\n"
    )
}

/// With the policy in force; removes it and what was held afterwards.
fn with_policy(stage: &Stage, terms: &str, test: fn(&Stage) -> anyhow::Result<()>) -> anyhow::Result<()> {
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(policy(terms)).ok()?;
    std::thread::sleep(Duration::from_secs(1));
    let tried = test(stage);
    stage.cluster.admin(&["delete", "agentpolicy", "test-holds"])?;
    stage.cluster.admin(&["delete", "configmap", "-n", "shop", "-l", "test=holds"])?;
    // What is still open would be taken for what the next test holds.
    stage.cluster.admin(&["delete", "approvalrequests", "--all", "-n", "kustody-system"])?;
    tried
}

fn as_agent(stage: &Stage, argv: &[&str]) -> anyhow::Result<Done> {
    stage.run_argv(&stage.people.agent_direct, argv).done()
}

fn as_approver(stage: &Stage, argv: &[&str]) -> anyhow::Result<Done> {
    stage.run_argv(&stage.people.approver, argv).done()
}

/// The id in a ticket.
fn id_of(refused: &Done) -> anyhow::Result<String> {
    let told = refused.err();
    let id = told.split_whitespace().find(|word| word.starts_with("apr-")).with_context(|| format!("no id: {told}"))?;
    Ok(id.to_owned())
}

fn config_map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop, labels: {{test: holds}}}}\n\
         data: {{mode: {value}, DB_PASSWORD: hunter2}}\n---\n"
    )
}

fn an_apply_is_one_group(stage: &mut Stage) -> anyhow::Result<()> {
    with_policy(stage, "{mode: Ticket}", |stage| {
        // What this agent asked for in earlier tests is another group once the window of thirty seconds is over.
        std::thread::sleep(Duration::from_secs(31));
        let twelve: String = (0..12).map(|number| config_map(&format!("held-of-twelve-{number}"), "fast")).collect();
        let apply = || {
            let argv = ["kubectl", "apply", "-f", "-"];
            stage.run_argv(&stage.people.agent_direct, &argv).input(twelve.clone()).done()
        };
        let refused = apply()?;
        ensure!(refused.code != 0 && refused.err().matches("NOT EXECUTED").count() == 12, "{refused:?}");
        ensure!(refused.took < Duration::from_secs(20), "tickets made the agent wait: {refused:?}");
        let id = id_of(&refused)?;
        let one = as_approver(stage, &["kustody", "show", &id, "-o", "json"])?.ok()?;
        ensure!(!one.out().contains("hunter2"), "a password is shown");
        let one: Value = serde_json::from_slice(&one.stdout)?;
        let group = one["spec"]["group"].as_str().context("no group")?;
        let listed = as_approver(stage, &["kustody", "approvals", "--group", group, "-o", "name"])?.ok()?;
        ensure!(listed.out().lines().count() == 12, "{listed:?}");
        let table = as_approver(stage, &["kustody", "approvals"])?.ok()?;
        ensure!(table.out().contains(&format!("--group {group} --expect 12")), "{table:?}");
        let wrong = as_approver(stage, &["kustody", "approve", "--group", group, "--expect", "11"])?;
        ensure!(wrong.code == 1 && wrong.err().contains("12 requests"), "{wrong:?}");
        let approve = ["kustody", "approve", "--group", group, "--expect", "12", "--reason", "the new shop"];
        let approved = as_approver(stage, &approve)?.ok()?;
        ensure!(approved.out().lines().filter(|line| line.starts_with("approved")).count() == 12, "{approved:?}");
        eventually(Duration::from_secs(3), || apply()?.ok()).map(drop)
    })
}

const AROUND_WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: kept, namespace: shop}
spec: {minAvailable: 0, selector: {matchLabels: {app: web}}}
";

fn an_approver_reads_what_follows(stage: &mut Stage) -> anyhow::Result<()> {
    stage.web()?;
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(AROUND_WEB).ok()?;
    let waiting = stage.run(&stage.people.agent_direct, "kubectl delete deployment web -n shop").start()?;
    let id = crate::stage::story::held_of(stage, "deployments")?;
    let read = eventually(Duration::from_secs(10), || {
        let shown = as_approver(stage, &["kustody", "show", &id])?.ok()?.out();
        for line in [
            "replicas it asks for: 1",
            "pods of it: 1 (web-",
            "services that lead to its pods: 1 (front)",
            "disruption budgets about its pods: 1 (kept)",
            "autoscalers of it: none",
            "Dry run:      the API server would do it",
            "Asked today:",
        ] {
            ensure!(shown.contains(line), "`{line}` is missing:\n{shown}");
        }
        Ok(())
    });
    as_approver(stage, &["kustody", "deny", &id, "--reason", "the test is over"])?.ok()?;
    ensure!(waiting.done()?.code != 0, "a denied delete went through");
    stage.cluster.admin(&["delete", "-n", "shop", "service/front", "poddisruptionbudget/kept"])?;
    read
}

fn a_changed_object_is_held_again(stage: &mut Stage) -> anyhow::Result<()> {
    with_policy(stage, "{mode: Ticket}", |stage| {
        let write = |value: &str| {
            let input = config_map("held-moving", value);
            stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(input).ok()
        };
        write("fast")?;
        let delete = ["kubectl", "delete", "configmap", "held-moving", "-n", "shop"];
        let first = id_of(&as_agent(stage, &delete)?)?;
        as_approver(stage, &["kustody", "approve", &first])?.ok()?;
        write("slow")?;
        std::thread::sleep(Duration::from_secs(1));
        let again = as_agent(stage, &delete)?;
        ensure!(again.err().contains("the object changed since"), "{again:?}");
        let second = id_of(&again)?;
        ensure!(first != second, "the approval of another object was used");
        let older = as_approver(stage, &["kustody", "show", &first])?.ok()?;
        ensure!(older.out().contains("Superseded"), "{older:?}");
        as_approver(stage, &["kustody", "approve", &second])?.ok()?;
        eventually(Duration::from_secs(3), || as_agent(stage, &delete)?.ok()).map(drop)
    })
}

fn only_named_groups_approve(stage: &mut Stage) -> anyhow::Result<()> {
    with_policy(stage, "{mode: Ticket, approvers: [security]}", |stage| {
        let create = ["kubectl", "create", "configmap", "held-named", "-n", "shop"];
        let id = id_of(&as_agent(stage, &create)?)?;
        let refused = as_approver(stage, &["kustody", "approve", &id])?;
        ensure!(refused.code == 1 && refused.err().contains("spec.approvers"), "{refused:?}");
        let guardian = stage.dir.join("guardian.kubeconfig");
        stage.cluster.person("guardian", &["approvers", "security"], &guardian)?;
        // The same by plain kubectl.
        let decision = json!({"status": {"decisions": [{"by": "guardian", "verdict": "Approve"}]}}).to_string();
        let patch = ["kubectl", "patch", "approvals", &id, "-n", "kustody-system", "--subresource=status"];
        let patch = [&patch[..], &["--type=merge", "-p", &decision]].concat();
        stage.run_argv(&guardian, &patch).ok()?;
        let created = eventually(Duration::from_secs(3), || as_agent(stage, &create)?.ok());
        stage.cluster.admin(&["delete", "configmap", "held-named", "-n", "shop", "--ignore-not-found"])?;
        created.map(drop)
    })
}

fn no_agent_approves(stage: &mut Stage) -> anyhow::Result<()> {
    with_policy(stage, "{mode: Ticket}", |stage| {
        let create = ["kubectl", "create", "configmap", "held-own", "-n", "shop"];
        let id = id_of(&as_agent(stage, &create)?)?;
        let admin = |argv: &[&str]| stage.cluster.admin(argv);
        admin(&["create", "serviceaccount", "helper", "-n", "agents"])?;
        let binding = ["create", "rolebinding", "helper", "-n", "kustody-system", "--clusterrole=kustody-approver"];
        admin(&[&binding[..], &["--serviceaccount=agents:helper"]].concat())?;
        let by = "system:serviceaccount:agents:helper";
        let decision = json!({"status": {"decisions": [{"by": by, "verdict": "Approve"}]}}).to_string();
        let patch = ["patch", "approvals", &id, "-n", "kustody-system", "--subresource=status", "--type=merge"];
        let as_helper =
            [&patch[..], &["-p", &decision, "--as", by, "--as-group=system:serviceaccounts:agents"]].concat();
        let refused = stage.cluster.kubectl(&stage.cluster.admin, &as_helper).done();
        admin(&["delete", "serviceaccount", "helper", "-n", "agents"])?;
        admin(&["delete", "rolebinding", "helper", "-n", "kustody-system"])?;
        let refused = refused?;
        // By a native policy, whichever of them comes first: Kustody itself is not needed for it.
        ensure!(refused.code != 0 && refused.err().contains("ValidatingAdmissionPolicy"), "{refused:?}");
        as_approver(stage, &["kustody", "deny", &id, "--reason", "the test is over"])?.ok().map(drop)
    })
}

/// How many different requests one agent makes.
const STORM: usize = 10_000;

fn a_storm_leaves_the_cap(stage: &mut Stage) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(storm(stage))
}

async fn storm(stage: &Stage) -> anyhow::Result<()> {
    let kubeconfig = Kubeconfig::read_from(stage.dir.join("kustody.kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let shutdown = CancellationToken::new();
    let limits = approvals::Config { max_open_per_agent: 50, ..approvals::Config::default() };
    let (approvals, keeper) = Approvals::new(client.clone(), limits);
    let kept = tokio::spawn(keeper.run(shutdown.clone()));
    let (_rules, rules) = watch::channel(Arc::new(holding_everything()?));
    let key = keys::generate()?;
    let config = webhook::Config::default();
    let key = Arc::new(key);
    let spool =
        Spool::open(spool::Config::new(stage.dir.join("storm-spool")), Arc::clone(&key), TaskTracker::new()).await?;
    let log = Wal::open(&spool, wal::Config::default(), &TaskTracker::new()).await?;
    let (grants, _keeper) = Grants::new(client.clone(), grants::Config::default(), rules.clone());
    let edges = Edges {
        snapshot: rules,
        approvals,
        grants,
        budgets: Budgets::new(1),
        log,
        tickets: key.public().clone(),
        shutdown: shutdown.clone(),
    };
    let hook = Webhook::new(config, edges);
    let answers: Vec<u64> = futures_util::stream::iter(0..STORM)
        .map(|number| ask(&hook, number))
        .buffer_unordered(64)
        .collect::<Vec<anyhow::Result<u64>>>()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    shutdown.cancel();
    kept.await?;
    let requests: Api<ApprovalRequest> = Api::namespaced(client, "kustody-system");
    let all = requests.list(&ListParams::default()).await?.items;
    let own: Vec<&ApprovalRequest> = all.iter().filter(|request| request.spec.requester.user == STORMER).collect();
    for request in &own {
        let name = request.metadata.name.as_deref().context("a request without a name")?;
        requests.delete(name, &kube::api::DeleteParams::default()).await?;
    }
    ensure!(answers.iter().all(|code| *code == 403), "not every request was refused");
    ensure!(own.len() == 50, "{} requests are left", own.len());
    Ok(())
}

/// An agent of the storm alone.
const STORMER: &str = "system:serviceaccount:agents:stormer";

fn holding_everything() -> anyhow::Result<PolicySnapshot> {
    let class: ClassSpec = serde_json::from_value(json!({"subjects": {"serviceAccountNamespaces": ["agents"]}}))?;
    let policy: PolicySpec = serde_json::from_value(json!({"rules": [{"id": "look", "reason": "people look",
        "action": "Hold", "hold": {"mode": "Ticket"}, "match": {"resources": [{"apiGroups": ["*"], "resources": ["*/*"]}]}}]}))?;
    let (classes, policies) =
        (BTreeMap::from([("agents".to_owned(), class)]), BTreeMap::from([("all".to_owned(), policy)]));
    let (snapshot, problems) = PolicySnapshot::load(&classes, &policies);
    ensure!(problems.is_empty(), "{problems:?}");
    Ok(snapshot)
}

async fn ask(hook: &Webhook, number: usize) -> anyhow::Result<u64> {
    let name = format!("storm-{number}");
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": name, "operation": "CREATE", "namespace": "agents", "name": name, "dryRun": false,
            "resource": {"group": "", "version": "v1", "resource": "configmaps"},
            "userInfo": {"username": STORMER, "groups": ["system:serviceaccounts:agents"]},
            "object": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "agents"}}
        }
    });
    let body = Full::new(Bytes::from(review.to_string()));
    let response = hook.handle(http::Request::post("/admission?timeout=30s").body(body)?).await;
    let answer: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    answer["response"]["status"]["code"].as_u64().context("not refused")
}
