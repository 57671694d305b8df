//! `kubectl debug` and `kubectl run -it --rm` of an agent: by default denied, or held, in words that kubectl shows; where
//! rules allow them they work as they do directly, and what was said in the new container is a recorded attach.
//!
//! kubectl changes or makes a pod, waits for the container, attaches, and where it cannot attach streams the log.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::Test;
use crate::recorded::{self, Recorded};
use crate::stage::Stage;
use crate::stage::run::{Done, Run, eventually};
use crate::stage::story::held_of;
use crate::streams::SPDY;

pub(super) const TESTS: &[Test] = &[
    ("debugging: a node is denied in words, by every profile, and no pod is made", a_node_is_denied),
    (
        "debugging: a container in a running pod waits for people twice; unattached its log is shown",
        a_container_waits_for_people,
    ),
    ("debugging: allowed, debug and run work as they do directly, and are recorded", allowed_it_works),
];

/// Where an agent may debug as far as Kubernetes is concerned, with a pod to look at.
const SCENE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: debugging}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: coder, namespace: debugging}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: coder, namespace: agents}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: debugging}
rules:
- {apiGroups: [''], resources: [nodes], verbs: [get]}
- {apiGroups: [''], resources: [pods/ephemeralcontainers], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: debugging}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: debugging}
subjects: [{kind: ServiceAccount, name: coder, namespace: agents}]
---
apiVersion: v1
kind: Pod
metadata: {name: patient, namespace: debugging}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: IMAGE, imagePullPolicy: Never, command: [sleep, '3601']}]
";

/// In place of the default rules about workloads and access.
const ALLOWED: &str = "
apiVersion: kustody.dev/v1alpha1
kind: AgentPolicy
metadata: {name: test-debugging}
spec:
  rules:
  - id: debugging
    reason: pods are debugged here
    action: Allow
    match:
      operations: [CREATE, UPDATE, DELETE, CONNECT]
      namespaces: [debugging]
      resources: [{apiGroups: [''], resources: [pods, pods/attach, pods/ephemeralcontainers]}]
";

fn scene(stage: &Stage) -> anyhow::Result<()> {
    // The containers that it was given stay in a pod.
    stage.cluster.admin(&["delete", "pods", "--all", "-n", "debugging", "--now"])?;
    let scene = SCENE.replace("IMAGE", &stage.cluster.image);
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(scene).ok()?;
    let ready = ["wait", "pod/patient", "-n", "debugging", "--for=condition=Ready", "--timeout=60s"];
    stage.cluster.admin(&ready).map(drop)
}

fn leave(stage: &Stage) -> anyhow::Result<()> {
    stage.cluster.admin(&["delete", "namespace", "debugging"])?;
    stage.cluster.admin(&["delete", "clusterrole/debugging", "clusterrolebinding/debugging"]).map(drop)
}

/// The words of a kubectl that starts a container with this script, after the ones that say where.
fn words(stage: &Stage, start: &str, script: &str) -> Vec<String> {
    let start = start.split(' ').map(str::to_owned);
    let image = format!("--image={}", stage.cluster.image);
    let rest = ["--image-pull-policy=Never", "-n", "debugging", "--", "sh", "-c", script].map(str::to_owned);
    ["kubectl".to_owned()].into_iter().chain(start).chain([image]).chain(rest).collect()
}

/// Standard input stays open: once it ends, containerd shows nothing more of a container that others may attach to.
fn as_agent(stage: &Stage, words: &[String]) -> Run {
    stage.run_argv(&stage.people.agent, &words.iter().map(String::as_str).collect::<Vec<_>>()).stays_open()
}

/// Standard output without what kubectl says there itself.
fn said(done: &Done) -> String {
    let own = |line: &&str| {
        !["Targeting container", "Defaulting debug", "Creating debugging"].iter().any(|own| line.starts_with(own))
    };
    done.out().split_inclusive('\n').filter(own).collect()
}

fn node(stage: &Stage) -> anyhow::Result<String> {
    Ok(stage.cluster.admin(&["get", "nodes", "-o", "name"])?.out().trim().to_owned())
}

fn a_node_is_denied(stage: &mut Stage) -> anyhow::Result<()> {
    scene(stage)?;
    let node = node(stage)?;
    for (profile, why) in [
        ("sysadmin", "Refused by rule pod-priv of policy default-workloads: this pod could take over its node"),
        ("restricted", "Refused by rule pod-node of policy default-workloads: agents do not choose nodes"),
    ] {
        let denied = as_agent(stage, &words(stage, &format!("debug {node} -i --profile={profile}"), "id")).done()?;
        let clear = denied.err().contains("NOT EXECUTED.") && denied.err().contains(why);
        ensure!(denied.code == 1 && clear, "{profile}: {denied:?}");
    }
    let pods = stage.cluster.admin(&["get", "pods", "-n", "debugging", "-o", "name"])?.out();
    ensure!(pods == "pod/patient\n", "pods were made: {pods}");
    Ok(())
}

fn a_container_waits_for_people(stage: &mut Stage) -> anyhow::Result<()> {
    scene(stage)?;
    let before = recorded::newest(stage)?;
    let decide = |stage: &Stage, verb: &str, id: &str| {
        stage.run_argv(&stage.people.approver, &["kustody", verb, id, "--reason", "says the test"]).ok()
    };
    let start = "debug patient -i --profile=baseline --target=c";
    let denied = as_agent(stage, &words(stage, start, "id")).start()?;
    decide(stage, "deny", &held_of(stage, "pods/ephemeralcontainers")?)?;
    let denied = denied.done()?;
    let told = denied.err();
    ensure!(denied.code == 1 && told.contains("denied by approver: says the test"), "{denied:?}");

    // Attaching is refused: kubectl says so, and shows what the container printed all the same.
    let logged = as_agent(stage, &words(stage, start, "echo here; sleep 2")).start()?;
    decide(stage, "approve", &held_of(stage, "pods/ephemeralcontainers")?)?;
    decide(stage, "deny", &held_of(stage, "pods/attach")?)?;
    let logged = logged.done()?.ok()?;
    let told = logged.err();
    let warned = told.contains("couldn't attach to pod/patient, falling back to streaming logs")
        && told.contains("NOT EXECUTED. Denied by approver: says the test");
    ensure!(said(&logged) == "here\n" && warned, "{logged:?}");
    ensure!(recorded::newest(stage)? == before, "a session that never was is on record");

    let attached = as_agent(stage, &words(stage, start, "read x; echo got $x; sleep 1")).input("word\n").start()?;
    decide(stage, "approve", &held_of(stage, "pods/ephemeralcontainers")?)?;
    decide(stage, "approve", &held_of(stage, "pods/attach")?)?;
    let attached = attached.done()?.ok()?;
    let recorded = recorded::next(stage, &before)?;
    ensure!(said(&attached) == "got word\n", "{attached:?}, {recorded:?}");
    holds(&recorded, "got word\n", "word\n")
}

fn allowed_it_works(stage: &mut Stage) -> anyhow::Result<()> {
    scene(stage)?;
    stage.cluster.admin(&["delete", "agentpolicy", "default-workloads", "default-access"])?;
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(ALLOWED).ok()?;
    std::thread::sleep(Duration::from_secs(1));
    let tried = debugged(stage).and_then(|()| ran(stage)).and_then(|()| at_terminals(stage));
    stage.cluster.admin(&["delete", "agentpolicy", "test-debugging"])?;
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/default-policy.yaml");
    stage.cluster.admin(&["apply", "-f", rules])?;
    stage.cluster.admin(&["delete", "agentpolicy", "default-budget"])?;
    std::thread::sleep(Duration::from_secs(1));
    leave(stage)?;
    tried
}

/// A recorded attach that holds just this, and verifies.
fn holds(recorded: &Recorded, output: &str, input: &str) -> anyhow::Result<()> {
    let kept = (&*recorded.stdout, &*recorded.stdin) == (output.as_bytes(), input.as_bytes());
    ensure!(kept && recorded.header["kind"] == "attach", "{recorded:?}: {}", recorded.header);
    Ok(())
}

/// Without a terminal: a container in a pod, beside a copy of it, on the node.
fn debugged(stage: &Stage) -> anyhow::Result<()> {
    let node = node(stage)?;
    let target = "debug patient -i --profile=general --target=c -c beside";
    let copy = "debug patient -i --profile=general --copy-to=copied -c beside";
    for (start, transport, script, says) in [
        (target, "true", "read x; echo got $x; tr '\\0' ' ' < /proc/1/cmdline; sleep 1", "got word\nsleep 3601 "),
        (copy, "false", "read x; echo got $x; sleep 1", "got word\n"),
        (
            &*format!("debug {node} -i --profile=sysadmin"),
            "true",
            "read x; echo got $x; test -x /host/bin/sh && echo a node; sleep 1",
            "got word\na node\n",
        ),
    ] {
        let before = recorded::newest(stage)?;
        let done = as_agent(stage, &words(stage, start, script)).env(SPDY, transport).input("word\n").done()?.ok()?;
        let recorded = recorded::next(stage, &before).with_context(|| format!("{done:?}"))?;
        ensure!(said(&done) == says, "{start}: {done:?}, {recorded:?}");
        holds(&recorded, says, "word\n").with_context(|| start.to_owned())?;
        if start == copy {
            continue; // It has started again already: its log is that of another container.
        }
        let pod = recorded.header["target"]["pod"].as_str().context("no pod")?;
        let container = recorded.header["target"]["container"].as_str().context("no container")?;
        let printed = stage.cluster.admin(&["logs", "-n", "debugging", pod, "-c", container])?;
        ensure!(printed.stdout == recorded.stdout, "{start}: it printed {printed:?}, {recorded:?}");
    }
    Ok(())
}

/// A pod of its own, gone afterwards, with the exit code of its command; directly and through the gateway the same.
fn ran(stage: &Stage) -> anyhow::Result<()> {
    let start = "run runner -i --rm --restart=Never";
    let words = words(stage, start, "read x; echo got $x; echo aside >&2; sleep 1; exit 3");
    let argv: Vec<&str> = words.iter().map(String::as_str).collect();
    let before = recorded::newest(stage)?;
    let run = |who, transport| stage.run_argv(who, &argv).env(SPDY, transport).input("word\n").done();
    let through = run(&stage.people.agent, "true")?;
    let recorded = recorded::next(stage, &before).with_context(|| format!("{through:?}"))?;
    holds(&recorded, "got word\n", "word\n")?;
    ensure!(recorded.stderr == b"aside\n" && through.out().starts_with("got word\n"), "{through:?}, {recorded:?}");
    let direct = run(&stage.cluster.admin, "true")?;
    // Both outputs of a command come over two channels, in any order.
    let lines = |done: &Done| {
        let text = done.err();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let told = |done: &Done| (done.code, done.out(), lines(done));
    ensure!(told(&through) == told(&direct) && direct.code == 3, "{through:?}, and directly {direct:?}");
    gone(stage, "runner")
}

fn gone(stage: &Stage, pod: &str) -> anyhow::Result<()> {
    let argv = ["get", "pod", pod, "-n", "debugging", "--ignore-not-found", "-o", "name"];
    let left = stage.cluster.admin(&argv)?.out();
    ensure!(left.is_empty(), "{pod} is still there");
    Ok(())
}

/// At a terminal: both, over SPDY and over WebSocket.
fn at_terminals(stage: &Stage) -> anyhow::Result<()> {
    // `stty` complains while the terminal has no size yet.
    let sized = "while [ \"$(stty size 2>/dev/null)\" != \"33 101\" ]; do sleep 0.05; done; echo 33 101";
    let script = format!("read x; echo got $x; {sized}; sleep 1; exit 4");
    for (start, transport, code) in [
        ("run seen -it --rm --restart=Never", "true", 4),
        ("debug patient -it --profile=general --target=c -c seen", "false", 0),
    ] {
        let before = recorded::newest(stage)?;
        let words = words(stage, start, &format!("'{script}'"));
        let line = format!("stty rows 33 cols 101; exec {}", words.join(" "));
        let program = stage.dir.join("bin/kubectl").display().to_string();
        let line = line.replace("exec kubectl", &format!("exec {program}"));
        let run = Run::new(&["script", "-qec", &line, "/dev/null"]);
        let run = run.env("KUBECONFIG", &stage.people.agent.to_string_lossy()).env(SPDY, transport);
        let done = run.input("word\n").done()?;
        let recorded = recorded::next(stage, &before).with_context(|| format!("{done:?}"))?;
        let both = [&*done.stdout, &*recorded.stdout].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let good = both.iter().all(|text| text.contains("got word\r\n33 101\r\n"));
        ensure!(done.code == code && good && recorded.header["kind"] == "attach", "{start}: {done:?}, {recorded:?}");
    }
    eventually(Duration::from_secs(30), || gone(stage, "seen"))
}
