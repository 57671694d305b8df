//! `kustody policy check`: every problem of every class and policy at once, with file, line, rule and hint.

use super::source::Source;
use crate::command::output::{self, Format};
use std::{path::PathBuf, process::ExitCode};

/// Find everything that is wrong with classes and policies
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody policy check policy.yaml\n  \
    kustody policy check manifests/default-policy.yaml -o json")]
pub struct Args {
    /// Files, or folders of files; documents of other kinds are passed over
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How to print what is found
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// Runs the command; exit code 1 when anything is wrong.
///
/// # Errors
/// When a file cannot be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = Source::read(&args.files)?;
    if args.output.is_table() {
        let mut text: String = source.findings.iter().map(|finding| format!("{finding}\n")).collect();
        let rules: usize = source.policies.values().map(|policy| policy.rules.len()).sum();
        text.push_str(&format!(
            "{} classes, {} policies with {rules} rules are sound, {} problems\n",
            source.classes.len(),
            source.policies.len(),
            source.findings.len()
        ));
        output::print(&text)?;
    } else {
        output::print_value(args.output, &source.findings)?;
    }
    Ok(if source.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
