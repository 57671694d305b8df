//! `kustody policy`: what authors of rules work with. None of it needs a cluster.
//!
//! One file per sub-command; [`source`] reads the files they are given.

pub mod check;
pub mod explain;
pub mod export;
mod located;
mod manifest;
pub mod simulate;
pub mod source;
pub mod test;

use clap::Subcommand;
use std::process::ExitCode;

/// Check, test and explain rules
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody policy check manifests/default-policy.yaml\n  \
    kustody policy test manifests/tests/\n  \
    kustody policy explain -f deployment.yaml --policies my-policies/\n  \
    kustody policy simulate entries.jsonl --policies my-policies/")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find everything that is wrong with classes and policies
    Check(check::Args),
    /// Run tests of policies
    Test(test::Args),
    /// Say what would become of a manifest, and by which rule
    Explain(explain::Args),
    /// Write Deny rules as native ValidatingAdmissionPolicies
    Export(export::Args),
    /// Replay reviews or log entries against changed rules
    Simulate(simulate::Args),
}

/// Runs the sub-command.
///
/// # Errors
/// When a file cannot be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Check(args) => check::run(args),
        Command::Test(args) => test::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Export(args) => export::run(args),
        Command::Simulate(args) => simulate::run(args),
    }
}
