//! One call at a time for what is the same: the others wait, and find what the first one did. A client's burst of equal
//! calls is one write and no read. Replicas agree through the API server; this saves it from one replica's crowd, and
//! nothing is wrong where a turn does not come.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::{Mutex as Door, OwnedMutexGuard};

/// Whoever has waited so long goes on without a turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    doors: Arc<Mutex<HashMap<String, Weak<Door<()>>>>>,
}

/// Others wait until it is dropped; none where waiting took too long.
pub(super) type Turn = Option<OwnedMutexGuard<()>>;

impl Turns {
    /// Waits for the turn at `name`.
    pub(super) async fn take(&self, name: &str) -> Turn {
        let door = self.door(name);
        tokio::time::timeout(PATIENCE, door.lock_owned()).await.ok()
    }

    fn door(&self, name: &str) -> Arc<Door<()>> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(door) = doors.get(name).and_then(Weak::upgrade) {
            return door;
        }
        doors.retain(|_, door| door.strong_count() > 0);
        let door = Arc::default();
        doors.insert(name.to_owned(), Arc::downgrade(&door));
        door
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_each_name_alone() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        assert!(first.is_some());
        assert!(turns.take("b").await.is_some(), "another name has its own turn");
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take("a").await.is_some() }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn names_that_nobody_is_at_are_forgotten() {
        let turns = Turns::default();
        for name in 0..100 {
            drop(turns.take(&name.to_string()).await);
        }
        assert_eq!(turns.doors.lock().unwrap().len(), 1);
    }
}
