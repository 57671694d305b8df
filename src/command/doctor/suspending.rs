//! Checks of what has objects created suspended, where a rule asks for it: the registration is there and current, and
//! the native policy that keeps agents from starting them is in place. Where not, objects are held as usual: yellow.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use kube::api::Api;

use super::finding::Finding;
use super::gate::{Rules, guard};
use crate::command::generate;
use crate::core::admission::registration::suspending::{NAME, WEBHOOK};

const CHECK: &str = "suspending";
const FIX: &str = "kubectl apply -f manifests/opt-in/admit-suspended.yaml, with Kustody running";

pub(super) async fn check(client: &Client, rules: &Rules) -> Vec<Finding> {
    if !rules.snapshot.as_ref().is_ok_and(|snapshot| snapshot.suspends()) {
        return Vec::new();
    }
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let found = match api.get_opt(NAME).await {
        Ok(found) => found,
        Err(error) => return vec![Finding::blind(CHECK, "the MutatingWebhookConfiguration", &error)],
    };
    let hooks = found.into_iter().flat_map(|found| found.webhooks.unwrap_or_default());
    if !hooks.into_iter().any(|hook| hook.name == WEBHOOK) {
        let found =
            format!("a rule has objects created suspended, but {NAME} is not registered: they are held as usual");
        return vec![Finding::yellow(CHECK, found).fix(FIX)];
    }
    for wanted in generate::suspension_guards() {
        match guard(client, &wanted).await {
            Ok(None) => {}
            Ok(Some(found)) => return vec![Finding::yellow(CHECK, found).fix(FIX)],
            Err(error) => return vec![Finding::blind(CHECK, "the admission policies", &error)],
        }
    }
    vec![Finding::green(CHECK, "new objects are created suspended where a rule says so")]
}
