//! `kustody deny`: says no to a held request, with a reason. What it shares with `kustody approve` is there.

use std::process::ExitCode;

use super::approve::{Which, decide};
use super::kube_args::KubeArgs;
use crate::core::approval::Choice;

/// Deny a held request, or a group of them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody deny apr-6494190e4cfd --reason 'not before the release'\n  \
    kustody deny --group grp-1f0c52aa --reason 'not before the release'")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Why; the agent is told
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs the command.
///
/// # Errors
/// When the request is not there or not open, or the API server refuses the decision.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    decide(&args.kube, &args.which, Choice::Deny, Some(args.reason)).await
}
