//! What recording a stream costs: bytes a second out of a container, into it and through a forwarded port, the echo of
//! a key, the start of a replay, and the memory of sessions in which nothing happens. The client is the crate kube: kubectl itself would be most
//! of what is measured.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, AttachedProcess, Portforwarder};
use kube::config::Kubeconfig;
use kube::{Api, Client, Config};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::figures::middle;
use crate::load::processor_time;
use crate::stage::Stage;
use crate::stage::installation::kubeconfig_with_token;
use crate::stage::run::{Processes, eventually};
use crate::{make_room, proxy, resident, ungated};

/// Bytes moved at a time.
const BULK: usize = 64 << 20;
const ROUNDS: usize = 5;
const KEYS: usize = 300;
/// Sessions that do nothing, unless `KUSTODY_BENCH_IDLE` says how many.
const IDLE: usize = 1000;
/// Most uses a grant may have.
const USES: usize = 1000;
/// A long recording, in times of [`BULK`].
const LONG: usize = 16;
const REPLAYS: usize = 9;
const BUFFER: usize = 256 * 1024;
/// What nothing can compress, what compresses well, and a server for the first.
const PREPARE: &str = "mkdir -p /tmp/bulk && cd /tmp/bulk && head -c 67108864 /dev/urandom > random; i=0; \
    while [ $i -lt 2000 ]; do echo \"line $i of a log: what happened at $((i * 7919)), and to whom\"; i=$((i + 1)); done > lines; \
    for i in 1 2 3 4 5 6 7 8 9 10; do cat lines lines > more; mv more lines; done; head -c 67108864 lines > text; \
    pidof httpd > /dev/null || httpd -p 8090 -h /tmp/bulk";

/// A way to the pod.
struct Way {
    name: &'static str,
    pods: Api<Pod>,
}

/// One thing that is done with many bytes.
#[derive(Clone, Copy)]
enum Bulk {
    Out(&'static str),
    In,
    Forwarded,
}

impl Bulk {
    fn name(self) -> &'static str {
        match self {
            Bulk::Out("random") => "exec, out, random bytes",
            Bulk::Out(_) => "exec, out, text",
            Bulk::In => "exec, in, zeros",
            Bulk::Forwarded => "port-forward, out, random bytes",
        }
    }

    async fn run(self, pods: &Api<Pod>, pod: &str) -> anyhow::Result<()> {
        match self {
            Bulk::Out(file) => {
                let mut process = exec(pods, pod, &format!("cat /tmp/bulk/{file}"), false, false).await?;
                drain(process.stdout().context("no stdout")?, BULK).await
            }
            Bulk::In => {
                let mut process =
                    exec(pods, pod, &format!("head -c {BULK} > /dev/null; echo read"), true, false).await?;
                let mut stdin = process.stdin().context("no stdin")?;
                let (zeros, mut left) = (vec![0; BUFFER], BULK);
                while left > 0 {
                    let part = zeros.get(..left.min(BUFFER)).unwrap_or_default();
                    stdin.write_all(part).await?;
                    left -= part.len();
                }
                stdin.flush().await?;
                drain(process.stdout().context("no stdout")?, "read\n".len()).await
            }
            Bulk::Forwarded => {
                let mut forwarded = pods.portforward(pod, &[8090]).await?;
                let mut stream = forwarded.take_stream(8090).context("no stream")?;
                stream.write_all(b"GET /random HTTP/1.0\r\n\r\n").await?;
                drain(stream, BULK).await
            }
        }
    }
}

/// Throughput and echo over every way in turn.
pub(crate) async fn measure(stage: &Stage, processes: &Arc<Processes>) -> anyhow::Result<()> {
    let pod = prepare(stage)?;
    let ways = ways(stage, processes).await?;
    println!("\n### streams of {} MiB, recorded; medians of {ROUNDS} rounds\n", BULK >> 20);
    println!("| what | direct MB/s | plain proxy MB/s | kustody MB/s | kustody to proxy | CPU ms a MB of kustody |");
    println!("|---|---|---|---|---|---|");
    for bulk in [Bulk::Out("random"), Bulk::Out("text"), Bulk::In, Bulk::Forwarded] {
        let (mut rates, mut ratios, mut cost) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut round = Vec::new();
            for (way, rates) in ways.iter().zip(&mut rates) {
                let before = processor_time(stage.kustody.pid())?;
                let started = Instant::now();
                bulk.run(&way.pods, &pod).await.with_context(|| format!("{} {}", bulk.name(), way.name))?;
                let rate = BULK as f64 / 1e6 / started.elapsed().as_secs_f64();
                rates.push(rate);
                round.push(rate);
                if way.name == "kustody" {
                    // Sealing and shipping go on for a moment.
                    tokio::time::sleep(Duration::from_millis(2500)).await;
                    let spent = processor_time(stage.kustody.pid())?.saturating_sub(before);
                    cost.push(spent.as_secs_f64() * 1e3 / (BULK as f64 / 1e6));
                }
            }
            ratios.push(round[2] / round[1]);
        }
        let [direct, proxy, own] = rates.map(middle);
        let (name, ratio, cost) = (bulk.name(), middle(ratios), middle(cost));
        println!("| {name} | {direct:.0} | {proxy:.0} | {own:.0} | {ratio:.2} | {cost:.1} |");
    }
    echo(&ways, &pod).await
}

/// One key after another, each awaited.
async fn echo(ways: &[Way], pod: &str) -> anyhow::Result<()> {
    println!("\n### a key and its echo over a terminal, p50 and p99 of {KEYS}\n");
    println!("| way | p50 ms | p99 ms |\n|---|---|---|");
    for way in ways {
        let mut process = exec(&way.pods, pod, "stty raw -echo; echo ready; cat", true, true).await?;
        let (mut to, mut from) = (process.stdin().context("no stdin")?, process.stdout().context("no stdout")?);
        let mut byte = [0];
        while byte != *b"y" {
            from.read_exact(&mut byte).await?;
        }
        from.read_exact(&mut byte).await?;
        let mut times = Vec::new();
        for _ in 0..KEYS {
            let started = Instant::now();
            to.write_all(b"k").await?;
            to.flush().await?;
            while byte != *b"k" {
                from.read_exact(&mut byte).await?;
            }
            byte = *b" ";
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let at = |place: usize| times[place].as_secs_f64() * 1e3;
        println!("| {} | {:.2} | {:.2} |", way.name, at(KEYS / 2), at(KEYS * 99 / 100));
        process.abort();
    }
    Ok(())
}

/// How long a person waits for the first byte of a long recording that lies in S3.
pub(crate) async fn replay(stage: &Stage) -> anyhow::Result<()> {
    let pod = prepare(stage)?;
    let pods = pods(&stage.people.agent).await?;
    let script = format!("for i in $(seq {LONG}); do cat /tmp/bulk/random; done");
    let mut process = exec(&pods, &pod, &script, false, false).await?;
    drain(process.stdout().context("no stdout")?, LONG * BULK).await?;
    let id = eventually(Duration::from_secs(120), || {
        let listed =
            stage.run(&stage.people.approver, "kustody sessions --state complete --limit 1 -o name").ok()?.out();
        let id = listed.trim().to_owned();
        ensure!(!id.is_empty(), "not complete yet");
        Ok(id)
    })?;
    println!("\n### the first byte of a recording of {} MiB in S3, p50 of {REPLAYS}\n", (LONG * BULK) >> 20);
    println!("| command | ms |\n|---|---|");
    let far = format!("kustody replay {id} --no-wait --from 5s");
    for line in ["kustody version", &format!("kustody replay {id} --no-wait"), &far] {
        let script = format!("{line} 2> /dev/null | head -c 1 > /dev/null");
        let mut times = Vec::new();
        for _ in 0..REPLAYS {
            let started = Instant::now();
            stage.run_argv(&stage.people.approver, &["sh", "-c", &script]).ok()?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        println!("| {} | {:.0} |", line.replace(&id, "ID"), middle(times));
    }
    Ok(())
}

/// Memory of sessions in which nothing happens.
pub(crate) async fn idle(stage: &mut Stage) -> anyhow::Result<()> {
    make_room(stage, "gateway", &["maxSessions", "maxSessionsPerAgent"])?;
    let pod = stage.pod()?;
    let count = std::env::var("KUSTODY_BENCH_IDLE").map_or(Ok(IDLE), |text| text.parse())?;
    for part in 0..count.div_ceil(USES) {
        grant(stage, &format!("bench-idle-{part}"))?;
    }
    let pods = pods(&stage.people.agent).await?;
    let before = resident(stage.kustody.pid())?;
    let mut open: Vec<Portforwarder> = Vec::new();
    for _ in 0..count {
        open.push(pods.portforward(&pod, &[8090]).await?);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = resident(stage.kustody.pid())?;
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", stage.kustody.pid()))?.count();
    ensure!(sockets >= 2 * count, "some sessions ended: {sockets} files are open");
    drop(open);
    let each = after.saturating_sub(before) as f64 / count as f64;
    println!("\nmemory of {count} idle sessions: {each:.1} KiB each ({} MiB in all)", after / 1024);
    Ok(())
}

fn prepare(stage: &Stage) -> anyhow::Result<String> {
    let pod = stage.pod()?;
    grant(stage, &format!("bench-{}", std::time::UNIX_EPOCH.elapsed()?.as_millis()))?;
    stage.cluster.admin(&["exec", "-n", "shop", &pod, "--", "sh", "-c", PREPARE])?;
    Ok(pod)
}

/// Lets the agent forward ports, [`USES`] times.
fn grant(stage: &Stage, name: &str) -> anyhow::Result<()> {
    let what = format!("--connect pods/portforward -n shop --for 60m --uses {USES} --reason bench");
    stage.run(&stage.people.approver, &format!("kustody grant give --name {name} {what}")).ok().map(drop)
}

async fn ways(stage: &Stage, processes: &Arc<Processes>) -> anyhow::Result<Vec<Way>> {
    let cluster = &stage.cluster;
    let token = ungated(stage)?;
    let server = cluster.server.trim_start_matches("https://");
    let proxy = proxy::start(&stage.dir, server, &cluster.ca_file, processes)?;
    let authority = stage.dir.join("plain-proxy.crt");
    std::fs::write(&authority, &proxy.authority)?;
    let mut ways = Vec::new();
    for (name, server, ca) in [("direct", &cluster.server, &cluster.ca_file), ("plain proxy", &proxy.url, &authority)] {
        let file = stage.dir.join(format!("bench-{}.kubeconfig", ways.len()));
        std::fs::write(&file, kubeconfig_with_token(server, ca, &token)?)?;
        ways.push(Way { name, pods: pods(&file).await? });
    }
    ways.push(Way { name: "kustody", pods: pods(&stage.people.agent).await? });
    Ok(ways)
}

async fn pods(kubeconfig: &Path) -> anyhow::Result<Api<Pod>> {
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &Default::default()).await?;
    Ok(Api::namespaced(Client::try_from(config)?, "shop"))
}

async fn exec(pods: &Api<Pod>, pod: &str, script: &str, stdin: bool, tty: bool) -> anyhow::Result<AttachedProcess> {
    let params = AttachParams {
        stdin,
        stdout: true,
        stderr: false,
        tty,
        max_stdin_buf_size: Some(BUFFER),
        max_stdout_buf_size: Some(BUFFER),
        ..AttachParams::default()
    };
    Ok(pods.exec(pod, ["sh", "-c", script], &params).await?)
}

/// Reads to the end; there must be so many bytes at least.
async fn drain(mut from: impl AsyncRead + Unpin, wanted: usize) -> anyhow::Result<()> {
    let (mut buffer, mut total) = (vec![0; BUFFER], 0);
    while total < wanted {
        match from.read(&mut buffer).await? {
            0 => anyhow::bail!("only {total} of {wanted} bytes came"),
            read => total += read,
        }
    }
    Ok(())
}
