//! One session as lists and programs see it, from its header and its manifest.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::command::output;
use crate::core::recording::header::{Header, SessionKind};
use crate::core::recording::manifest::{Manifest, State};
use crate::core::recording::summary::{ChannelTotal, Exit};
use crate::core::recording::transfer::{self, Transfer};
use crate::core::recording::{CloseReason, SessionId};
use crate::edge::store::catalog::Session;

/// One session as programs read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) session: SessionId,
    pub(crate) state: Standing,
    pub(crate) started_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<CloseReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit: Option<Exit>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<ChannelTotal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) header: Option<Header>,
    /// The `kubectl cp` that it is a part of, as far as its other parts are among what was listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transfer: Option<Transfer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<String>,
}

/// How far a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Standing {
    /// It has no manifest yet
    #[value(alias = "running")]
    Recording,
    /// It ended in order
    Complete,
    /// It was sealed at the next start after a crash
    Recovered,
    /// Header or manifest cannot be read
    Unreadable,
}

impl Row {
    pub(crate) fn new(session: Session) -> Self {
        let mut problems = Vec::new();
        let header = session.header.map_err(|problem| problems.push(problem)).ok();
        let sealed = session.manifest.is_some();
        let manifest = session.manifest.and_then(|manifest| manifest.map_err(|problem| problems.push(problem)).ok());
        let manifest = manifest.as_ref();
        let state = if problems.is_empty() { Standing::of(sealed, manifest) } else { Standing::Unreadable };
        Row {
            session: session.id,
            state,
            started_at: header.as_ref().map_or(session.id.timestamp(), |header| header.started_at),
            ended_at: manifest.map(|manifest| manifest.ended_at),
            duration_us: manifest.map(|manifest| manifest.duration_us),
            reason: manifest.map(|manifest| manifest.reason.clone()),
            exit: manifest.and_then(|manifest| manifest.exit.clone()),
            channels: manifest.map(|manifest| manifest.channels.clone()).unwrap_or_default(),
            header,
            transfer: None,
            problems,
        }
    }

    /// Tells each of these rows which copy it is a part of.
    pub(crate) fn link(rows: &mut [Row]) {
        let transfers = transfer::transfers(rows.iter().filter_map(|row| row.header.as_ref()));
        for row in rows {
            row.transfer = transfers.iter().find(|one| one.sessions.contains(&row.session)).cloned();
        }
    }

    pub(crate) fn cells(&self, wide: bool) -> Vec<String> {
        let none = || "-".to_owned();
        let header = self.header.as_ref();
        let text = |get: fn(&Header) -> String| header.map_or_else(none, get);
        let command = header.map_or_else(none, asked);
        let mut cells = vec![
            self.session.to_string(),
            self.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            text(|header| header.agent.user.clone()),
            text(|header| format!("{}/{}", header.target.namespace, header.target.pod)),
            if wide { command } else { output::shorten(&output::plain(&command), 40) },
            self.took().unwrap_or_else(none),
            self.state.word().to_owned(),
            self.exit.as_ref().map_or_else(none, exit_text),
        ];
        if wide {
            cells.extend([
                text(|header| header.target.container.clone().unwrap_or_else(|| "-".to_owned())),
                text(|header| header.run.clone().unwrap_or_else(|| "-".to_owned())),
                text(|header| header.class.clone()),
                text(|header| header.decision.rule.clone()),
                text(|header| header.decision.approval.clone().unwrap_or_else(|| "-".to_owned())),
                self.channels.iter().map(|total| total.bytes).sum::<u64>().to_string(),
                self.reason.as_ref().map_or_else(none, ToString::to_string),
            ]);
        }
        cells
    }

    /// How long it took, when it is over.
    pub(crate) fn took(&self) -> Option<String> {
        self.duration_us.map(|micros| output::duration(Duration::from_micros(micros)))
    }
}

impl Standing {
    fn of(sealed: bool, manifest: Option<&Manifest>) -> Self {
        match (sealed, manifest.map(|manifest| manifest.state)) {
            (false, _) => Standing::Recording,
            (true, Some(State::Complete)) => Standing::Complete,
            (true, Some(State::Recovered)) => Standing::Recovered,
            (true, None) => Standing::Unreadable,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Standing::Recording => "recording",
            Standing::Complete => "complete",
            Standing::Recovered => "recovered",
            Standing::Unreadable => "unreadable",
        }
    }
}

/// What was asked of the container: the command line, or the kind of stream.
pub(crate) fn asked(header: &Header) -> String {
    match header.kind {
        SessionKind::Exec => output::command_line(&header.stream.command),
        SessionKind::Attach => "(attach)".to_owned(),
        SessionKind::PortForward => "(port-forward)".to_owned(),
        SessionKind::Proxy => "(proxy)".to_owned(),
    }
}

fn exit_text(exit: &Exit) -> String {
    exit.code.map_or_else(|| "failed".to_owned(), |code| code.to_string())
}
