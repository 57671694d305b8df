//! The registration of the webhook at the API server: watched, kept right, and known to the gateway.
//!
//! Kustody updates the one ValidatingWebhookConfiguration that was installed; it cannot create one (nobody can
//! be allowed to create just one name). While it is missing or wrong the [`GateState`] says so, and the
//! gateway refuses what the webhook would have to decide.

use crate::core::{
    admission::registration::{Address, NAME, configuration},
    policy::PolicySnapshot,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
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

/// Keeps the registration right.
pub struct Registration {
    configurations: Api<ValidatingWebhookConfiguration>,
    address: Address,
    ca_bundle: watch::Receiver<String>,
    snapshot: watch::Receiver<Arc<PolicySnapshot>>,
    state: watch::Sender<GateState>,
}

impl Registration {
    /// Registers `address`, trusted by `ca_bundle` (PEM), for the agents of `snapshot`.
    #[must_use]
    pub fn new(
        client: Client,
        address: Address,
        ca_bundle: watch::Receiver<String>,
        snapshot: watch::Receiver<Arc<PolicySnapshot>>,
    ) -> (Self, watch::Receiver<GateState>) {
        let (state, states) = watch::channel(GateState::Missing { why: "not checked yet".to_owned() });
        let configurations = Api::all(client);
        (Self { configurations, address, ca_bundle, snapshot, state }, states)
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
                tracing::info!(?state, "the registration of the webhook changed");
                *current = state;
            }
            is_new
        });
    }

    async fn correct(&self, found: Option<&ValidatingWebhookConfiguration>) {
        let Some(found) = found else {
            let why = format!("the ValidatingWebhookConfiguration {NAME} is not installed");
            return self.say(GateState::Missing { why });
        };
        let bundle = STANDARD.encode(self.ca_bundle.borrow().as_bytes());
        let wanted = configuration(&self.snapshot.borrow().clone(), &self.address, Some(&bundle));
        match serde_json::to_value(found) {
            Ok(actual) if holds(&actual, &wanted) => self.say(GateState::Registered),
            Ok(_) => self.replace(found, wanted).await,
            Err(error) => self.say(GateState::Missing { why: format!("the registration cannot be read: {error}") }),
        }
    }

    /// Puts what is wanted in place of what was found; the watch brings the result.
    async fn replace(&self, found: &ValidatingWebhookConfiguration, wanted: Value) {
        let mut next: ValidatingWebhookConfiguration = match serde_json::from_value(wanted) {
            Ok(next) => next,
            Err(error) => {
                return self.say(GateState::Missing { why: format!("the registration cannot be written: {error}") });
            }
        };
        next.metadata = found.metadata.clone();
        next.metadata.managed_fields = None;
        match self.configurations.replace(NAME, &PostParams::default(), &next).await {
            Ok(_) => self.say(GateState::Missing { why: "the registration is being corrected".to_owned() }),
            Err(error) => {
                tracing::warn!(%error, "cannot correct the registration of the webhook");
                self.say(GateState::Missing { why: format!("the registration cannot be corrected: {error}") });
            }
        }
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("address", &self.address).finish_non_exhaustive()
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

/// Whether the webhooks are the wanted ones: every wanted member equal, selectors empty, none beside them.
fn holds(actual: &Value, wanted: &Value) -> bool {
    let hooks = |value: &Value| value.get("webhooks").and_then(Value::as_array).cloned().unwrap_or_default();
    let (actual, wanted) = (hooks(actual), hooks(wanted));
    actual.len() == wanted.len()
        && actual.iter().zip(&wanted).all(|(actual, wanted)| contains(actual, wanted) && selects_all(actual))
}

/// A selector would take objects out of the gate that no rule says are out.
fn selects_all(webhook: &Value) -> bool {
    ["namespaceSelector", "objectSelector"].iter().all(|selector| match webhook.get(selector) {
        None | Some(Value::Null) => true,
        Some(value) => value.as_object().is_some_and(serde_json::Map::is_empty),
    })
}

fn contains(actual: &Value, wanted: &Value) -> bool {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| actual.get(key).is_some_and(|actual| contains(actual, wanted)))
        }
        (Value::Array(actual), Value::Array(wanted)) => {
            actual.len() == wanted.len() && actual.iter().zip(wanted).all(|(actual, wanted)| contains(actual, wanted))
        }
        (actual, wanted) => actual == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn wanted() -> Value {
        let (snapshot, _) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::new());
        configuration(&snapshot, &Address::Service, Some("Q0E="))
    }

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let mut actual = wanted();
        actual["webhooks"][0]["namespaceSelector"] = json!({});
        actual["webhooks"][0]["objectSelector"] = json!({});
        assert!(holds(&actual, &wanted()));
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
            assert!(!holds(&actual, &wanted()), "{actual}");
        }
        let mut none = wanted();
        none["webhooks"] = json!([]);
        assert!(!holds(&none, &wanted()));
    }
}
