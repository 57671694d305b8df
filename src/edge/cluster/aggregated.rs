//! Which APIs other servers serve behind the API server (APIServices that name a Service), watched.
//!
//! For those the API server itself runs no admission; whether the server behind does, nobody can tell from here.
//! As long as nothing is known nothing is said to be served here. Main type: [`Aggregated`].

use futures_util::StreamExt;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where an API is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// By the API server itself.
    Here,
    /// By another server that the API server passes requests on to.
    Elsewhere,
    /// Nobody has said yet.
    Unknown,
}

/// What is known of aggregated APIs.
#[derive(Debug, Clone, Default)]
pub struct Aggregated {
    /// Group and version of each, by the APIService that says so; `None` until all were read once.
    known: Option<Arc<Known>>,
}

type Known = BTreeMap<String, (String, String)>;

impl Aggregated {
    /// Where a version of a group is served.
    #[must_use]
    pub fn served(&self, group: &str, version: &str) -> Served {
        // The core group cannot be given away.
        if group.is_empty() {
            return Served::Here;
        }
        match &self.known {
            None => Served::Unknown,
            Some(known) if known.values().any(|one| one.0 == group && one.1 == version) => Served::Elsewhere,
            Some(_) => Served::Here,
        }
    }

    /// These groups and versions, and no others.
    #[must_use]
    pub fn of(elsewhere: &[(&str, &str)]) -> Self {
        let known = elsewhere
            .iter()
            .map(|&(group, version)| (format!("{version}.{group}"), (group.to_owned(), version.to_owned())));
        Self { known: Some(Arc::new(known.collect())) }
    }
}

/// Tells `sender` until `stop` what the cluster says.
pub async fn follow(client: Client, sender: watch::Sender<Aggregated>, stop: CancellationToken) {
    let services: Api<APIService> = Api::all(client);
    let watching = watcher(services, watcher::Config::default()).backoff(super::back_off::BackOff::default());
    let mut events = watching.boxed();
    let mut seen = Seen::default();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(event)) => {
                if seen.take(event) {
                    drop(sender.send_replace(Aggregated { known: Some(Arc::new(seen.known.clone())) }));
                }
            }
            // What was known stays known: nothing becomes the API server's own for a lost watch.
            Some(Err(error)) => tracing::warn!(%error, "the watch of the APIServices was lost"),
            None => return,
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    known: Known,
    /// What a list that is still being read has shown.
    listing: Known,
    is_complete: bool,
}

impl Seen {
    /// Takes an event; true where there is something to tell.
    fn take(&mut self, event: watcher::Event<APIService>) -> bool {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(service) => {
                note(&mut self.listing, &service);
                // Known from now on; what is gone is forgotten only when the list is whole.
                if elsewhere(&service).is_some() {
                    note(&mut self.known, &service);
                }
            }
            watcher::Event::InitDone => {
                self.known = std::mem::take(&mut self.listing);
                self.is_complete = true;
            }
            watcher::Event::Apply(service) => note(&mut self.known, &service),
            watcher::Event::Delete(service) => drop(self.known.remove(&name(&service))),
        }
        self.is_complete
    }
}

fn note(known: &mut Known, service: &APIService) {
    match elsewhere(service) {
        Some(api) => known.insert(name(service), api),
        None => known.remove(&name(service)),
    };
}

/// Group and version of an API that another server serves.
fn elsewhere(service: &APIService) -> Option<(String, String)> {
    let spec = service.spec.as_ref()?;
    spec.service.as_ref()?;
    Some((spec.group.clone().unwrap_or_default(), spec.version.clone().unwrap_or_default()))
}

fn name(service: &APIService) -> String {
    service.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(group: &str, behind: Option<&str>) -> APIService {
        let service = behind.map(|name| json!({"name": name, "namespace": "x"}));
        serde_json::from_value(json!({
            "metadata": {"name": format!("v1.{group}")},
            "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1, "service": service}
        }))
        .unwrap()
    }

    #[test]
    fn nothing_is_served_here_before_everything_was_read() {
        let none = Aggregated::default();
        assert_eq!((none.served("apps", "v1"), none.served("", "v1")), (Served::Unknown, Served::Here));
        let mut seen = Seen::default();
        assert!(!seen.take(watcher::Event::Init));
        assert!(!seen.take(watcher::Event::InitApply(service("apps", None))));
        assert!(seen.take(watcher::Event::InitDone));
    }

    #[test]
    fn what_is_served_elsewhere_follows_the_events() {
        let mut seen = Seen { is_complete: true, ..Seen::default() };
        let served =
            |seen: &Seen, group: &str| Aggregated { known: Some(Arc::new(seen.known.clone())) }.served(group, "v1");
        seen.take(watcher::Event::Apply(service("a.example.com", Some("api"))));
        seen.take(watcher::Event::Apply(service("apps", None)));
        assert_eq!(served(&seen, "a.example.com"), Served::Elsewhere);
        assert_eq!(served(&seen, "apps"), Served::Here);
        seen.take(watcher::Event::Init);
        seen.take(watcher::Event::InitApply(service("b.example.com", Some("api"))));
        assert_eq!(served(&seen, "a.example.com"), Served::Elsewhere, "forgotten before the list is whole");
        assert_eq!(served(&seen, "b.example.com"), Served::Elsewhere);
        seen.take(watcher::Event::InitDone);
        assert_eq!(served(&seen, "a.example.com"), Served::Here);
        seen.take(watcher::Event::Delete(service("b.example.com", Some("api"))));
        assert_eq!(served(&seen, "b.example.com"), Served::Here);
    }
}
