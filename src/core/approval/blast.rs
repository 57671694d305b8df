//! What would follow from a held action: the objects that hang on the one it touches.
//!
//! Pure: [`questions`] says which lists to read and what to look for in them, [`Question::answer`] looks, and
//! [`known`] tells what the object itself says. Who reads the lists is `edge/cluster/approvals/inquiry.rs`. What
//! could not be read is told as unknown, with the reason; nothing here is part of a decision.

mod selector;

use crate::core::action::{Action, Operation};
use schemars::JsonSchema;
use selector::Selector;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most names shown of one finding.
const NAMES_LIMIT: usize = 10;
/// What is counted when a namespace goes.
const IN_A_NAMESPACE: [(&str, &str); 11] = [
    ("pods", "api/v1"),
    ("services", "api/v1"),
    ("persistentvolumeclaims", "api/v1"),
    ("deployments", "apis/apps/v1"),
    ("statefulsets", "apis/apps/v1"),
    ("daemonsets", "apis/apps/v1"),
    ("jobs", "apis/batch/v1"),
    ("cronjobs", "apis/batch/v1"),
    ("ingresses", "apis/networking.k8s.io/v1"),
    ("poddisruptionbudgets", "apis/policy/v1"),
    ("horizontalpodautoscalers", "apis/autoscaling/v2"),
];

/// What was found out about a held action after it was opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// What hangs on the object.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub blast_radius: Vec<Finding>,
    /// What a server-side dry run, as the agent, said.
    pub dry_run: Trial,
}

/// One thing found out, or not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was looked for.
    #[schemars(length(max = 128))]
    pub subject: String,
    /// How many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int64"))]
    pub count: Option<u64>,
    /// True when there may be more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 256)))]
    pub names: Vec<String>,
    /// Why it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub unknown: Option<String>,
}

/// What trying said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// How it went.
    pub outcome: TrialOutcome,
    /// What the API server said, or why it was not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1100))]
    pub message: Option<String>,
    /// Warnings of the API server and of other webhooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 512)))]
    pub warnings: Vec<String>,
}

/// How a trial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrialOutcome {
    /// The API server would do it.
    Passed,
    /// The API server would refuse it.
    Refused,
    /// It could not be tried.
    Unknown,
}

/// One list to read, and what to look for in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What is looked for.
    pub subject: String,
    /// Path and query of the list.
    pub list: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    All,
    /// Items whose labels match.
    Selected(Selector),
    /// Services whose selector takes pods with these labels.
    ServiceOf(Value),
    /// Items whose label selector takes pods with these labels.
    SelectorOf(Value),
    /// Autoscalers of this object.
    Scales {
        kind: &'static str,
        name: String,
    },
    /// Pods that use the claim, config map, secret or account of this name.
    Uses {
        what: Used,
        name: String,
    },
    /// Claims made from templates of this stateful set.
    Templated {
        claims: Vec<String>,
        owner: String,
    },
    /// Ingresses that lead to this service.
    LeadsTo(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Used {
    Claim,
    ConfigMap,
    Secret,
    Account,
}

/// Which lists tell what hangs on the object of `action`.
#[must_use]
pub fn questions(action: &Action, object: &Value) -> Vec<Question> {
    if !matches!(action.operation, Operation::Update | Operation::Delete) {
        return Vec::new();
    }
    let resource = &action.resource;
    if resource.group.is_empty() && resource.resource == "namespaces" {
        return namespace(action);
    }
    if resource.group.is_empty() && resource.resource == "nodes" {
        let node = action.name.as_deref().unwrap_or_default();
        let list = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
        return vec![Question { subject: "pods on it".into(), list, test: Test::All }];
    }
    let (Some(namespace), Some(name)) = (action.namespace.as_deref(), action.name.as_deref()) else {
        return Vec::new();
    };
    let ask = |subject: &str, (plural, api): (&str, &str), test| Question {
        subject: subject.to_owned(),
        list: format!("/{api}/namespaces/{namespace}/{plural}"),
        test,
    };
    let uses = |what| {
        let test = Test::Uses { what, name: name.to_owned() };
        vec![ask("pods that use it", ("pods", "api/v1"), test)]
    };
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "configmaps") => uses(Used::ConfigMap),
        ("", "secrets") => uses(Used::Secret),
        ("", "persistentvolumeclaims") => uses(Used::Claim),
        ("", "serviceaccounts") => uses(Used::Account),
        ("", "services") => {
            let mut all = vec![ask(
                "ingresses that lead to it",
                ("ingresses", "apis/networking.k8s.io/v1"),
                Test::LeadsTo(name.to_owned()),
            )];
            if let Some(selector) = Selector::of_map(object.pointer("/spec/selector")) {
                all.push(ask("pods behind it", ("pods", "api/v1"), Test::Selected(selector)));
            }
            all
        }
        ("policy", "poddisruptionbudgets") | ("networking.k8s.io", "networkpolicies") => {
            let at = if resource.group == "policy" { "/spec/selector" } else { "/spec/podSelector" };
            let selector = Selector::of(object.pointer(at).unwrap_or(&Value::Null));
            vec![ask("pods it is about", ("pods", "api/v1"), Test::Selected(selector))]
        }
        (group, plural) => {
            let mut all = workload(kind_of(group, plural), name, object);
            for question in &mut all {
                question.list = question.list.replace("{namespace}", namespace);
            }
            all
        }
    }
}

fn namespace(action: &Action) -> Vec<Question> {
    if action.operation != Operation::Delete {
        return Vec::new();
    }
    let name = action.name.as_deref().unwrap_or_default();
    IN_A_NAMESPACE
        .iter()
        .map(|(plural, api)| Question {
            subject: format!("{plural} in it"),
            list: format!("/{api}/namespaces/{name}/{plural}"),
            test: Test::All,
        })
        .collect()
}

/// What hangs on something that runs pods.
fn workload(kind: Option<&'static str>, name: &str, object: &Value) -> Vec<Question> {
    let Some(kind) = kind else { return Vec::new() };
    let ask = |subject: &str, list: &str, test| Question { subject: subject.to_owned(), list: list.to_owned(), test };
    let pods = "/api/v1/namespaces/{namespace}/pods";
    let mut all = Vec::new();
    let is_pod = kind == "Pod";
    let selector = match object.pointer("/spec/selector") {
        Some(selector) => Some(Selector::of(selector)),
        None => object.pointer("/status/selector").and_then(Value::as_str).and_then(Selector::of_text),
    };
    if let Some(selector) = selector.filter(|_| !is_pod) {
        all.push(ask("pods of it", pods, Test::Selected(selector)));
    }
    let at = if is_pod { "/metadata/labels" } else { "/spec/template/metadata/labels" };
    if let Some(labels) = object.pointer(at).filter(|labels| labels.as_object().is_some_and(|map| !map.is_empty())) {
        let services = "/api/v1/namespaces/{namespace}/services";
        let budgets = "/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets";
        all.push(ask("services that lead to its pods", services, Test::ServiceOf(labels.clone())));
        all.push(ask("disruption budgets about its pods", budgets, Test::SelectorOf(labels.clone())));
    }
    if !is_pod && kind != "Job" && kind != "CronJob" {
        let scalers = "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers";
        all.push(ask("autoscalers of it", scalers, Test::Scales { kind, name: name.to_owned() }));
    }
    let templates: Vec<String> = object
        .pointer("/spec/volumeClaimTemplates")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|template| Some(template.pointer("/metadata/name")?.as_str()?.to_owned()))
        .collect();
    if !templates.is_empty() {
        let claims = "/api/v1/namespaces/{namespace}/persistentvolumeclaims";
        let test = Test::Templated { claims: templates, owner: name.to_owned() };
        all.push(ask("volume claims of it", claims, test));
    }
    all
}

fn kind_of(group: &str, plural: &str) -> Option<&'static str> {
    match (group, plural) {
        ("", "pods") => Some("Pod"),
        ("", "replicationcontrollers") => Some("ReplicationController"),
        ("apps", "deployments") => Some("Deployment"),
        ("apps", "replicasets") => Some("ReplicaSet"),
        ("apps", "statefulsets") => Some("StatefulSet"),
        ("apps", "daemonsets") => Some("DaemonSet"),
        ("batch", "jobs") => Some("Job"),
        ("batch", "cronjobs") => Some("CronJob"),
        _ => None,
    }
}

/// What the object itself says.
#[must_use]
pub fn known(action: &Action, object: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    let named = |subject: &str, names: Vec<String>| Finding {
        subject: subject.to_owned(),
        count: u64::try_from(names.len()).ok(),
        names: names.into_iter().take(NAMES_LIMIT).map(|name| name.chars().take(256).collect()).collect(),
        ..Finding::default()
    };
    if let Some(replicas) = object.pointer("/spec/replicas").and_then(Value::as_u64) {
        found.push(Finding { subject: "replicas it asks for".into(), count: Some(replicas), ..Finding::default() });
    }
    if let Some(parallelism) = object.pointer("/spec/parallelism").and_then(Value::as_u64) {
        found.push(Finding { subject: "pods at a time".into(), count: Some(parallelism), ..Finding::default() });
    }
    let owners = texts(object.pointer("/metadata/ownerReferences"), |owner| {
        Some(format!("{}/{}", owner.get("kind")?.as_str()?, owner.get("name")?.as_str()?))
    });
    if !owners.is_empty() {
        found.push(named("owners of it", owners));
    }
    let volumes = object.pointer("/spec/template/spec/volumes").or_else(|| object.pointer("/spec/volumes"));
    let claims =
        texts(volumes, |volume| Some(volume.pointer("/persistentVolumeClaim/claimName")?.as_str()?.to_owned()));
    if !claims.is_empty() {
        found.push(named("volume claims it uses", claims));
    }
    let finalizers = texts(object.pointer("/metadata/finalizers"), |name| Some(name.as_str()?.to_owned()));
    if !finalizers.is_empty() {
        found.push(named("finalizers", finalizers));
    }
    if action.operation == Operation::Delete && action.resource.resource == "namespaces" {
        found.push(Finding {
            subject: "secrets, config maps, roles and custom resources in it".into(),
            unknown: Some("kustody may not read them".into()),
            ..Finding::default()
        });
    }
    found
}

fn texts(list: Option<&Value>, text: impl Fn(&Value) -> Option<String>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(text).collect()
}

impl Question {
    /// What the items of the list say; `more` items were not read.
    #[must_use]
    pub fn answer(&self, items: &[Value], more: Option<u64>) -> Finding {
        let found: Vec<&Value> = items.iter().filter(|item| self.test.holds(item)).collect();
        let name = |item: &&Value| Some(item.pointer("/metadata/name")?.as_str()?.chars().take(256).collect());
        let rest = if self.test == Test::All { more.unwrap_or_default() } else { 0 };
        Finding {
            subject: self.subject.clone(),
            count: Some(u64::try_from(found.len()).unwrap_or(u64::MAX).saturating_add(rest)),
            at_least: more.is_some_and(|more| more == 0 || self.test != Test::All),
            names: found.iter().take(NAMES_LIMIT).filter_map(name).collect(),
            unknown: None,
        }
    }

    /// That it could not be found out.
    #[must_use]
    pub fn unknown(&self, why: &str) -> Finding {
        let why = why.chars().take(500).collect();
        Finding { subject: self.subject.clone(), unknown: Some(why), ..Finding::default() }
    }
}

impl Test {
    fn holds(&self, item: &Value) -> bool {
        let at = |pointer: &str| item.pointer(pointer).unwrap_or(&Value::Null);
        match self {
            Self::All => true,
            Self::Selected(selector) => selector.takes(at("/metadata/labels")),
            Self::ServiceOf(labels) => {
                Selector::of_map(item.pointer("/spec/selector")).is_some_and(|selector| selector.takes(labels))
            }
            Self::SelectorOf(labels) => Selector::of(at("/spec/selector")).takes(labels),
            Self::Scales { kind, name } => {
                at("/spec/scaleTargetRef/kind") == *kind && at("/spec/scaleTargetRef/name") == name.as_str()
            }
            Self::Uses { what, name } => uses(item, *what, name),
            Self::Templated { claims, owner } => at("/metadata/name")
                .as_str()
                .is_some_and(|claim| claims.iter().any(|template| claim.starts_with(&format!("{template}-{owner}-")))),
            Self::LeadsTo(service) => leads_to(item, service),
        }
    }
}

fn uses(pod: &Value, what: Used, name: &str) -> bool {
    let is = |value: Option<&Value>| value.and_then(Value::as_str) == Some(name);
    let spec = pod.pointer("/spec").unwrap_or(&Value::Null);
    let list = |value: &Value, member: &str| value.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
    let (volume, source, key, env) = match what {
        Used::Account => return is(spec.get("serviceAccountName")),
        Used::Claim => ("/persistentVolumeClaim/claimName", "", "", ""),
        Used::ConfigMap => {
            ("/configMap/name", "/configMap/name", "/valueFrom/configMapKeyRef/name", "/configMapRef/name")
        }
        Used::Secret => ("/secret/secretName", "/secret/name", "/valueFrom/secretKeyRef/name", "/secretRef/name"),
    };
    let in_volumes = list(spec, "volumes").iter().any(|one| {
        let projected = one.pointer("/projected").map(|projected| list(projected, "sources")).unwrap_or_default();
        is(one.pointer(volume)) || (!source.is_empty() && projected.iter().any(|from| is(from.pointer(source))))
    });
    let containers = ["containers", "initContainers"].into_iter().flat_map(|member| list(spec, member));
    let in_environment = !env.is_empty()
        && containers.into_iter().any(|container| {
            list(&container, "env").iter().any(|one| is(one.pointer(key)))
                || list(&container, "envFrom").iter().any(|one| is(one.pointer(env)))
        });
    let pulls = what == Used::Secret && list(spec, "imagePullSecrets").iter().any(|one| is(one.get("name")));
    in_volumes || in_environment || pulls
}

fn leads_to(ingress: &Value, service: &str) -> bool {
    let is = |backend: Option<&Value>| {
        backend.and_then(|backend| backend.pointer("/service/name")).and_then(Value::as_str) == Some(service)
    };
    let rules = ingress.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten();
    let mut paths = rules.filter_map(|rule| rule.pointer("/http/paths").and_then(Value::as_array)).flatten();
    is(ingress.pointer("/spec/defaultBackend")) || paths.any(|path| is(path.get("backend")))
}

#[cfg(test)]
mod tests;
