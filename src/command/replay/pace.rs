//! How long to wait between two events: the recorded time, at a speed, and never longer than a limit.

use std::time::Duration;

use super::Args;

/// The speeds that keys go through.
const SPEEDS: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// How time passes.
#[derive(Debug)]
pub(super) struct Pace {
    speed: f64,
    idle_limit: Duration,
    no_wait: bool,
}

impl Pace {
    pub(super) fn new(args: &Args) -> Self {
        Pace { speed: args.speed, idle_limit: args.idle_limit.unwrap_or(Duration::MAX), no_wait: args.no_wait }
    }

    /// How long to wait from one time of the session to another.
    pub(super) fn between(&self, from: Duration, to: Duration) -> Duration {
        let span = to.saturating_sub(from).min(self.idle_limit);
        if self.no_wait { Duration::ZERO } else { span.div_f64(self.speed) }
    }

    /// How much of the session passes in a time.
    pub(super) fn passed(&self, time: Duration) -> Duration {
        time.mul_f64(self.speed)
    }

    pub(super) fn faster(&mut self) {
        self.speed = SPEEDS.into_iter().find(|speed| *speed > self.speed).unwrap_or(self.speed);
    }

    pub(super) fn slower(&mut self) {
        self.speed = SPEEDS.into_iter().rev().find(|speed| *speed < self.speed).unwrap_or(self.speed);
    }

    pub(super) fn speed(&self) -> f64 {
        self.speed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_speed_and_idle_limit() {
        let seconds = Duration::from_secs;
        let mut pace = Pace { speed: 2.0, idle_limit: seconds(2), no_wait: false };
        assert_eq!(pace.between(seconds(0), seconds(1)), Duration::from_millis(500));
        assert_eq!(pace.between(seconds(1), seconds(3601)), seconds(1));
        pace.faster();
        assert_eq!((pace.speed(), pace.between(seconds(1), seconds(3))), (4.0, Duration::from_millis(500)));
        pace.slower();
        pace.slower();
        assert_eq!(pace.speed(), 1.5);
        pace.no_wait = true;
        assert_eq!(pace.between(seconds(0), seconds(1)), Duration::ZERO);
    }
}
