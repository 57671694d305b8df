//! How commands print lists: plain tables like kubectl's, JSON, YAML. Everything goes through a writer, so that a closed
//! pipe is an error value and no panic.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use comfy_table::Table;
use comfy_table::presets;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::core::audit::kubectl;

/// The forms of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// A table with every column.
    Wide,
    /// JSON for programs.
    Json,
    /// YAML for both.
    Yaml,
    /// Names alone, one a line, for scripts.
    Name,
}

impl Format {
    /// True for the two tables.
    pub fn is_table(self) -> bool {
        matches!(self, Format::Table | Format::Wide)
    }
}

/// Prints rows below a head, columns two blanks apart, without borders; long cells are never wrapped.
pub fn print_table(head: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| plain(cell)).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    print(&format!("{}\n", table.trim_fmt()))
}

/// Prints a value as JSON or YAML; tables are the caller's business.
pub fn print_value<T: Serialize>(format: Format, value: &T) -> anyhow::Result<()> {
    let text = match format {
        Format::Yaml => serde_saphyr::to_string(value).context("cannot write YAML")?,
        Format::Json | Format::Table | Format::Wide | Format::Name => serde_json::to_string_pretty(value)? + "\n",
    };
    print(&text)
}

/// Prints text to standard output. A reader that went away is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says something beside the output, on a line of standard error, without what a terminal would obey.
pub fn tell(text: &str) -> anyhow::Result<()> {
    writeln!(io::stderr(), "{}", plain(text)).context("cannot write")
}

/// Text from a recording or a cluster without the control characters that a terminal would obey.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() { out.extend(letter.escape_default()) } else { out.push(letter) }
    }
    out
}

/// A command line as a shell would read it back.
pub fn command_line(arguments: &[String]) -> String {
    kubectl::shell_words(arguments)
}

/// A length of time as kubectl writes ages: `240ms`, `42s`, `3m5s`, `2h7m`.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Cuts a text to a number of letters, with an ellipsis.
pub fn shorten(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

/// A moment, or so long ago.
pub fn moment(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let ago: SignedDuration =
        text.parse().with_context(|| format!("`{text}` is neither a length of time (2h) nor a moment"))?;
    now.checked_sub(ago).with_context(|| format!("`{text}` is too long ago"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let arguments = ["sh", "-c", "echo 'a b' > /tmp/x", ""].map(str::to_owned);
        assert_eq!(command_line(&arguments), r"sh -c 'echo '\''a b'\'' > /tmp/x' ''");
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(plain("a\u{1b}]52;c\u{7}b\u{9b}"), r"a\u{1b}]52;c\u{7}b\u{9b}");
    }

    #[test]
    fn lengths_of_time_are_short() {
        let shown = [240, 42_000, 185_000, 7_620_000].map(|millis| duration(Duration::from_millis(millis)));
        assert_eq!(shown, ["240ms", "42s", "3m5s", "2h7m"]);
    }

    #[test]
    fn long_text_is_cut_at_a_letter() {
        assert_eq!(shorten("äöüß", 3), "äö…");
        assert_eq!(shorten("äöü", 3), "äöü");
    }

    #[test]
    fn since_is_a_moment_or_so_long_ago() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        assert_eq!(moment("2h", now).unwrap().to_string(), "2026-11-21T08:00:00Z");
        assert_eq!(moment("2026-11-20T10:00:00Z", now).unwrap().to_string(), "2026-11-20T10:00:00Z");
        assert!(moment("soon", now).is_err());
    }
}
