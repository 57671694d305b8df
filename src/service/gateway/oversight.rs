//! Looks at running sessions again whenever something changes that let them through, and orders those to end that
//! would not be let through now: because of a rule, or because their agent is none any more or its token no longer valid.
//! Those that a person wants to end it orders to end as well.
//!
//! What people have agreed to is not held again, while the grant by which they did stands; what is denied now ends all the same. That a session got an order is
//! all that happens here: the relay ends it. An API server that cannot be asked about tokens ends nothing.

use super::Gateway;
use super::live::{Agreed, Stream};
use crate::core::action::Action;
use crate::core::policy::{Circumstances, Facts, Outcome, decide};
use crate::core::recording::SessionId;
use crate::edge::cluster::identity::{self, has_run_out};
use crate::edge::cluster::terminations::Termination;
use crate::service::relay::Order;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// A person ended it.
const KILLED: &str = "killed";
/// The agent is none any more.
const REVOKED: &str = "revoked";
/// A rule no longer lets it through.
const NO_LONGER_ALLOWED: &str = "no-longer-allowed";

impl Gateway {
    /// Watches over the running sessions until `shutdown`.
    pub async fn oversee(self: Arc<Self>, shutdown: CancellationToken) {
        let watching = async {
            let (rules, grants) = (self.edges.policies.clone(), self.edges.grants.follow());
            // Each use of a grant is a change of it: sessions that lose nothing by it are not decided about again.
            let loses = |stream: &Stream| self.has_lost_its_grant(stream);
            let (rules, grants) = (self.follow(rules, |_| true), self.follow(grants, loses));
            tokio::join!(rules, grants, self.follow_tokens(), self.follow_people())
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            ((), (), (), ()) = watching => {}
        }
    }

    /// Judges whatever a change concerns, whenever something has changed.
    async fn follow<T>(&self, mut changes: watch::Receiver<T>, concerns: impl Fn(&Stream) -> bool) {
        while changes.changed().await.is_ok() {
            for stream in self.live.streams() {
                if !concerns(&stream) {
                    continue;
                }
                self.judge(&stream);
                // Hundreds of them must not hold up what else runs on this thread.
                tokio::task::yield_now().await;
            }
        }
    }

    async fn follow_tokens(&self) {
        let mut ticks = tokio::time::interval(self.config.recheck);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let began = Instant::now();
            for stream in self.live.streams() {
                // Rules may ask for the time, and grants end.
                self.judge(&stream);
                self.review_again(&stream, began).await;
            }
        }
    }

    async fn follow_people(&self) {
        let mut open = self.edges.terminations.open();
        while open.changed().await.is_ok() {
            let open: Vec<_> = open.borrow_and_update().iter().map(|(name, one)| (name.clone(), one.clone())).collect();
            for (name, Termination { session, by, reason }) in open {
                let message = printable(&format!("killed by {by}: {reason}"));
                if self.order(session, Order { name: KILLED, message }) {
                    let terminations = self.edges.terminations.clone();
                    self.edges.tracker.spawn(async move { terminations.carried_out(&name).await });
                }
            }
        }
    }

    fn judge(&self, stream: &Stream) {
        if let Some(order) = self.objection(stream) {
            self.order(stream.session, order);
        }
    }

    fn has_lost_its_grant(&self, stream: &Stream) -> bool {
        matches!(&stream.agreed, Agreed::By(grant) if self.edges.grants.is_over(grant))
    }

    /// Why a session that has just entered would not be let through now.
    pub(super) fn objection_to(&self, session: SessionId) -> Option<Order> {
        self.objection(&*self.live.stream(session)?)
    }

    /// Why a stream that was let through would not be now.
    fn objection(&self, stream: &Stream) -> Option<Order> {
        let snapshot = self.edges.policies.borrow().clone();
        let agent = &stream.action.agent;
        let Some(class) = snapshot.classify(agent) else {
            return Some(ended(REVOKED, &format!("{} belongs to no AgentClass any more", agent.user)));
        };
        let action = Action { class: class.name().clone(), ..stream.action.clone() };
        let decision = decide(&snapshot, &Facts::bare(&action), &Circumstances::at(Timestamp::now()));
        let verdict = match decision.outcome {
            Outcome::Allow(_) => return None,
            Outcome::Hold(_) => match &stream.agreed {
                Agreed::Once => return None,
                Agreed::By(grant) if !self.edges.grants.is_over(grant) => return None,
                Agreed::By(grant) => {
                    return Some(ended(NO_LONGER_ALLOWED, &format!("the grant {grant} is over or was taken back")));
                }
                Agreed::Never => "held by",
            },
            Outcome::Deny => "denied by",
        };
        Some(ended(NO_LONGER_ALLOWED, &format!("{verdict} rule {}: {}", decision.rule, decision.reason)))
    }

    /// Asks whose token it is; answers that came since `began` are good enough.
    async fn review_again(&self, stream: &Stream, began: Instant) {
        let agent = &stream.action.agent;
        let why = match self.edges.reviewer.review_since(&stream.token, began).await {
            Ok(identity) if identity.user == agent.user && identity.uid == agent.uid => return,
            Ok(_) => "is somebody else's by now",
            // Nobody took it back: as at the API server, a stream outlives the token that opened it.
            Err(identity::Error::Unauthenticated { .. }) if has_run_out(&stream.token, Timestamp::now()) => return,
            Err(identity::Error::Unauthenticated { .. }) => "is not valid any more",
            Err(error @ identity::Error::Unavailable(_)) => {
                tracing::warn!(session = %stream.session, %error, "a running session's token cannot be reviewed");
                return;
            }
        };
        self.order(stream.session, ended(REVOKED, &format!("the token of {} {why}", agent.user)));
    }

    /// Orders a session to end, and writes that down; `false` when it does not run here, or was ordered to before.
    fn order(&self, session: SessionId, order: Order) -> bool {
        let Some(stream) = self.live.stream(session) else { return false };
        let why = order.message.clone();
        if !self.live.end(session, order) {
            return false;
        }
        tracing::info!(%session, user = stream.action.agent.user, why, "session ordered to end");
        let entry = self.ending(&stream, &why);
        let log = self.edges.log.clone();
        // Whatever becomes of the entry, the session ends: its recording says why as well.
        self.edges.tracker.spawn(async move {
            if let Err(error) = log.note(&entry).await {
                tracing::error!(%session, %error, "the end of a session could not be written down");
            }
        });
        true
    }
}

/// What a person wrote ends on the agent's terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn ended(name: &'static str, why: &str) -> Order {
    Order { name, message: format!("kustody ended this session: {why}") }
}
