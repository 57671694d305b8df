//! attach and what is made of sessions, through the gateway: held until a person approves, recorded, replayed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::Test;
use crate::stage::Stage;
use crate::stage::run::{Done, Run, eventually};
use crate::stage::story::held;
use crate::streams::{SPDY, kubectls, minor};

pub(super) const TESTS: &[Test] = &[
    ("port-forward carries many connections in a tunnel and over SPDY, and each is on record", ports_are_forwarded),
    ("attach is held, speaks to the process over WebSocket and SPDY, and is recorded", attach_reaches_the_process),
    (
        "a running exec is watched from the store, and its recording is shown, exported and searched",
        recordings_are_used,
    ),
    ("kubectl cp both ways leaves the same bytes over WebSocket and SPDY", cp_leaves_the_same_bytes),
];

/// Pods whose one process answers each line of its standard input and ends with it.
pub(super) fn listeners(stage: &Stage, names: &[&str]) -> anyhow::Result<()> {
    let delete = ["delete", "pod", "-n", "shop", "--ignore-not-found", "--now"];
    stage.cluster.admin(&[&delete, names].concat())?;
    for name in names {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  restartPolicy: Never\n  \
             terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: {}\n    imagePullPolicy: Never\n    \
             stdin: true\n    stdinOnce: true\n    command: [sh, -c, 'while read x; do echo got $x; done; sleep 1']\n",
            stage.cluster.image
        );
        stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(pod).ok()?;
    }
    let ready = ["wait", "-n", "shop", "--for=condition=Ready", "--timeout=60s"];
    let pods: Vec<String> = names.iter().map(|name| format!("pod/{name}")).collect();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    stage.cluster.admin(&[&ready[..], &pods].concat()).map(drop)
}

fn attach(stage: &Stage, who: &Path, name: &str, transport: &str) -> Run {
    let argv = ["kubectl", "attach", "-i", "-n", "shop", name];
    stage.run_argv(who, &argv).env(SPDY, transport).input("hello\nthere\n")
}

fn attach_reaches_the_process(stage: &mut Stage) -> anyhow::Result<()> {
    for (name, transport) in [("listener-web", "true"), ("listener-spdy", "false")] {
        listeners(stage, &[name])?;
        let mut waiting = attach(stage, &stage.people.agent, name, transport).start()?;
        let id = held(stage)?;
        ensure!(waiting.runs()?, "attach did not wait: {:?}", waiting.done()?);
        stage.run_argv(&stage.people.approver, &["kustody", "approve", &id]).ok()?;
        let through = waiting.done()?;
        listeners(stage, &[name])?;
        let direct = attach(stage, &stage.cluster.admin, name, transport).done()?;
        ensure!(direct.out() == "got hello\ngot there\n", "{direct:?}");
        ensure!((through.code, through.out()) == (direct.code, direct.out()), "{transport}: {through:?}, {direct:?}");
        let replayed = replayed(stage, "attach")?;
        ensure!(replayed.out() == direct.out(), "{replayed:?}");
        stage.cluster.admin(&["delete", "pod", name, "-n", "shop", "--now"])?;
    }
    Ok(())
}

/// The newest recording of a kind, verified and replayed once it is complete.
fn replayed(stage: &Stage, kind: &str) -> anyhow::Result<Done> {
    let session = eventually(Duration::from_secs(15), || {
        let listed = stage.run(&stage.people.approver, "kustody sessions -o json").ok()?;
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout)?;
        let newest = listed.as_array().and_then(|all| all.first()).context("no session")?;
        ensure!(newest["state"] == "complete" && newest["header"]["kind"] == kind, "{newest}");
        Ok(newest["session"].as_str().context("no id")?.to_owned())
    })?;
    stage.verify(&session)?.ok()?;
    stage.run_argv(&stage.people.approver, &["kustody", "replay", &session, "--no-wait"]).ok()
}

fn cp_leaves_the_same_bytes(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let (file, back) = (stage.dir.join("cp-there"), stage.dir.join("cp-back"));
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&file, &bytes)?;
    for transport in ["true", "false"] {
        let there = format!("shop/{pod}:/tmp/copied");
        let up = ["kubectl", "cp", &file.to_string_lossy(), &there];
        stage.run_argv(&stage.people.agent, &up).env(SPDY, transport).ok()?;
        let down = ["kubectl", "cp", &there, &back.to_string_lossy()];
        stage.run_argv(&stage.people.agent, &down).env(SPDY, transport).ok()?;
        ensure!(std::fs::read(&back)? == bytes, "{transport}: other bytes came back");
        std::fs::remove_file(&back)?;
    }
    Ok(())
}

/// What a kubectl of 1.31 or newer takes by itself for port-forward, and how it is told to use SPDY.
const TUNNEL: &str = "KUBECTL_PORT_FORWARD_WEBSOCKETS";

/// Asks a web server for a file, and gives the whole answer.
fn fetched(port: u16, file: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(format!("GET {file} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn ports_are_forwarded(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let serve = "test -e /tmp/web || { mkdir /tmp/web && head -c 3000001 /dev/urandom > /tmp/web/file && httpd -p 8081 -h /tmp/web; }";
    stage.cluster.admin(&["exec", "-n", "shop", &pod, "--", "sh", "-c", serve])?;
    let file = stage.cluster.admin(&["exec", "-n", "shop", &pod, "--", "cat", "/tmp/web/file"])?.stdout;
    let own = stage.cluster.kubectl.clone();
    let old = kubectls(stage).into_iter().filter(|kubectl| minor(kubectl).is_ok_and(|minor| minor < 30));
    let clients: Vec<_> = [(own.clone(), "true"), (own, "false")].into_iter().chain(old.map(|old| (old, ""))).collect();
    for (kubectl, tunnel) in clients {
        let program = kubectl.to_string_lossy();
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let ports = [format!("{port}:8081")];
        let argv = [&*program, "port-forward", "-n", "shop", &pod, &ports[0]];
        let mut running = stage.run_argv(&stage.people.agent, &argv).env(TUNNEL, tunnel).start()?;
        let id = held(stage)?;
        stage.run_argv(&stage.people.approver, &["kustody", "approve", &id]).ok()?;
        let first = eventually(Duration::from_secs(15), || fetched(port, "/file"))?;
        ensure!(first.ends_with(&file), "{program} {tunnel}: {} bytes came", first.len());
        let many: Vec<_> = (0..8).map(|_| std::thread::spawn(move || fetched(port, "/file"))).collect();
        for one in many {
            let one = one.join().ok().context("a fetch failed")??;
            ensure!(one.ends_with(&file), "{program} {tunnel}: {} bytes came", one.len());
        }
        ensure!(running.runs()?, "port-forward ended by itself: {:?}", running.done()?);
        running.interrupt()?;
        running.done()?;
        let replayed = replayed(stage, "portForward")?;
        let closed = replayed.err().matches(" closed: ").count();
        ensure!(closed == 9 && replayed.err().contains("[connection 9 to port 8081 opened]"), "{replayed:?}");
    }
    Ok(())
}

/// The newest session of the approver's list with these options, once there is one.
fn newest(stage: &Stage, options: &[&str]) -> anyhow::Result<String> {
    eventually(Duration::from_secs(15), || {
        let argv = [&["kustody", "sessions", "-o", "name", "--limit", "1"], options].concat();
        let listed = stage.run_argv(&stage.people.approver, &argv).ok()?.out();
        ensure!(!listed.is_empty(), "no session with {options:?}");
        Ok(listed.trim().to_owned())
    })
}

fn recordings_are_used(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let approver = stage.people.approver.clone();
    let used = |stage: &Stage, argv: &[&str]| stage.run_argv(&approver, &[&["kustody"], argv].concat()).ok();
    let say = "echo early-word; sleep 6; printf 'late-'; echo word";
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "sh", "-c", say];
    let mut running = stage.run_argv(&stage.people.agent, &argv).start()?;
    let id = newest(stage, &["--state", "recording", "--command", "early-word", "-n", "shop"])?;
    let watching = stage.run_argv(&approver, &["kustody", "watch", &id]).start()?;
    ensure!(running.runs()?, "the session was over before it was watched");
    running.done()?.ok()?;
    let watched = watching.done()?.ok()?;
    ensure!(watched.out() == "early-word\nlate-word\n" && watched.err() == "exit status: 0\n", "{watched:?}");
    ensure!(used(stage, &["show", &id])?.out().contains("Exit status:  0"));
    let cast = used(stage, &["export", &id, "--format", "asciicast-v3"])?.out();
    let (first, last) = (cast.lines().next().unwrap_or_default(), cast.lines().last().unwrap_or_default());
    ensure!(first.contains("\"version\":3") && last.ends_with("\"x\", \"0\"]"), "{cast}");
    let found = used(stage, &["search", "late-word", "--command", "early-word", "--since", "10m"])?.out();
    ensure!(found.lines().any(|line| line.starts_with(&id) && line.ends_with("stdout  late-word")), "{found}");
    let file = stage.dir.join("a-copied-file");
    std::fs::write(&file, "12345")?;
    let to = format!("shop/{pod}:/tmp/a-copied-file");
    stage.run_argv(&stage.people.agent, &["kubectl", "cp", &file.to_string_lossy(), &to]).ok()?;
    let id = newest(stage, &["--state", "complete", "--command", "tar", "--since", "10m"])?;
    let files = used(stage, &["export", &id, "--format", "files"])?;
    ensure!(files.out().contains(" 5 a-copied-file\n") && files.err().contains("to the container"), "{files:?}");
    let shown = used(stage, &["show", &id])?.out();
    ensure!(shown.contains("upload to /tmp/a-copied-file, with 0"), "{shown}");
    Ok(())
}
