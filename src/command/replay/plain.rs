//! A replay into files and pipes, or at a terminal without keys: everything in its order, from where it is asked to begin.

use std::io::{self, IsTerminal};

use anyhow::Context;

use super::pace::Pace;
use super::show::Streams;
use super::tape::Tape;
use super::terminal::{Signals, undo};
use super::{Args, End};

/// Shows the tape from where it is asked to begin.
pub(super) async fn play(tape: &mut Tape, tty: bool, pace: Pace, args: &Args) -> anyhow::Result<End> {
    let mut signals = Signals::listen()?;
    let mut streams = Streams::new(tty, args.raw);
    let mut at = args.from;
    if !args.from.is_zero() {
        tape.wind(args.from, false).await?;
    }
    let end = loop {
        let event = tokio::select! {
            event = tape.next() => event?,
            number = signals.next() => break End::Signal(number),
        };
        let Some(event) = event else { break End::Shown };
        if event.at < args.from {
            continue;
        }
        let wait = pace.between(at, event.at);
        at = event.at;
        if !wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                number = signals.next() => break End::Signal(number),
            }
        }
        match streams.show(&event.kind) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break End::Left,
            other => other.context("cannot write")?,
        }
    };
    if io::stdout().is_terminal() {
        undo().context("cannot write")?;
    }
    Ok(end)
}
