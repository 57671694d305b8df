//! The screen of a session as it was at a moment: follows a recording's output as a terminal would, without one.
//!
//! Used where a picture is needed and not the bytes: seeking, joining a running session, searching what was visible. It is
//! derived and never stored. What goes in is sanitised first. Its size is bounded whatever a recording asks for.

use avt::Terminal;

use super::event::{Channel, EventKind};
use super::header::Header;
use super::pane::Pane;

/// The size of a session that never had one.
pub const SIZE: (u16, u16) = (80, 24);
/// No larger screen is followed.
const LARGEST: (u16, u16) = (500, 300);
/// Rows before and after the cursor's that are looked at for one line.
const JOINED: usize = 8;

/// A screen.
pub struct Screen {
    terminal: Terminal,
    stdout: Pane,
    stderr: Pane,
}

impl Screen {
    /// An empty screen for the session of this header.
    ///
    /// # Errors
    /// Never with the size it begins with; the terminal's own error otherwise.
    pub fn new(header: &Header) -> Result<Self, avt::InvalidSize> {
        let tty = header.stream.tty;
        let terminal = Terminal::new(SIZE.0.into(), SIZE.1.into())?;
        Ok(Screen { terminal, stdout: Pane::new(tty, false), stderr: Pane::new(tty, false) })
    }

    /// Follows one event.
    pub fn push(&mut self, kind: &EventKind) {
        let text = self.text(kind);
        if !text.is_empty() {
            self.terminal.feed(text.as_str());
        }
    }

    /// Prints text that is not the session's own.
    pub fn print(&mut self, text: &str) {
        self.terminal.feed(text);
    }

    /// Follows one event, and calls after every run of printed letters, before anything can move or wipe them away: with
    /// the line they are on (as [`Screen::line`] gives it) as it was before and as it is now.
    pub fn push_watched(&mut self, kind: &EventKind, mut printed: impl FnMut(&str, &str)) {
        let text = self.text(kind);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let control = rest.starts_with(char::is_control);
            let end = rest.find(|letter: char| letter.is_control() != control).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            if control {
                self.terminal.feed(run);
            } else {
                let before = self.line();
                self.terminal.feed(run);
                printed(&before, &self.line());
            }
            rest = after;
        }
    }

    /// The line the cursor is on, joined where it is wrapped over a few rows, without blanks at its end.
    pub fn line(&self) -> String {
        let screen = self.terminal.screen();
        let row = self.terminal.cursor().row;
        let wraps = |row: usize| screen.line(row).is_some_and(avt::Line::is_wrapped);
        let first = (0..row).rev().take(JOINED).take_while(|row| wraps(*row)).last().unwrap_or(row);
        let mut line = String::new();
        for row in first..=row + JOINED {
            let Some(part) = screen.line(row) else { break };
            line.push_str(&part.text());
            if !part.is_wrapped() {
                break;
            }
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// What makes an empty terminal show this screen.
    pub fn dump(&self) -> String {
        self.terminal.dump()
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        self.terminal.size()
    }

    /// The lines that are visible.
    pub fn text_lines(&self) -> Vec<String> {
        self.terminal.screen().text()
    }

    /// Takes a new size, and gives what an event prints.
    fn text(&mut self, kind: &EventKind) -> String {
        let mut text = self.printed(kind);
        // Terminals pass over DEL; the emulator would put it on the screen.
        text.retain(|letter| letter != '\u{7f}');
        text
    }

    fn printed(&mut self, kind: &EventKind) -> String {
        if let EventKind::Resize { cols, rows } = kind
            && *cols > 0
            && *rows > 0
        {
            self.terminal.resize((*cols).min(LARGEST.0).into(), (*rows).min(LARGEST.1).into());
        }
        match kind.output() {
            Some((Channel::Stderr, bytes)) => self.stderr.push(bytes),
            Some((_, bytes)) => self.stdout.push(bytes),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
