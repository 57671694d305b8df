//! Approvals as people meet them: the guard in the API server, and the command line around it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;

use crate::Test;
use crate::guard::{Cast, refusals};
use crate::stage::Stage;
use crate::stage::run::Running;
use crate::stage::story::held;

pub(super) const TESTS: &[Test] = &[
    ("the API server refuses every decision that nobody may take", the_guard_refuses),
    ("an agent that was made an approver by mistake cannot decide its own request", an_agent_cannot_decide),
    ("a held exec waits in the gateway and runs when it is approved, once", a_held_exec_runs_once),
    ("a denial needs a reason, an unknown id is told, the plugin works", the_command_line_is_clear),
];

/// Objects that were held so far.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// A held delete.
struct Held {
    id: String,
    waiting: Running,
}

fn hold(stage: &Stage) -> anyhow::Result<Held> {
    // A new object each time: a denial stays in force for the object it was about.
    let name = format!("held-{}", HELD.fetch_add(1, Ordering::Relaxed));
    stage.cluster.admin(&["create", "configmap", &name, "-n", "shop"])?;
    let argv = ["kubectl", "delete", "configmap", &name, "-n", "shop"];
    let waiting = stage.run_argv(&stage.people.agent_direct, &argv).start()?;
    Ok(Held { id: held(stage)?, waiting })
}

impl Held {
    /// A person denies it for good, so that the next test finds nothing open.
    fn end(self, stage: &Stage) -> anyhow::Result<()> {
        let deny = ["kustody", "deny", &self.id, "--reason", "the test is over"];
        stage.run_argv(&stage.people.approver, &deny).ok()?;
        ensure!(self.waiting.done()?.code != 0, "a denied delete went through");
        Ok(())
    }
}

fn the_guard_refuses(stage: &mut Stage) -> anyhow::Result<()> {
    let cast = Cast {
        admin: stage.cluster.admin.clone(),
        kustody: stage.dir.join("kustody.kubeconfig"),
        requester: stage.people.requester.clone(),
        approver: stage.people.approver.clone(),
        onlooker: stage.people.onlooker.clone(),
    };
    tokio::runtime::Runtime::new()?.block_on(refusals(&cast))
}

fn an_agent_cannot_decide(stage: &mut Stage) -> anyhow::Result<()> {
    let held = hold(stage)?;
    let binding = ["create", "rolebinding", "mistake", "-n", "kustody-system", "--clusterrole=kustody-approver"];
    stage.cluster.admin(&["delete", "rolebinding", "mistake", "-n", "kustody-system", "--ignore-not-found"])?;
    stage.cluster.admin(&[&binding[..], &["--serviceaccount=agents:coder"]].concat())?;
    let argv = ["kustody", "approve", &held.id, "--reason", "I need it"];
    let approved = stage.run_argv(&stage.people.agent_direct, &argv).done();
    stage.cluster.admin(&["delete", "rolebinding", "mistake", "-n", "kustody-system"])?;
    let approved = approved?;
    ensure!(approved.code == 1, "the requester approved: {approved:?}");
    held.end(stage)
}

/// Holds execs in the namespace `shop`.
const HOLD_EXEC: &str = "
apiVersion: kustody.dev/v1alpha1
kind: AgentPolicy
metadata: {name: test-exec}
spec:
  rules:
  - id: exec-in-shop
    reason: somebody looks first
    match:
      operations: [CONNECT]
      namespaces: [shop]
      resources: [{apiGroups: [\"\"], resources: [pods/exec]}]
    action: Hold
";

fn a_held_exec_runs_once(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(HOLD_EXEC).ok()?;
    let tried = held_execs(stage);
    stage.cluster.admin(&["delete", "agentpolicy", "test-exec"])?;
    tried
}

fn held_execs(stage: &Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    std::thread::sleep(Duration::from_secs(1));
    let argv = ["kubectl", "exec", "-i", "-n", "shop", &pod, "--", "sh", "-c", "cat; exit 5"];
    let start = || stage.run_argv(&stage.people.agent, &argv).input("hello").start();
    let mut waiting = start()?;
    let id = held(stage)?;
    ensure!(waiting.runs()?, "the exec did not wait: {:?}", waiting.done()?);
    stage.run_argv(&stage.people.approver, &["kustody", "approve", &id]).ok()?;
    let ran = waiting.done()?;
    ensure!(ran.code == 5 && ran.out() == "hello", "{ran:?}");
    let again = start()?;
    let id = held(stage)?;
    stage.run_argv(&stage.people.approver, &["kustody", "deny", &id, "--reason", "once is enough"]).ok()?;
    let refused = again.done()?;
    ensure!(refused.code == 1 && refused.err().contains("once is enough"), "{refused:?}");
    Ok(())
}

fn the_command_line_is_clear(stage: &mut Stage) -> anyhow::Result<()> {
    let held = hold(stage)?;
    let approver = &stage.people.approver;
    let no_reason = stage.run_argv(approver, &["kustody", "deny", &held.id]).done()?;
    ensure!(no_reason.code == 2 && no_reason.err().contains("--reason"), "{no_reason:?}");
    let unknown = stage.run(approver, "kustody approve apr-nothing").done()?;
    ensure!(unknown.code == 1 && unknown.err().contains("apr-nothing"), "{unknown:?}");
    let plugin = stage.run(approver, "kubectl kustody approvals -o wide").ok()?;
    ensure!(plugin.out().contains(&held.id), "{plugin:?}");
    held.end(stage)
}
