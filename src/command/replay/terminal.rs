//! The person's terminal while something is shown on it: keys come one by one and unseen, and whatever happens, also a
//! panic, it is as before when [`Keyboard`] is dropped. Signals end the command in order ([`Signals`]), so that it is dropped.

use std::io::{self, Write};

use anyhow::Context;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Undoes what a session may have left: colours, hidden cursor, no wrapping, scroll region (with the cursor kept), keypad,
/// mouse reports, bracketed paste, other screen.
const UNDO: &[u8] =
    b"\x1b[0m\x1b[?25h\x1b[?7h\x1b7\x1b[r\x1b8\x1b[?6l\x1b[4l\x1b>\x1b[?1l\x1b[?1000l\x1b[?1002l\x1b[?1003l\
    \x1b[?1006l\x1b[?2004l\x1b[?1049l\x1b(B\x0f";
/// Makes the screen empty, with nothing of what was set before.
const EMPTY: &str = "\x1b[?1049l\x1b[!p\x1b[0m\x1b[r\x1b[H\x1b[2J";
/// POSIX: no key gives this signal.
const NO_KEY: u8 = 0;

/// Standard input, read key by key. Restores the terminal when it is dropped.
pub(in crate::command) struct Keyboard {
    before: Termios,
}

/// The signals that end a command.
pub(in crate::command) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Keyboard {
    /// Takes the terminal of standard input. Ctrl-C stays a signal; Ctrl-Z would leave it as it is now and does nothing.
    pub(in crate::command) fn take() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin()).context("cannot read how the terminal is set")?;
        let mut set = before.clone();
        set.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        set.special_codes[SpecialCodeIndex::VMIN] = 1;
        set.special_codes[SpecialCodeIndex::VTIME] = 0;
        set.special_codes[SpecialCodeIndex::VSUSP] = NO_KEY;
        tcsetattr(io::stdin(), OptionalActions::Now, &set).context("cannot set the terminal")?;
        Ok(Keyboard { before })
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        undo().ok();
        // With what was typed and not read, such as mouse reports.
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before).ok();
    }
}

impl Signals {
    pub(in crate::command) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The number of the next signal.
    pub(in crate::command) async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        };
        u8::try_from(kind.as_raw_value()).unwrap_or_default()
    }
}

/// Undoes what shown text may have set.
pub(in crate::command) fn undo() -> io::Result<()> {
    write(UNDO)
}

/// Shows a whole screen instead of what is there.
pub(in crate::command) fn redraw(dump: &str) -> io::Result<()> {
    write(format!("{EMPTY}{dump}").as_bytes())
}

/// Shows a line on the last row, and leaves the cursor where it was.
pub(in crate::command) fn overlay(text: &str) -> io::Result<()> {
    let size = tcgetwinsize(io::stdout())?;
    let (rows, cols) = (size.ws_row.max(1), usize::from(size.ws_col.max(20)));
    let text = crate::command::output::shorten(text, cols - 2);
    write(format!("\x1b7\x1b[{rows};1H\x1b[0;7m {text} \x1b[0m\x1b[K\x1b8").as_bytes())
}

/// Writes at once.
pub(in crate::command) fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}
