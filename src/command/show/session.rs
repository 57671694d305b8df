//! One recorded session whole: who, what, why it was let through, how it ended, what went by, and the files of a copy.
//! Whatever comes from the store is made plain before it reaches a terminal. Proves nothing: that is `kustody verify`.

use std::process::ExitCode;

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::command::export::Listing;
use crate::command::output::{self, Format, plain};
use crate::command::sessions::row::{Row, asked};
use crate::core::recording::export::note;
use crate::core::recording::export::tar::Entry;
use crate::core::recording::header::Header;
use crate::core::recording::layout::MANIFEST;
use crate::core::recording::manifest::Manifest;
use crate::core::recording::transfer::{Transfer, Way, is_part};
use crate::core::recording::{EventKind, SessionId};
use crate::edge::store::catalog::Session;
use crate::edge::store::{Store, catalog, reader};

/// Recordings with more event bytes are not read through for a page.
const LARGEST_READ: u64 = 64 * 1024 * 1024;
/// How far around a session the other execs of its copy are looked for, in time and number.
const AROUND: SignedDuration = SignedDuration::from_mins(10);
const NEIGHBOURS: usize = 500;
/// Most files, and most notes, on a page.
const LISTED: usize = 200;

/// The page as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(flatten)]
    row: Row,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    /// Until when the store neither deletes nor changes its manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_until: Option<Timestamp>,
    #[serde(flatten)]
    inside: Inside,
}

/// What only the events tell.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Inside {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Note>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<File>,
    /// The recording is too large to be read for a page, or there is more than is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    at_us: u64,
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    kind: &'static str,
    path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link: String,
    size: u64,
    mode: String,
    leads_out: bool,
    #[serde(skip)]
    line: String,
}

/// Prints the session whose id begins with `id`.
pub(super) async fn show(store: &Store, id: &str, format: Format) -> anyhow::Result<ExitCode> {
    let id = catalog::resolve(store, id).await?;
    if format == Format::Name {
        output::print(&format!("{id}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let session = catalog::session(store, id).await?;
    let sequences = reader::sequences(store, &session).await?;
    let manifest = session.manifest.as_ref().and_then(|manifest| manifest.as_ref().ok());
    let sum = |of: fn(&crate::core::recording::manifest::ChunkEntry) -> u64| {
        manifest.map(|manifest| manifest.chunks.iter().map(of).fold(0, u64::saturating_add))
    };
    let small = sum(|chunk| chunk.payload).is_some_and(|payload| payload <= LARGEST_READ);
    let locked_until = match &manifest {
        Some(_) => store.locked_until(&id.key(MANIFEST)).await?,
        None => None,
    };
    let page = Page {
        locked_until,
        chunks: manifest.map(|manifest| manifest.chunks.len()),
        stored_bytes: sum(|chunk| chunk.size),
        events: manifest.map(|manifest: &Manifest| manifest.events),
        inside: if small { read(store, id, sequences).await? } else { Inside { more: true, ..Inside::default() } },
        row: linked(store, session).await?,
    };
    match format {
        Format::Json | Format::Yaml => output::print_value(format, &page)?,
        Format::Table | Format::Wide | Format::Name => output::print(&page.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The row of a session, with the copy that it is a part of.
async fn linked(store: &Store, session: Session) -> anyhow::Result<Row> {
    let row = Row::new(session);
    if !row.header.as_ref().is_some_and(is_part) {
        return Ok(row);
    }
    let (since, until) = (row.started_at.checked_sub(AROUND).ok(), row.started_at.checked_add(AROUND).ok());
    let mut ids = catalog::sessions_between(store, since, until).await?;
    ids.sort_by_key(|id| id.timestamp().duration_since(row.started_at).abs());
    ids.truncate(NEIGHBOURS);
    let mut rows: Vec<Row> = catalog::read_all(store, ids).await?.into_iter().map(Row::new).collect();
    Row::link(&mut rows);
    Ok(rows.into_iter().find(|one| one.session == row.session).unwrap_or(row))
}

/// Reads the events for notes and for the files of a copy.
async fn read(store: &Store, id: SessionId, sequences: Vec<u64>) -> anyhow::Result<Inside> {
    let (mut inside, mut listing) = (Inside::default(), Listing::default());
    let mut chunks = reader::chunks(store, id, sequences);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        for event in chunk.events() {
            let event = event?;
            let shown = !matches!(event.kind, EventKind::ConnectionOpened { .. });
            if let Some(text) = note(&event.kind).filter(|_| shown) {
                let at_us = u64::try_from(event.at.as_micros()).unwrap_or(u64::MAX);
                inside.put(|inside| &mut inside.notes, Note { at_us, text });
            }
        }
        listing.push(&chunk)?.into_iter().for_each(|entry| inside.put(|inside| &mut inside.files, File::new(&entry)));
    }
    inside.archive = listing.told().ok();
    Ok(inside)
}

impl Inside {
    fn put<T>(&mut self, list: fn(&mut Inside) -> &mut Vec<T>, item: T) {
        if list(self).len() < LISTED {
            list(self).push(item);
        } else {
            self.more = true;
        }
    }
}

impl File {
    fn new(entry: &Entry) -> Self {
        File {
            kind: entry.kind.name(),
            path: entry.path_text(),
            link: entry.link_text(),
            size: entry.size,
            mode: format!("{:04o}", entry.mode),
            leads_out: entry.leads_out(),
            line: entry.to_string(),
        }
    }
}

impl Page {
    fn text(&self) -> String {
        let mut lines = vec![("Session", self.row.session.to_string()), ("State", self.state())];
        if let Some(header) = &self.row.header {
            lines.extend(asked_for(header));
        }
        lines.extend(self.ended());
        let mut text: String =
            lines.iter().map(|(key, value)| format!("{:<14}{}\n", format!("{key}:"), plain(value))).collect();
        text.push_str(&self.streams());
        text.push_str(&self.inside());
        text.push_str(&format!(
            "\nReplay it with `kustody replay {0}`, prove it with `kustody verify {0}`.\n",
            self.row.session
        ));
        text
    }

    fn state(&self) -> String {
        let reason = self.row.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let problems = self.row.problems.iter().map(|problem| format!("; {problem}")).collect::<String>();
        format!("{}{reason}{problems}", self.row.state.word())
    }

    fn ended(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Started", self.row.started_at.to_string())];
        let mut optional = |key, value: Option<String>| lines.extend(value.map(|value| (key, value)));
        optional("Ended", self.row.ended_at.map(|at| at.to_string()));
        optional("Took", self.row.took());
        optional(
            "Exit status",
            self.row.exit.as_ref().map(|exit| match exit.code {
                Some(code) => code.to_string(),
                None => format!("failed: {}", exit.message),
            }),
        );
        if let (Some(chunks), Some(bytes), Some(events)) = (self.chunks, self.stored_bytes, self.events) {
            optional("Stored", Some(format!("{events} events in {chunks} chunks of {bytes} bytes")));
        }
        lines.extend(self.row.transfer.as_ref().map(|one| ("Copy", self.copy(one))));
        lines.extend(self.locked_until.map(|until| ("Locked until", until.to_string())));
        lines
    }

    fn copy(&self, transfer: &Transfer) -> String {
        let way = match transfer.direction {
            Way::Upload => "upload to",
            Way::Download => "download of",
        };
        let others = transfer.sessions.iter().filter(|id| **id != self.row.session).map(SessionId::to_string);
        let others: Vec<String> = others.collect();
        let with = if others.is_empty() { String::new() } else { format!(", with {}", others.join(", ")) };
        format!("{way} {}{with}", transfer.path)
    }

    fn streams(&self) -> String {
        let lines = self.row.channels.iter().filter(|total| total.bytes > 0 || total.lost > 0).map(|total| {
            let way = if total.direction == crate::core::recording::Direction::ToClient {
                "to the client"
            } else {
                "to the container"
            };
            let lost = if total.lost > 0 { format!(", {} more were not recorded", total.lost) } else { String::new() };
            format!("  {:<10} {:>12} bytes {way}{lost}\n", total.channel.name(), total.bytes)
        });
        let lines: String = lines.collect();
        if lines.is_empty() { lines } else { format!("\nStreams:\n{lines}") }
    }

    fn inside(&self) -> String {
        let mut text = String::new();
        if !self.inside.notes.is_empty() {
            text.push_str("\nNotes:\n");
            for note in &self.inside.notes {
                let at = std::time::Duration::from_micros(note.at_us);
                text.push_str(&format!("  {:>9.3}s  {}\n", at.as_secs_f64(), plain(&note.text)));
            }
        }
        if let Some(told) = &self.inside.archive {
            text.push_str(&format!("\nFiles copied: {told}\n"));
            self.inside.files.iter().for_each(|file| text.push_str(&format!("  {}\n", file.line)));
        }
        if self.inside.more {
            text.push_str("\nNot everything is shown: kustody export tells the rest.\n");
        }
        text
    }
}

fn asked_for(header: &Header) -> Vec<(&'static str, String)> {
    let (target, stream, decision) = (&header.target, &header.stream, &header.decision);
    let container = target.container.as_ref().map(|name| format!(", container {name}")).unwrap_or_default();
    let mut lines = vec![("Agent", format!("{} (class {})", header.agent.user, header.class))];
    lines.extend(header.run.clone().map(|run| ("Run", run)));
    lines.extend(header.on_behalf_of.clone().map(|person| ("On behalf of", person)));
    lines.push(("Pod", format!("{}/{}{container}, cluster {}", target.namespace, target.pod, target.cluster)));
    lines.push(("Command", asked(header)));
    let asked = [("tty", stream.tty), ("stdin", stream.stdin), ("stdout", stream.stdout), ("stderr", stream.stderr)];
    let asked: Vec<&str> = asked.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
    lines.push(("Asked for", if asked.is_empty() { "-".to_owned() } else { asked.join(", ") }));
    let approval = decision.approval.as_ref().map(|id| format!(", approved as {id}")).unwrap_or_default();
    lines.push(("Decision", format!("rule {} of {}{approval}", decision.rule, decision.policy)));
    lines.push(("Request", header.request.clone()));
    lines
        .push(("Client", format!("{} {} {}", header.client.address, header.client.user_agent, header.client.protocol)));
    lines.push(("Recorder", format!("{} of Kustody {}", header.recorder.replica, header.recorder.version)));
    lines
}
