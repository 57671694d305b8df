//! What a session may take at most, and what it has taken so far.
//!
//! The numbers come from the configuration; here they are compared. Time is tokio's clock, bytes are those that are
//! recorded. Main types: [`Limits`], [`Meter`].

use crate::core::recording::EventKind;
use crate::core::wire::websocket::MAX_MESSAGE;
use std::time::Duration;
use tokio::time::Instant;

/// What an event counts besides its bytes, so that a flood of empty ones ends too.
const EVENT: u64 = 16;
/// A time that no session reaches.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What a session may take at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest message or frame taken from either side.
    pub max_message: usize,
    /// How long it may go without data in either direction.
    pub idle: Duration,
    /// How long it may last.
    pub lifetime: Duration,
    /// How many bytes its recording may have, before compression, with 16 for each event.
    pub recording: u64,
    /// Forwarded connections that may be open at a time.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_message: MAX_MESSAGE,
            // As long as the kubelet waits by default.
            idle: Duration::from_secs(4 * 3_600),
            lifetime: Duration::from_secs(24 * 3_600),
            recording: 64 << 30,
            connections: 1_000,
        }
    }
}

/// What a session has taken.
pub(super) struct Meter {
    began: Instant,
    active: Instant,
    recorded: u64,
}

impl Meter {
    pub(super) fn started() -> Meter {
        let now = Instant::now();
        Meter { began: now, active: now, recorded: 0 }
    }

    /// Data went by.
    pub(super) fn active(&mut self) {
        self.active = Instant::now();
    }

    /// Counts an event; `false` when it does not fit any more.
    pub(super) fn fits(&mut self, event: &EventKind, limits: &Limits) -> bool {
        self.recorded = self.recorded.saturating_add(size(event));
        self.recorded <= limits.recording
    }

    /// When the session has lasted long enough, unless data goes by.
    pub(super) fn due(&self, limits: &Limits) -> Instant {
        let idle = after(self.active, limits.idle);
        idle.min(after(self.began, limits.lifetime))
    }

    /// Why the session is over by now, if it is.
    pub(super) fn over(&self, limits: &Limits) -> Option<String> {
        let now = Instant::now();
        if now >= after(self.began, limits.lifetime) {
            return Some(format!("it has lasted {}, which is the longest", words(limits.lifetime)));
        }
        let idle = now >= after(self.active, limits.idle);
        idle.then(|| format!("nothing was sent or received for {}", words(limits.idle)))
    }
}

fn after(start: Instant, time: Duration) -> Instant {
    start.checked_add(time).unwrap_or(start + NEVER)
}

fn size(event: &EventKind) -> u64 {
    let note = if let EventKind::Marker { name, detail } = event { name.len() + detail.len() } else { 0 };
    EVENT.saturating_add(note as u64).saturating_add(event.payload())
}

/// A length of time as the configuration has it: `4h`, `90s`.
fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds, time.subsec_millis()) {
        (_, millis) if millis != 0 => format!("{}ms", time.as_millis()),
        (seconds, _) if seconds != 0 && seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        (seconds, _) if seconds != 0 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        (seconds, _) => format!("{seconds}s"),
    }
}
