//! The write-ahead log by itself: entries of a real review, appended by one and by many at a time, each durable before
//! its append returns; beside it a plain write and fdatasync of the same bytes, one after the other.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kustody::core::action::ClassName;
use kustody::core::admission::{review, subject};
use kustody::core::audit::{Effect, Entry, Kind};
use kustody::edge::keys;
use kustody::edge::store::spool::{self, Spool};
use kustody::edge::store::wal::{Config, Wal};
use tokio_util::task::TaskTracker;

/// How long each row is loaded.
const SPELL: Duration = Duration::from_secs(2);

/// Prints entries a second, latencies, and entries a second of processor time.
pub(crate) async fn measure(dir: &Path) -> anyhow::Result<()> {
    let dir = dir.join("wal");
    std::fs::create_dir_all(&dir)?;
    let config = spool::Config { free_space_floor: 0, ..spool::Config::new(&dir) };
    let spool = Spool::open(config, Arc::new(keys::generate()?), TaskTracker::new()).await?;
    let wal = Wal::open(&spool, Config::default(), &TaskTracker::new()).await?;
    let body = include_bytes!("review.json");
    println!(
        "\nlog, fsync always, entries of a {} byte review ({} bytes each)",
        body.len(),
        entry(&wal, body)?.to_line()?.len()
    );
    println!("| appended by | entries/s | p50 ms | p99 ms | entries/s of processor time |\n|---|---|---|---|---|");
    plain(&dir, &entry(&wal, body)?.to_line()?)?;
    for tasks in [1, 16, 64, 256] {
        let (started, before) = (Instant::now(), processor_time()?);
        let appending = (0..tasks).map(|_| {
            let wal = wal.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while started.elapsed() < SPELL {
                    let begun = Instant::now();
                    // Made anew each time, as the webhook does: its diff and its line are part of the price.
                    wal.append(&entry(&wal, body)?).await?;
                    times.push(begun.elapsed());
                }
                anyhow::Ok(times)
            })
        });
        let mut times = Vec::new();
        for task in appending.collect::<Vec<_>>() {
            times.extend(task.await??);
        }
        let (took, used) = (started.elapsed(), processor_time()?.saturating_sub(before));
        row(&format!("{tasks} at a time"), times, took, used);
    }
    wal.close().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn entry(wal: &Wal, body: &[u8]) -> anyhow::Result<Entry> {
    let request = review::decode(body)?;
    let action = subject::action(&request, ClassName::from("agents"))?;
    let blank = Entry::blank(Kind::Review, Effect::Admitted, &wal.stamp(Duration::ZERO));
    Ok(blank.about(&action).changing(&action, &request))
}

/// What the disk gives to somebody who syncs each entry by itself.
fn plain(dir: &Path, line: &[u8]) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(dir.join("plain"))?;
    let (started, before) = (Instant::now(), processor_time()?);
    let mut times = Vec::new();
    while started.elapsed() < SPELL {
        let begun = Instant::now();
        file.write_all(line)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    row("floor: write and fdatasync", times, started.elapsed(), processor_time()?.saturating_sub(before));
    Ok(())
}

fn row(name: &str, mut times: Vec<Duration>, took: Duration, used: Duration) {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let count = times.len() as f64;
    println!(
        "| {name} | {:.0} | {:.2} | {:.2} | {:.0} |",
        count / took.as_secs_f64(),
        at(50),
        at(99),
        count / used.as_secs_f64().max(1e-3)
    );
}

/// Processor time of this process so far.
fn processor_time() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("no fields")?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    // utime and stime, in hundredths of a second.
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}
