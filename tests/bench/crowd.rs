//! Many sessions at once: some that print all the time (`active`), and many in which nothing happens (`idle`). What they
//! get, what they cost in memory and processor time, and whether what was recorded of them is complete.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use futures_util::stream;
use kube::api::{AttachedProcess, Portforwarder};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::figures::middle;
use crate::load::processor_time;
use crate::occupant::{self, NAMESPACE, POD, PORT, READY};
use crate::stage::Stage;
use crate::stage::run::eventually;
use crate::ways::{self, BUFFER, USES, Way, exec, grant};
use crate::{make_room, resident};

/// Sessions opened at the same time.
const OPENING: usize = 16;
/// Sessions that print.
const ACTIVE: usize = 200;
/// Bytes a second that each of them prints.
const RATE: usize = 100_000;
/// How long they are watched, and how long they print: the first and the last second are not looked at.
const WATCHED: usize = 20;
const PRINTING: usize = WATCHED + 2;
/// How long the last byte may take after that, and the last recording.
const LATE: Duration = Duration::from_secs(60);
/// Recordings that are proved.
const PROVED: usize = 5;
/// Sessions that do nothing, unless `KUSTODY_BENCH_IDLE` says how many.
const IDLE: usize = 1000;
/// Files that containerd has open for each of them; no other process has more.
const FILES: u64 = 5;

/// A session that prints.
struct Printing {
    /// Ends with the session.
    process: AttachedProcess,
    begin: oneshot::Sender<()>,
    received: Arc<AtomicU64>,
    reader: JoinHandle<anyhow::Result<()>>,
}

/// What sessions got that were watched.
struct Watched {
    /// Bytes a second of each.
    rates: Vec<f64>,
    /// Processors that Kustody used.
    cores: f64,
    /// The most memory that it had, KiB.
    most: u64,
}

/// Sessions that print, directly and through Kustody.
pub(crate) async fn active(stage: &mut Stage, [direct, _, own]: &[Way; 3]) -> anyhow::Result<()> {
    make_room(stage, "gateway", &["maxSessions", "maxSessionsPerAgent"])?;
    occupant::deploy(stage)?;
    println!("\n### {ACTIVE} sessions of exec that print {} KB/s each, watched for {WATCHED} s\n", RATE / 1000);
    println!("| way | KB/s, p50 | KB/s, least | MB/s, all | cores of kustody | its memory, KiB a session |");
    println!("|---|---|---|---|---|---|");
    let begun = ways::now();
    for way in [direct, own] {
        let before = resident(stage.kustody.pid())?;
        let Watched { mut rates, cores, most } = watch(stage, way).await.context(way.name)?;
        rates.sort_by(f64::total_cmp);
        let (least, all) = (rates.first().copied().unwrap_or_default() / 1e3, rates.iter().sum::<f64>() / 1e6);
        let of_kustody = if way.is_kustody() {
            format!("{cores:.2} | {:.0}", most.saturating_sub(before) as f64 / ACTIVE as f64)
        } else {
            "– | –".to_owned()
        };
        println!("| {} | {:.1} | {least:.1} | {all:.1} | {of_kustody} |", way.name, middle(rates) / 1e3);
    }
    recorded(stage, &begun)
}

async fn watch(stage: &Stage, way: &Way) -> anyhow::Result<Watched> {
    let opening = stream::iter(0..ACTIVE).map(|_| open(way)).buffer_unordered(OPENING);
    let sessions: Vec<anyhow::Result<Printing>> = counted(opening, ACTIVE).collect().await;
    let sessions: Vec<Printing> = sessions.into_iter().collect::<anyhow::Result<_>>()?;
    let mut running = Vec::new();
    for session in sessions {
        session.begin.send(()).ok().context("a session has ended before it began")?;
        running.push((session.process, session.received, session.reader));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let received = || running.iter().map(|(_, received, _)| received.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let (started, first, spent) = (Instant::now(), received(), processor_time(stage.kustody.pid())?);
    let mut most = 0;
    for second in 1..=WATCHED as u64 {
        tokio::time::sleep_until((started + Duration::from_secs(second)).into()).await;
        most = resident(stage.kustody.pid())?.max(most);
    }
    let (last, took) = (received(), started.elapsed().as_secs_f64());
    let spent = processor_time(stage.kustody.pid())?.saturating_sub(spent);
    for (process, _, reader) in running {
        tokio::time::timeout(LATE, reader).await.context("a session does not end")???;
        drop(process);
    }
    let rates = first.iter().zip(last).map(|(first, last)| last.saturating_sub(*first) as f64 / took).collect();
    Ok(Watched { rates, cores: spent.as_secs_f64() / took, most })
}

/// A session whose process waits for the word to begin. It ends only when its input does, after all has arrived: of a
/// process that is gone Kubernetes itself loses what was not taken fast enough.
async fn open(way: &Way) -> anyhow::Result<Printing> {
    let argv = occupant::paced_argv(RATE, PRINTING);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let mut process = exec(&way.pods(NAMESPACE), POD, &argv, (true, false)).await?;
    let (mut stdin, mut stdout) = (process.stdin().context("no stdin")?, process.stdout().context("no stdout")?);
    let mut ready = [0; READY.len()];
    stdout.read_exact(&mut ready).await.context("a process did not start")?;
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    let (begin, word) = oneshot::channel();
    let reader = tokio::spawn(async move {
        word.await?;
        stdin.write_all(b"g").await?;
        stdin.flush().await?;
        let (mut buffer, mut total) = (vec![0; BUFFER / 16], 0);
        while total < RATE * PRINTING {
            let read = stdout.read(&mut buffer).await?;
            ensure!(read > 0, "only {total} of {} bytes came", RATE * PRINTING);
            total += read;
            count.store(total as u64, Ordering::Relaxed);
        }
        stdin.shutdown().await?;
        let more = stdout.read(&mut buffer).await?;
        ensure!(total + more == RATE * PRINTING, "more than {} bytes came", RATE * PRINTING);
        Ok(())
    });
    Ok(Printing { process, begin, received, reader })
}

/// Every byte of every session that began after `begun` is on record; some of the recordings are proved.
fn recorded(stage: &Stage, begun: &str) -> anyhow::Result<()> {
    let line = format!("kustody sessions -n {NAMESPACE} --state complete --limit 1000 -o json");
    let bytes = (READY.len() + RATE * PRINTING) as u64;
    let whole = |session: &Value| {
        let channels = session["channels"].as_array().map(Vec::as_slice).unwrap_or_default();
        channels.iter().any(|one| one["channel"] == "stdout" && one["bytes"] == bytes)
    };
    let ids = eventually(LATE, || {
        let all: Vec<Value> = serde_json::from_slice(&stage.run(&stage.people.approver, &line).ok()?.stdout)?;
        let ids = all.iter().filter(|one| whole(one)).filter_map(|one| one["session"].as_str());
        let ids: Vec<String> = ids.filter(|id| *id > begun).map(str::to_owned).collect();
        ensure!(ids.len() == ACTIVE, "{} of {ACTIVE} recordings are complete, with every byte", ids.len());
        Ok(ids)
    })?;
    for id in ids.iter().step_by(ACTIVE / PROVED) {
        stage.verify(id)?.ok()?;
    }
    println!("\nall {ACTIVE} recordings are complete, with {bytes} bytes of output each; {PROVED} of them verified");
    Ok(())
}

/// Memory of sessions in which nothing happens: forwarded ports, each with one connection that somebody holds.
pub(crate) async fn idle(stage: &mut Stage) -> anyhow::Result<()> {
    let count = std::env::var("KUSTODY_BENCH_IDLE").map_or(Ok(IDLE), |text| text.parse())?;
    let files = kustody::edge::open_files::raise()?;
    let needed = FILES * count as u64;
    ensure!(
        files.is_none_or(|files| files > needed),
        "{count} forwarded ports take containerd {needed} open files; give more with `ulimit -n`"
    );
    make_room(stage, "gateway", &["maxSessions", "maxSessionsPerAgent"])?;
    occupant::deploy(stage)?;
    for part in 0..count.div_ceil(USES) {
        grant(stage, NAMESPACE, &format!("bench-idle-{part}"))?;
    }
    let pods = Way::kustody(stage).await?.pods(NAMESPACE);
    let (before, started) = (resident(stage.kustody.pid())?, Instant::now());
    let forward = async || anyhow::Ok(pods.portforward(POD, &[PORT]).await?);
    let opening = stream::iter(0..count).map(|_| forward()).buffer_unordered(OPENING);
    let opened: Vec<anyhow::Result<Portforwarder>> = counted(opening, count).collect().await;
    let took = started.elapsed().as_secs_f64();
    let (open, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = resident(stage.kustody.pid())?;
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", stage.kustody.pid()))?.count();
    ensure!(sockets >= 2 * open.len(), "some sessions ended: {sockets} files are open");
    if let Some(Err(error)) = refused.first() {
        println!("\n{} of {count} sessions were not opened; the first: {error:#}", refused.len());
    }
    ensure!(!open.is_empty(), "no session is open");
    let each = after.saturating_sub(before) as f64 / open.len() as f64;
    println!(
        "\nmemory of {} idle sessions: {each:.1} KiB each ({} MiB in all), opened {OPENING} at a time in {took:.0} s",
        open.len(),
        after / 1024
    );
    Ok(())
}

/// The same, and says on a terminal how many there are.
fn counted<T>(opening: impl stream::Stream<Item = T>, of: usize) -> impl stream::Stream<Item = T> {
    let shown = std::io::stderr().is_terminal();
    opening.enumerate().map(move |(number, item)| {
        if shown {
            eprint!("\r{} of {of} sessions are open{}", number + 1, if number + 1 == of { "\n" } else { "" });
            std::io::stderr().flush().ok();
        }
        item
    })
}
