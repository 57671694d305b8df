//! The registration of the webhook at the API server: watched, kept right, and known to the gateway.
//!
//! Kustody updates the one ValidatingWebhookConfiguration that was installed; it cannot create one (nobody can
//! be allowed to create just one name). While it is missing or wrong the [`GateState`] says so, the log raises an
//! alarm, and the gateway refuses what the webhook would have to decide. No admission guards webhook
//! configurations, so this watch is what notices. Where cert-manager injects the authority, `caBundle` is its own.

mod suspending;

use crate::core::{
    admission::{
        difference::difference_of_webhooks,
        registration::{NAME, Site, configuration},
    },
    policy::PolicySnapshot,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{ValidatingWebhookConfiguration, WebhookClientConfig};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
pub use suspending::Suspending;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How soon a failed update is tried again.
const AGAIN: Duration = Duration::from_secs(3);

/// Whether the API server asks this webhook about agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateState {
    /// Yes, as far as the watch knows.
    Registered,
    /// No, or nobody knows.
    Missing {
        /// Why.
        why: String,
    },
}

/// Annotations by which somebody else keeps `caBundle`.
const INJECTED: [&str; 3] =
    ["cert-manager.io/inject-ca-from", "cert-manager.io/inject-ca-from-secret", "cert-manager.io/inject-apiserver-ca"];

/// By which authority the API server verifies the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// Nobody has looked yet.
    Unknown,
    /// The webhook is not registered, so nobody verifies it.
    NotRegistered,
    /// By none: its calls fail.
    Nothing,
    /// By this, PEM.
    Bundle(String),
}

/// What the watch knows.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// Whether agents are gated.
    pub gate: watch::Receiver<GateState>,
    /// By which authority the webhook is verified.
    pub published: watch::Receiver<Published>,
}

/// Keeps the registration right.
pub struct Registration {
    configurations: Api<ValidatingWebhookConfiguration>,
    site: Site,
    ca_bundle: watch::Receiver<String>,
    snapshot: watch::Receiver<Arc<PolicySnapshot>>,
    state: watch::Sender<GateState>,
    published: watch::Sender<Published>,
    /// What was asked for and found last: where the cluster still has it, nobody but this program changes anything.
    settled: Option<Value>,
}

impl Registration {
    /// Registers `site`, trusted by `ca_bundle` (PEM), for the agents of `snapshot`.
    #[must_use]
    pub fn new(
        client: Client,
        site: Site,
        ca_bundle: watch::Receiver<String>,
        snapshot: watch::Receiver<Arc<PolicySnapshot>>,
    ) -> (Self, Outlook) {
        let (state, gate) = watch::channel(GateState::Missing { why: "not checked yet".to_owned() });
        let (published, publishes) = watch::channel(Published::Unknown);
        let configurations = Api::all(client);
        let outlook = Outlook { gate, published: publishes };
        (Self { configurations, site, ca_bundle, snapshot, state, published, settled: None }, outlook)
    }

    /// Watches and corrects until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let by_name = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut events =
            watcher(self.configurations.clone(), by_name).backoff(super::back_off::BackOff::default()).boxed();
        let mut found: Option<ValidatingWebhookConfiguration> = None;
        let mut listed = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => {
                    let Some(event) = event else { return };
                    match event {
                        Ok(event) => listed = note(event, &mut found) || listed,
                        Err(error) => {
                            self.say(GateState::Missing { why: format!("the API server cannot be watched: {error}") });
                            continue;
                        }
                    }
                }
                Ok(()) = self.ca_bundle.changed() => {}
                Ok(()) = self.snapshot.changed() => {}
                () = tokio::time::sleep(AGAIN), if self.is_missing() => {}
            }
            if listed {
                self.correct(found.as_ref()).await;
            }
        }
    }

    fn is_missing(&self) -> bool {
        matches!(*self.state.borrow(), GateState::Missing { .. })
    }

    fn say(&self, state: GateState) {
        self.state.send_if_modified(|current| {
            let is_new = *current != state;
            if is_new {
                match (&*current, &state) {
                    (_, GateState::Registered) => tracing::info!("the API server asks the webhook about every agent"),
                    (_, GateState::Missing { why }) => {
                        tracing::warn!(%why, "the webhook is not registered as it should be")
                    }
                }
                *current = state;
            }
            is_new
        });
    }

    async fn correct(&mut self, found: Option<&ValidatingWebhookConfiguration>) {
        let Some(found) = found else {
            self.published.send_replace(Published::NotRegistered);
            if self.settled.take().is_some() {
                tracing::error!("somebody removed the registration of the webhook: agents are not gated");
            }
            let why = format!("the ValidatingWebhookConfiguration {NAME} is not installed");
            return self.say(GateState::Missing { why });
        };
        self.published.send_replace(published(found));
        let bundle = wanted_bundle(found, gate_of(found), &self.ca_bundle.borrow());
        let wanted = configuration(&self.snapshot.borrow().clone(), &self.site, bundle.as_deref());
        match serde_json::to_value(found) {
            Ok(actual) => match difference_of_webhooks(&actual, &wanted) {
                None => {
                    self.settled = Some(wanted);
                    self.say(GateState::Registered);
                }
                Some(difference) => {
                    let altered = self.settled.as_ref().and_then(|settled| difference_of_webhooks(&actual, settled));
                    if let Some(altered) = altered {
                        tracing::error!(%altered, "somebody changed the registration of the webhook");
                    }
                    self.replace(found, wanted, &difference).await;
                }
            },
            Err(error) => self.say(GateState::Missing { why: format!("the registration cannot be read: {error}") }),
        }
    }

    /// Puts what is wanted in place of what was found; the watch brings the result.
    async fn replace(&self, found: &ValidatingWebhookConfiguration, wanted: Value, difference: &str) {
        let mut next: ValidatingWebhookConfiguration = match serde_json::from_value(wanted) {
            Ok(next) => next,
            Err(error) => {
                return self.say(GateState::Missing { why: format!("the registration cannot be written: {error}") });
            }
        };
        next.metadata = found.metadata.clone();
        next.metadata.managed_fields = None;
        match self.configurations.replace(NAME, &PostParams::default(), &next).await {
            Ok(_) => self.say(GateState::Missing { why: format!("it is being corrected: {difference}") }),
            Err(error) => {
                self.say(GateState::Missing { why: format!("it cannot be corrected ({difference}): {error}") });
            }
        }
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("site", &self.site).finish_non_exhaustive()
    }
}

/// True when a whole list was read.
fn note(
    event: watcher::Event<ValidatingWebhookConfiguration>,
    found: &mut Option<ValidatingWebhookConfiguration>,
) -> bool {
    match event {
        watcher::Event::Init => *found = None,
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => *found = Some(object),
        watcher::Event::Delete(_) => *found = None,
        watcher::Event::InitDone => return true,
    }
    false
}

/// The `caBundle` that a registration should have: what somebody injected where somebody does, else Kustody's `own`
/// (PEM).
fn wanted_bundle(found: &impl ResourceExt, webhook: Option<&WebhookClientConfig>, own: &str) -> Option<String> {
    let is_injected = INJECTED.iter().any(|key| found.annotations().contains_key(*key));
    let bundle = if is_injected { bundle_of(webhook) } else { Some(own.to_owned()) };
    bundle.map(|bundle| STANDARD.encode(bundle))
}

fn bundle_of(webhook: Option<&WebhookClientConfig>) -> Option<String> {
    let bundle = webhook?.ca_bundle.as_ref()?;
    String::from_utf8(bundle.0.clone()).ok().filter(|text| !text.is_empty())
}

/// How the first webhook, the gate's own, is called.
fn gate_of(found: &ValidatingWebhookConfiguration) -> Option<&WebhookClientConfig> {
    found.webhooks.as_ref()?.first().map(|webhook| &webhook.client_config)
}

fn published(found: &ValidatingWebhookConfiguration) -> Published {
    bundle_of(gate_of(found)).map_or(Published::Nothing, Published::Bundle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::admission::registration::Address;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn wanted() -> Value {
        let (snapshot, _) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::new());
        let site = Site { address: Address::Service, known: None };
        configuration(&snapshot, &site, Some("Q0E="))
    }

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let mut actual = wanted();
        actual["webhooks"][0]["namespaceSelector"] = json!({});
        actual["webhooks"][0]["objectSelector"] = json!({});
        assert_eq!(difference_of_webhooks(&actual, &wanted()), None);
    }

    #[test]
    fn whatever_weakens_the_gate_is_a_difference() {
        let changes: [fn(&mut Value); 6] = [
            |hook| hook["failurePolicy"] = json!("Ignore"),
            |hook| hook["namespaceSelector"] = json!({"matchLabels": {"a": "b"}}),
            |hook| hook["matchConditions"] = json!([]),
            |hook| hook["rules"][0]["operations"] = json!(["CREATE"]),
            |hook| hook["clientConfig"]["caBundle"] = json!("b3RoZXI="),
            |hook| hook["clientConfig"] = json!({"url": "https://example.org/admission"}),
        ];
        for change in changes {
            let mut actual = wanted();
            change(&mut actual["webhooks"][0]);
            assert!(difference_of_webhooks(&actual, &wanted()).is_some(), "{actual}");
        }
        let mut none = wanted();
        none["webhooks"] = json!([]);
        assert!(difference_of_webhooks(&none, &wanted()).is_some());
    }
}
