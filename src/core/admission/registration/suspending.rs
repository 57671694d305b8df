//! The second registration: the MutatingWebhookConfiguration that suspends new objects, where rules ask for it.
//!
//! It has a webhook only while some policy uses `hold.mode: Suspended`. It decides nothing: whatever it does not reach,
//! the gate sees unsuspended and holds as usual, which is why it may be ignored.

use super::{Site, client, gated};
use crate::core::policy::PolicySnapshot;
use serde_json::{Value, json};

/// Name of the MutatingWebhookConfiguration.
pub const NAME: &str = "kustody-suspend";
/// Name of the one webhook in it.
pub const WEBHOOK: &str = "suspend.kustody.dev";
/// Where new objects are posted, below the gate's own path.
pub const PATH: &str = "/suspend";
/// Deciding takes less than a millisecond; nobody waits longer for what may be ignored.
const SECONDS: u32 = 3;

/// The whole configuration. `ca_bundle` is PEM in base64.
#[must_use]
pub fn configuration(snapshot: &PolicySnapshot, site: &Site, ca_bundle: Option<&str>) -> Value {
    let webhooks = if snapshot.suspends() { vec![webhook(snapshot, site, ca_bundle)] } else { Vec::new() };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": "kustody"}},
        "webhooks": webhooks
    })
}

fn webhook(snapshot: &PolicySnapshot, site: &Site, ca_bundle: Option<&str>) -> Value {
    let creation = |group: &str, resources: &[&str]| {
        json!({
            "apiGroups": [group], "apiVersions": ["v1"], "resources": resources, "operations": ["CREATE"],
            "scope": "Namespaced"
        })
    };
    json!({
        "name": WEBHOOK,
        "admissionReviewVersions": ["v1"],
        "clientConfig": client(&site.address, PATH, ca_bundle),
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        // Asked again after other webhooks it could not tell its own mark from one that an agent forged.
        "reinvocationPolicy": "Never",
        "timeoutSeconds": SECONDS,
        "rules": [creation("batch", &["jobs", "cronjobs"]), creation("apps", &["deployments"])],
        "matchConditions": [{"name": "agents", "expression": gated(snapshot.classes())}]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{admission::registration::Address, policy::PolicySpec};
    use std::collections::BTreeMap;

    fn webhooks(mode: &str) -> Vec<Value> {
        let rule = json!({"id": "r", "reason": "r", "action": "Hold", "hold": {"mode": mode},
            "match": {"operations": ["CREATE"], "resources": [{"apiGroups": ["batch"], "resources": ["jobs"]}]}});
        let policy: PolicySpec = serde_json::from_value(json!({"rules": [rule]})).unwrap();
        let (snapshot, problems) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::from([("p".to_owned(), policy)]));
        assert_eq!(problems, []);
        let site = Site { address: Address::Service, known: None };
        configuration(&snapshot, &site, Some("Q0E="))["webhooks"].as_array().unwrap().clone()
    }

    #[test]
    fn nothing_is_registered_before_a_rule_asks_for_it() {
        assert_eq!(webhooks("Wait"), Vec::<Value>::new());
        assert_eq!(webhooks("Suspended").len(), 1);
    }

    #[test]
    fn it_may_be_ignored_and_sees_new_objects_of_agents_alone() {
        let webhook = &webhooks("Suspended")[0];
        assert_eq!((&webhook["failurePolicy"], &webhook["sideEffects"]), (&json!("Ignore"), &json!("None")));
        for rule in webhook["rules"].as_array().unwrap() {
            assert_eq!(rule["operations"], json!(["CREATE"]));
        }
        assert!(webhook["matchConditions"][0]["expression"].as_str().unwrap().starts_with("(false) && "));
    }
}
