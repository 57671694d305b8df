//! `kustody sessions`: lists what was recorded, newest first. Reads headers and manifests and proves nothing; that is
//! `kustody verify`.

pub(super) mod filter;
pub(super) mod row;

use std::process::ExitCode;

use super::output::{self, Format};
use super::store_args::StoreArgs;
use filter::Filter;
use row::Row;

/// List recorded sessions, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody sessions --store s3://evidence/kustody\n  \
    kustody sessions --agent deployer -n shop --since 24h -o wide\n  \
    kustody sessions --pod 'web-*' --command 'rm -rf' --limit 1000 -o json\n  \
    kustody sessions --state recording -o name                # what is going on now")]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    filter: Filter,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// When the store cannot be read or standard output is closed.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = args.store.open().await?;
    let rows = args.filter.find(&store).await?;
    if args.output.is_table() {
        print_table(&rows, args.output == Format::Wide)?;
    } else if args.output == Format::Name {
        output::print(&rows.iter().map(|row| format!("{}\n", row.session)).collect::<String>())?;
    } else {
        output::print_value(args.output, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(rows: &[Row], wide: bool) -> anyhow::Result<()> {
    if rows.is_empty() {
        return output::print("No sessions found.\n");
    }
    let mut head = vec!["ID", "STARTED", "AGENT", "POD", "COMMAND", "DURATION", "STATE", "EXIT"];
    if wide {
        head.extend(["CONTAINER", "RUN", "CLASS", "RULE", "APPROVAL", "BYTES", "REASON"]);
    }
    output::print_table(&head, rows.iter().map(|row| row.cells(wide)).collect())
}
