//! `kustody audit`: lists and follows the log's entries in the store. Reads whole segments of the time asked for, and
//! proves nothing.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::output::{self, Format};
use super::store_args::StoreArgs;
use crate::core::audit::layout::{Place, day};
use crate::core::audit::{Entry, Outcome, Text};
use crate::edge::store::{Store, ledger};

/// Segments that are read before their entries are looked at.
const AT_ONCE: usize = 32;
/// How often the store is asked for new segments.
const LOOK: Duration = Duration::from_secs(2);
/// A segment can hold entries that are so much younger than itself.
const SLACK: SignedDuration = SignedDuration::from_hours(1);

/// List or follow what agents asked and what was decided
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody audit list --store s3://evidence/kustody --since 2h --decision deny\n  \
    kustody audit list --agent deployer --namespace shop -o wide\n  \
    kustody audit tail --store file:///var/lib/kustody/store -o json\n\n\
    Entries reach the store a few seconds after they were written. There is no index: every segment of the time asked for \
    is read. Nothing here proves that no entry was changed or removed.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List entries, oldest first
    List(List),
    /// Print entries as they reach the store, until interrupted
    Tail(Tail),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    filter: Filter,
    /// Only entries since then: a length of time (2h, 3d as 72h) or a moment (2026-11-21T10:00:00Z)
    #[arg(long, default_value = "24h", value_name = "TIME")]
    since: String,
    /// At most this many of the newest entries
    #[arg(long, default_value_t = 100, value_name = "NUMBER")]
    limit: usize,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct Tail {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    filter: Filter,
    /// How to print them: a line each, or JSON lines
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which entries")]
struct Filter {
    /// Only of agents whose user name contains this text
    #[arg(long, value_name = "TEXT")]
    agent: Option<String>,
    /// Only of this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only with this decision
    #[arg(long, value_enum, value_name = "DECISION")]
    decision: Option<Decision>,
    /// Only of this run
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Decision {
    Allow,
    Deny,
    Hold,
}

/// Runs the command.
///
/// # Errors
/// When the store cannot be read or standard output is closed.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List(args) => list(args).await?,
        What::Tail(args) => tail(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: List) -> anyhow::Result<()> {
    let since = output::moment(&args.since, Timestamp::now())?;
    let store = args.store.open().await?;
    let places = ledger::segments(&store, Some(day(since.saturating_sub(SLACK)?))).await?;
    let mut found: Vec<Entry> = Vec::new();
    for places in places.chunks(AT_ONCE) {
        let entries = read(&store, places.to_vec(), &args.filter).await?;
        found.extend(entries.into_iter().filter(|entry| entry.time >= since));
        found.sort_unstable_by_key(|entry| (entry.time, entry.id));
        found.drain(..found.len().saturating_sub(args.limit));
    }
    match args.output {
        Format::Json | Format::Yaml => output::print_value(args.output, &found),
        Format::Name => output::print(&found.iter().map(|entry| format!("{}\n", entry.id)).collect::<String>()),
        Format::Table | Format::Wide if found.is_empty() => output::print("No entries found.\n"),
        Format::Table | Format::Wide => print_table(&found, args.output == Format::Wide),
    }
}

async fn tail(args: Tail) -> anyhow::Result<()> {
    let store = args.store.open().await?;
    let recent = || day(Timestamp::now().saturating_sub(SLACK).unwrap_or_default());
    let mut seen: BTreeSet<Place> = ledger::segments(&store, Some(recent())).await?.into_iter().collect();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = ledger::segments(&store, Some(recent())).await?;
        let fresh: Vec<Place> = now.into_iter().filter(|place| seen.insert(*place)).collect();
        let mut entries = read(&store, fresh, &args.filter).await?;
        entries.sort_unstable_by_key(|entry| (entry.time, entry.id));
        for entry in &entries {
            let line = match args.output {
                Format::Json | Format::Yaml => serde_json::to_string(entry)?,
                Format::Name => entry.id.to_string(),
                Format::Table | Format::Wide => output::plain(&cells(entry, false).join("  ")),
            };
            output::print(&(line + "\n"))?;
        }
    }
}

async fn read(store: &Store, places: Vec<Place>, filter: &Filter) -> anyhow::Result<Vec<Entry>> {
    let read = ledger::read(store, places).await?;
    let unread: usize = read.iter().map(|segment| segment.unread).sum();
    anyhow::ensure!(unread == 0, "{unread} entries were written by a newer version of Kustody, or damaged");
    Ok(read.into_iter().flat_map(|segment| segment.entries).filter(|entry| filter.takes(entry)).collect())
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, there: &Option<Text>| {
            wanted.is_none() || wanted.as_deref() == there.as_ref().and_then(Text::as_str)
        };
        let user = entry.principal.agent.user.as_str().unwrap_or_default();
        let outcome = entry.decision.as_ref().map(|decision| decision.outcome);
        let wanted = self.decision.map(|decision| match decision {
            Decision::Allow => Outcome::Allow,
            Decision::Deny => Outcome::Deny,
            Decision::Hold => Outcome::Hold,
        });
        self.agent.as_ref().is_none_or(|agent| user.contains(agent))
            && is(&self.namespace, &entry.namespace)
            && is(&self.run, &entry.run)
            && (wanted.is_none() || wanted == outcome)
    }
}

fn print_table(entries: &[Entry], wide: bool) -> anyhow::Result<()> {
    let mut head = vec!["TIME", "AGENT", "DECISION", "EFFECT", "STATUS", "RULE", "REQUEST"];
    if wide {
        head.extend(["KIND", "RUN", "APPROVAL", "TOOK", "ENTRY"]);
    }
    output::print_table(&head, entries.iter().map(|entry| cells(entry, wide)).collect())
}

fn cells(entry: &Entry, wide: bool) -> Vec<String> {
    let none = || "-".to_owned();
    let text = |text: &Option<Text>| text.as_ref().map_or_else(none, ToString::to_string);
    let decision = entry.decision.as_ref();
    let request = entry.kubectl.as_ref().or(entry.note.as_ref()).map_or_else(none, ToString::to_string);
    let mut cells = vec![
        entry.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        entry.principal.agent.user.to_string(),
        decision.map_or_else(none, |decision| decision.outcome.word().to_owned()),
        entry.effect.word().to_owned(),
        entry.status.map_or_else(none, |status| status.to_string()),
        decision.map_or_else(none, |decision| decision.rule.to_string()),
        if wide { request } else { output::shorten(&request, 80) },
    ];
    if wide {
        cells.extend([
            format!("{:?}", entry.kind).to_lowercase(),
            text(&entry.run),
            decision.map_or_else(none, |decision| text(&decision.approval)),
            output::duration(Duration::from_micros(entry.latency_us)),
            entry.id.to_string(),
        ]);
    }
    cells
}
