//! `kustody verify`: proves recordings from a store and public keys alone, and says as plainly what it does not prove.
//!
//! Exit codes: 0 nothing is wrong, 1 something is not as it was written (each such object is named), or something is
//! unsealed and `--require-sealed` was given.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::output::{self, Format};
use super::store_args::StoreArgs;
use crate::core::keys::PublicKey;
use crate::core::recording::layout::{HEADER, MANIFEST, SessionId};
use crate::core::recording::manifest::State;
use crate::core::recording::verify::{Report, Verdict, Verifier};
use crate::edge::keys;
use crate::edge::store::{Store, catalog};

/// Sessions checked at the same time.
const SESSIONS: usize = 4;
/// Chunks of one session fetched ahead.
const CHUNKS: usize = 4;

/// Prove that recordings were not changed
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody verify --store s3://evidence/kustody --public-key kustody.pub\n  \
    kustody verify 019aa5c7 --public-key kustody.pub --require-sealed")]
pub struct Args {
    /// Session ids, or the beginnings of some; all sessions when there is none
    ids: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// PEM file of a public key that may have signed; give it again for more keys
    #[arg(long, required = true, env = "KUSTODY_PUBLIC_KEY", value_delimiter = ',', value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// Fail also when a session is not sealed yet
    #[arg(long)]
    require_sealed: bool,
    /// How to print the result
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// One session as programs read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    session: SessionId,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    chunks: u64,
    events: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    object: String,
    problem: String,
}

/// Runs the command.
///
/// # Errors
/// When a key or the store cannot be read.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let keys = args.public_key.iter().map(|path| keys::load_public(path)).collect::<Result<Arc<[_]>, _>>()?;
    let store = args.store.open().await?;
    let ids = wanted(&store, &args.ids).await?;
    let reports = check_all(&store, ids, &keys).await?;
    let rows: Vec<Row> = reports.iter().map(Row::new).collect();
    if args.output.is_table() {
        print(&rows)?;
    } else if args.output == Format::Name {
        output::print(&rows.iter().map(|row| format!("{}\n", row.session)).collect::<String>())?;
    } else {
        output::print_value(args.output, &rows)?;
    }
    let count = |verdict| reports.iter().filter(|report| report.verdict == verdict).count();
    let failed = count(Verdict::Broken) > 0 || (args.require_sealed && count(Verdict::Unsealed) > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn wanted(store: &Store, ids: &[String]) -> anyhow::Result<Vec<SessionId>> {
    if ids.is_empty() {
        let mut all = catalog::sessions(store, usize::MAX).await?;
        all.reverse();
        return Ok(all);
    }
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.push(catalog::resolve(store, id).await?);
    }
    Ok(found)
}

async fn check_all(store: &Store, ids: Vec<SessionId>, keys: &Arc<[PublicKey]>) -> anyhow::Result<Vec<Report>> {
    let progress = ProgressBar::new(ids.len() as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} sessions, {per_sec}, {msg}")?);
    let check = |id| tokio::spawn(check(store.clone(), id, keys.clone()));
    let mut checks = stream::iter(ids).map(check).buffered(SESSIONS);
    let mut reports = Vec::new();
    let mut broken = 0;
    while let Some(report) = checks.next().await {
        let report = report??;
        broken += usize::from(report.verdict == Verdict::Broken);
        progress.set_message(format!("{broken} broken"));
        progress.inc(1);
        reports.push(report);
    }
    progress.finish_and_clear();
    Ok(reports)
}

/// Checks one session. The manifest is read before the chunks are listed, because it is written after them: a session
/// that is sealed just now is then never taken for one that lost chunks.
async fn check(store: Store, id: SessionId, keys: Arc<[PublicKey]>) -> anyhow::Result<Report> {
    let header = catalog::read(&store, id, HEADER).await?;
    let manifest = catalog::read(&store, id, MANIFEST).await?;
    let contents = catalog::contents(&store, id).await?;
    let mut verifier = Verifier::new(id, header.as_deref(), manifest.as_deref(), &keys);
    contents.strays.iter().for_each(|name| verifier.stray(name));
    let store = &store;
    let fetch = |sequence| async move { (sequence, catalog::read_chunk(store, id, sequence).await) };
    let mut chunks = stream::iter(contents.chunks).map(fetch).buffered(CHUNKS);
    while let Some((sequence, object)) = chunks.next().await {
        // One that vanished since it was listed is found missing by its number.
        if let Some(object) = object? {
            verifier.chunk(sequence, &object);
        }
    }
    Ok(verifier.finish())
}

impl Row {
    fn new(report: &Report) -> Self {
        let problem = |finding: &crate::core::recording::verify::Finding| Problem {
            object: report.session.key(&finding.object),
            problem: finding.problem.clone(),
        };
        Row {
            session: report.session,
            verdict: match report.verdict {
                Verdict::Proven => "proven",
                Verdict::Unsealed => "unsealed",
                Verdict::Broken => "broken",
            },
            state: report.state,
            chunks: report.chunks,
            events: report.events,
            bytes: report.bytes,
            findings: report.findings.iter().map(problem).collect(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let result = match self.verdict {
            "proven" => "proven".to_owned(),
            "unsealed" => "NOT PROVEN: not sealed, its end may be missing".to_owned(),
            _ => format!("BROKEN: {} found", self.findings.len()),
        };
        let state = match self.state {
            Some(State::Complete) => "complete",
            Some(State::Recovered) => "recovered",
            None => "-",
        };
        vec![
            self.session.to_string(),
            state.to_owned(),
            self.chunks.to_string(),
            self.events.to_string(),
            self.bytes.to_string(),
            result,
        ]
    }
}

fn print(rows: &[Row]) -> anyhow::Result<()> {
    if rows.is_empty() {
        return output::print("No sessions found: nothing is proven.\n");
    }
    let head = ["ID", "STATE", "CHUNKS", "EVENTS", "BYTES", "RESULT"];
    output::print_table(&head, rows.iter().map(Row::cells).collect())?;
    let mut text = String::from("\n");
    for problem in rows.iter().flat_map(|row| &row.findings) {
        text.push_str(&format!("{}: {}\n", output::plain(&problem.object), output::plain(&problem.problem)));
    }
    let count = |verdict: &str| rows.iter().filter(|row| row.verdict == verdict).count();
    let (proven, unsealed, broken) = (count("proven"), count("unsealed"), count("broken"));
    text.push_str(&format!("{proven} proven, {unsealed} unsealed, {broken} broken.\n"));
    text.push_str(
        "Proven: header, every event, their order and the end are as they were when the manifest was signed.\n",
    );
    text.push_str("Not proven: that no session, and no manifest of an unsealed one, was removed as a whole.\n");
    output::print(&text)
}
