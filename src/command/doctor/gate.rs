//! Checks of the gate itself: the rules are loaded, the API server asks about every agent, and the native policies that
//! hold while Kustody is dead are in place as this version writes them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::Value;

use super::finding::Finding;
use crate::command::generate;
use crate::core::admission::difference::{difference, difference_of_webhooks};
use crate::core::admission::registration::{Address, NAME, Site, configuration};
use crate::core::policy::PolicySnapshot;
use crate::edge::cluster::agent_class::AgentClass;
use crate::edge::cluster::agent_policy::AgentPolicy;
use crate::edge::net::tls::mint;

/// A certificate that ends sooner is worth a look, and one that ends sooner still is an outage about to happen.
const SOON: (SignedDuration, SignedDuration) = (SignedDuration::from_hours(24 * 14), SignedDuration::from_hours(24));
const REAPPLY: &str = "kubectl apply -f webhook-config/, with Kustody running: it writes the rest";

/// Classes and policies as the cluster has them.
pub(super) struct Rules {
    /// What they compile to; none where they cannot be read.
    pub(super) snapshot: Result<PolicySnapshot, kube::Error>,
    /// Objects that Kustody does not say it has loaded.
    not_loaded: Vec<String>,
}

impl Rules {
    pub(super) async fn read(client: &Client) -> Self {
        let mut not_loaded = Vec::new();
        let snapshot = load(client, &mut not_loaded).await;
        Self { snapshot, not_loaded }
    }
}

async fn load(client: &Client, not_loaded: &mut Vec<String>) -> Result<PolicySnapshot, kube::Error> {
    let classes = specs::<AgentClass, _>(client, not_loaded).await?;
    let policies = specs::<AgentPolicy, _>(client, not_loaded).await?;
    Ok(PolicySnapshot::load(&classes, &policies).0)
}

async fn specs<K, S>(client: &Client, not_loaded: &mut Vec<String>) -> Result<BTreeMap<String, S>, kube::Error>
where
    K: Resource<DynamicType = ()>,
    S: serde::de::DeserializeOwned,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut specs = BTreeMap::new();
    for object in api.list(&ListParams::default()).await?.items {
        if !is_loaded(&object) {
            not_loaded.push(format!("{}/{}", K::kind(&()), object.name_any()));
        }
        if let Ok(spec) = serde_json::from_value(object.data.get("spec").cloned().unwrap_or_default()) {
            specs.insert(object.name_any(), spec);
        }
    }
    Ok(specs)
}

fn is_loaded(object: &DynamicObject) -> bool {
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == "Loaded"
            && condition["status"] == "True"
            && condition["observedGeneration"].as_i64() == object.metadata.generation
    })
}

pub(super) fn rules(rules: &Rules) -> Vec<Finding> {
    let snapshot = match &rules.snapshot {
        Ok(snapshot) => snapshot,
        Err(error) => return vec![Finding::blind("rules", "classes and policies", error)],
    };
    let mut findings = Vec::new();
    if snapshot.classes().is_empty() {
        let fix = "kubectl apply -f manifests/default-class.yaml, or a class of your own";
        findings.push(Finding::red("rules", "there is no AgentClass: nobody is an agent").fix(fix));
    }
    if !rules.not_loaded.is_empty() {
        let found = format!("not loaded as they are now: {}", rules.not_loaded.join(", "));
        let fix = "kubectl describe says why; until then the last good version is in force";
        findings.push(Finding::red("rules", found).fix(fix));
    }
    if findings.is_empty() {
        let hash = snapshot.hash().as_str().get(..12).unwrap_or_default();
        findings.push(Finding::green("rules", format!("all classes and policies are loaded (snapshot {hash})")));
    }
    findings
}

pub(super) async fn registration(client: &Client, rules: &Rules) -> Vec<Finding> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let found = match api.get_opt(NAME).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            let found = format!("the ValidatingWebhookConfiguration {NAME} is not there: agents are not gated");
            return vec![Finding::red("registration", found).fix(REAPPLY)];
        }
        Err(error) => return vec![Finding::blind("registration", "the webhook configuration", &error)],
    };
    let mut findings = bundle(&found, Timestamp::now());
    let Ok(snapshot) = &rules.snapshot else { return findings };
    match serde_json::to_value(&found).ok().and_then(|actual| weakness(&actual, snapshot)) {
        None => findings.push(Finding::green("registration", "the API server asks about every agent of every class")),
        Some(found) => {
            findings.push(Finding::red("registration", format!("not as it should be: {found}")).fix(REAPPLY))
        }
    }
    findings
}

/// What of the registration would let an agent through, seen without knowing Kustody's own configuration.
fn weakness(actual: &Value, snapshot: &PolicySnapshot) -> Option<String> {
    let client = actual.pointer("/webhooks/0/clientConfig")?;
    let address = match client.get("url").and_then(Value::as_str) {
        Some(url) => Address::Url(url.to_owned()),
        None => Address::Service,
    };
    let wanted = configuration(snapshot, &Site { address, known: None }, None);
    let gate = |value: &Value| serde_json::json!({"webhooks": [value.pointer("/webhooks/0")]});
    difference_of_webhooks(&gate(actual), &gate(&wanted))
}

fn bundle(found: &ValidatingWebhookConfiguration, now: Timestamp) -> Vec<Finding> {
    let webhook = found.webhooks.iter().flatten().next();
    let bundle = webhook.and_then(|one| one.client_config.ca_bundle.as_ref()).map(|bundle| bundle.0.clone());
    let Some(text) = bundle.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|text| !text.is_empty()) else {
        let fix = "start Kustody, or let cert-manager inject it";
        return vec![Finding::red("certificate", "the registration names no authority: every call fails").fix(fix)];
    };
    match mint::read(&text) {
        Ok(authority) => vec![ending("authority", authority.ends, now)],
        Err(error) => vec![Finding::red("certificate", format!("the authority cannot be read: {error}")).fix(REAPPLY)],
    }
}

/// How long a certificate will last.
pub(super) fn ending(what: &str, ends: Timestamp, now: Timestamp) -> Finding {
    let left = ends.duration_since(now);
    let found = format!("the {what} ends at {ends}");
    if left < SOON.1 {
        let fix = "see why it was not renewed: kubectl logs -n kustody-system deployment/kustody";
        Finding::red("certificate", found).fix(fix)
    } else if left < SOON.0 {
        Finding::yellow("certificate", found).fix("it should be renewed by itself by then: look again tomorrow")
    } else {
        Finding::green("certificate", found)
    }
}

pub(super) async fn guards(client: &Client) -> Vec<Finding> {
    let wanted = match generate::guards() {
        Ok(wanted) => wanted,
        Err(error) => return vec![Finding::red("guards", format!("{error:#}"))],
    };
    let mut findings = Vec::new();
    for object in &wanted {
        match guard(client, object).await {
            Ok(None) => {}
            Ok(Some(found)) => {
                let fix = "kubectl apply -f manifests/approval-policy.yaml -f manifests/self-protection.yaml \
                           -f manifests/grant-policy.yaml";
                findings.push(Finding::red("guards", found).fix(fix));
            }
            Err(error) => return vec![Finding::blind("guards", "the admission policies", &error)],
        }
    }
    if findings.is_empty() {
        let found = format!("{} native policies and bindings hold while Kustody is dead", wanted.len());
        findings.push(Finding::green("guards", found));
    }
    findings
}

pub(super) async fn guard(client: &Client, wanted: &Value) -> Result<Option<String>, kube::Error> {
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let plural =
        if kind.ends_with("Binding") { "validatingadmissionpolicybindings" } else { "validatingadmissionpolicies" };
    let resource = ApiResource {
        group: "admissionregistration.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "admissionregistration.k8s.io/v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let Some(found) = api.get_opt(name).await? else { return Ok(Some(format!("{kind} {name} is missing"))) };
    let actual = found.data.get("spec").cloned().unwrap_or_default();
    Ok(difference(&actual, &wanted["spec"]).map(|found| format!("{kind} {name} was changed: {found}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_is_told_before_it_does() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let levels = [1, 24 * 7, 24 * 300]
            .map(|hours| ending("leaf", now.checked_add(SignedDuration::from_hours(hours)).unwrap(), now).level.word());
        assert_eq!(levels, ["red", "yellow", "green"]);
    }

    #[test]
    fn a_registration_that_knows_fewer_agents_is_a_weakness() {
        let (snapshot, _) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::new());
        let site = Site { address: Address::Service, known: None };
        let mut actual = configuration(&snapshot, &site, Some("Q0E="));
        assert_eq!(weakness(&actual, &snapshot), None);
        actual["webhooks"][0]["namespaceSelector"] = serde_json::json!({"matchLabels": {"a": "b"}});
        assert!(weakness(&actual, &snapshot).unwrap().contains("namespaceSelector"));
    }
}
