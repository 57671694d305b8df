//! What recordings keep, on the real cluster: a password typed into a real terminal is not in them, and where a rule says
//! so standard input is there as its digest alone.

use std::time::Duration;

use anyhow::ensure;

use crate::Test;
use crate::recorded::newest;
use crate::stage::Stage;
use crate::stage::run::{Run, eventually};

pub(super) const TESTS: &[Test] = &[
    ("kept: a password that a terminal does not show is in the recording as its length", a_password_is_not_recorded),
    ("kept: with a rule that says so standard input is kept as its digest", input_is_kept_as_a_digest),
];

const SCRIPT: &str = "printf 'name: '; read name; stty -echo; printf 'password: '; read password; stty echo; \
                      printf '\\n%s has %s letters\\n' $name ${#password}";

/// `script` gives kubectl a terminal; who types waits for the prompts, as people do.
fn a_password_is_not_recorded(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let kubectl = stage.cluster.kubectl.display().to_string();
    let exec = format!("{kubectl} exec -it -n shop {pod} -- sh -c \"$SCRIPT\"");
    let type_in =
        format!("(sleep 2; printf 'alice\\r'; sleep 1; printf 'hunter2\\r'; sleep 1) | script -qec '{exec}' /dev/null");
    let run = Run::new(&["sh", "-c", &type_in]).env("KUBECONFIG", &stage.people.agent.to_string_lossy());
    let done = run.env("SCRIPT", SCRIPT).limit(Duration::from_secs(30)).done()?;
    ensure!(done.out().contains("alice has 7 letters"), "{done:?}");
    let session = newest(stage)?;
    let export = |format: &str| {
        let argv = ["kustody", "export", &session, "--format", format];
        stage.run_argv(&stage.people.approver, &argv).ok()
    };
    let events = eventually(Duration::from_secs(15), || {
        let events = export("ndjson")?.out();
        ensure!(events.contains("\"event\":\"close\""), "still open: {events}");
        Ok(events)
    })?;
    ensure!(!events.contains("hunter"), "the password is there: {events}");
    let stdin = export("stdin")?.out();
    ensure!(stdin == "alice\r\r", "{stdin:?}");
    let hidden = events.lines().any(|line| line.contains("\"event\":\"gap\"") && line.contains("\"bytes\":7"));
    ensure!(hidden, "no gap of 7 bytes: {events}");
    stage.verify(&session)?.ok().map(drop)
}

const DIGESTS: &str = "
apiVersion: kustody.dev/v1alpha1
kind: AgentPolicy
metadata: {name: test-digests}
spec:
  rules:
  - id: digests
    reason: what goes in is kept elsewhere
    action: Warn
    match: {operations: [CONNECT], namespaces: [shop], resources: [{apiGroups: [''], resources: [pods/exec]}]}
    record: {stdin: Digest}
";

fn input_is_kept_as_a_digest(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(DIGESTS).ok()?;
    let pod = stage.pod()?;
    let argv = ["kubectl", "exec", "-i", "-n", "shop", &pod, "--", "sha256sum"];
    let tried = eventually(Duration::from_secs(5), || {
        let done = stage.run_argv(&stage.people.agent, &argv).input("a manifest\n").ok()?;
        let session = newest(stage)?;
        let argv = ["kustody", "export", &session, "--format", "ndjson"];
        let events = stage.run_argv(&stage.people.approver, &argv).ok()?.out();
        ensure!(events.contains("stdin-digest"), "not yet: {events}");
        Ok((done.out(), events))
    });
    stage.cluster.admin(&["delete", "agentpolicy", "test-digests"])?;
    let (sum, events) = tried?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    ensure!(sum.len() == 64 && events.contains(&format!("sha256:{sum} over 11 bytes")), "{sum}: {events}");
    ensure!(!events.contains("a manifest") && events.contains(sum), "the input is there: {events}");
    Ok(())
}
