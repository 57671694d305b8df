//! Running sessions on the real cluster: a person kills one, a rule that changes ends one, and nobody ends one in
//! somebody else's name.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Test;
use crate::log;
use crate::stage::Stage;
use crate::stage::run::{Run, Running, eventually};
use crate::stage::story::held;
use crate::streams::{SPDY, kubectls, minor};

pub(super) const TESTS: &[Test] = &[
    ("live: kustody kill cuts a running exec, and the agent and the recording say who and why", a_person_kills),
    ("live: a deny rule ends a running exec within two seconds and is named", a_rule_ends_what_runs),
    (
        "live: a held exec with a terminal shows over WebSocket and SPDY what it waits for, and goes on when approved",
        a_terminal_waits,
    ),
    ("live: a session is ended in one's own name, by whoever may, and by no agent", only_in_their_own_name),
];

const NOBODYS: &str = "019aa8c0-4a3b-7e50-8f21-6d1c0b2a9e77";

/// An exec of the agent that runs until it is cut, and its session.
pub(super) fn running(stage: &Stage) -> anyhow::Result<(Running, String)> {
    let pod = stage.pod()?;
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "sh", "-c", "echo begun; sleep 120"];
    let running = stage.run_argv(&stage.people.agent, &argv).start()?;
    let session = eventually(Duration::from_secs(20), || {
        let newest = newest(stage)?;
        ensure!(newest["state"] == "recording", "nothing runs: {newest}");
        Ok(newest["session"].as_str().context("no id")?.to_owned())
    })?;
    Ok((running, session))
}

fn newest(stage: &Stage) -> anyhow::Result<Value> {
    let listed = stage.run(&stage.people.approver, "kustody sessions -o json --limit 1").ok()?;
    let listed: Value = serde_json::from_slice(&listed.stdout)?;
    listed.as_array().and_then(|all| all.first().cloned()).context("no session")
}

/// Waits until the exec has been cut, and holds client and recording to the reason.
fn cut(stage: &Stage, mut running: Running, session: &str, since: Instant, why: &str) -> anyhow::Result<()> {
    while running.runs()? && since.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = since.elapsed();
    let done = running.done()?;
    ensure!(took < Duration::from_secs(2), "it took {took:?}");
    ensure!(done.code != 0 && done.err().contains(why), "the agent was told: {done:?}");
    let sealed = eventually(Duration::from_secs(15), || {
        let newest = newest(stage)?;
        ensure!(newest["session"] == session && newest["state"] == "complete", "{newest}");
        Ok(newest)
    })?;
    let reason = &sealed["reason"];
    ensure!(reason["cause"] == "terminated" && reason["detail"] == why, "the recording says {reason}");
    stage.verify(session)?.ok().map(drop)
}

fn a_person_kills(stage: &mut Stage) -> anyhow::Result<()> {
    let (running, session) = running(stage)?;
    let begun = Instant::now();
    let argv = ["kustody", "kill", &session, "--reason", "wrong cluster"];
    let killed = stage.run_argv(&stage.people.approver, &argv).ok()?;
    ensure!(killed.out().starts_with(&format!("killed {session} (replica ")), "{killed:?}");
    cut(stage, running, &session, begun, "killed by approver: wrong cluster")?;
    eventually(log::SHIPPED, || {
        let entries = log::stored(stage)?;
        let ends = entries.iter().filter(|entry| entry["kind"] == "termination" && entry["recording"] == *session);
        let told: Vec<&Value> = ends.map(|entry| &entry["note"]).collect();
        ensure!(told == ["killed by approver: wrong cluster"], "{told:?}");
        Ok(())
    })?;
    let again = stage.run_argv(&stage.people.requester, &argv).done()?;
    ensure!(again.code == 1 && again.err().contains("was killed already by approver"), "{again:?}");
    let argv = ["get", "terminations", "-n", "kustody-system"];
    let shown = stage.cluster.admin(&argv)?.out();
    ensure!(shown.contains("REPLICA") && shown.contains(&session) && shown.contains("approver"), "{shown}");
    stage.cluster.admin(&["delete", "termination", &session, "-n", "kustody-system"]).map(drop)
}

const FREEZE: &str = "
apiVersion: kustody.dev/v1alpha1
kind: AgentPolicy
metadata: {name: test-freeze}
spec:
  rules:
  - id: freeze
    reason: nobody works in the shop now
    action: Deny
    match: {operations: [CONNECT], namespaces: [shop], resources: [{apiGroups: [''], resources: [pods/exec]}]}
";

fn a_rule_ends_what_runs(stage: &mut Stage) -> anyhow::Result<()> {
    let (running, session) = running(stage)?;
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(FREEZE).ok()?;
    let why = "kustody ended this session: denied by rule freeze: nobody works in the shop now";
    let ended = cut(stage, running, &session, Instant::now(), why);
    stage.cluster.admin(&["delete", "agentpolicy", "test-freeze", "--ignore-not-found"])?;
    ended?;
    let pod = stage.pod()?;
    eventually(Duration::from_secs(5), || {
        stage.run_argv(&stage.people.agent, &["kubectl", "exec", "-n", "shop", &pod, "--", "true"]).ok()
    })
    .map(drop)
}

/// A pod where exec is held; the terminal is a real one.
fn a_terminal_waits(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: waits, namespace: agents}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: {}, imagePullPolicy: Never, \
         command: [sleep, '600']}}\n",
        stage.cluster.image
    );
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(pod).ok()?;
    stage.cluster.admin(&["wait", "pod/waits", "-n", "agents", "--for=condition=Ready", "--timeout=60s"])?;
    let own = stage.cluster.kubectl.clone();
    for (kubectl, transport) in [(own.clone(), None), (own, Some(SPDY)), (oldest(stage)?, None)] {
        let run = |input: &str| in_a_terminal(stage, &kubectl, transport, input);
        let what = || format!("{} {transport:?}", kubectl.display());
        the_terminal_shows(stage, run).with_context(what)?;
    }
    stage.cluster.admin(&["delete", "pod/waits", "-n", "agents", "--now"]).map(drop)
}

/// The oldest kubectl on this machine; before 1.30 they speak SPDY alone.
fn oldest(stage: &Stage) -> anyhow::Result<PathBuf> {
    let with_version = kubectls(stage).into_iter().map(|kubectl| Ok((minor(&kubectl)?, kubectl)));
    let all = with_version.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(all.into_iter().min().context("no kubectl")?.1)
}

/// An exec that is held, in a terminal in which somebody types `input` after a while. It is another command for each
/// client: who was denied once is denied again.
fn in_a_terminal(stage: &Stage, kubectl: &Path, spdy: Option<&str>, input: &str) -> anyhow::Result<Running> {
    let exec =
        format!("exec -it -n agents waits -- sh -c 'echo in the container; exit 7' '{spdy:?} {}'", minor(kubectl)?);
    let line = format!("(sleep 2; printf '{input}') | script -qec \"$EXEC\" /dev/null");
    let run = Run::new(&["sh", "-c", &line]).env("EXEC", &format!("{} {exec}", kubectl.display()));
    let run = run.env("KUBECONFIG", &stage.people.agent.to_string_lossy()).limit(Duration::from_secs(60));
    if let Some(variable) = spdy { run.env(variable, "false") } else { run }.start()
}

/// Who gives up, is let through and is denied.
fn the_terminal_shows(stage: &Stage, run: impl Fn(&str) -> anyhow::Result<Running>) -> anyhow::Result<()> {
    let given_up = run("\\003")?.done()?;
    let told = "NOT EXECUTED. The client gave up waiting for approval";
    ensure!(given_up.code == 1 && given_up.out().contains(told), "{given_up:?}");
    let approved = run("typed ahead")?;
    let id = held(stage)?;
    // Longer than it takes to be switched over and told.
    std::thread::sleep(Duration::from_secs(1));
    stage.run_argv(&stage.people.approver, &["kustody", "approve", &id]).ok()?;
    let done = approved.done()?;
    let told = format!("kustody: waiting for approval {id} (rule ");
    let (word, output) = (done.out().find(&told), done.out().find("in the container"));
    ensure!(done.code == 7 && word.is_some() && word < output, "{done:?}");
    let denied = run("")?;
    let id = held(stage)?;
    stage.run_argv(&stage.people.approver, &["kustody", "deny", &id, "--reason", "not today"]).ok()?;
    let done = denied.done()?;
    let told = done.out().contains("NOT EXECUTED. Denied by approver: not today");
    ensure!(done.code == 1 && told, "{done:?}");
    Ok(())
}

fn only_in_their_own_name(stage: &mut Stage) -> anyhow::Result<()> {
    let order = |by: &str| {
        format!(
            "apiVersion: kustody.dev/v1alpha1\nkind: Termination\nmetadata: {{name: forged, namespace: kustody-system}}\n\
             spec: {{session: {NOBODYS}, by: {by}, reason: test}}\n"
        )
    };
    let agent = "system:serviceaccount:agents:coder";
    for (who, by, why) in [
        (&stage.people.approver, "onlooker", "end a session in your own name"),
        (&stage.people.onlooker, "onlooker", "cannot create resource"),
        (&stage.people.agent_direct, agent, "forbidden"),
    ] {
        let done = stage.cluster.kubectl(who, &["create", "-f", "-"]).input(order(by)).done()?;
        ensure!(done.code != 0 && done.err().contains(why), "{by}: {done:?}");
    }
    let argv = ["create", "rolebinding", "mistake", "-n", "kustody-system", "--clusterrole=kustody-responder"];
    stage.cluster.admin(&[&argv[..], &["--serviceaccount=agents:coder"]].concat())?;
    let tried = stage.cluster.kubectl(&stage.people.agent_direct, &["create", "-f", "-"]).input(order(agent)).done();
    stage.cluster.admin(&["delete", "rolebinding", "mistake", "-n", "kustody-system"])?;
    let tried = tried?;
    ensure!(tried.code != 0 && tried.err().contains("agents change nothing of Kustody's own"), "{tried:?}");
    // Nobody has this session: the order is taken, and the command says so.
    let argv = ["kustody", "kill", NOBODYS, "--reason", "test"];
    let none = stage.run_argv(&stage.people.approver, &argv).done()?;
    ensure!(none.code == 1 && none.err().contains("no replica has ended"), "{none:?}");
    let changed = [
        "patch",
        "termination",
        NOBODYS,
        "-n",
        "kustody-system",
        "--type=merge",
        "-p",
        r#"{"spec":{"reason":"another"}}"#,
    ];
    let changed = stage.cluster.kubectl(&stage.cluster.admin, &changed).done()?;
    ensure!(changed.code != 0 && changed.err().contains("spec is immutable"), "{changed:?}");
    stage.cluster.admin(&["delete", "termination", NOBODYS, "-n", "kustody-system"]).map(drop)
}
