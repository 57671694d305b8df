//! How many calls may wait, in all and of one agent. A parked call holds a seat at the API server, so past the
//! caps a call is told to come back instead.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The places there are.
#[derive(Debug, Clone)]
pub(super) struct Parking {
    most: usize,
    most_per_agent: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// One taken place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    parking: Parking,
    agent: String,
}

impl Parking {
    pub(super) fn new(most: usize, most_per_agent: usize) -> Self {
        Self { most, most_per_agent, taken: Arc::default() }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// A place for `agent`, when there is one.
    pub(super) fn place(&self, agent: &str) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(agent).copied().unwrap_or_default();
        if all >= self.most || own >= self.most_per_agent {
            return None;
        }
        taken.insert(agent.to_owned(), own + 1);
        Some(Place { parking: self.clone(), agent: agent.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.parking.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.agent) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(taken.remove(&self.agent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_cannot_take_every_place_and_places_come_back() {
        let parking = Parking::new(3, 2);
        let first = parking.place("a").unwrap();
        let _second = parking.place("a").unwrap();
        assert!(parking.place("a").is_none());
        let _third = parking.place("b").unwrap();
        assert!(parking.place("c").is_none(), "all places are taken");
        drop(first);
        assert_eq!(parking.taken(), 2);
        assert!(parking.place("c").is_some());
    }
}
