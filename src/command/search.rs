//! `kustody search`: text that appeared on a screen or in a stream of recorded sessions. Reads every chunk of the sessions
//! asked for, prints each hit as it is found, and keeps nothing.
//!
//! Exit codes: 0 found, 1 nothing found or a session could not be read to its end.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Serialize;

use super::output::{self, plain, tell};
use super::sessions::filter::Filter;
use super::sessions::row::Row;
use super::store_args::StoreArgs;
use crate::core::recording::manifest::wall_clock;
use crate::core::recording::search::{Hit, Needle, Place, Searcher};
use crate::core::recording::{Direction, SessionId};
use crate::edge::store::{Store, catalog, reader};

/// Find text that appeared in recorded sessions
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody search 'DROP TABLE' --since 24h\n  \
    kustody search -i password --agent deployer -n shop -o wide\n  \
    kustody search BEGIN.PRIVATE.KEY --limit 1000 -o name\n  \
    kustody search 'connection refused' -o json | jq -r .line\n\n\
    The output of a terminal is searched as it was visible on the screen, whichever way it was drawn; everything else line \
    by line. There is no index: each session asked for is read.")]
pub struct Args {
    /// The text to find
    text: String,
    /// Take small and capital letters for the same
    #[arg(short, long)]
    ignore_case: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    filter: Filter,
    /// How to print what is found
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Session, time in it, place and line
    Table,
    /// With the wall clock, agent and pod
    Wide,
    /// A line of JSON for each hit
    Json,
    /// Ids of the sessions, each once
    Name,
}

/// A hit as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    session: SessionId,
    at_us: u64,
    time: Timestamp,
    channel: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u32>,
    line: &'a str,
}

/// Runs the command.
///
/// # Errors
/// When the store cannot be read or the text cannot be searched for.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let needle = Needle::new(&args.text, args.ignore_case)
        .context("the text must be one line without control characters, and not empty")?;
    let store = args.store.open().await?;
    let rows = args.filter.find(&store).await?;
    let (mut found, mut failed) = (false, false);
    for row in &rows {
        match search(&store, row, needle.clone(), args.output).await {
            Ok(hit) => found |= hit,
            Err(error) => {
                failed = true;
                tell(&format!("{}: {error:#}", row.session))?;
            }
        }
    }
    if rows.len() >= args.filter.limit() {
        tell(&format!("only the newest {} sessions were searched; --limit takes more", rows.len()))?;
    }
    Ok(if found && !failed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Searches one session and prints its hits; true when there are any.
async fn search(store: &Store, row: &Row, needle: Needle, form: Form) -> anyhow::Result<bool> {
    let session = catalog::session(store, row.session).await?;
    let sequences = reader::sequences(store, &session).await?;
    let header = session.header.map_err(|problem| anyhow!("the header cannot be read: {problem}"))?;
    let mut searcher = Searcher::new(needle, &header)?;
    let (mut hits, mut found) = (Vec::new(), false);
    let mut chunks = reader::chunks(store, row.session, sequences);
    while let Some(chunk) = chunks.next().await {
        for event in chunk?.events() {
            searcher.push(&event?, &mut hits);
        }
        found |= !hits.is_empty();
        print(row, &mut hits, form)?;
        if found && form == Form::Name {
            output::print(&format!("{}\n", row.session))?;
            return Ok(true);
        }
    }
    searcher.finish(&mut hits);
    if form == Form::Name && !hits.is_empty() {
        output::print(&format!("{}\n", row.session))?;
    }
    found |= !hits.is_empty();
    print(row, &mut hits, form)?;
    Ok(found)
}

fn print(row: &Row, hits: &mut Vec<Hit>, form: Form) -> anyhow::Result<()> {
    let mut text = String::new();
    for hit in hits.drain(..) {
        let at_us = u64::try_from(hit.at.as_micros()).unwrap_or(u64::MAX);
        let time = wall_clock(row.started_at, at_us);
        match form {
            Form::Name => {}
            Form::Json => {
                let (channel, connection) = place(hit.place);
                let found = Found { session: row.session, at_us, time, channel, connection, line: &hit.line };
                text.push_str(&serde_json::to_string(&found)?);
                text.push('\n');
            }
            Form::Table | Form::Wide => {
                let (channel, connection) = place(hit.place);
                let number = connection.map(|number| format!("-{number}")).unwrap_or_default();
                let mut cells = vec![row.session.to_string(), clock(hit.at)];
                if form == Form::Wide {
                    let header = row.header.as_ref();
                    cells.push(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
                    cells.extend(header.map(|header| header.agent.user.clone()));
                    cells.extend(header.map(|header| format!("{}/{}", header.target.namespace, header.target.pod)));
                }
                cells.extend([format!("{channel}{number}"), hit.line]);
                text.push_str(&format!("{}\n", plain(&cells.join("  "))));
            }
        }
    }
    output::print(&text)
}

fn place(place: Place) -> (&'static str, Option<u32>) {
    match place {
        Place::Screen => ("screen", None),
        Place::Stream(channel) => (channel.name(), None),
        Place::Connection(number, Direction::ToContainer) => ("to-container", Some(number)),
        Place::Connection(number, Direction::ToClient) => ("to-client", Some(number)),
    }
}

/// A time of the session as `kustody replay --from` reads it.
fn clock(at: Duration) -> String {
    let (seconds, millis) = (at.as_secs(), at.subsec_millis());
    match seconds {
        0..60 => format!("{seconds}.{millis:03}s"),
        _ => format!("{}m{}.{millis:03}s", seconds / 60, seconds % 60),
    }
}
