//! What a recording holds, read from the bucket and put together by channel, once it is complete and verified.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use kustody::core::recording::chunk::Chunk;
use kustody::core::recording::summary::Exit;
use kustody::core::recording::{Channel, Direction, EventKind};
use serde_json::Value;

use crate::stage::Stage;
use crate::stage::run::eventually;
use crate::stage::story::objects_of;

/// A recording by channel.
#[derive(Default)]
pub(super) struct Recorded {
    pub(super) session: String,
    pub(super) header: Value,
    pub(super) cause: String,
    pub(super) stdin: Vec<u8>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    /// The exit code of its command.
    pub(super) code: Option<i32>,
    /// Columns and rows of its terminal.
    pub(super) sizes: Vec<(u16, u16)>,
    pub(super) connections: Vec<Connection>,
}

/// A forwarded connection.
#[derive(Default)]
pub(super) struct Connection {
    pub(super) port: u16,
    pub(super) to_container: Vec<u8>,
    pub(super) to_client: Vec<u8>,
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| format!("{} bytes: {:.200}", bytes.len(), String::from_utf8_lossy(bytes));
        let Recorded { session, cause, code, sizes, connections, .. } = self;
        let outputs = (text(&self.stdin), text(&self.stdout), text(&self.stderr));
        write!(f, "{session} ended with {cause}, {code:?}, {sizes:?}, {} connections, {outputs:?}", connections.len())
    }
}

fn sessions(stage: &Stage) -> anyhow::Result<Vec<Value>> {
    let listed = stage.run(&stage.people.approver, "kustody sessions -o json").ok()?;
    Ok(serde_json::from_slice(&listed.stdout)?)
}

/// The id of the newest session; empty where there is none.
pub(super) fn newest(stage: &Stage) -> anyhow::Result<String> {
    let all = sessions(stage)?;
    Ok(all.first().and_then(|one| one["session"].as_str()).unwrap_or_default().to_owned())
}

/// The first session after another, once it is complete, as it is listed.
pub(super) fn complete_after(stage: &Stage, before: &str, within: Duration) -> anyhow::Result<Value> {
    eventually(within, || {
        let all = sessions(stage)?;
        let later = all.into_iter().rev().find(|one| one["session"].as_str().is_some_and(|id| id > before));
        let one = later.context("no session")?;
        ensure!(one["state"] == "complete", "{one}");
        Ok(one)
    })
}

/// The first session after another, complete and verified.
pub(super) fn next(stage: &Stage, before: &str) -> anyhow::Result<Recorded> {
    let listed = complete_after(stage, before, Duration::from_secs(20))?;
    let session = listed["session"].as_str().context("no id")?;
    stage.verify(session)?.ok()?;
    let mut recorded = read(&stage.s3.data_dir, session)?;
    recorded.header = listed["header"].clone();
    recorded.cause = listed["reason"]["cause"].as_str().unwrap_or_default().to_owned();
    Ok(recorded)
}

fn read(bucket: &Path, session: &str) -> anyhow::Result<Recorded> {
    let mut recorded = Recorded { session: session.to_owned(), ..Recorded::default() };
    for path in objects_of(bucket, session)? {
        if path.extension().is_some_and(|end| end == "krec") {
            let object = std::fs::read(&path)?;
            for event in Chunk::parse(&object)?.events() {
                recorded.take(event?.kind);
            }
        }
    }
    Ok(recorded)
}

impl Recorded {
    fn take(&mut self, event: EventKind) {
        match event {
            EventKind::Data { channel, direction, bytes } => {
                let all = match (channel, direction) {
                    (Channel::Stdin, Direction::ToContainer) => &mut self.stdin,
                    (Channel::Stderr, Direction::ToClient) => &mut self.stderr,
                    _ => &mut self.stdout,
                };
                all.extend_from_slice(&bytes);
            }
            EventKind::Status { bytes } => {
                self.code = Exit::from_status(&bytes).and_then(|exit| exit.code).or(self.code)
            }
            EventKind::Resize { cols, rows } => self.sizes.push((cols, rows)),
            EventKind::ConnectionOpened { port, .. } => {
                self.connections.push(Connection { port, ..Connection::default() });
            }
            EventKind::ConnectionData { connection, direction, bytes } => {
                if let Some(one) = self.connections.get_mut(connection as usize - 1) {
                    let way = if direction == Direction::ToClient { &mut one.to_client } else { &mut one.to_container };
                    way.extend_from_slice(&bytes);
                }
            }
            EventKind::HalfClose { .. }
            | EventKind::Marker { .. }
            | EventKind::Input { .. }
            | EventKind::Gap { .. }
            | EventKind::ConnectionError { .. }
            | EventKind::ConnectionHalfClose { .. }
            | EventKind::ConnectionClosed { .. }
            | EventKind::Close { .. } => {}
        }
    }
}
