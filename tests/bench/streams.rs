//! What recording a stream costs: bytes a second out of a container, into it and through a forwarded port, the echo of
//! a key, and the start of a replay. The client is the crate kube: kubectl itself would be most of what is measured.

use std::time::{Instant, UNIX_EPOCH};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::figures::middle;
use crate::load::processor_time;
use crate::stage::Stage;
use crate::ways::{self, BUFFER, SETTLED, Way, drain, grant, shell};

/// Bytes moved at a time.
const BULK: usize = 64 << 20;
const ROUNDS: usize = 5;
const KEYS: usize = 300;
/// A long recording, in times of [`BULK`].
const LONG: usize = 16;
const REPLAYS: usize = 9;
/// What nothing can compress, what compresses well, and a server for the first.
const PREPARE: &str = "mkdir -p /tmp/bulk && cd /tmp/bulk && head -c 67108864 /dev/urandom > random; i=0; \
    while [ $i -lt 2000 ]; do echo \"line $i of a log: what happened at $((i * 7919)), and to whom\"; i=$((i + 1)); done > lines; \
    for i in 1 2 3 4 5 6 7 8 9 10; do cat lines lines > more; mv more lines; done; head -c 67108864 lines > text; \
    pidof httpd > /dev/null || httpd -p 8090 -h /tmp/bulk";

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
                let mut process = shell(pods, pod, &format!("cat /tmp/bulk/{file}"), false, false).await?;
                drain(process.stdout().context("no stdout")?, BULK).await
            }
            Bulk::In => {
                let mut process =
                    shell(pods, pod, &format!("head -c {BULK} > /dev/null; echo read"), true, false).await?;
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
pub(crate) async fn measure(stage: &Stage, ways: &[Way; 3]) -> anyhow::Result<()> {
    let pod = prepare(stage)?;
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
                bulk.run(&way.pods("shop"), &pod).await.with_context(|| format!("{} {}", bulk.name(), way.name))?;
                let rate = BULK as f64 / 1e6 / started.elapsed().as_secs_f64();
                rates.push(rate);
                round.push(rate);
                if way.is_kustody() {
                    tokio::time::sleep(SETTLED).await;
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
    echo(ways, &pod).await
}

/// One key after another, each awaited.
async fn echo(ways: &[Way], pod: &str) -> anyhow::Result<()> {
    println!("\n### a key and its echo over a terminal, p50 and p99 of {KEYS}\n");
    println!("| way | p50 ms | p99 ms |\n|---|---|---|");
    for way in ways {
        let mut process = shell(&way.pods("shop"), pod, "stty raw -echo; echo ready; cat", true, true).await?;
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
pub(crate) async fn replay(stage: &Stage, own: &Way) -> anyhow::Result<()> {
    let pod = prepare(stage)?;
    let script = format!("for i in $(seq {LONG}); do cat /tmp/bulk/random; done");
    let begun = ways::now();
    let mut process = shell(&own.pods("shop"), &pod, &script, false, false).await?;
    drain(process.stdout().context("no stdout")?, LONG * BULK).await?;
    let id = ways::complete_after(stage, &begun)?;
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

fn prepare(stage: &Stage) -> anyhow::Result<String> {
    let pod = stage.pod()?;
    grant(stage, "shop", &format!("bench-{}", UNIX_EPOCH.elapsed()?.as_millis()))?;
    stage.cluster.admin(&["exec", "-n", "shop", &pod, "--", "sh", "-c", PREPARE])?;
    Ok(pod)
}
