//! Budgets on the real cluster: the default one with small numbers, counted for each run, and shared with every other
//! replica that the cluster knows of. Runs are told apart by the extra that the gateway sets, here by impersonation.

use std::time::Duration;

use anyhow::{Context, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::Test;
use crate::asking::Asker;
use crate::stage::Stage;
use crate::stage::run::eventually;

pub(super) const TESTS: &[Test] = &[
    (
        "budgets: what a run does beyond its changes, deletions or refusals is held, and no other run's",
        a_run_has_its_own,
    ),
    ("budgets: another replica halves the share, and one that went still counts for the window", replicas_share),
];

const MAPS: &str = "/api/v1/namespaces/agents/configmaps";

/// The default budget with small numbers, which tells at once what it holds.
fn small(numbers: [u32; 3]) -> anyhow::Result<String> {
    let path = format!("{}/manifests/default-policy.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path)?;
    let budget = text.split("---\n").find(|part| part.contains("name: default-budget")).context("no default budget")?;
    let [mutations, deletes, denies] = numbers;
    let small = budget
        .replace("Mutations, max: 20", &format!("Mutations, max: {mutations}"))
        .replace("Deletes, max: 5", &format!("Deletes, max: {deletes}"))
        .replace("Denies, max: 3", &format!("Denies, max: {denies}"))
        .replace("action: Budget", "action: Budget\n    hold: {mode: Ticket}");
    for number in [format!("Mutations, max: {mutations}"), format!("Deletes, max: {deletes}"), "Ticket".to_owned()] {
        ensure!(small.contains(&number), "the default budget is not as expected: {budget}");
    }
    Ok(small)
}

/// With the budget in force; removes it and what was held afterwards.
fn with_budget(stage: &mut Stage, numbers: [u32; 3], test: fn(&mut Stage) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let binding = [
        "create",
        "rolebinding",
        "test-budget",
        "-n",
        "agents",
        "--clusterrole=edit",
        "--serviceaccount=agents:spender",
    ];
    let bound = stage.cluster.kubectl(&stage.cluster.admin, &binding).done()?;
    ensure!(bound.code == 0 || bound.err().contains("already exists"), "{bound:?}");
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(small(numbers)?).ok()?;
    std::thread::sleep(Duration::from_secs(1));
    let tried = test(stage);
    stage.cluster.admin(&["delete", "agentpolicy", "default-budget"])?;
    stage.cluster.admin(&["delete", "configmap", "-n", "agents", "-l", "test=budget"])?;
    stage.cluster.admin(&["delete", "rolebinding", "test-budget", "-n", "agents"])?;
    stage.cluster.admin(&["delete", "approvalrequests", "--all", "-n", "kustody-system"])?;
    tried
}

/// One agent in one of its runs.
struct Run(Asker);

impl Run {
    /// One that was never seen before.
    fn fresh(stage: &Stage) -> anyhow::Result<Self> {
        let run = uuid::Uuid::now_v7().to_string();
        Ok(Self(Asker::new(stage, "spender", &[("kustody.dev/run", &run)])?))
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, String)> {
        self.0.ask(method, path, body)
    }

    fn create(&self, query: &str) -> anyhow::Result<(u16, String)> {
        let object = json!({"metadata": {"generateName": "budget-", "labels": {"test": "budget"}}});
        self.ask(Method::POST, &format!("{MAPS}{query}"), Some(&object))
    }

    /// Of so many creations, how many passed.
    fn creations(&self, tried: usize) -> anyhow::Result<usize> {
        let mut passed = 0;
        for _ in 0..tried {
            let (code, message) = self.create("")?;
            ensure!(code == 200 || message.contains("are used up"), "{code} {message}");
            passed += usize::from(code == 200);
        }
        Ok(passed)
    }
}

fn a_run_has_its_own(stage: &mut Stage) -> anyhow::Result<()> {
    with_budget(stage, [3, 2, 2], |stage| {
        let run = Run::fresh(stage)?;
        ensure!(run.creations(3)? == 3, "within the budget");
        let (code, held) = run.create("")?;
        ensure!(code == 403 && held.contains("Held for approval"), "{code} {held}");
        ensure!(held.contains("may be going in circles: 3 changes in 600 s are used up"), "{held}");
        ensure!(run.create("?dryRun=All")?.0 == 200, "a dry run changes nothing");
        ensure!(Run::fresh(stage)?.create("")?.0 == 200, "another run");

        let deleting = Run::fresh(stage)?;
        for name in ["budget-1", "budget-2", "budget-3"] {
            stage.cluster.admin(&["create", "configmap", name, "-n", "agents"])?;
            stage.cluster.admin(&["label", "configmap", name, "-n", "agents", "test=budget"])?;
        }
        let delete = |name: &str| deleting.ask(Method::DELETE, &format!("{MAPS}/{name}"), None);
        ensure!((delete("budget-1")?.0, delete("budget-2")?.0) == (200, 200), "within the budget");
        let (code, held) = delete("budget-3")?;
        ensure!(code == 403 && held.contains("2 deletions in 600 s are used up"), "{code} {held}");

        let refused = Run::fresh(stage)?;
        let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let path = "/api/v1/namespaces/agents/serviceaccounts/default/token";
        for _ in 0..2 {
            let (code, message) = refused.ask(Method::POST, path, Some(&token))?;
            ensure!(code == 403 && message.contains("token-mint"), "{code} {message}");
        }
        let (code, held) = refused.create("")?;
        ensure!(code == 403 && held.contains("2 refusals in 300 s are used up"), "{code} {held}");
        Ok(())
    })
}

fn lease() -> String {
    format!(
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata:\n  name: kustody-test-other\n  namespace: kustody-system\n  \
         labels: {{kustody.dev/replica: \"true\"}}\nspec:\n  holderIdentity: other\n  renewTime: \"{:.6}\"\n",
        jiff::Timestamp::now()
    )
}

fn replicas_share(stage: &mut Stage) -> anyhow::Result<()> {
    with_budget(stage, [4, 100, 100], |stage| {
        // What earlier tests started beside this one still counts in its memory; a new process knows of nobody.
        stage.cluster.admin(&["delete", "leases", "-n", "kustody-system", "-l", "kustody.dev/replica=true"])?;
        again(stage)?;
        ensure!(Run::fresh(stage)?.creations(6)? == 4, "alone it gives away all");
        stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(lease()).ok()?;
        eventually(Duration::from_secs(20), || {
            let passed = Run::fresh(stage)?.creations(3)?;
            ensure!(passed == 2, "with another replica {passed} passed");
            Ok(())
        })?;
        stage.cluster.admin(&["delete", "lease", "kustody-test-other", "-n", "kustody-system"])?;
        std::thread::sleep(Duration::from_secs(12));
        ensure!(Run::fresh(stage)?.creations(6)? == 2, "what the other let through may still be within the window");

        stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(lease()).ok()?;
        again(stage)?;
        let first = Run::fresh(stage).and_then(|run| run.creations(6));
        stage.cluster.admin(&["delete", "lease", "kustody-test-other", "-n", "kustody-system"])?;
        ensure!(first? == 2, "a replica that starts beside another took more than its share");
        configured(stage)
    })
}

/// A number in the configuration counts, whatever the cluster says.
fn configured(stage: &mut Stage) -> anyhow::Result<()> {
    let own = std::fs::read_to_string(&stage.kustody.config)?;
    std::fs::write(&stage.kustody.config, format!("{own}replicas: 4\n"))?;
    let passed = again(stage).and_then(|()| Run::fresh(stage)).and_then(|run| run.creations(3));
    std::fs::write(&stage.kustody.config, own)?;
    again(stage)?;
    ensure!(passed? == 1, "one of four replicas");
    Ok(())
}

fn again(stage: &mut Stage) -> anyhow::Result<()> {
    stage.kustody.kill()?;
    stage.kustody.launch()
}
