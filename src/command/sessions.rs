//! `kustody sessions`: lists what was recorded, newest first. Reads headers and manifests and proves nothing; that is
//! `kustody verify`.

use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::output::{self, Format};
use super::store_args::StoreArgs;
use crate::core::recording::header::{Header, SessionKind};
use crate::core::recording::manifest::{Manifest, State};
use crate::core::recording::summary::{ChannelTotal, Exit};
use crate::core::recording::{CloseReason, SessionId};
use crate::edge::store::catalog::{self, Session};

/// List recorded sessions, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody sessions --store s3://evidence/kustody\n  \
    kustody sessions --agent deployer -o wide\n  \
    kustody sessions --limit 1000 -o json")]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Only sessions whose agent's user name contains this text
    #[arg(long, value_name = "TEXT")]
    agent: Option<String>,
    /// At most this many of the newest sessions are looked at
    #[arg(long, default_value_t = 100, value_name = "NUMBER")]
    limit: usize,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// One session as programs read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    session: SessionId,
    state: &'static str,
    started_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<CloseReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<Exit>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<ChannelTotal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When the store cannot be read or standard output is closed.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = args.store.open().await?;
    let ids = catalog::sessions(&store, args.limit).await?;
    let sessions = catalog::read_all(&store, ids).await?;
    let wanted = |row: &Row| match (&args.agent, &row.header) {
        (None, _) => true,
        (Some(agent), header) => header.as_ref().is_some_and(|header| header.agent.user.contains(agent)),
    };
    let rows: Vec<Row> = sessions.into_iter().map(Row::new).filter(wanted).collect();
    if args.output.is_table() {
        print_table(&rows, args.output == Format::Wide)?;
    } else if args.output == Format::Name {
        output::print(&rows.iter().map(|row| format!("{}\n", row.session)).collect::<String>())?;
    } else {
        output::print_value(args.output, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Row {
    fn new(session: Session) -> Self {
        let mut problems = Vec::new();
        let header = session.header.map_err(|problem| problems.push(problem)).ok();
        let sealed = session.manifest.is_some();
        let manifest = session.manifest.and_then(|manifest| manifest.map_err(|problem| problems.push(problem)).ok());
        let manifest = manifest.as_ref();
        Row {
            session: session.id,
            state: if problems.is_empty() { state_name(sealed, manifest) } else { "unreadable" },
            started_at: header.as_ref().map_or(session.id.timestamp(), |header| header.started_at),
            ended_at: manifest.map(|manifest| manifest.ended_at),
            duration_us: manifest.map(|manifest| manifest.duration_us),
            reason: manifest.map(|manifest| manifest.reason.clone()),
            exit: manifest.and_then(|manifest| manifest.exit.clone()),
            channels: manifest.map(|manifest| manifest.channels.clone()).unwrap_or_default(),
            header,
            problems,
        }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let none = || "-".to_owned();
        let header = self.header.as_ref();
        let text = |get: fn(&Header) -> String| header.map_or_else(none, get);
        let command = header.map_or_else(none, asked);
        let span = self.duration_us.map(|micros| output::duration(Duration::from_micros(micros)));
        let mut cells = vec![
            self.session.to_string(),
            self.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            text(|header| header.agent.user.clone()),
            text(|header| format!("{}/{}", header.target.namespace, header.target.pod)),
            if wide { command } else { output::shorten(&output::plain(&command), 40) },
            span.unwrap_or_else(none),
            self.state.to_owned(),
            self.exit.as_ref().map_or_else(none, exit_text),
        ];
        if wide {
            cells.extend([
                text(|header| header.target.container.clone().unwrap_or_else(|| "-".to_owned())),
                text(|header| header.class.clone()),
                text(|header| header.decision.rule.clone()),
                text(|header| header.decision.approval.clone().unwrap_or_else(|| "-".to_owned())),
                self.channels.iter().map(|total| total.bytes).sum::<u64>().to_string(),
                self.reason.as_ref().map_or_else(none, ToString::to_string),
            ]);
        }
        cells
    }
}

fn print_table(rows: &[Row], wide: bool) -> anyhow::Result<()> {
    if rows.is_empty() {
        return output::print("No sessions found.\n");
    }
    let mut head = vec!["ID", "STARTED", "AGENT", "POD", "COMMAND", "DURATION", "STATE", "EXIT"];
    if wide {
        head.extend(["CONTAINER", "CLASS", "RULE", "APPROVAL", "BYTES", "REASON"]);
    }
    output::print_table(&head, rows.iter().map(|row| row.cells(wide)).collect())
}

fn state_name(sealed: bool, manifest: Option<&Manifest>) -> &'static str {
    match (sealed, manifest.map(|manifest| manifest.state)) {
        (false, _) => "recording",
        (true, Some(State::Complete)) => "complete",
        (true, Some(State::Recovered)) => "recovered",
        (true, None) => "unreadable",
    }
}

/// What was asked of the container: the command line, or the kind of stream.
fn asked(header: &Header) -> String {
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
