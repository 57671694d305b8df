//! What the API server sends: the ValidatingWebhookConfiguration, generated from the agent classes.
//!
//! Agents are selected by one CEL match condition. Everybody else's requests never leave the API server, so
//! that `failurePolicy: Fail` hits agents alone. Who keeps the configuration in the cluster up to date is
//! `edge/cluster/registration.rs`. What suspends new objects is registered apart, in [`suspending`].

pub mod suspending;

use crate::core::{
    action::NAMESPACE,
    policy::{Class, PolicySnapshot},
};
use serde_json::{Value, json};

/// Name of the ValidatingWebhookConfiguration.
pub const NAME: &str = "kustody";
/// Name of the one webhook in it; prefix of its audit annotations.
pub const WEBHOOK: &str = "gate.kustody.dev";
/// Name of the webhook that checks rules when they are written.
pub const RULES_CHECK: &str = "rules.kustody.dev";
/// Where classes and policies are posted that somebody writes, below [`PATH`].
pub const RULES: &str = "/rules";
/// Checking takes milliseconds, and nobody waits longer to write a rule.
const RULES_SECONDS: u32 = 5;
/// Where reviews are posted.
pub const PATH: &str = "/admission";
/// The longest the API server waits: the most it can be told.
pub const TIMEOUT_SECONDS: u32 = 30;
/// CEL that is true for a person who was given the verb `breakglass` on the webhook configuration by name. The second
/// question has no right answer but by a wildcard: an agent bound to `cluster-admin` has broken no glass. Service
/// accounts are never people.
pub const BREAK_GLASS: &str = "!request.userInfo.username.startsWith('system:serviceaccount:') && \
    authorizer.group('admissionregistration.k8s.io').resource('validatingwebhookconfigurations').name('kustody')\
    .check('breakglass').allowed() && \
    !authorizer.group('admissionregistration.k8s.io').resource('validatingwebhookconfigurations').name('kustody')\
    .check('breakglass-by-wildcard').allowed()";
/// CEL that is true for an agent of the AgentClass `params`, for admission policies. Total. What a broken class might
/// select of the cluster itself (Kustody refuses such a class, an admission policy cannot) is no agent here.
pub const AGENT_OF_PARAMETERS: &str = "\
    (!request.userInfo.username.startsWith('system:') || request.userInfo.username.startsWith('system:serviceaccount:')) && \
    !request.userInfo.username.startsWith('system:serviceaccount:kube-') && \
    !request.userInfo.username.startsWith('system:serviceaccount:kustody-system:') && (\
    (has(params.spec.subjects.users) && params.spec.subjects.users.exists(u, \
    u.endsWith('*') ? request.userInfo.username.startsWith(u.substring(0, size(u) - 1)) : request.userInfo.username == u)) || \
    (has(params.spec.subjects.groups) && has(request.userInfo.groups) && params.spec.subjects.groups.exists(p, \
    request.userInfo.groups.exists(g, p.endsWith('*') ? g.startsWith(p.substring(0, size(p) - 1)) : g == p))) || \
    (has(params.spec.subjects.serviceAccountNamespaces) && params.spec.subjects.serviceAccountNamespaces.exists(n, \
    request.userInfo.username.startsWith('system:serviceaccount:' + n + ':'))))";

/// By which name the API server verifies the Service.
pub const SERVICE_HOST: &str = "kustody.kustody-system.svc";
/// Name of the webhook that only looks, at identities which nobody has said anything about.
pub const OBSERVER: &str = "observe.kustody.dev";
/// Where it is, below the gate's own path.
pub const OBSERVE: &str = "/observe";
/// With Kustody dead nobody waits longer for an answer that is always yes.
const OBSERVE_SECONDS: u32 = 2;

/// Where the API server finds the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The Service `kustody` in Kustody's namespace.
    Service,
    /// An `https://…` URL, path included.
    Url(String),
}

/// Identities that are known to be no agents: names, or prefixes followed by one `*`. What belongs to the cluster
/// itself (`system:*`, service accounts of `kube-*`, `system:masters`) is known without being named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// User names.
    pub users: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
}

/// What the configuration depends on besides the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Where the API server finds the webhook.
    pub address: Address,
    /// Whom the observing webhook need not tell about; without it there is none.
    pub known: Option<Known>,
}

/// The whole configuration. `ca_bundle` is PEM in base64; without one the API server trusts nobody.
#[must_use]
pub fn configuration(snapshot: &PolicySnapshot, site: &Site, ca_bundle: Option<&str>) -> Value {
    let (agents, gated) = (agents(snapshot.classes()), gated(snapshot.classes()));
    let mut webhooks = vec![json!({
        "name": WEBHOOK,
        "admissionReviewVersions": ["v1"],
        "clientConfig": client(&site.address, "", ca_bundle),
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": TIMEOUT_SECONDS,
        "rules": everything(),
        "matchConditions": [{"name": "agents", "expression": gated}]
    })];
    if let Some(known) = &site.known {
        webhooks.push(json!({
            "name": OBSERVER,
            "admissionReviewVersions": ["v1"],
            "clientConfig": client(&site.address, OBSERVE, ca_bundle),
            "failurePolicy": "Ignore",
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            "timeoutSeconds": OBSERVE_SECONDS,
            "rules": everything(),
            "matchConditions": [
                {"name": "worth-a-look", "expression": WORTH_A_LOOK},
                {"name": "unclassified", "expression": format!("({agents}) ? ({BREAK_GLASS}) : !({})", known.expression())}
            ]
        }));
    }
    webhooks.push(json!({
        "name": RULES_CHECK,
        "admissionReviewVersions": ["v1"],
        "clientConfig": client(&site.address, RULES, ca_bundle),
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": RULES_SECONDS,
        "rules": [{
            "apiGroups": ["kustody.dev"], "apiVersions": ["*"], "resources": ["agentclasses", "agentpolicies"],
            "operations": ["CREATE", "UPDATE"], "scope": "Cluster"
        }]
    }));
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": "kustody"}},
        "webhooks": webhooks
    })
}

/// Heartbeats, events and questions about rights say nothing of who works here.
const WORTH_A_LOOK: &str = "!(request.resource.group in ['coordination.k8s.io', 'events.k8s.io', 'authorization.k8s.io', \
    'authentication.k8s.io']) && !(request.resource.group == '' && request.resource.resource == 'events')";

fn everything() -> Value {
    json!([{
        "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"],
        "operations": ["CREATE", "UPDATE", "DELETE", "CONNECT"], "scope": "*"
    }])
}

fn client(address: &Address, below: &str, ca_bundle: Option<&str>) -> Value {
    let mut client = match address {
        Address::Service => {
            json!({"service": {"name": "kustody", "namespace": NAMESPACE, "path": format!("{PATH}{below}"), "port": 443}})
        }
        Address::Url(url) => json!({ "url": format!("{url}{below}") }),
    };
    if let (Some(bundle), Some(members)) = (ca_bundle, client.as_object_mut()) {
        members.insert("caBundle".to_owned(), Value::String(bundle.to_owned()));
    }
    client
}

impl Known {
    /// CEL that is true for who is known. Total.
    fn expression(&self) -> String {
        let user = "request.userInfo.username";
        let mut terms = vec![
            format!("({user}.startsWith('system:') && !{user}.startsWith('system:serviceaccount:'))"),
            format!("{user}.startsWith('system:serviceaccount:kube-')"),
            format!("{user}.startsWith('system:serviceaccount:{NAMESPACE}:')"),
            in_group("system:masters"),
        ];
        terms.extend(self.users.iter().map(|pattern| test(user, pattern)));
        terms.extend(self.groups.iter().map(|pattern| in_group(pattern)));
        terms.join(" || ")
    }
}

fn in_group(pattern: &str) -> String {
    format!("(has(request.userInfo.groups) && request.userInfo.groups.exists(g, {}))", test("g", pattern))
}

/// CEL that is true for agents, and for no person who breaks glass. One expression: the authorizer is asked about agents
/// alone, and only about those that are no service accounts.
fn gated(classes: &[Class]) -> String {
    format!("({}) && !({BREAK_GLASS})", agents(classes))
}

/// The CEL expression that is true for agents alone. Total: it never errs on an absent member.
#[must_use]
pub fn agents(classes: &[Class]) -> String {
    let mut terms: Vec<String> = classes.iter().flat_map(terms).collect();
    terms.sort();
    terms.dedup();
    if terms.is_empty() { "false".to_owned() } else { terms.join(" || ") }
}

/// The CEL expression that is the name of an agent's class, the first of those that select it; empty for nobody's.
#[must_use]
pub fn class(classes: &[Class]) -> String {
    classes.iter().rev().fold("''".to_owned(), |others, class| {
        format!("({}) ? {} : {others}", agents(std::slice::from_ref(class)), quote(class.name().as_str()))
    })
}

fn terms(class: &Class) -> Vec<String> {
    let subjects = &class.spec().subjects;
    let user = |pattern: &String| test("request.userInfo.username", pattern);
    let group = |pattern: &String| in_group(pattern);
    let namespace = |name: &String| {
        format!("request.userInfo.username.startsWith({})", quote(&format!("system:serviceaccount:{name}:")))
    };
    subjects
        .users
        .iter()
        .map(user)
        .chain(subjects.groups.iter().map(group))
        .chain(subjects.service_account_namespaces.iter().map(namespace))
        .collect()
}

fn test(variable: &str, pattern: &str) -> String {
    match pattern.strip_suffix('*') {
        Some(prefix) => format!("{variable}.startsWith({})", quote(prefix)),
        None => format!("{variable} == {}", quote(pattern)),
    }
}

/// A CEL string literal: the escapes of JSON are all escapes of CEL.
fn quote(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::{ClassSpec, document::Subjects};
    use std::collections::BTreeMap;

    fn snapshot(subjects: Subjects) -> PolicySnapshot {
        let spec = ClassSpec { subjects, gateway: Default::default() };
        let classes = BTreeMap::from([("agents".to_owned(), spec)]);
        let (snapshot, problems) = PolicySnapshot::load(&classes, &BTreeMap::new());
        assert_eq!(problems, []);
        snapshot
    }

    #[test]
    fn without_a_class_nobody_is_an_agent() {
        let (snapshot, _) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::new());
        assert_eq!(agents(snapshot.classes()), "false");
    }

    #[test]
    fn the_observer_lets_everybody_through_and_is_asked_about_nobody_known() {
        let site = Site {
            address: Address::Url("https://127.0.0.1:1/admission".to_owned()),
            known: Some(Known { users: vec!["oidc:*".to_owned()], groups: Vec::new() }),
        };
        let snapshot = snapshot(Subjects { users: vec!["bot".to_owned()], ..Subjects::default() });
        let configuration = configuration(&snapshot, &site, None);
        let observer = &configuration["webhooks"][1];
        assert_eq!((&observer["failurePolicy"], &observer["timeoutSeconds"]), (&json!("Ignore"), &json!(2)));
        assert_eq!(observer["clientConfig"]["url"], "https://127.0.0.1:1/admission/observe");
        let condition = observer["matchConditions"][1]["expression"].as_str().unwrap();
        assert!(condition.contains(r#"startsWith("oidc:")"#), "{condition}");
        let gate = configuration["webhooks"][0]["matchConditions"][0]["expression"].as_str().unwrap();
        assert!(gate.starts_with(r#"(request.userInfo.username == "bot") && !("#), "{gate}");
    }

    #[test]
    fn names_are_quoted_so_that_none_can_end_the_literal() {
        let snapshot = snapshot(Subjects {
            users: vec!["bot\" || true || \"*".to_owned()],
            groups: vec!["robots".to_owned()],
            service_account_namespaces: vec!["agents".to_owned()],
        });
        let expression = agents(snapshot.classes());
        assert!(expression.contains(r#"startsWith("bot\" || true || \"")"#), "{expression}");
        assert!(expression.contains(r#"startsWith("system:serviceaccount:agents:")"#));
        assert!(expression.contains(r#"exists(g, g == "robots")"#));
    }
}
