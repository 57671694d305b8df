//! `kustody version`: what this binary is, for people and for programs.

use std::io::Write;
use std::process::ExitCode;

/// Arguments of `kustody version`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kustody version\n  kustody version -o json")]
pub struct Args {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Prints the version.
///
/// # Errors
/// Where standard output is closed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Text => writeln!(out, "kustody {version}")?,
        Output::Json => writeln!(out, "{}", serde_json::json!({ "version": version }))?,
    }
    Ok(ExitCode::SUCCESS)
}
