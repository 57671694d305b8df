//! Uses of one grant are counted one after the other within a replica: all at once they would conflict with each other, and
//! all but one of them ask the API server again. Replicas among themselves still agree through the API server alone. Main
//! type: [`Turns`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a use waits for those before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is next, by the grant's name.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<String, Weak<Semaphore>>>);

impl Turns {
    /// A turn at a grant, until it is dropped; `None` when too many are before it.
    pub(super) async fn take(&self, grant: &str) -> Option<OwnedSemaphorePermit> {
        timeout(PATIENCE, self.of(grant).acquire_owned()).await.ok()?.ok()
    }

    fn of(&self, grant: &str) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(grant).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Semaphore::new(1));
        drop(turns.insert(grant.to_owned(), Arc::downgrade(&turn)));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_use_waits_for_those_of_the_same_grant_and_for_no_others() {
        let turns = Turns::default();
        let first = turns.take("release").await;
        assert!(first.is_some() && turns.take("other").await.is_some());
        assert!(turns.take("release").await.is_none(), "two at once");
        let (second, ()) = tokio::join!(turns.take("release"), async { drop(first) });
        assert!(second.is_some());
        drop(second);
        assert!(turns.take("another").await.is_some());
        assert_eq!(turns.0.lock().unwrap().len(), 1, "grants nobody uses are forgotten");
    }
}
