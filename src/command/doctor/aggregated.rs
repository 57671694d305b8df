//! Checks of APIs that other servers serve: the API server asks no webhook about them, so whoever reaches it without the
//! gateway is gated there only where those servers ask by themselves, which nobody can tell from outside.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Client;
use kube::api::{Api, ListParams};

use super::finding::Finding;

const CHECK: &str = "aggregated";
/// What changes something.
const CHANGES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

pub(super) async fn check(client: &Client) -> Vec<Finding> {
    let services: Api<APIService> = Api::all(client.clone());
    let all = match services.list(&ListParams::default()).await {
        Ok(all) => all.items,
        Err(error) => return vec![Finding::blind(CHECK, "the APIServices", &error)],
    };
    let mut findings = Vec::new();
    for api in all.iter().filter_map(behind) {
        match client.list_api_group_resources(&api).await {
            Ok(served) => findings.extend(judge(&api, &served.resources)),
            Err(error) => findings.push(Finding::blind(CHECK, &format!("what {api} serves"), &error)),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::green(CHECK, "no other server serves anything that can be changed"));
    }
    findings
}

/// `group/version` of an API that another server serves.
fn behind(service: &APIService) -> Option<String> {
    let spec = service.spec.as_ref()?;
    spec.service.as_ref()?;
    Some(format!("{}/{}", spec.group.as_deref()?, spec.version.as_deref()?))
}

fn judge(api: &str, served: &[APIResource]) -> Option<Finding> {
    let changed = served.iter().filter(|one| one.verbs.iter().any(|verb| CHANGES.contains(&verb.as_str())));
    let changed: Vec<&str> = changed.map(|one| one.name.as_str()).collect();
    if changed.is_empty() {
        return None;
    }
    let found = format!(
        "another server serves {} of {api}: agents that reach the API server directly are gated there only if it asks",
        changed.join(", ")
    );
    let fix = "give agents tokens for the gateway alone, or no rights on these; where the server runs admission \
               webhooks, name the group in gateway.gatedApis";
    Some(Finding::yellow(CHECK, found).fix(fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, verbs: &[&str]) -> APIResource {
        let verbs = verbs.iter().map(|&verb| verb.to_owned()).collect();
        APIResource { name: name.to_owned(), verbs, ..APIResource::default() }
    }

    #[test]
    fn what_can_only_be_read_is_no_finding() {
        assert_eq!(judge("metrics.k8s.io/v1beta1", &[resource("pods", &["get", "list"])]), None);
        let found = judge("x/v1", &[resource("a", &["get", "delete"]), resource("b", &["list"])]).unwrap();
        assert!(found.found.contains("serves a of x/v1"), "{found:?}");
    }
}
