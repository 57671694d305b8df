//! Parses the command line, calls one command, returns an exit code. What each command does is in `command/`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = kustody::cli::Cli::parse();
    kustody::cli::run(cli)
}
