//! A replay at a terminal: one loop over events, keys, signals and time. What is shown goes through a screen of its own
//! as well, so that after a seek, or under a message on the last row, there is always something to draw from.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, Stdin};
use tokio::time::{Instant, sleep_until};

use super::keys::{self, Key};
use super::pace::Pace;
use super::tape::Tape;
use super::terminal::{self, Keyboard, Signals};
use super::{Args, End};
use crate::command::output::plain;
use crate::core::recording::export::note;
use crate::core::recording::pane::Pane;
use crate::core::recording::screen::Screen;
use crate::core::recording::{Channel, Event, Header};

/// How long a message stays on the last row while the session goes on.
const MESSAGE: Duration = Duration::from_secs(2);
const HELP: &str = "space goes on, . steps, left and right seek, + and - change the speed, q ends";

/// A session on its way to the terminal.
struct Player<'a> {
    tape: &'a mut Tape,
    header: &'a Header,
    raw: bool,
    screen: Screen,
    stdout: Pane,
    stderr: Pane,
    pace: Pace,
    /// The time of the session that is shown.
    at: Duration,
    next: Option<Event>,
    ended: bool,
    /// When the next event is to be shown.
    due: Instant,
    /// While paused, how much of the wait for the next event is left.
    paused: Option<Duration>,
    /// Until when a message stays on the last row.
    message: Option<Instant>,
}

/// Shows the tape until it ends or the person has enough.
pub(super) async fn play(tape: &mut Tape, header: &Header, pace: Pace, args: &Args) -> anyhow::Result<End> {
    let mut signals = Signals::listen()?;
    let keyboard = Keyboard::take()?;
    let mut player = Player::new(tape, header, pace, args.raw)?;
    if !args.from.is_zero() {
        player.wind(args.from).await?;
    }
    if args.step {
        player.pause()?;
    }
    let end = player.run(&mut signals, tokio::io::stdin()).await;
    drop(keyboard);
    end
}

impl<'a> Player<'a> {
    fn new(tape: &'a mut Tape, header: &'a Header, pace: Pace, raw: bool) -> anyhow::Result<Self> {
        let tty = header.stream.tty;
        Ok(Player {
            tape,
            header,
            raw,
            screen: Screen::new(header)?,
            stdout: Pane::new(tty, raw),
            stderr: Pane::new(tty, raw),
            pace,
            at: Duration::ZERO,
            next: None,
            ended: false,
            due: Instant::now(),
            paused: None,
            message: None,
        })
    }

    async fn run(&mut self, signals: &mut Signals, mut stdin: Stdin) -> anyhow::Result<End> {
        let (mut reader, mut typed, mut open) = (keys::Reader::default(), [0; 64], true);
        loop {
            let wanting = self.next.is_none() && !self.ended;
            let message = self.message.unwrap_or(self.due);
            tokio::select! {
                biased;
                number = signals.next() => return Ok(End::Signal(number)),
                read = stdin.read(&mut typed), if open => {
                    let bytes = typed.get(..read.unwrap_or_default()).unwrap_or_default();
                    open = !bytes.is_empty();
                    for key in bytes.iter().filter_map(|byte| reader.push(*byte)) {
                        if let Some(end) = self.wish(key).await? {
                            return Ok(end);
                        }
                    }
                }
                () = sleep_until(message), if self.message.is_some() && self.paused.is_none() => self.redraw()?,
                event = self.tape.next(), if wanting => self.take(event?),
                () = sleep_until(self.due), if self.next.is_some() && self.paused.is_none() => {
                    self.show()?;
                }
            }
            if self.ended && self.next.is_none() && self.paused.is_none() {
                if self.message.is_some() {
                    self.redraw()?;
                }
                return Ok(End::Shown);
            }
        }
    }

    /// Takes the next event of the tape and plans when it is shown.
    fn take(&mut self, event: Option<Event>) {
        self.ended = event.is_none();
        self.next = event;
        self.plan();
    }

    fn plan(&mut self) {
        let wait = self.next.as_ref().map_or(Duration::ZERO, |event| self.pace.between(self.at, event.at));
        self.due = Instant::now() + wait.min(Duration::from_secs(365 * 86_400));
        self.paused = self.paused.map(|_| wait);
    }

    /// Shows the next event; true when there was something to see.
    fn show(&mut self) -> anyhow::Result<bool> {
        let Some(event) = self.next.take() else { return Ok(false) };
        self.at = self.at.max(event.at);
        self.screen.push(&event.kind);
        if let Some(note) = note(&event.kind) {
            self.note(&plain(&note))?;
            return Ok(true);
        }
        let text = match event.kind.output() {
            Some((Channel::Stderr, bytes)) => self.stderr.push(bytes),
            Some((_, bytes)) => self.stdout.push(bytes),
            None => String::new(),
        };
        terminal::write(text.as_bytes()).context("cannot write")?;
        Ok(!text.is_empty())
    }

    /// What the recorder noted: a line between the others, or a message where a program owns the screen.
    fn note(&mut self, note: &str) -> anyhow::Result<()> {
        if self.header.stream.tty {
            return self.tell(note);
        }
        let line = format!("[{note}]\r\n");
        self.screen.print(&line);
        terminal::write(line.as_bytes()).context("cannot write")
    }

    async fn wish(&mut self, key: Key) -> anyhow::Result<Option<End>> {
        match key {
            Key::Quit => return Ok(Some(End::Left)),
            Key::Pause if self.paused.is_none() => self.pause()?,
            Key::Pause => self.go_on()?,
            Key::Step => self.step().await?,
            Key::Seek(seconds) => self.seek(seconds).await?,
            Key::Faster | Key::Slower => {
                let left = self.pace.passed(self.left());
                if key == Key::Faster {
                    self.pace.faster()
                } else {
                    self.pace.slower()
                }
                let wait = left.div_f64(self.pace.speed());
                self.due = Instant::now() + wait;
                self.paused = self.paused.map(|_| wait);
                self.tell(&format!("speed {}", self.pace.speed()))?;
            }
        }
        Ok(None)
    }

    fn pause(&mut self) -> anyhow::Result<()> {
        self.paused = Some(self.left());
        self.tell(&format!("paused at {}: {HELP}", self.place()))
    }

    fn go_on(&mut self) -> anyhow::Result<()> {
        let left = self.paused.take().unwrap_or_default();
        self.due = Instant::now() + left;
        self.redraw()
    }

    /// Shows the next thing there is to see, and stays paused.
    async fn step(&mut self) -> anyhow::Result<()> {
        self.paused = Some(Duration::ZERO);
        self.redraw()?;
        loop {
            if self.next.is_none() && !self.ended {
                let event = self.tape.next().await?;
                self.take(event);
            }
            if self.ended || self.show()? {
                break;
            }
        }
        self.tell(&self.place())
    }

    async fn seek(&mut self, seconds: i64) -> anyhow::Result<()> {
        let by = Duration::from_secs(seconds.unsigned_abs());
        let left = self.pace.passed(self.left());
        let now = self.next.as_ref().map_or(self.at, |event| event.at.saturating_sub(left)).max(self.at);
        if seconds < 0 {
            self.wind(now.saturating_sub(by)).await?;
        } else {
            self.run_up(now.saturating_add(by)).await?;
        }
        self.tell(&self.place())
    }

    /// Shows the screen as it was at a time.
    async fn wind(&mut self, to: Duration) -> anyhow::Result<()> {
        self.tape.wind(to, true).await?;
        self.screen = Screen::new(self.header)?;
        (self.next, self.ended, self.at) = (None, false, Duration::ZERO);
        self.run_up(to).await
    }

    /// Follows the tape up to a time without showing what passes.
    async fn run_up(&mut self, to: Duration) -> anyhow::Result<()> {
        loop {
            if self.next.is_none() {
                self.next = self.tape.next().await?;
            }
            let Some(event) = self.next.take_if(|event| event.at <= to) else { break };
            self.at = event.at;
            self.screen.push(&event.kind);
        }
        // What was held back of a letter or sequence is on the screen already.
        let tty = self.header.stream.tty;
        (self.stdout, self.stderr) = (Pane::new(tty, self.raw), Pane::new(tty, self.raw));
        self.ended = self.next.is_none();
        self.at = if self.ended { self.at } else { to };
        self.plan();
        self.redraw()
    }

    /// How long until the next event.
    fn left(&self) -> Duration {
        let until =
            || self.next.as_ref().map_or(Duration::ZERO, |_| self.due.saturating_duration_since(Instant::now()));
        self.paused.unwrap_or_else(until)
    }

    /// Where the tape is, such as `1:05.3 of 12:00.0`.
    fn place(&self) -> String {
        let now = self.next.as_ref().map_or(self.at, |event| event.at.saturating_sub(self.pace.passed(self.left())));
        let end = self.tape.end().map(|end| format!(" of {}", clock(end))).unwrap_or_default();
        format!("{}{end}", clock(now.max(self.at)))
    }

    fn tell(&mut self, text: &str) -> anyhow::Result<()> {
        self.message = Some(Instant::now() + MESSAGE);
        terminal::overlay(text).context("cannot write")
    }

    fn redraw(&mut self) -> anyhow::Result<()> {
        self.message = None;
        terminal::redraw(&self.screen.dump()).context("cannot write")
    }
}

fn clock(at: Duration) -> String {
    let (seconds, tenths) = (at.as_secs(), at.subsec_millis() / 100);
    let (hours, minutes, seconds) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}.{tenths}")
    } else {
        format!("{minutes}:{seconds:02}.{tenths}")
    }
}
