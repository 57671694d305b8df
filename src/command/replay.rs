//! `kustody replay`: shows a recorded session as it was, both streams at the recorded pace, and how its command ended.
//!
//! At a terminal keys pause, step, seek and change the speed (`player.rs`); into files and pipes everything is written in
//! order (`plain.rs`). What goes to a terminal, and what came from one, is sanitised unless `--raw`; stored bytes are
//! exact. Chunks are fetched a few ahead of what is shown (`tape.rs`). Proves nothing: that is `kustody verify`.

mod keys;
mod pace;
mod plain;
mod player;
pub(super) mod show;
pub(super) mod tape;
pub(super) mod terminal;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use jiff::SignedDuration;

use super::output;
use super::store_args::StoreArgs;
use crate::core::recording::summary::Exit;
use crate::edge::store::catalog::{self, Session};
use pace::Pace;
use tape::Tape;

/// Show a recorded session at its own pace
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody replay 019aa5c7\n  \
    kustody replay 019aa5c7 --speed 4 --idle-limit 2s\n  \
    kustody replay 019aa5c7 --from 1m30s --step\n  \
    kustody replay 019aa5c7 --no-wait > stdout.txt 2> stderr.txt\n\n\
    Keys at a terminal: space pauses and goes on, `.` steps, right and left (or `]` and `[`) seek 5 seconds, up and down \
    (or `}` and `{`) a minute, `+` and `-` change the speed, `q` ends.")]
pub struct Args {
    /// Session id, or the beginning of one
    id: String,
    #[command(flatten)]
    store: StoreArgs,
    /// How many times faster than it was
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = speed)]
    speed: f64,
    /// Never wait longer than this between two events, such as 2s or 500ms
    #[arg(long, value_name = "DURATION", value_parser = span)]
    idle_limit: Option<Duration>,
    /// Begin at this time of the session, such as 1m30s
    #[arg(long, value_name = "DURATION", value_parser = span, default_value = "0s")]
    from: Duration,
    /// Begin paused: `.` shows one event after another
    #[arg(long, conflicts_with = "no_wait")]
    step: bool,
    /// Do not wait at all
    #[arg(long, conflicts_with_all = ["speed", "idle_limit"])]
    no_wait: bool,
    /// Pass terminal control sequences on as they were recorded; dangerous with sessions you do not trust
    #[arg(long)]
    raw: bool,
}

/// Why a replay is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All was shown.
    Shown,
    /// Nobody reads any more, or the person had enough.
    Left,
    /// A signal came.
    Signal(u8),
}

/// Runs the command.
///
/// # Errors
/// When the session is not found or cannot be read.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = args.store.open().await?;
    let id = catalog::resolve(&store, &args.id).await?;
    let session = catalog::session(&store, id).await?;
    let mut tape = Tape::new(&store, &session).await?;
    let pace = Pace::new(&args);
    let interactive = io::stdin().is_terminal() && io::stdout().is_terminal() && !args.no_wait;
    if args.step && !interactive {
        bail!("--step waits for keys, and here is no terminal");
    }
    let end = if interactive {
        let header =
            session.header.as_ref().map_err(|problem| anyhow!("the header of {id} cannot be read: {problem}"))?;
        player::play(&mut tape, header, pace, &args).await?
    } else {
        let tty = session.header.as_ref().is_ok_and(|header| header.stream.tty);
        plain::play(&mut tape, tty, pace, &args).await?
    };
    match end {
        End::Shown => told(&session, tape.exit()).map(|()| ExitCode::SUCCESS),
        End::Left => Ok(ExitCode::SUCCESS),
        End::Signal(number) => Ok(ExitCode::from(128 + number)),
    }
}

/// Tells on standard error how the session ended.
pub(super) fn told(session: &Session, exit: Option<&Exit>) -> anyhow::Result<()> {
    let end = match (exit, &session.manifest) {
        (Some(Exit { code: Some(code), .. }), _) => format!("exit status: {code}"),
        (Some(exit), _) => format!("the command failed: {}", exit.message),
        (None, Some(Ok(manifest))) => format!("ended without an exit status: {}", manifest.reason),
        (None, Some(Err(problem))) => format!("the manifest cannot be read: {problem}"),
        (None, None) => "still recording, this is all there is so far".to_owned(),
    };
    output::tell(&end)
}

fn speed(text: &str) -> anyhow::Result<f64> {
    let factor: f64 = text.parse().context("not a number")?;
    if !(0.01..=1000.0).contains(&factor) {
        bail!("the speed must be between 0.01 and 1000");
    }
    Ok(factor)
}

fn span(text: &str) -> anyhow::Result<Duration> {
    let span: SignedDuration = text.parse().context("not a duration such as 2s or 500ms")?;
    Duration::try_from(span).context("a duration cannot be negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_and_limits_are_checked_when_they_are_typed() {
        assert!(speed("4").is_ok() && speed("0").is_err() && speed("NaN").is_err() && speed("-1").is_err());
        assert_eq!(span("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(span("1m30s").unwrap(), Duration::from_secs(90));
        assert!(span("-1s").is_err() && span("soon").is_err());
    }
}
