//! Who came to the gateway and proved to be no agent: a wrong token, somebody of no class, a token that could not be
//! reviewed. Each refusal is one entry of the log, without the token, and without the query of the path.
//!
//! Anybody who reaches the port can cause such entries, so that there are at most so many in a window of time, and fewer of
//! one address. The others are counted, and the count is an entry at the window's end. Main type: [`Strangers`].

use super::status::Refusal;
use super::{Gateway, describe};
use crate::core::action::{ClassName, Identity, RequestId};
use crate::core::api_path::{self, Query, Target};
use crate::core::audit::entry::Seen;
use crate::core::audit::{Decided, Effect, Entry, Kind, Text};
use http::{Request, StatusCode};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long entries are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Entries in a window.
const MOST: usize = 64;
/// Entries in a window about one address.
const MOST_OF_ONE: usize = 16;

/// Why somebody is not served.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) refusal: Refusal,
    /// Who it is, where the token said so.
    pub(super) who: Option<Box<Identity>>,
}

/// A request that was turned away, and how it came.
pub(super) struct Turned<'a, B> {
    pub(super) request: &'a Request<B>,
    pub(super) peer: SocketAddr,
    pub(super) id: RequestId,
    pub(super) arrived: Instant,
}

/// What has been written of strangers lately.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    written: HashMap<IpAddr, usize>,
    left_out: u64,
}

/// What becomes of one refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    /// It gets an entry.
    Written,
    /// It is counted; the first of its window, which somebody must tell of after so long.
    FirstLeftOut(Duration),
    /// It is counted.
    LeftOut,
}

impl From<Refusal> for Stranger {
    fn from(refusal: Refusal) -> Self {
        Stranger { refusal, who: None }
    }
}

impl Strangers {
    fn note(&self, address: IpAddr, now: Instant) -> Noted {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = window.began.map_or(WINDOW, |began| now.saturating_duration_since(began));
        // What was left out stays until it is told.
        if age >= WINDOW && window.left_out == 0 {
            *window = Window { began: Some(now), ..Window::default() };
        }
        let all: usize = window.written.values().sum();
        let of_one = window.written.get(&address).copied().unwrap_or_default();
        if all >= MOST || of_one >= MOST_OF_ONE {
            window.left_out += 1;
            let first = window.left_out == 1;
            return if first { Noted::FirstLeftOut(WINDOW.saturating_sub(age)) } else { Noted::LeftOut };
        }
        *window.written.entry(address).or_default() += 1;
        Noted::Written
    }

    /// How many were left out; begins a new window.
    fn take(&self) -> u64 {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).left_out
    }
}

impl Gateway {
    /// Writes down that somebody was turned away. They are, whether or not it could be written down.
    pub(super) async fn turned_away<B>(self: &Arc<Self>, turned: &Turned<'_, B>, stranger: Stranger) -> Refusal {
        match self.strangers.note(turned.peer.ip(), Instant::now()) {
            Noted::Written => self.told(&self.of_stranger(turned, &stranger)).await,
            Noted::FirstLeftOut(rest) => {
                let gateway = Arc::clone(self);
                self.edges.tracker.spawn(async move { gateway.sum_up(rest).await });
            }
            Noted::LeftOut => {}
        }
        stranger.refusal
    }

    async fn sum_up(&self, rest: Duration) {
        tokio::select! {
            () = self.edges.stop.cancelled() => (),
            () = tokio::time::sleep(rest) => (),
        }
        let count = self.strangers.take();
        let why =
            format!("{count} more requests of nobody known to be an agent were refused, without entries of their own");
        let stamp = self.edges.log.stamp(Duration::ZERO);
        let mut entry = Entry::blank(Kind::Decision, Effect::Refused, &stamp);
        entry.note = Some(Text::short(&why));
        self.told(&entry.decided(Some(Decided::built_in("strangers", &why)))).await;
    }

    async fn told(&self, entry: &Entry) {
        if let Err(error) = self.edges.log.append(entry).await {
            tracing::error!(%error, "a refusal could not be written down");
        }
    }

    fn of_stranger<B>(&self, turned: &Turned<'_, B>, stranger: &Stranger) -> Entry {
        let Turned { request, peer, id, arrived } = turned;
        let (method, uri) = (request.method(), request.uri());
        let nobody = Identity::default();
        let who = stranger.who.as_deref().unwrap_or(&nobody);
        let stamp = self.edges.log.stamp(arrived.elapsed());
        let blank = Entry::blank(Kind::Decision, Effect::Refused, &stamp).seen(Seen::Gateway, &id.to_string());
        let query = uri.query().unwrap_or_default();
        let mut entry = match (api_path::parse(method, uri.path(), uri.query()), Query::parse(query)) {
            (Ok(Target::Api(api)), Ok(query)) => {
                blank.about(&describe::action(&api, &query, who, &ClassName::from("")))
            }
            _ => blank.asked_by(who).raw(method.as_str(), uri.path()),
        };
        entry.class = None;
        entry.authenticated = stranger.who.is_some();
        entry.request = Some(Text::short(id.to_string()));
        entry.status = Some(stranger.refusal.code.as_u16());
        entry.note = Some(Text::short(format!("{} (from {peer})", stranger.refusal.message)));
        let rule = match stranger.refusal.code {
            StatusCode::UNAUTHORIZED => "unauthenticated",
            StatusCode::FORBIDDEN => "no-agent",
            _ => "unavailable",
        };
        entry.decided(Some(Decided::built_in(rule, &stranger.refusal.message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_share_all_have_theirs_and_what_is_left_out_is_counted() {
        let (strangers, start) = (Strangers::default(), Instant::now());
        let address = |number: usize| IpAddr::from([10, 0, 0, u8::try_from(number).unwrap()]);
        let write =
            |number, times| (0..times).filter(|_| strangers.note(address(number), start) == Noted::Written).count();
        assert_eq!(write(1, 1000), MOST_OF_ONE);
        assert_eq!((2..250).map(|number| write(number, 3)).sum::<usize>(), MOST - MOST_OF_ONE);
        let left_out = 1000 + 248 * 3 - MOST as u64;
        assert_eq!(strangers.take(), left_out);
        assert_eq!(strangers.note(address(1), start), Noted::Written, "a new window");
    }

    #[test]
    fn the_first_that_is_left_out_is_told_of_at_the_end_of_the_window() {
        let (strangers, start) = (Strangers::default(), Instant::now());
        let address = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..MOST_OF_ONE {
            assert_eq!(strangers.note(address, start), Noted::Written);
        }
        let later = start + Duration::from_secs(4);
        assert_eq!(strangers.note(address, later), Noted::FirstLeftOut(Duration::from_secs(6)));
        assert_eq!(strangers.note(address, later), Noted::LeftOut);
        assert_eq!(strangers.take(), 2);
        assert_eq!(Strangers::default().take(), 0);
    }

    #[test]
    fn a_quiet_window_ends_by_itself() {
        let (strangers, start) = (Strangers::default(), Instant::now());
        let address = IpAddr::from([10, 0, 0, 1]);
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            assert_eq!(strangers.note(address, now), Noted::Written, "second {second}");
        }
    }
}
