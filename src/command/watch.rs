//! `kustody watch`: a session that is being recorded, from the store, from any machine. Who joins late sees the screen as it
//! is now, then what comes as its chunks are shipped (about two seconds behind), until the manifest is there.
//!
//! Shows what `kustody replay` shows: sanitised unless `--raw`, and proves nothing.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until};

use super::output::tell;
use super::replay::show::Streams;
use super::replay::tape::Tape;
use super::replay::terminal::{self, Keyboard, Signals};
use super::replay::{End, told};
use super::store_args::StoreArgs;
use crate::core::recording::screen::Screen;
use crate::edge::store::catalog::{self, Session};
use crate::edge::store::{Store, reader};

/// How often the store is asked for the next chunk.
const LOOK: Duration = Duration::from_millis(500);
/// Of so many looks in vain one asks for the manifest too.
const ALSO_MANIFEST: u32 = 2;

/// Watch a session while it is recorded
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody watch 019aa5c7\n  \
    kustody watch $(kustody sessions --state recording --limit 1 -o name)\n\n\
    `q` or Ctrl-C ends watching; the session goes on. Into a file or pipe everything from the beginning is written.")]
pub struct Args {
    /// Session id, or the beginning of one
    id: String,
    #[command(flatten)]
    store: StoreArgs,
    /// Pass terminal control sequences on as they were recorded; dangerous with sessions you do not trust
    #[arg(long)]
    raw: bool,
}

/// Runs the command.
///
/// # Errors
/// When the session is not found or cannot be read.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = args.store.open().await?;
    let id = catalog::resolve(&store, &args.id).await?;
    let session = catalog::session(&store, id).await?;
    let mut signals = Signals::listen()?;
    let keyboard = if io::stdin().is_terminal() && io::stdout().is_terminal() { Some(Keyboard::take()?) } else { None };
    let mut watcher = Watcher::new(&store, &session, &args).await?;
    let end = tokio::select! {
        end = watcher.run() => end,
        number = signals.next() => Ok(End::Signal(number)),
        () = quit(), if keyboard.is_some() => Ok(End::Left),
    };
    if keyboard.is_none() && io::stdout().is_terminal() {
        terminal::undo().context("cannot write")?;
    }
    drop(keyboard);
    match end? {
        End::Shown => {
            let session = catalog::session(&store, id).await?;
            told(&session, watcher.tape.exit()).map(|()| ExitCode::SUCCESS)
        }
        End::Left => Ok(ExitCode::SUCCESS),
        End::Signal(number) => Ok(ExitCode::from(128 + number)),
    }
}

/// A session that is followed.
struct Watcher<'a> {
    store: &'a Store,
    session: &'a Session,
    tape: Tape,
    streams: Streams,
    /// What was there when watching began; dropped when it has been shown.
    screen: Option<Screen>,
}

impl<'a> Watcher<'a> {
    async fn new(store: &'a Store, session: &'a Session, args: &Args) -> anyhow::Result<Self> {
        let header = session.header.as_ref();
        let header = header.map_err(|problem| anyhow!("the header of {} cannot be read: {problem}", session.id))?;
        let mut tape = Tape::new(store, session).await?;
        let screen = if io::stdout().is_terminal() {
            tape.wind(Duration::MAX, true).await?;
            Some(Screen::new(header)?)
        } else {
            None
        };
        let streams = Streams::new(header.stream.tty, args.raw);
        Ok(Watcher { store, session, tape, streams, screen })
    }

    /// Shows what there is and what comes, until the session is sealed.
    async fn run(&mut self) -> anyhow::Result<End> {
        let mut in_vain = 0;
        loop {
            while let Some(event) = self.tape.next().await? {
                match &mut self.screen {
                    Some(screen) => {
                        screen.push(&event.kind);
                        self.streams.pass(&event.kind);
                    }
                    None => match self.streams.show(&event.kind) {
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::Left),
                        other => other.context("cannot write")?,
                    },
                }
            }
            if let Some(screen) = self.screen.take() {
                terminal::redraw(&screen.dump()).context("cannot write")?;
            }
            let started = Instant::now();
            let id = self.session.id;
            if let Some(chunk) = reader::chunk(self.store, id, self.tape.following()).await? {
                self.tape.append(&chunk);
                in_vain = 0;
                continue;
            }
            in_vain += 1;
            if in_vain % ALSO_MANIFEST == 0 && self.sealed().await? {
                return Ok(End::Shown);
            }
            sleep_until(started + LOOK).await;
        }
    }

    /// True when the manifest is there and every chunk it names was shown. It is shipped last.
    async fn sealed(&self) -> anyhow::Result<bool> {
        let session = catalog::session(self.store, self.session.id).await?;
        Ok(match session.manifest {
            Some(Ok(manifest)) => manifest.chunks.last().is_none_or(|last| last.sequence < self.tape.following()),
            Some(Err(problem)) => {
                tell(&format!("the manifest cannot be read: {problem}"))?;
                true
            }
            None => false,
        })
    }
}

/// Waits for `q`.
async fn quit() {
    let (mut stdin, mut typed) = (tokio::io::stdin(), [0; 64]);
    loop {
        let read = stdin.read(&mut typed).await.unwrap_or_default();
        let typed = typed.get(..read).unwrap_or_default();
        if typed.iter().any(|byte| matches!(byte, b'q' | b'Q' | 0x04)) {
            return;
        }
        if typed.is_empty() {
            std::future::pending::<()>().await;
        }
    }
}
