//! Labels of namespaces, watched as metadata alone, and only while a rule asks for them.
//!
//! What is not known yet stays unknown: rules then take their failure action. Main type: [`NamespaceWatch`].

use crate::core::policy::Namespaces;
use futures_util::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use std::sync::Arc;

type Event = watcher::Event<PartialObjectMeta<Namespace>>;

/// A watch of all namespaces and what it has seen.
pub(super) struct NamespaceWatch {
    events: BoxStream<'static, Result<Event, watcher::Error>>,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    known: Namespaces,
    /// What a list that is still being read has shown.
    listing: Option<Namespaces>,
    is_complete: bool,
}

impl NamespaceWatch {
    /// Prepares the watch; nothing is read yet.
    pub(super) fn new(client: &Client) -> Self {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        let events = watcher(api, watcher::Config::default()).backoff(super::back_off::BackOff::default());
        Self { events: events.boxed(), seen: Seen::default() }
    }

    /// Waits for one event. Cancelling loses nothing.
    pub(super) async fn step(&mut self) {
        match self.events.next().await {
            Some(Ok(event)) => self.seen.take(event),
            Some(Err(error)) => tracing::warn!(%error, "the watch of the namespaces was lost"),
            // The stream of a watcher never ends.
            None => std::future::pending().await,
        }
    }

    /// What is known, once everything was read.
    pub(super) fn known(&self) -> Option<Arc<Namespaces>> {
        self.seen.is_complete.then(|| Arc::new(self.seen.known.clone()))
    }
}

impl Seen {
    fn take(&mut self, event: Event) {
        match event {
            watcher::Event::Init => self.listing = Some(Namespaces::new()),
            watcher::Event::InitApply(namespace) => {
                let (name, labels) = labels_of(&namespace);
                // Known from now on, though what is gone is forgotten only when the list is whole.
                self.known.insert(name.clone(), labels.clone());
                if let Some(listing) = &mut self.listing {
                    listing.insert(name, labels);
                }
            }
            watcher::Event::InitDone => {
                if let Some(listing) = self.listing.take() {
                    self.known = listing;
                }
                self.is_complete = true;
            }
            watcher::Event::Apply(namespace) => {
                let (name, labels) = labels_of(&namespace);
                self.known.insert(name, labels);
            }
            watcher::Event::Delete(namespace) => drop(self.known.remove(&namespace.name_any())),
        }
    }
}

fn labels_of(namespace: &PartialObjectMeta<Namespace>) -> (String, Arc<std::collections::BTreeMap<String, String>>) {
    (namespace.name_any(), Arc::new(namespace.labels().clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, env: &str) -> PartialObjectMeta<Namespace> {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name, "labels": {"env": env}}})).unwrap()
    }

    #[test]
    fn labels_follow_the_events_and_a_new_list_forgets_what_is_gone() {
        let mut seen = Seen::default();
        seen.take(watcher::Event::Init);
        seen.take(watcher::Event::InitApply(namespace("a", "dev")));
        assert!(!seen.is_complete);
        seen.take(watcher::Event::InitDone);
        seen.take(watcher::Event::Apply(namespace("b", "prod")));
        assert_eq!(seen.known["b"]["env"], "prod");
        seen.take(watcher::Event::Init);
        seen.take(watcher::Event::InitApply(namespace("b", "dev")));
        assert!(seen.known.contains_key("a"), "nothing is forgotten before the list is whole");
        seen.take(watcher::Event::InitDone);
        assert_eq!((seen.known.len(), seen.known["b"]["env"].as_str()), (1, "dev"));
        seen.take(watcher::Event::Delete(namespace("b", "dev")));
        assert!(seen.known.is_empty());
    }
}
