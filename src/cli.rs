//! What was typed: the sub-commands and how the process ends. Each command's own arguments live beside it in
//! `command/`; what they mean is decided there. Exit codes: 0 done, 1 failed, 2 wrong usage.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::command;

/// Keeps custody of what AI agents do to Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "kustody", bin_name = bin_name(), version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the webhook and the gateway
    Serve(command::serve::Args),
    /// List what waits for approval, or show one request whole
    Approvals(command::approvals::Args),
    /// Show one approval request, or one recorded session, whole
    Show(command::show::Args),
    /// Approve a held request, or a group of them
    Approve(command::approve::Args),
    /// Deny a held request, or a group of them
    Deny(command::deny::Args),
    /// List grants: who may do what without asking again, until when
    Grants(command::grants::Args),
    /// Ask for a grant, give one, decide about one, or take one back
    Grant(command::grant::Args),
    /// List recorded sessions
    Sessions(command::sessions::Args),
    /// End a running session
    Kill(command::kill::Args),
    /// Replay a recorded session
    Replay(command::replay::Args),
    /// Watch a session while it is recorded
    Watch(command::watch::Args),
    /// Find text that appeared in recorded sessions
    Search(command::search::Args),
    /// Write a recorded session as an asciicast, text, JSON lines, raw bytes or files
    Export(command::export::Args),
    /// List or follow what agents asked and what was decided
    Audit(command::audit::Args),
    /// Prove that recordings are complete and unaltered
    Verify(command::verify::Args),
    /// Look for ways around the gate, and for what is about to go wrong
    Doctor(command::doctor::Args),
    /// Check, test and explain rules
    Policy(command::policy::Args),
    /// Write the files that follow from the code: custom resources, manifests, the webhook configuration
    Generate(command::generate::Args),
    /// Print the version
    Version(command::version::Args),
    /// Write a completion script for a shell
    Completion(Completion),
}

/// Writes a completion script for a shell to standard output.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  source <(kustody completion bash)\n  kustody completion zsh > ~/.zfunc/_kustody")]
struct Completion {
    /// The shell to write for
    shell: clap_complete::Shell,
}

/// `kubectl kustody` when started as kubectl's plugin, so that help shows what was typed.
fn bin_name() -> &'static str {
    let plugin = std::env::args_os()
        .next()
        .is_some_and(|arg0| std::path::Path::new(&arg0).file_name().is_some_and(|name| name == "kubectl-kustody"));
    if plugin { "kubectl kustody" } else { "kustody" }
}

/// Runs one command to its end. Errors are printed on stderr with their causes.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return failed(&anyhow::anyhow!("a TLS provider is installed already"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let ended = runtime.block_on(dispatch(cli.command));
    // A blocking read of a terminal must not hold the process after its command has ended.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| failed(&error))
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => command::serve::run(args).await,
        Command::Approvals(args) => command::approvals::run(args).await,
        Command::Show(args) => command::show::run(args).await,
        Command::Approve(args) => command::approve::run(args).await,
        Command::Deny(args) => command::deny::run(args).await,
        Command::Grants(args) => command::grants::run(args).await,
        Command::Grant(args) => command::grant::run(args).await,
        Command::Sessions(args) => command::sessions::run(args).await,
        Command::Kill(args) => command::kill::run(args).await,
        Command::Replay(args) => command::replay::run(args).await,
        Command::Watch(args) => command::watch::run(args).await,
        Command::Search(args) => command::search::run(args).await,
        Command::Export(args) => command::export::run(args).await,
        Command::Audit(args) => command::audit::run(args).await,
        Command::Verify(args) => command::verify::run(args).await,
        Command::Doctor(args) => command::doctor::run(args).await,
        Command::Policy(args) => command::policy::run(&args),
        Command::Generate(args) => command::generate::run(args).await,
        Command::Version(args) => command::version::run(&args),
        Command::Completion(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), bin_name(), &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints an error with its causes, each once: a source that its parent's text already holds is not repeated.
fn failed(error: &anyhow::Error) -> ExitCode {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text.push_str(separator);
            text.push_str(&cause);
        }
    }
    // Nothing is left to tell where stderr itself is gone.
    writeln!(std::io::stderr(), "error: {text}").ok();
    ExitCode::FAILURE
}
