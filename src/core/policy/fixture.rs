//! Policy tests as data: actions, and what the rules must say of them.
//!
//! A [`Case`] is turned into the review the API server would send, and from there on goes the way of every review, so
//! that a test and the cluster cannot differ. Reads, which no review has, become actions as the gateway makes them.
//! Reading files and printing tables is the command's business.

use super::{Circumstances, Content, Counted, Decision, Facts, PolicySnapshot, PolicySpec, Usage, decide, explain};
use crate::core::{
    action::{Action, ClassName, Identity, Operation, Resource},
    admission::{review, subject},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::collections::BTreeMap;

/// A file of tests.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Suite {
    /// Policies by name, written where they are tested.
    #[serde(default)]
    pub policies: BTreeMap<String, PolicySpec>,
    /// Files with policies, relative to this one.
    #[serde(default)]
    pub files: Vec<String>,
    /// Labels of namespaces; one that is not named has none, one that is null is not known.
    #[serde(default)]
    pub namespaces: BTreeMap<String, Option<BTreeMap<String, String>>>,
    /// Problems that must be found in the policies, each a part of the text.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The tests.
    #[serde(default)]
    pub tests: Vec<Case>,
}

/// One action and what the rules must say of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// What it shows; without a name the action is it.
    #[serde(default)]
    pub name: Option<String>,
    /// `OPERATION resource[.group][/subresource] [namespace/]name`; `*` for no name.
    pub action: String,
    /// API version; `v1` when not given.
    #[serde(default)]
    pub version: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub agent: Agent,
    /// RBAC verb of a read, such as `list`; or of a write as the gateway sees it, without content.
    #[serde(default)]
    pub verb: Option<String>,
    /// Nothing would be persisted.
    #[serde(default)]
    pub dry_run: bool,
    /// Labels of the object, instead of writing it whole.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Labels before an update; as `labels` when not given.
    #[serde(default)]
    pub previous_labels: Option<BTreeMap<String, String>>,
    /// The object as it would be.
    #[serde(default)]
    pub object: Option<Value>,
    /// The object as it is.
    #[serde(default)]
    pub old_object: Option<Value>,
    /// Options of the operation, for example `{gracePeriodSeconds: 0}`.
    #[serde(default)]
    pub options: Option<Value>,
    /// argv of an exec.
    #[serde(default)]
    pub command: Vec<String>,
    /// How much of every budget is used up already.
    #[serde(default)]
    pub used: BTreeMap<Counted, u32>,
    /// `allow`, `deny` or `hold`, and the id of the rule.
    pub gives: String,
    /// Rules that must not match, whatever decides.
    #[serde(default)]
    pub misses: Vec<String>,
    /// How many warnings there must be.
    #[serde(default)]
    pub warnings: Option<usize>,
}

/// Who asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Agent {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Agent class.
    pub class: String,
    /// Extras, such as `kustody.dev/run`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            user: "system:serviceaccount:agents:bot".to_owned(),
            groups: vec!["system:serviceaccounts:agents".to_owned()],
            class: "agents".to_owned(),
            extra: BTreeMap::new(),
        }
    }
}

impl Agent {
    /// As the API server says it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { user: self.user.clone(), uid: String::new(), groups: self.groups.clone(), extra: self.extra.clone() }
    }
}

/// Why a case is no action.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shorthand cannot be read.
    #[error("{0:?} is not of the form OPERATION resource[.group][/subresource] [namespace/]name")]
    Action(String),
    /// No review can be made of it.
    #[error("no review can be made of it")]
    Review(#[from] review::Error),
    /// No action can be made of the review.
    #[error(transparent)]
    Subject(#[from] subject::Error),
    /// An object is no JSON.
    #[error("an object cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// A case made ready: the action and its content.
#[derive(Debug)]
pub struct Scene {
    /// Who asks for what.
    pub action: Action,
    object: Option<Box<RawValue>>,
    old_object: Option<Box<RawValue>>,
    options: Option<Box<RawValue>>,
    namespace_labels: Option<BTreeMap<String, String>>,
    is_known: bool,
}

/// What came of one case.
#[derive(Debug)]
pub struct Outcome {
    /// What the rules said.
    pub decision: Decision,
    /// Why the case fails; `None`: it passes.
    pub failure: Option<String>,
}

impl Suite {
    /// Runs one of the cases against the rules.
    ///
    /// # Errors
    /// When the case is no action.
    pub fn run(&self, case: &Case, snapshot: &PolicySnapshot) -> Result<Outcome, Error> {
        let scene = case.scene(&self.namespaces)?;
        let usage = case.usage(snapshot);
        let circumstances = Circumstances { usage: &usage, ..Circumstances::at(Timestamp::UNIX_EPOCH) };
        let decision = decide(snapshot, &scene.facts(), &circumstances);
        let got = format!("{} {}", decision.outcome.word(), decision.rule);
        let matched = explain(snapshot, &scene.facts());
        let hit = matched.iter().find(|say| say.counts && case.misses.contains(&say.rule));
        let failure = if got != case.gives {
            Some(format!("gives {got}: {}", decision.reason))
        } else if let Some(say) = hit {
            Some(format!("rule {} {}", say.rule, say.says))
        } else {
            let count = decision.warnings.len();
            case.warnings
                .filter(|wanted| *wanted != count)
                .map(|wanted| format!("gives {count} warnings instead of {wanted}: {:?}", decision.warnings))
        };
        Ok(Outcome { decision, failure })
    }
}

/// The shorthand of a case, taken apart.
struct Target {
    operation: Operation,
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
}

impl Case {
    fn target(&self) -> Result<Target, Error> {
        let wrong = || Error::Action(self.action.clone());
        let mut words = self.action.split_whitespace();
        let (Some(operation), Some(path), Some(target), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let operation: Operation = serde_json::from_value(operation.into()).map_err(|_| wrong())?;
        let (path, subresource) = match path.split_once('/') {
            Some((path, subresource)) => (path, Some(subresource.to_owned())),
            None => (path, None),
        };
        let (resource, group) = path.split_once('.').unwrap_or((path, ""));
        let some = |text: &str| (text != "*").then(|| text.to_owned());
        let (namespace, name) = match target.split_once('/') {
            Some((namespace, name)) => (some(namespace), some(name)),
            None => (None, some(target)),
        };
        let namespace = if resource == "namespaces" && group.is_empty() { name.clone() } else { namespace };
        let resource = Resource {
            group: group.to_owned(),
            version: self.version.clone().unwrap_or_else(|| "v1".to_owned()),
            resource: resource.to_owned(),
            subresource,
        };
        Ok(Target { operation, resource, namespace, name })
    }

    /// The action and its content.
    ///
    /// # Errors
    /// When the case is no action.
    pub fn scene(&self, namespaces: &BTreeMap<String, Option<BTreeMap<String, String>>>) -> Result<Scene, Error> {
        let target = self.target()?;
        let [object, old_object, options] = self.content(&target);
        let raw = |value: &Value| (!value.is_null()).then(|| serde_json::value::to_raw_value(value)).transpose();
        let is_known = self.verb.is_none() || target.operation == Operation::Read;
        let action = match target.operation {
            _ if !is_known => self.bare(target),
            Operation::Read => self.bare(target),
            Operation::Create | Operation::Update | Operation::Delete | Operation::Connect => {
                let body = self.review(&target, [&object, &old_object, &options]).to_string();
                let request = review::decode(body.as_bytes())?;
                subject::action(&request, ClassName::from(self.agent.class.as_str()))?
            }
        };
        let namespace_labels = match action.namespace.as_ref().map(|namespace| namespaces.get(namespace)) {
            Some(Some(labels)) => labels.clone(),
            Some(None) | None => Some(BTreeMap::new()),
        };
        Ok(Scene {
            action,
            object: raw(&object)?,
            old_object: raw(&old_object)?,
            options: raw(&options)?,
            namespace_labels,
            is_known,
        })
    }

    fn usage(&self, snapshot: &PolicySnapshot) -> Usage {
        let used = |counted| self.used.get(&counted).copied().unwrap_or(0);
        snapshot.limits().iter().map(|limit| (*limit, used(limit.counted))).collect()
    }

    /// object, oldObject and options: what is written, or the least that carries name and labels.
    fn content(&self, target: &Target) -> [Value; 3] {
        let least = |labels: &BTreeMap<String, String>| json!({"metadata": {"name": target.name, "namespace": target.namespace, "labels": labels}});
        let object = self.object.clone();
        let old = self.old_object.clone();
        let options = self.options.clone().unwrap_or(Value::Null);
        let previous = self.previous_labels.as_ref().unwrap_or(&self.labels);
        match target.operation {
            Operation::Create => [object.unwrap_or_else(|| least(&self.labels)), Value::Null, options],
            Operation::Update => {
                [object.unwrap_or_else(|| least(&self.labels)), old.unwrap_or_else(|| least(previous)), options]
            }
            Operation::Delete => [Value::Null, old.unwrap_or_else(|| least(&self.labels)), options],
            Operation::Connect => {
                let exec =
                    json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "command": self.command});
                let is_exec = target.resource.subresource.as_deref() == Some("exec");
                [object.unwrap_or(if is_exec { exec } else { Value::Null }), Value::Null, options]
            }
            Operation::Read => [Value::Null, Value::Null, Value::Null],
        }
    }

    fn review(&self, target: &Target, [object, old_object, options]: [&Value; 3]) -> Value {
        let resource = &target.resource;
        json!({"apiVersion": review::API_VERSION, "kind": review::KIND, "request": {
            "uid": "test",
            "resource": {"group": resource.group, "version": resource.version, "resource": resource.resource},
            "subResource": resource.subresource.as_deref().unwrap_or_default(),
            "name": target.name.as_deref().unwrap_or_default(),
            "namespace": target.namespace.as_deref().unwrap_or_default(),
            "operation": target.operation,
            "userInfo": {"username": self.agent.user, "groups": self.agent.groups, "extra": self.agent.extra},
            "object": object, "oldObject": old_object, "options": options, "dryRun": self.dry_run,
        }})
    }

    fn bare(&self, target: Target) -> Action {
        let verb = match (&self.verb, &target.name) {
            (Some(verb), _) => verb.clone(),
            (None, Some(_)) => "get".to_owned(),
            (None, None) => "list".to_owned(),
        };
        Action {
            agent: self.agent.identity(),
            class: ClassName::from(self.agent.class.as_str()),
            operation: target.operation,
            verb,
            resource: target.resource,
            namespace: target.namespace,
            name: target.name,
            labels: BTreeMap::new(),
            previous_labels: None,
            dry_run: false,
            stream: None,
        }
    }
}

impl Scene {
    /// Labels of the action's namespace.
    pub fn set_namespace_labels(&mut self, labels: BTreeMap<String, String>) {
        self.namespace_labels = Some(labels);
    }

    /// What a decision is made from.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        let content = Content {
            is_known: self.is_known,
            object: self.object.as_deref(),
            old_object: self.old_object.as_deref(),
            options: self.options.as_deref(),
            namespace_labels: self.namespace_labels.as_ref(),
        };
        Facts { action: &self.action, content }
    }
}
