//! The sessions that run in this replica: who has how many, and how each can be ended from outside.
//!
//! A session enters before its recording begins and leaves when its [`Place`] is dropped. Limits hold for this replica.
//! Who is to be ended, and why, is `oversight.rs`'s business. Main types: [`Live`], [`Place`].

use crate::core::action::Action;
use crate::core::keys::Secret;
use crate::core::policy::Permit;
use crate::core::recording::SessionId;
use crate::service::relay::{Order, Orders};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The sessions of this replica.
pub(super) struct Live {
    most: usize,
    most_per_agent: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<SessionId, Running>,
    by_agent: HashMap<String, usize>,
}

/// What is kept of a session while it runs.
struct Running {
    stream: Arc<Stream>,
    /// Taken by the first order.
    end: Option<oneshot::Sender<Order>>,
}

/// What was let through, to be decided again.
pub(super) struct Stream {
    pub(super) session: SessionId,
    pub(super) action: Action,
    /// The token it was opened with.
    pub(super) token: Secret<String>,
    /// Whether people have agreed to it, so that a rule that holds is satisfied.
    pub(super) agreed: Agreed,
}

/// How people have agreed to what was let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Agreed {
    /// Nobody had to.
    Never,
    /// To this very action.
    Once,
    /// By a grant of this name, for as long as it stands.
    By(String),
}

impl Agreed {
    pub(super) fn of(permit: &Permit) -> Agreed {
        match (permit.approval(), permit.grant()) {
            (Some(_), _) => Agreed::Once,
            (None, Some(grant)) => Agreed::By(grant.to_owned()),
            (None, None) => Agreed::Never,
        }
    }
}

/// Which limit leaves no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All(usize),
    OfAgent(usize),
}

/// A session's place; given up when dropped.
pub(super) struct Place {
    live: Arc<Live>,
    session: SessionId,
    agent: String,
}

impl Live {
    pub(super) fn new(most: usize, most_per_agent: usize) -> Arc<Live> {
        Arc::new(Live { most, most_per_agent, state: Mutex::default() })
    }

    /// A place for one more session, and where its order will come from.
    pub(super) fn enter(self: &Arc<Self>, stream: Stream) -> Result<(Place, Orders), Full> {
        let agent = stream.action.agent.user.clone();
        let session = stream.session;
        let (end, orders) = Orders::channel();
        let mut state = self.lock();
        let own = state.by_agent.get(&agent).copied().unwrap_or_default();
        if state.running.len() >= self.most {
            return Err(Full::All(self.most));
        }
        if own >= self.most_per_agent {
            return Err(Full::OfAgent(self.most_per_agent));
        }
        state.by_agent.insert(agent.clone(), own + 1);
        state.running.insert(session, Running { stream: Arc::new(stream), end: Some(end) });
        Ok((Place { live: Arc::clone(self), session, agent }, orders))
    }

    /// Everything that runs and has got no order yet.
    pub(super) fn streams(&self) -> Vec<Arc<Stream>> {
        let state = self.lock();
        state.running.values().filter(|running| running.end.is_some()).map(|one| Arc::clone(&one.stream)).collect()
    }

    /// What was let through as this session.
    pub(super) fn stream(&self, session: SessionId) -> Option<Arc<Stream>> {
        self.lock().running.get(&session).map(|running| Arc::clone(&running.stream))
    }

    /// Orders a session to end; `false` when it does not run here, or was ordered to before.
    pub(super) fn end(&self, session: SessionId, order: Order) -> bool {
        let end = self.lock().running.get_mut(&session).and_then(|running| running.end.take());
        end.is_some_and(|end| end.send(order).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.live.lock();
        state.running.remove(&self.session);
        let own = state.by_agent.get(&self.agent).copied().unwrap_or_default();
        if own > 1 {
            state.by_agent.insert(self.agent.clone(), own - 1);
        } else {
            state.by_agent.remove(&self.agent);
        }
    }
}
