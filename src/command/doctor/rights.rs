//! Checks of what agents may do by RBAC that goes around the gate: become somebody else, give themselves rights, read
//! Kustody's keys, reach the kubelet, take the gate down. Asked of the API server itself, agent by agent, so that every
//! authorizer counts. Prefixes of a class cannot be enumerated, which is said.

use std::collections::BTreeMap;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};

use super::finding::Finding;
use super::gate::Rules;
use crate::core::action::NAMESPACE;
use crate::core::policy::PolicySnapshot;

/// Most agents asked about; each costs a question a path.
const MOST: usize = 50;

/// A right that goes around the gate: verb, group, resource with its subresource, namespace, name.
struct Path {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    namespace: &'static str,
    name: &'static str,
    why: &'static str,
}

const fn path(verb: &'static str, group: &'static str, resource: &'static str, why: &'static str) -> Path {
    Path { verb, group, resource, namespace: "", name: "", why }
}

const fn named(path: Path, name: &'static str) -> Path {
    Path { name, ..path }
}

const fn within(path: Path, namespace: &'static str) -> Path {
    Path { namespace, ..path }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const REGISTRATION: &str = "admissionregistration.k8s.io";
const BECOMES: &str = "acts as whoever it likes, who is no agent";
const DISARMS: &str = "takes the gate down, and no admission is asked about that";

/// The role `edit` of Kubernetes brings this right along, and no admission is asked about it.
const BORROWS: &str = "acts as a service account that is no agent";
/// Most namespaces asked about.
const NAMESPACES: usize = 40;

/// The ways around.
const PATHS: &[Path] = &[
    path("impersonate", "", "users", BECOMES),
    path("impersonate", "", "groups", BECOMES),
    path("impersonate", "", "serviceaccounts", BECOMES),
    path("escalate", RBAC, "clusterroles", "gives itself any right"),
    path("bind", RBAC, "clusterroles", "gives itself any right"),
    path("get", "", "nodes/proxy", "reaches exec and logs at the kubelet, past all admission"),
    path("create", "", "nodes/proxy", "reaches exec and logs at the kubelet, past all admission"),
    within(path("get", "", "secrets", "reads the keys that sign tickets and recordings"), NAMESPACE),
    within(path("list", "", "secrets", "reads the keys that sign tickets and recordings"), NAMESPACE),
    within(path("create", "", "serviceaccounts/token", "becomes a controller of the cluster"), "kube-system"),
    within(path("list", "", "secrets", "reads tokens of the cluster's controllers"), "kube-system"),
    path("approve", "certificates.k8s.io", "signers", "signs itself the certificate of anybody"),
    named(path("update", REGISTRATION, "validatingwebhookconfigurations", DISARMS), "kustody"),
    named(path("delete", REGISTRATION, "validatingwebhookconfigurations", DISARMS), "kustody"),
    path("delete", REGISTRATION, "validatingadmissionpolicies", DISARMS),
    path("update", REGISTRATION, "validatingadmissionpolicybindings", DISARMS),
    path("create", REGISTRATION, "mutatingwebhookconfigurations", "changes what others ask for, and sees it"),
    within(path("approve", "kustody.dev", "approvalrequests", "decides about other agents' requests"), NAMESPACE),
];

/// Somebody to ask about.
struct Agent {
    user: String,
    groups: Vec<String>,
}

pub(super) async fn check(client: &Client, rules: &Rules) -> Vec<Finding> {
    let Ok(snapshot) = &rules.snapshot else { return Vec::new() };
    let mut findings = Vec::new();
    let agents = agents(client, snapshot, &mut findings).await;
    let mut ways: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for agent in agents.iter().take(MOST) {
        for path in PATHS {
            match may(client, agent, path, path.namespace).await {
                Ok(true) => ways.entry(path.why).or_default().push(say(agent, path)),
                Ok(false) => {}
                Err(error) => {
                    findings.push(Finding::blind("rights", "what agents may do", &error));
                    return findings;
                }
            }
        }
    }
    let asked: Vec<&Agent> = agents.iter().take(MOST).collect();
    match borrowed(client, snapshot, &asked).await {
        Ok(found) if found.is_empty() => {}
        Ok(found) => ways.entry(BORROWS).or_default().extend(found),
        Err(error) => findings.push(Finding::blind("rights", "whom agents may impersonate", &error)),
    }
    if agents.len() > MOST {
        let found = format!("only {MOST} of {} agents were asked about", agents.len());
        findings.push(Finding::yellow("rights", found).fix("name agents by fewer, narrower classes"));
    }
    for (why, who) in &ways {
        let fix = "take the right away: kubectl get rolebindings,clusterrolebindings -A -o wide | grep the agent";
        findings.push(Finding::red("rights", format!("{why}: {}", who.join("; "))).fix(fix));
    }
    if ways.is_empty() {
        let found = format!(
            "none of {} agents may do anything of {} ways around the gate",
            agents.len().min(MOST),
            PATHS.len()
        );
        findings.push(Finding::green("rights", found));
    }
    findings
}

/// Who may impersonate the service accounts of a namespace whose accounts are no agents.
async fn borrowed(client: &Client, snapshot: &PolicySnapshot, agents: &[&Agent]) -> Result<Vec<String>, kube::Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let of_agents = |name: &String| {
        let mut classes = snapshot.classes().iter();
        classes.any(|class| class.spec().subjects.service_account_namespaces.contains(name))
    };
    let names = api.list(&ListParams::default()).await?.items.into_iter().map(|one| one.name_any());
    let names: Vec<String> = names.filter(|name| !of_agents(name)).take(NAMESPACES).collect();
    let mut found = Vec::new();
    for agent in agents {
        let everywhere = path("impersonate", "", "serviceaccounts", BORROWS);
        // Told already.
        if may(client, agent, &everywhere, "").await? {
            continue;
        }
        let mut places = Vec::new();
        for name in &names {
            if may(client, agent, &everywhere, name).await? {
                places.push(name.as_str());
            }
        }
        if !places.is_empty() {
            found.push(format!("{} in {}", say(agent, &everywhere), places.join(", ")));
        }
    }
    Ok(found)
}

/// Every agent that can be named: service accounts that exist, users and groups as written.
async fn agents(client: &Client, snapshot: &PolicySnapshot, findings: &mut Vec<Finding>) -> Vec<Agent> {
    let mut agents = Vec::new();
    let mut prefixes = Vec::new();
    for class in snapshot.classes() {
        let subjects = &class.spec().subjects;
        for namespace in &subjects.service_account_namespaces {
            let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
            match api.list(&ListParams::default()).await {
                Ok(list) => agents.extend(list.items.iter().map(|one| account(namespace, &one.name_any()))),
                Err(error) => findings.push(Finding::blind("rights", &format!("the accounts of {namespace}"), &error)),
            }
        }
        let (many, whole): (Vec<_>, Vec<_>) = subjects.users.iter().partition(|user| user.ends_with('*'));
        let (more, groups): (Vec<_>, Vec<_>) = subjects.groups.iter().partition(|group| group.ends_with('*'));
        prefixes.extend(many.into_iter().chain(more).cloned());
        agents.extend(whole.into_iter().map(|user| Agent { user: user.clone(), groups: authenticated() }));
        agents.extend(
            groups
                .into_iter()
                .map(|group| Agent { user: String::new(), groups: [authenticated(), vec![group.clone()]].concat() }),
        );
    }
    if !prefixes.is_empty() {
        let found = format!("nobody can list who matches {}", prefixes.join(", "));
        findings
            .push(Finding::yellow("rights", found).fix("ask about single ones: kubectl auth can-i --list --as NAME"));
    }
    agents
}

fn authenticated() -> Vec<String> {
    vec!["system:authenticated".to_owned()]
}

fn account(namespace: &str, name: &str) -> Agent {
    let own = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    Agent {
        user: format!("system:serviceaccount:{namespace}:{name}"),
        groups: [authenticated(), own.to_vec()].concat(),
    }
}

async fn may(client: &Client, agent: &Agent, path: &Path, namespace: &str) -> Result<bool, kube::Error> {
    let (resource, subresource) = path.resource.split_once('/').unwrap_or((path.resource, ""));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: some(&agent.user),
            groups: Some(agent.groups.clone()),
            resource_attributes: Some(ResourceAttributes {
                verb: some(path.verb),
                group: some(path.group),
                resource: some(resource),
                subresource: some(subresource),
                namespace: some(namespace),
                name: some(path.name),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn say(agent: &Agent, path: &Path) -> String {
    let who = if agent.user.is_empty() { agent.groups.last().cloned().unwrap_or_default() } else { agent.user.clone() };
    let name = if path.name.is_empty() { String::new() } else { format!("/{}", path.name) };
    let place = if path.namespace.is_empty() { String::new() } else { format!(" in {}", path.namespace) };
    format!("{who} may {} {}{name}{place}", path.verb, path.resource)
}
