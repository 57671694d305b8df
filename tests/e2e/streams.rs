//! Through the gateway an agent's clients see what they would see without it: answers, watches, logs, streams.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::Test;
use crate::stage::Stage;
use crate::stage::run::{Done, Run, eventually};

pub(super) const TESTS: &[Test] = &[
    ("every kubectl on this machine reads through the gateway as it does directly", every_kubectl_reads_the_same),
    (
        "every kubectl execs through the gateway as it does directly, over WebSocket and SPDY",
        every_kubectl_execs_the_same,
    ),
    ("a terminal is the same over WebSocket and SPDY, and its recording replays as it was", terminals_are_the_same),
    ("megabytes in and out of a container arrive unchanged over SPDY too", megabytes_arrive_over_spdy),
    ("a watch and a followed log arrive as they happen", watches_and_logs_stream),
    ("megabytes in and out of a container arrive unchanged", megabytes_arrive_unchanged),
    ("a token without the gateway's audience is refused", a_foreign_token_is_refused),
    ("objects of a running session lie in the bucket before it ends", objects_lie_in_the_bucket_early),
];

/// Set to "false", a kubectl that speaks WebSocket speaks SPDY.
pub(super) const SPDY: &str = "KUBECTL_REMOTE_COMMAND_WEBSOCKETS";

/// The cluster's own kubectl and every other one installed here.
pub(super) fn kubectls(stage: &Stage) -> Vec<PathBuf> {
    let mut found = vec![stage.cluster.kubectl.clone()];
    let installed = std::env::var("PATH").unwrap_or_default();
    let first = installed.split(':').map(|folder| Path::new(folder).join("kubectl")).find(|path| path.is_file());
    let folder =
        first.and_then(|path| std::fs::canonicalize(path).ok()).and_then(|path| path.parent().map(Path::to_owned));
    let siblings = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    for entry in siblings.into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("kubectl") {
            found.push(entry.path());
        }
    }
    found
}

/// The minor version of a kubectl: 33 for 1.33.
pub(super) fn minor(kubectl: &Path) -> anyhow::Result<u32> {
    let told = Run::new(&[&kubectl.to_string_lossy(), "version", "--client", "-o", "json"]).ok()?;
    let told: serde_json::Value = serde_json::from_slice(&told.stdout)?;
    let minor = told["clientVersion"]["minor"].as_str().context("no version")?;
    Ok(minor.trim_end_matches('+').parse()?)
}

fn run(kubectl: &Path, who: &Path, argv: &[&str], input: &str) -> anyhow::Result<Done> {
    let program = kubectl.to_string_lossy();
    let mut all = vec![&*program];
    all.extend(argv);
    Run::new(&all).env("KUBECONFIG", &who.to_string_lossy()).input(input).done()
}

fn every_kubectl_reads_the_same(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    for kubectl in kubectls(stage) {
        for line in
            ["get pods -n shop POD -o yaml", "get configmaps -n shop -o json", "api-resources", "get pods -n nowhere"]
        {
            let line = line.replace("POD", &pod);
            let argv: Vec<&str> = line.split(' ').collect();
            let through = run(&kubectl, &stage.people.agent, &argv, "")?;
            let direct = run(&kubectl, &stage.people.agent_direct, &argv, "")?;
            ensure!(
                (through.code, &through.stdout, through.err()) == (direct.code, &direct.stdout, direct.err()),
                "{} {line}: {through:?} and directly {direct:?}",
                kubectl.display()
            );
        }
    }
    Ok(())
}

/// The transports of a kubectl: what it takes by itself, and SPDY where that is WebSocket.
fn transports(kubectl: &Path) -> anyhow::Result<Vec<&'static str>> {
    Ok(if minor(kubectl)? < 30 { vec![""] } else { vec!["", SPDY] })
}

fn over(transport: &str, kubectl: &Path, who: &Path, argv: &[&str], input: &str) -> anyhow::Result<Done> {
    let program = kubectl.to_string_lossy();
    let mut all = vec![&*program];
    all.extend(argv);
    let run = Run::new(&all).env("KUBECONFIG", &who.to_string_lossy()).input(input);
    if transport.is_empty() { run.done() } else { run.env(transport, "false").done() }
}

fn every_kubectl_execs_the_same(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let script = "cat; echo to-stderr >&2; exit 3";
    let argv = ["exec", "-i", "-n", "shop", &pod, "--", "sh", "-c", script];
    for kubectl in kubectls(stage) {
        for transport in transports(&kubectl)? {
            let through = over(transport, &kubectl, &stage.people.agent, &argv, "first\nsecond")?;
            let direct = over(transport, &kubectl, &stage.cluster.admin, &argv, "first\nsecond")?;
            ensure!(direct.code == 3, "{direct:?}");
            ensure!(
                (through.code, &through.stdout, told(&through)) == (direct.code, &direct.stdout, told(&direct)),
                "{} {transport}: {through:?} and directly {direct:?}",
                kubectl.display()
            );
            let replayed = replayed(stage)?;
            ensure!(
                replayed.stdout == through.stdout && replayed.err() == "to-stderr\nexit status: 3\n",
                "{} {transport}: {replayed:?}",
                kubectl.display()
            );
        }
    }
    Ok(())
}

/// The newest recording, verified and replayed once it is complete.
fn replayed(stage: &Stage) -> anyhow::Result<Done> {
    let session = eventually(Duration::from_secs(15), || {
        let listed = stage.run(&stage.people.approver, "kustody sessions -o json").ok()?;
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
        let newest = listed.as_array().and_then(|all| all.first()).context("no session")?;
        ensure!(newest["state"] == "complete", "{newest}");
        Ok(newest["session"].as_str().context("no id")?.to_owned())
    })?;
    stage.verify(&session)?.ok()?;
    stage.run_argv(&stage.people.approver, &["kustody", "replay", &session, "--no-wait"]).ok()
}

/// Tells the size of the terminal once it has one.
const SIZED: &str = "while [ -z \"$(stty size 2>/dev/null)\" ]; do sleep 0.05; done; stty size";

fn terminals_are_the_same(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    for kubectl in kubectls(stage) {
        for transport in transports(&kubectl)? {
            let typed = |who: &Path| {
                let line = format!(
                    "{} exec -it -n shop {pod} -- sh -c '{SIZED}; read x; echo got $x; exit 7'",
                    kubectl.display()
                );
                let size = format!("stty rows 33 cols 101; exec {line}");
                let run = Run::new(&["script", "-qec", &size, "/dev/null"]).env("KUBECONFIG", &who.to_string_lossy());
                let run = if transport.is_empty() { run } else { run.env(transport, "false") };
                run.input("word\n").done()
            };
            // The local terminal may echo the word once more, before kubectl has it.
            for who in [&stage.cluster.admin, &stage.people.agent] {
                let done = typed(who)?;
                let good = done.code == 7 && done.out().contains("33 101\r\n") && done.out().contains("got word\r\n");
                ensure!(good, "{} {transport}: {done:?}", kubectl.display());
            }
            let what = kubectl.display();
            let replayed = replayed(stage)?;
            ensure!(replayed.out().contains("33 101") && replayed.out().contains("got word"), "{what}: {replayed:?}");
        }
    }
    Ok(())
}

/// Standard error without the note that kubectl 1.30 sometimes makes about a stream that it does not know yet.
fn told(done: &Done) -> String {
    done.err().lines().filter(|line| !line.contains("Unknown stream id")).collect::<Vec<_>>().join("\n")
}

fn watches_and_logs_stream(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.admin(&["delete", "configmap", "watched", "-n", "shop", "--ignore-not-found"])?;
    let argv = ["kubectl", "get", "configmaps", "-n", "shop", "--watch-only", "-o", "name", "--request-timeout=4s"];
    let watch = stage.run_argv(&stage.people.agent, &argv).start()?;
    std::thread::sleep(Duration::from_millis(1500));
    stage.cluster.admin(&["create", "configmap", "watched", "-n", "shop"])?;
    let seen = watch.done()?;
    ensure!(seen.out().contains("configmap/watched"), "the watch did not show it: {seen:?}");
    stage.cluster.admin(&["delete", "configmap", "watched", "-n", "shop"])?;
    stage.cluster.admin(&["delete", "pod", "talker", "-n", "shop", "--ignore-not-found", "--now"])?;
    let image = format!("--image={}", stage.cluster.image);
    stage.cluster.admin(&[
        "run",
        "talker",
        "-n",
        "shop",
        &image,
        "--image-pull-policy=Never",
        "--restart=Never",
        "--",
        "sh",
        "-c",
        "echo one; sleep 3; echo two",
    ])?;
    stage.cluster.admin(&["wait", "pod/talker", "-n", "shop", "--for=condition=Ready", "--timeout=30s"])?;
    let log = stage.run(&stage.people.agent, "kubectl logs -f talker -n shop").done()?.ok()?;
    ensure!(log.out() == "one\ntwo\n", "{log:?}");
    stage.cluster.admin(&["delete", "pod", "talker", "-n", "shop", "--now"]).map(drop)
}

fn megabytes_arrive_unchanged(stage: &mut Stage) -> anyhow::Result<()> {
    echoed(stage, SPDY, "true")
}

fn megabytes_arrive_over_spdy(stage: &mut Stage) -> anyhow::Result<()> {
    echoed(stage, SPDY, "false")
}

fn echoed(stage: &Stage, variable: &str, value: &str) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    // Every byte value, at every place of a frame sooner or later.
    let bytes: Vec<u8> = (0..8_000_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let argv = ["kubectl", "exec", "-i", "-n", "shop", &pod, "--", "cat"];
    let run = stage.run_argv(&stage.people.agent, &argv).env(variable, value);
    let echoed = run.input(bytes.clone()).done()?.ok()?;
    ensure!(echoed.stdout == bytes, "{} of {} bytes came back, or others", echoed.stdout.len(), bytes.len());
    Ok(())
}

fn a_foreign_token_is_refused(stage: &mut Stage) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&stage.people.agent)?;
    let foreign = std::fs::read_to_string(&stage.people.agent_direct)?;
    let token = |text: &str| -> anyhow::Result<String> {
        let rest = text.split("token: \"").nth(1).context("no token")?;
        Ok(rest.split('"').next().unwrap_or_default().to_owned())
    };
    let mixed = stage.dir.join("mixed.kubeconfig");
    std::fs::write(&mixed, text.replace(&token(&text)?, &token(&foreign)?))?;
    let refused = stage.run(&mixed, "kubectl get pods -n shop").done()?;
    ensure!(refused.code != 0 && refused.err().contains("Unauthorized"), "{refused:?}");
    Ok(())
}

fn objects_lie_in_the_bucket_early(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "sh", "-c", "echo early; sleep 9; echo late"];
    let mut running = stage.run_argv(&stage.people.agent, &argv).start()?;
    let session = eventually(Duration::from_secs(8), || {
        let listed = stage.run(&stage.people.approver, "kustody sessions -o json").ok()?;
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
        let mut all = listed.as_array().context("no list")?.iter();
        let open = all.find(|one| one["state"] == "recording").context("no session is being recorded")?;
        Ok(open["session"].as_str().context("no id")?.to_owned())
    })?;
    eventually(Duration::from_secs(8), || {
        let shown = stage.run_argv(&stage.people.approver, &["kustody", "replay", &session, "--no-wait"]).done()?;
        ensure!(shown.out().contains("early"), "{shown:?}");
        Ok(())
    })?;
    ensure!(running.runs()?, "the session was over before its objects were seen");
    running.done()?.ok().map(drop)
}
