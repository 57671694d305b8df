//! `kustody show`: one approval request whole. Reads only; what it looks like is `approvals/page.rs`'s business.

use std::process::ExitCode;

use jiff::Timestamp;
use kube::{Client, ResourceExt};

use super::approvals::page;
use super::approve::find;
use super::kube_args::KubeArgs;
use super::output::{self, Format};

/// Show one approval request whole
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody show apr-6494190e4cfd          # who, what, why, what changes and what would follow\n  \
    kustody show apr-64 -o yaml            # any unique beginning will do")]
pub struct Args {
    /// Id of the request, or a unique beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs the command.
///
/// # Errors
/// When the request is not there, or the API server cannot be reached or refuses.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    show(&args.kube.client().await?, &args.id, args.output).await
}

/// Prints the one request whose id begins with `id`.
pub(super) async fn show(client: &Client, id: &str, format: Format) -> anyhow::Result<ExitCode> {
    let request = find(client, id).await?;
    match format {
        Format::Table | Format::Wide => output::print(&page(&request, Timestamp::now()))?,
        Format::Name => output::print(&format!("approvalrequest.kustody.dev/{}\n", request.name_any()))?,
        Format::Json | Format::Yaml => output::print_value(format, &request)?,
    }
    Ok(ExitCode::SUCCESS)
}
