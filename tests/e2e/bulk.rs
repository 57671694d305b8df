//! Much through one session of stock kubectl, and clients that do not take it: what arrives is what was sent, the
//! recording has every byte of it, and Kustody holds no more of it than it does for anybody.
//!
//! `KUSTODY_TEST_BULK_MB` is how many megabytes go each way, 32 by default.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{self, SHA256, digest};
use serde_json::Value;

use crate::Test;
use crate::recorded::complete_after;
use crate::stage::Stage;
use crate::stage::run::resident;
use crate::streams::SPDY;

pub(super) const TESTS: &[Test] = &[
    ("bulk: what goes into a container and comes out of it is on record byte for byte", both_ways),
    (
        "bulk: a client that reads slowly gets everything, slows nobody and costs no memory; nor does one that stops",
        slow_readers_are_held_back,
    ),
];

const MEGABYTES: &str = "KUSTODY_TEST_BULK_MB";
/// More than all buffers between a container and its client hold together.
const PIECE: usize = 8_000_000;
const PIECES: usize = 6;
/// A recording is complete by then.
const SEALED: Duration = Duration::from_secs(30);
/// How much more Kustody may hold while a client does not read than while it does.
const MORE: u64 = 16 << 20;
/// It ends only when its input does, after all has arrived: Kubernetes itself loses the end of what a process that is gone
/// has written, when that is not taken fast enough, and says exit code 0.
const WRITES: &str = "for i in 1 2 3 4 5 6; do cat /tmp/slow; done; touch /tmp/slow-written; cat";

fn hex(sum: impl AsRef<[u8]>) -> String {
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What every session that begins later is named after.
fn now() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn id(session: &Value) -> anyhow::Result<&str> {
    session["session"].as_str().context("no id")
}

/// The SHA-256 of what `kustody export` makes of a session.
fn exported(stage: &Stage, session: &str, format: &str) -> anyhow::Result<String> {
    let argv = ["kustody", "export", session, "--format", format];
    let exported = stage.run_argv(&stage.people.approver, &argv).ok()?;
    Ok(hex(digest(&SHA256, &exported.stdout)))
}

fn both_ways(stage: &mut Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let megabytes: usize = std::env::var(MEGABYTES).map_or(Ok(32), |text| text.parse())?;
    let mut bytes = vec![0; megabytes * 1_000_000];
    aws_lc_rs::rand::fill(&mut bytes).ok().context("no random bytes")?;
    let sum = hex(digest(&SHA256, &bytes));
    let begun = now();
    let count = bytes.len();
    let script = format!("head -c {count} > /tmp/bulk; sha256sum < /tmp/bulk >&2; cat /tmp/bulk; rm /tmp/bulk; cat");
    let began = Instant::now();
    let mut reader = Reader::start(stage, &["-n", "shop", &pod, "--", "sh", "-c", &script], "true")?;
    let mut input = reader.input.take().context("no input")?;
    let writer = std::thread::spawn(move || input.write_all(&bytes).map(|()| input));
    reader.read(count)?;
    reader.input = Some(writer.join().ok().context("nothing was written")??);
    let took = began.elapsed();
    let told = reader.finish(count, &sum)?;
    ensure!(told == format!("{sum}  -\n"), "the container got other bytes: {told}");
    let session = complete_after(stage, &begun, SEALED)?;
    let session = id(&session)?;
    stage.verify(session)?.ok()?;
    for channel in ["stdin", "stdout"] {
        ensure!(exported(stage, session, channel)? == sum, "other bytes of {channel} are on record");
    }
    println!("    ({megabytes} MB each way took {took:?})");
    Ok(())
}

/// A `kubectl exec -i` whose output is read as the test likes, ended with the test.
struct Reader {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    read: usize,
    sum: digest::Context,
}

impl Reader {
    fn start(stage: &Stage, argv: &[&str], transport: &str) -> anyhow::Result<Reader> {
        let mut command = Command::new(stage.dir.join("bin/kubectl"));
        command.args(["exec", "-i"]).args(argv).env("KUBECONFIG", &stage.people.agent).env(SPDY, transport);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("no output")?);
        Ok(Reader { child, input, output, read: 0, sum: digest::Context::new(&SHA256) })
    }

    /// Of what the container has to write.
    fn of_writer(stage: &Stage, pod: &str, transport: &str) -> anyhow::Result<Reader> {
        Reader::start(stage, &["-n", "shop", pod, "--", "sh", "-c", WRITES], transport)
    }

    /// Reads so many bytes, or to the end.
    fn read(&mut self, most: usize) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        self.read += (&mut self.output).take(most as u64).read_to_end(&mut bytes)?;
        self.sum.update(&bytes);
        Ok(())
    }

    /// Ends it after so many bytes of this SHA-256; what it said on its standard error.
    fn finish(mut self, count: usize, sum: &str) -> anyhow::Result<String> {
        ensure!(self.read == count, "{} of {count} bytes came", self.read);
        drop(self.input.take());
        self.read(1)?;
        let ended = self.child.wait()?;
        ensure!(self.read == count && ended.success(), "more came, or kubectl failed: {ended}");
        ensure!(hex(self.sum.clone().finish()) == sum, "other bytes came");
        let mut told = String::new();
        self.child.stderr.take().context("no standard error")?.read_to_string(&mut told)?;
        Ok(told)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The memory that Kustody has now, bytes.
fn memory(stage: &Stage) -> anyhow::Result<u64> {
    Ok(resident(stage.kustody.pid())? << 10)
}

/// The pod, with what it is to write; the SHA-256 of the whole.
fn writer(stage: &Stage) -> anyhow::Result<(String, String)> {
    let pod = stage.pod()?;
    let prepare = format!("head -c {PIECE} /dev/urandom > /tmp/slow; ({WRITES}) | sha256sum");
    let sum = stage.cluster.admin(&["exec", "-n", "shop", &pod, "--", "sh", "-c", &prepare])?.out();
    Ok((pod, sum.split(' ').next().unwrap_or_default().to_owned()))
}

fn has_written(stage: &Stage, pod: &str) -> anyhow::Result<bool> {
    let argv = ["exec", "-n", "shop", pod, "--", "test", "-e", "/tmp/slow-written"];
    Ok(stage.cluster.kubectl(&stage.cluster.admin, &argv).done()?.code == 0)
}

/// How long an exec of a megabyte takes.
fn another(stage: &Stage, pod: &str) -> anyhow::Result<Duration> {
    let argv = ["kubectl", "exec", "-n", "shop", pod, "--", "head", "-c", "1000000", "/tmp/slow"];
    let done = stage.run_argv(&stage.people.agent, &argv).ok()?;
    ensure!(done.stdout.len() == 1_000_000, "{} bytes came", done.stdout.len());
    Ok(done.took)
}

/// Reads everything at once; the most memory that Kustody had meanwhile.
fn fast(stage: &Stage, pod: &str, sum: &str) -> anyhow::Result<u64> {
    let mut reader = Reader::of_writer(stage, pod, "true")?;
    let most = rest(stage, &mut reader)?;
    reader.finish(PIECE * PIECES, sum)?;
    Ok(most)
}

/// Reads what is left; the most memory that Kustody had meanwhile.
fn rest(stage: &Stage, reader: &mut Reader) -> anyhow::Result<u64> {
    let mut most = 0;
    while reader.read < PIECE * PIECES {
        let before = reader.read;
        reader.read((PIECE * PIECES - before).min(1 << 20))?;
        ensure!(reader.read > before, "it ended after {before} bytes");
        most = most.max(memory(stage)?);
    }
    Ok(most)
}

fn slow_readers_are_held_back(stage: &mut Stage) -> anyhow::Result<()> {
    let (pod, sum) = writer(stage)?;
    let usual = fast(stage, &pod, &sum)?;
    slow(stage, &pod, &sum, usual)?;
    for transport in ["true", "false"] {
        let begun = now();
        let mut reader = Reader::of_writer(stage, &pod, transport)?;
        reader.read(1)?;
        std::thread::sleep(Duration::from_secs(1));
        drop(reader);
        let session = complete_after(stage, &begun, SEALED)?;
        ensure!(session["reason"]["cause"] == "client-gone", "{session}");
        let held = memory(stage)?;
        ensure!(held < usual + MORE, "Kustody holds {held} bytes, and {usual} with a client that reads");
    }
    Ok(())
}

/// Stops for two seconds, reads a megabyte a second for two more, and then the rest.
fn slow(stage: &Stage, pod: &str, sum: &str, usual: u64) -> anyhow::Result<()> {
    let alone = another(stage, pod)?;
    stage.cluster.admin(&["exec", "-n", "shop", pod, "--", "rm", "/tmp/slow-written"])?;
    let begun = now();
    let mut reader = Reader::of_writer(stage, pod, "true")?;
    reader.read(1)?;
    let (stopped, mut most) = (Instant::now(), 0);
    while stopped.elapsed() < Duration::from_secs(2) {
        most = most.max(memory(stage)?);
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(!has_written(stage, pod)?, "the container was not held back");
    let beside = another(stage, pod)?;
    ensure!(beside < 3 * alone + Duration::from_secs(1), "another session took {beside:?}, alone {alone:?}");
    for _ in 0..4 {
        reader.read(500_000)?;
        std::thread::sleep(Duration::from_millis(500));
        most = most.max(memory(stage)?);
    }
    rest(stage, &mut reader)?;
    reader.finish(PIECE * PIECES, sum)?;
    ensure!(most < usual + MORE, "Kustody had {most} bytes, and {usual} with a client that reads");
    let session = complete_after(stage, &begun, SEALED)?;
    ensure!(exported(stage, id(&session)?, "stdout")? == sum, "other bytes are on record");
    println!("    ({} MiB with a client that reads, {} MiB with one that does not)", usual >> 20, most >> 20);
    Ok(())
}
