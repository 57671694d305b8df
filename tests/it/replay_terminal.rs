//! A replay at a real terminal: keys, times, and a terminal that is afterwards as it was before.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kustody::core::recording::EventKind;
use kustody::core::recording::header::{Header, Stream};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::evidence::{Evidence, exec_header, recorded};
use crate::spool::stdout;

/// The command at a terminal of its own.
pub(crate) struct AtTerminal {
    child: Child,
    keys: File,
    terminal: File,
    before: Termios,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl AtTerminal {
    pub(crate) fn start(evidence: &Evidence, arguments: &[&str]) -> Self {
        let keys = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap();
        let terminal = File::from(rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let child = evidence.command(arguments).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (keys.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap().extend(bytes.iter().take(read));
            }
        });
        AtTerminal { child, keys, terminal, before, shown }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is shown, and forgets everything up to it.
    pub(crate) fn sees(&self, wanted: &str) {
        let started = Instant::now();
        loop {
            let text = self.text();
            if let Some((_, after)) = text.split_once(wanted) {
                *self.shown.lock().unwrap() = after.as_bytes().to_vec();
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{wanted:?} is not shown but {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end; the terminal is as before.
    pub(crate) fn ends(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let after = tcgetattr(&self.terminal).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert!(after.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
        std::thread::sleep(Duration::from_millis(50));
        (code, self.text())
    }
}

/// A shell that says `one`, `two`, `three` and `four`, an hour between each.
async fn slow() -> Evidence {
    let header = Header { stream: Stream { tty: true, ..Stream::default() }, ..exec_header() };
    let hour = 3_600_000;
    let word = |word: &str| stdout(format!("{word}\r\n\x1b]0;title\x07"));
    let marker = EventKind::Marker { name: "dropped".into(), detail: "a frame".into() };
    let events = [
        (0, word("one")),
        (hour, word("two")),
        (2 * hour, word("three")),
        (3 * hour, marker),
        (4 * hour, word("four")),
    ];
    recorded(header, events).await
}

#[tokio::test]
async fn keys_step_seek_and_end_and_the_terminal_is_as_before() {
    let evidence = slow().await;
    let mut replay = AtTerminal::start(&evidence, &["replay", &evidence.session.to_string(), "--step"]);
    replay.sees("paused at 0:00.0 of 4:00:00.0");
    replay.press(".");
    replay.sees("one");
    replay.press(".");
    replay.sees("two");
    replay.sees("1:00:00.0 of 4:00:00.0");
    replay.press("[");
    replay.sees("one");
    replay.sees("59:55.0 of");
    assert!(!replay.text().contains("two"), "five seconds back it was not there yet");
    replay.press(".");
    replay.sees("two");
    replay.press("..");
    replay.sees("three");
    replay.sees("dropped: a frame");
    assert!(!replay.text().contains("title"), "unsafe sequences are not passed on");
    replay.press("q");
    assert_eq!(replay.ends().0, Some(0));
}

#[tokio::test]
async fn from_shows_the_screen_as_it_was_and_goes_on_from_there() {
    let evidence = slow().await;
    let replay = AtTerminal::start(&evidence, &["replay", &evidence.session.to_string(), "--from", "3h59m59s"]);
    let started = Instant::now();
    replay.sees("three");
    replay.sees("four");
    assert!(started.elapsed() < Duration::from_secs(20), "one second was left to wait");
    let (code, text) = replay.ends();
    assert_eq!(code, Some(0));
    assert!(text.contains("ended without an exit status: completed"), "{text:?}");
}

#[tokio::test]
async fn space_pauses_and_goes_on() {
    let header = Header { stream: Stream { tty: true, ..Stream::default() }, ..exec_header() };
    let evidence = recorded(header, [(0, stdout("begun")), (1500, stdout("later"))]).await;
    let mut replay = AtTerminal::start(&evidence, &["replay", &evidence.session.to_string()]);
    replay.sees("begun");
    replay.press(" ");
    replay.sees("paused at");
    std::thread::sleep(Duration::from_millis(1700));
    assert!(!replay.text().contains("later"));
    replay.press(" ");
    replay.sees("later");
    assert_eq!(replay.ends().0, Some(0));
}

#[tokio::test]
async fn a_signal_ends_it_and_the_terminal_is_as_before() {
    let evidence = slow().await;
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let replay = AtTerminal::start(&evidence, &["replay", &evidence.session.to_string()]);
        replay.sees("one");
        kill_process(Pid::from_child(&replay.child), signal).unwrap();
        let (ended, text) = replay.ends();
        assert_eq!(ended, Some(code));
        assert!(text.contains("\x1b[?1049l"), "what the session set is undone: {text:?}");
    }
}
