//! `kustody replay`: shows a recorded session as it was, both streams at the recorded pace, and how its command ended.
//!
//! What goes to a terminal, and what came from one, is sanitised unless `--raw`; stored bytes are exact. Chunks are
//! fetched one ahead of what is shown. Proves nothing: that is `kustody verify`.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{StreamExt, stream};
use jiff::SignedDuration;

use super::output;
use super::store_args::StoreArgs;
use crate::core::recording::chunk::Chunk;
use crate::core::recording::sanitize::Sanitizer;
use crate::core::recording::summary::Exit;
use crate::core::recording::{Channel, Direction, Event, EventKind};
use crate::edge::store::catalog::{self, Session};

/// Chunks fetched ahead.
const AHEAD: usize = 2;

/// Show a recorded session at its own pace
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody replay 019aa5c7\n  \
    kustody replay 019aa5c7 --speed 4 --idle-limit 2s\n  \
    kustody replay 019aa5c7 --no-wait > stdout.txt 2> stderr.txt")]
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
    /// Do not wait at all
    #[arg(long, conflicts_with_all = ["speed", "idle_limit"])]
    no_wait: bool,
    /// Pass terminal control sequences on as they were recorded; dangerous with sessions you do not trust
    #[arg(long)]
    raw: bool,
}

/// Where the streams go.
struct Screen {
    stdout: Pane<io::Stdout>,
    stderr: Pane<io::Stderr>,
}

/// One stream, cleaned or not.
struct Pane<W> {
    to: W,
    sanitizer: Option<Sanitizer>,
}

/// How long to wait before an event.
struct Pace {
    speed: f64,
    idle_limit: Duration,
    no_wait: bool,
    last: Duration,
}

/// Runs the command.
///
/// # Errors
/// When the session is not found or cannot be read.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = args.store.open().await?;
    let id = catalog::resolve(&store, &args.id).await?;
    let session = catalog::session(&store, id).await?;
    let chunks = catalog::contents(&store, id).await?.chunks;
    let tty = session.header.as_ref().is_ok_and(|header| header.stream.tty);
    let mut screen = Screen::new(tty, args.raw);
    let mut pace = Pace::new(&args);
    let mut exit = None;
    let store = &store;
    let fetch = |sequence| async move { (sequence, catalog::read_chunk(store, id, sequence).await) };
    let mut fetched = stream::iter(chunks).map(fetch).buffered(AHEAD);
    while let Some((sequence, object)) = fetched.next().await {
        let damaged = || format!("chunk {sequence} of {id} cannot be read; kustody verify {id} says what is wrong");
        let object = object.with_context(damaged)?.with_context(damaged)?;
        for event in Chunk::parse(&object).with_context(damaged)?.events() {
            let event = event.with_context(damaged)?;
            pace.wait(event.at).await;
            match screen.show(&event) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(ExitCode::SUCCESS);
                }
                other => other.context("cannot write")?,
            }
            if let EventKind::Status { bytes } = &event.kind {
                exit = Exit::from_status(bytes).or(exit);
            }
        }
    }
    screen.end(&session, exit.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

impl Screen {
    fn new(tty: bool, raw: bool) -> Self {
        let clean = |terminal: bool| (!raw && (tty || terminal)).then(Sanitizer::default);
        let (stdout, stderr) = (io::stdout(), io::stderr());
        Screen {
            stdout: Pane { sanitizer: clean(stdout.is_terminal()), to: stdout },
            stderr: Pane { sanitizer: clean(stderr.is_terminal()), to: stderr },
        }
    }

    fn show(&mut self, event: &Event) -> io::Result<()> {
        match &event.kind {
            EventKind::Data { channel: Channel::Stdout, direction: Direction::ToClient, bytes } => {
                self.stdout.write(bytes)
            }
            EventKind::Data { channel: Channel::Stderr, direction: Direction::ToClient, bytes } => {
                self.stderr.write(bytes)
            }
            EventKind::Gap { channel, bytes, why, .. } => {
                let note = format!("[{bytes} bytes of {} were not recorded: {}]\n", channel.name(), output::plain(why));
                self.stderr.to.write_all(note.as_bytes())
            }
            EventKind::ConnectionOpened { connection, port } => {
                writeln!(self.stderr.to, "[connection {connection} to port {port} opened]")
            }
            EventKind::ConnectionError { connection, bytes } => {
                let text = output::plain(&String::from_utf8_lossy(bytes));
                writeln!(self.stderr.to, "[connection {connection}: {text}]")
            }
            EventKind::ConnectionClosed { connection, to_container, to_client, .. } => {
                let counted = format!("{to_container} bytes to the container, {to_client} to the client");
                writeln!(self.stderr.to, "[connection {connection} closed: {counted}]")
            }
            EventKind::Data { .. }
            | EventKind::ConnectionData { .. }
            | EventKind::ConnectionHalfClose { .. }
            | EventKind::HalfClose { .. }
            | EventKind::Resize { .. }
            | EventKind::Status { .. }
            | EventKind::Marker { .. }
            | EventKind::Close { .. } => Ok(()),
        }
    }

    /// Tells on standard error how the session ended.
    fn end(&mut self, session: &Session, exit: Option<&Exit>) -> anyhow::Result<()> {
        if self.stdout.to.is_terminal() {
            // Colours and a hidden cursor of the recording end with it.
            self.stdout.to.write_all(b"\x1b[0m\x1b[?25h")?;
            self.stdout.to.flush()?;
        }
        let end = match (exit, &session.manifest) {
            (Some(Exit { code: Some(code), .. }), _) => format!("exit status: {code}"),
            (Some(exit), _) => format!("the command failed: {}", exit.message),
            (None, Some(Ok(manifest))) => {
                format!("ended without an exit status: {}", manifest.reason)
            }
            (None, Some(Err(problem))) => format!("the manifest cannot be read: {problem}"),
            (None, None) => "still recording, this is all there is so far".to_owned(),
        };
        writeln!(self.stderr.to, "{}", output::plain(&end)).context("cannot write")
    }
}

impl<W: Write> Pane<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sanitizer {
            None => self.to.write_all(bytes)?,
            Some(sanitizer) => {
                let mut shown = Vec::with_capacity(bytes.len());
                sanitizer.push(bytes, &mut shown);
                self.to.write_all(&shown)?;
            }
        }
        self.to.flush()
    }
}

impl Pace {
    fn new(args: &Args) -> Self {
        let idle_limit = args.idle_limit.unwrap_or(Duration::MAX);
        Pace { speed: args.speed, idle_limit, no_wait: args.no_wait, last: Duration::ZERO }
    }

    async fn wait(&mut self, at: Duration) {
        let span = self.next(at);
        if !span.is_zero() {
            tokio::time::sleep(span).await;
        }
    }

    /// How long to wait for an event at this time.
    fn next(&mut self, at: Duration) -> Duration {
        let span = at.saturating_sub(self.last).min(self.idle_limit);
        self.last = at;
        if self.no_wait { Duration::ZERO } else { span.div_f64(self.speed) }
    }
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
        assert!(span("-1s").is_err() && span("soon").is_err());
    }

    #[test]
    fn waits_follow_speed_and_idle_limit() {
        let mut pace = Pace { speed: 2.0, idle_limit: Duration::from_secs(2), no_wait: false, last: Duration::ZERO };
        assert_eq!(pace.next(Duration::from_secs(1)), Duration::from_millis(500));
        assert_eq!(pace.next(Duration::from_secs(3601)), Duration::from_secs(1));
        pace.no_wait = true;
        assert_eq!(pace.next(Duration::from_secs(3602)), Duration::ZERO);
    }
}
