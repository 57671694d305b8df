//! Many sessions at once in which nothing happens: what they cost in memory.

use std::time::Duration;

use anyhow::ensure;
use kube::api::Portforwarder;

use crate::stage::Stage;
use crate::ways::{USES, Way, grant};
use crate::{make_room, resident};

/// Sessions that do nothing, unless `KUSTODY_BENCH_IDLE` says how many.
const IDLE: usize = 1000;
/// Memory of sessions in which nothing happens.
pub(crate) async fn idle(stage: &mut Stage) -> anyhow::Result<()> {
    make_room(stage, "gateway", &["maxSessions", "maxSessionsPerAgent"])?;
    let pod = stage.pod()?;
    let count = std::env::var("KUSTODY_BENCH_IDLE").map_or(Ok(IDLE), |text| text.parse())?;
    for part in 0..count.div_ceil(USES) {
        grant(stage, "shop", &format!("bench-idle-{part}"))?;
    }
    let pods = Way::kustody(stage).await?.pods("shop");
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
