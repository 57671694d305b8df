//! Other clients than kubectl through the gateway: client-go over SPDY and over WebSocket, the packages of Python and
//! JavaScript, the crate kube. Each is a program of `tests/clients` with the same command line.
//!
//! Each sees what it must, and its recording holds byte for byte what the container was sent and sent itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA256, digest};

use crate::Test;
use crate::recorded;
use crate::stage::Stage;
use crate::stage::run::{Done, Run, eventually};

pub(super) const TESTS: &[Test] = &[
    (
        "clients: megabytes both ways, exit codes: as the command has them, and on record",
        commands_speak_and_end::<false>,
    ),
    ("clients: one that is gone early is recorded as far as it came", a_client_goes_early::<false>),
    ("clients: a terminal has the sizes that the client gives it", terminals_are_resized::<false>),
    ("clients: attach speaks to the process, and is recorded", attach_reaches_the_process::<false>),
    ("clients: a forwarded port answers, and its bytes are on record", ports_are_forwarded::<false>),
];

/// The same with those in Python and JavaScript, which can be had where their packages can be fetched.
pub(super) const SCRIPTS: &[Test] = &[
    ("clients in Python, JavaScript: megabytes, exit codes", commands_speak_and_end::<true>),
    ("clients in Python, JavaScript: one that is gone early", a_client_goes_early::<true>),
    ("clients in Python, JavaScript: a terminal", terminals_are_resized::<true>),
    ("clients in Python, JavaScript: attach", attach_reaches_the_process::<true>),
    ("clients in Python, JavaScript: a forwarded port", ports_are_forwarded::<true>),
];

/// The first argument with which this binary is the client of the crate kube.
pub(super) const KUBE: &str = "client-of-kube";

/// Without half-close.
const V4: &str = "v4.channel.k8s.io";
const MANY: u32 = 20_000_003;

/// A program and what it is told before the rest.
struct Client {
    name: &'static str,
    program: Vec<String>,
    over: Option<&'static str>,
    /// How much it is given to move; the packages of Python and JavaScript are slow.
    bytes: u32,
}

/// Where `tests/clients/install.sh` puts what it installs.
fn installed() -> anyhow::Result<PathBuf> {
    let cache = std::env::var("KUSTODY_CACHE").context("KUSTODY_CACHE is not set: run this through `make`")?;
    Ok(PathBuf::from(cache).join("clients"))
}

/// Whether those in Python and JavaScript could be installed.
pub(super) fn has_scripts() -> bool {
    installed().is_ok_and(|folder| ["python/installed", "js/installed"].iter().all(|file| folder.join(file).exists()))
}

fn clients<const SCRIPTS: bool>() -> anyhow::Result<Vec<Client>> {
    let folder = installed()?;
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let go = vec![text(folder.join("go"))];
    let python = vec![text(folder.join("python/bin/python3")), text(source.join("python/client.py"))];
    let js = vec!["node".to_owned(), text(folder.join("js/client.mjs"))];
    let kube = vec![text(std::env::current_exe()?), KUBE.to_owned()];
    if !SCRIPTS {
        return Ok(vec![
            Client { name: "client-go over SPDY", program: go.clone(), over: Some("spdy"), bytes: MANY },
            Client { name: "client-go over WebSocket", program: go, over: Some("websocket"), bytes: MANY },
            Client { name: "kube of Rust", program: kube, over: None, bytes: MANY },
        ]);
    }
    Ok(vec![
        Client { name: "kubernetes of Python", program: python.clone(), over: None, bytes: 5_000_003 },
        Client { name: "kubernetes of Python as it was", program: python, over: Some(V4), bytes: 5_000_003 },
        Client { name: "@kubernetes/client-node", program: js, over: None, bytes: 5_000_003 },
    ])
}

/// All that speak the newest protocol they know.
fn current<const SCRIPTS: bool>() -> anyhow::Result<impl Iterator<Item = Client>> {
    Ok(clients::<SCRIPTS>()?.into_iter().filter(|client| client.over != Some(V4)))
}

impl Client {
    /// The whole command line: `verb`, these flags, a pod of the shop, the rest.
    fn argv(&self, verb: &str, flags: &[&str], pod: &str, rest: &[&str]) -> Vec<String> {
        let over = self.over.iter().flat_map(|over| ["-over", over]);
        let own = std::iter::once(verb).chain(over).chain(flags.iter().copied());
        let all = own.chain(["shop", pod]).chain(rest.iter().copied()).map(str::to_owned);
        self.program.iter().cloned().chain(all).collect()
    }

    fn run(&self, stage: &Stage, argv: &[String], input: &[u8]) -> anyhow::Result<Done> {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        Run::new(&argv).env("KUBECONFIG", &stage.people.agent.to_string_lossy()).input(input).done()
    }
}

fn brief(done: &Done) -> String {
    let out = &done.out();
    format!("ended with {} after {:?}: {:.300} {:.1000}", done.code, done.took, out, done.err())
}

/// Every byte value, at every place of a frame sooner or later.
fn many_bytes(count: u32) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn sum(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The command ends while the client could write more.
fn commands_speak_and_end<const SCRIPTS: bool>(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    for client in clients::<SCRIPTS>()? {
        let bytes = many_bytes(client.bytes);
        let script =
            format!("head -c {} > /tmp/in; sha256sum < /tmp/in >&2; cat /tmp/in; rm /tmp/in; exit 3", bytes.len());
        let before = recorded::newest(stage)?;
        let argv = client.argv("exec", &["-i"], &pod, &["sh", "-c", &script]);
        let (code, out, err) = waiting_for_more(stage, &argv, &bytes)?;
        let told = String::from_utf8_lossy(&err);
        ensure!(code == Some(3) && out == bytes, "{}: {code:?}, {} bytes came back, {told}", client.name, out.len());
        ensure!(told == format!("{}  -\n", sum(&bytes)), "{}: the container got other bytes", client.name);
        let recorded = recorded::next(stage, &before).context(client.name)?;
        ensure!(recorded.stdin == bytes && recorded.stdout == bytes, "{}: {recorded:?}", client.name);
        ensure!((&recorded.stderr, recorded.code) == (&err, Some(3)), "{}: {recorded:?}", client.name);
        ensure!(recorded.cause == "completed", "{}: ended with {}", client.name, recorded.cause);
    }
    Ok(())
}

/// Runs a program whose standard input stays open as long as it runs; gives its exit code and both outputs.
fn waiting_for_more(stage: &Stage, argv: &[String], input: &[u8]) -> anyhow::Result<(Option<i32>, Vec<u8>, Vec<u8>)> {
    let mut child = begun(stage, argv)?;
    let mut stdin = child.stdin.take().context("no input")?;
    stdin.write_all(input)?;
    let (out, err) = (all_of(child.stdout.take()), all_of(child.stderr.take()));
    let ended = eventually(Duration::from_secs(60), || child.try_wait()?.context("runs still"));
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    let code =
        ended.with_context(|| format!("{argv:?}: {}", String::from_utf8_lossy(&[&*out, &*err].concat())))?.code();
    drop(stdin);
    Ok((code, out, err))
}

fn all_of(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        pipe.map(|mut pipe| pipe.read_to_end(&mut all).ok());
        all
    })
}

fn begun(stage: &Stage, argv: &[String]) -> anyhow::Result<Child> {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).env("KUBECONFIG", &stage.people.agent);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

fn a_client_goes_early<const SCRIPTS: bool>(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    for client in current::<SCRIPTS>()? {
        let before = recorded::newest(stage)?;
        let argv = client.argv("exec", &["-i"], &pod, &["sh", "-c", "echo begun; cat; sleep 1; echo late"]);
        let mut child = begun(stage, &argv)?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("no output")?).read_line(&mut line)?;
        child.kill()?;
        child.wait()?;
        ensure!(line == "begun\n", "{}: {line:?}", client.name);
        let recorded = recorded::next(stage, &before).context(client.name)?;
        ensure!((&*recorded.stdout, recorded.code) == (b"begun\n", None), "{}: {recorded:?}", client.name);
        ensure!(recorded.cause == "client-gone", "{}: ended with {}", client.name, recorded.cause);
    }
    Ok(())
}

fn terminals_are_resized<const SCRIPTS: bool>(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let until = |size: &str| {
        format!("while [ \"$(stty size 2>/dev/null)\" != \"{size}\" ]; do sleep 0.05; done; echo {size}; ")
    };
    let script = format!("{}{}read word; echo got $word; exit 5", until("33 101"), until("44 120"));
    for client in current::<SCRIPTS>()? {
        let before = recorded::newest(stage)?;
        let argv = client.argv("exec", &["-i", "-t", "33x101,44x120"], &pod, &["sh", "-c", &script]);
        let (code, out, _) = waiting_for_more(stage, &argv, b"word\n")?;
        let text = String::from_utf8_lossy(&out);
        let good = code == Some(5) && text.contains("44 120\r\n") && text.ends_with("got word\r\n");
        ensure!(good, "{}: {code:?} {text:?}", client.name);
        let recorded = recorded::next(stage, &before).context(client.name)?;
        ensure!(recorded.stdout == out && recorded.stdin == b"word\n", "{}: {recorded:?}", client.name);
        ensure!(recorded.sizes.ends_with(&[(101, 33), (120, 44)]), "{}: {:?}", client.name, recorded.sizes);
    }
    Ok(())
}

/// Lets the agent attach and forward without asking each time.
fn granted(stage: &Stage) -> anyhow::Result<()> {
    stage.cluster.admin(&["delete", "grants", "--all", "-n", "kustody-system"])?;
    let give = "kustody grant give --name streams --connect pods/attach,pods/portforward -n shop --for 20m --uses 100 --reason tests";
    stage.run(&stage.people.approver, give).ok().map(drop)
}

fn attach_reaches_the_process<const SCRIPTS: bool>(stage: &mut Stage) -> anyhow::Result<()> {
    granted(stage)?;
    let clients: Vec<Client> = current::<SCRIPTS>()?.collect();
    let names: Vec<String> = (0..clients.len()).map(|number| format!("listener-{number}")).collect();
    crate::sessions::listeners(stage, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    for (client, name) in clients.iter().zip(&names) {
        let before = recorded::newest(stage)?;
        let done = client.run(stage, &client.argv("attach", &["-i"], name, &[]), b"hello\nthere\n")?;
        ensure!(done.out() == "got hello\ngot there\n", "{}: {}", client.name, brief(&done));
        let recorded = recorded::next(stage, &before).context(client.name)?;
        ensure!(recorded.header["kind"] == "attach", "{}: {}", client.name, recorded.header);
        let kept = (&*recorded.stdin, &recorded.stdout);
        ensure!(kept == (b"hello\nthere\n", &done.stdout), "{}: {recorded:?}", client.name);
    }
    let mut gone = vec!["delete", "pod", "-n", "shop", "--now", "--wait=false"];
    gone.extend(names.iter().map(String::as_str));
    stage.cluster.admin(&gone)?;
    stage.cluster.admin(&["delete", "grants", "--all", "-n", "kustody-system"]).map(drop)
}

fn ports_are_forwarded<const SCRIPTS: bool>(stage: &mut Stage) -> anyhow::Result<()> {
    granted(stage)?;
    let pod = stage.pod()?;
    let serve = "test -e /tmp/pages || { mkdir /tmp/pages && head -c 3000001 /dev/urandom > /tmp/pages/file && httpd -p 8082 -h /tmp/pages; }";
    stage.cluster.admin(&["exec", "-n", "shop", &pod, "--", "sh", "-c", serve])?;
    let file = stage.cluster.admin(&["exec", "-n", "shop", &pod, "--", "cat", "/tmp/pages/file"])?.stdout;
    let asked = b"GET /file HTTP/1.0\r\n\r\n";
    for client in current::<SCRIPTS>()? {
        let before = recorded::newest(stage)?;
        let done = client.run(stage, &client.argv("port-forward", &[], &pod, &["8082"]), asked)?;
        ensure!(
            done.code == 0 && done.stdout.ends_with(&file),
            "{}: {} bytes, {}",
            client.name,
            done.stdout.len(),
            done.err()
        );
        let recorded = recorded::next(stage, &before).context(client.name)?;
        let [connection] = recorded.connections.as_slice() else {
            anyhow::bail!("{}: not one connection", client.name)
        };
        ensure!(connection.port == 8082 && connection.to_container == asked, "{}: {recorded:?}", client.name);
        ensure!(connection.to_client == done.stdout, "{}: {} bytes on record", client.name, connection.to_client.len());
    }
    stage.cluster.admin(&["delete", "grants", "--all", "-n", "kustody-system"]).map(drop)
}
