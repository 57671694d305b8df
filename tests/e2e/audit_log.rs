//! The API server's own audit log, the third witness: what was asked of it, by whom, and what Kustody's webhook noted there.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

use crate::stage::Stage;

/// Where it is.
pub(super) fn file(stage: &Stage) -> anyhow::Result<PathBuf> {
    let cluster: Value = serde_json::from_str(&std::fs::read_to_string(stage.cluster.dir.join("cluster.json"))?)?;
    Ok(PathBuf::from(cluster["audit_log"].as_str().context("the cluster has no audit log")?))
}

/// Its length now, from where later events can be read.
pub(super) fn end(stage: &Stage) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(file(stage)?)?.len())
}

/// Requests that are over, from a place on, in the order in which they were.
pub(super) fn events(stage: &Stage, from: u64) -> anyhow::Result<Vec<Value>> {
    let mut log = std::fs::File::open(file(stage)?)?;
    log.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes)?;
    let lines = bytes.split(|byte| *byte == b'\n');
    // The last line may be half written.
    let events = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(events.filter(|event| event["stage"] == "ResponseComplete").collect())
}

/// What the gate's webhook noted about a request.
pub(super) fn note<'e>(event: &'e Value, key: &str) -> &'e str {
    event["annotations"][format!("gate.kustody.dev/{key}")].as_str().unwrap_or_default()
}
