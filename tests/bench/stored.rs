//! What a recording takes in the object store: the files that the S3 server keeps of a session, beside what plain
//! `zstd -3` makes of the same bytes in one piece. For much output at once and for little, slowly.

use std::path::Path;

use anyhow::{Context, ensure};
use tokio::io::AsyncReadExt;

use crate::stage::Stage;
use crate::stage::story::objects_of;
use crate::text;
use crate::ways::{self, Way, shell};

/// Bytes of a large output.
const BULK: usize = 32 << 20;
/// Lines of the slow session, one each 20 ms.
const LINES: usize = 500;
const LEVEL: i32 = 3;

/// What a session takes in the store, bytes.
struct Stored {
    /// The events.
    chunks: usize,
    /// Header and manifest.
    rest: usize,
}

/// Prints bytes and ratios.
pub(crate) async fn measure(stage: &Stage, own: &Way) -> anyhow::Result<()> {
    let folder = stage.dir.join("printed");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("log"), text::fill(BULK, 7))?;
    std::fs::write(folder.join("noise"), text::noise(BULK, 7))?;
    std::fs::write(folder.join("sources"), sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))?)?;
    let pod = stage.pod()?;
    stage.cluster.admin(&["cp", &folder.to_string_lossy(), &format!("shop/{pod}:/tmp/printed")])?;
    std::fs::remove_dir_all(&folder)?;
    let cat = |file: &str| format!("cat /tmp/printed/{file}");
    let slow = format!("head -n {LINES} /tmp/printed/log | while read -r l; do echo \"$l\"; sleep 0.02; done");
    println!("\n### what a recording takes in the store, beside zstd -{LEVEL} of the same bytes in one piece\n");
    println!(
        "| output of a session | bytes | its events stored | header and manifest | bytes to stored | zstd -{LEVEL} | stored to zstd |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, script) in [
        ("lines of a log, at once", cat("log")),
        ("the sources of Kustody, at once", cat("sources")),
        ("random bytes, at once", cat("noise")),
        ("a line of a log each 20 ms", slow),
    ] {
        let begun = ways::now();
        let mut process = shell(&own.pods("shop"), &pod, &script, false, false).await?;
        let mut bytes = Vec::new();
        process.stdout().context("no stdout")?.read_to_end(&mut bytes).await?;
        let id = ways::complete_after(stage, &begun)?;
        let Stored { chunks, rest } = stored(&stage.s3.data_dir, &id)?;
        let (plain, all) = (zstd::bulk::compress(&bytes, LEVEL)?.len(), chunks + rest);
        let (count, to_zstd) = (bytes.len(), all as f64 / plain as f64);
        println!(
            "| {name} | {count} | {chunks} | {rest} | {:.1} | {plain} | {to_zstd:.2} |",
            count as f64 / all as f64
        );
    }
    stage.cluster.admin(&["exec", "-n", "shop", &pod, "--", "rm", "-rf", "/tmp/printed"])?;
    Ok(())
}

/// The files in the bucket that make a session.
fn stored(bucket: &Path, id: &str) -> anyhow::Result<Stored> {
    let mut stored = Stored { chunks: 0, rest: 0 };
    for object in objects_of(bucket, id)? {
        let size = usize::try_from(object.metadata()?.len())?;
        match object.extension() {
            Some(end) if end == "krec" => stored.chunks += size,
            _ => stored.rest += size,
        }
    }
    ensure!(stored.chunks > 0 && stored.rest > 0, "the bucket does not hold the session");
    Ok(stored)
}

/// Text as people wrote it: every source file below a folder, in the order of their names.
fn sources(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::path);
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.path();
        all.extend(if path.is_dir() { sources(&path)? } else { std::fs::read(&path)? });
    }
    Ok(all)
}
