//! Classes and policies as the cluster has them: watched, compiled, published, and reported on.
//!
//! Each object is parsed by itself, so that a broken one takes no other down: its last good version stays in
//! force, its status says why. [`Policies::first`] gives nothing out before everything was read once: until
//! then nobody knows who is an agent.

use super::{
    FIELD_MANAGER, agent_class::AgentClass, agent_policy::AgentPolicy, conditions::LoadStatus,
    namespaces::NamespaceWatch,
};
use crate::core::policy::{ClassSpec, PolicySnapshot, PolicySpec, Problem, problems_of_class, problems_of_policy};
use futures_util::{Stream, StreamExt, stream::BoxStream};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest message of a condition.
const MESSAGE_LIMIT: usize = 4096;

/// Watches classes and policies.
pub struct Policies {
    client: Client,
    events: BoxStream<'static, (Kind, Result<watcher::Event<DynamicObject>, watcher::Error>)>,
    kept: Kept,
    /// Begun when a rule first asks for labels of namespaces.
    namespaces: Option<NamespaceWatch>,
    published: watch::Sender<Arc<PolicySnapshot>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Class,
    Policy,
}

/// What is known of every object.
#[derive(Debug, Default)]
struct Kept {
    classes: BTreeMap<String, Object<ClassSpec>>,
    policies: BTreeMap<String, Object<PolicySpec>>,
    /// Names seen in a list that is still being read.
    listing: BTreeMap<Kind, Vec<String>>,
    listed: Vec<Kind>,
}

#[derive(Debug)]
struct Object<S> {
    last_good: Option<S>,
    problem: Option<String>,
    generation: i64,
    status: LoadStatus,
}

impl Policies {
    /// Prepares the watches; nothing is read yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let classes = events::<AgentClass>(&client).map(|event| (Kind::Class, event));
        let policies = events::<AgentPolicy>(&client).map(|event| (Kind::Policy, event));
        let (empty, _) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::new());
        Self {
            client,
            events: futures_util::stream::select(classes, policies).boxed(),
            kept: Kept::default(),
            namespaces: None,
            published: watch::Sender::new(Arc::new(empty)),
        }
    }

    /// Reads everything once, however long the API server takes, and then gives out the snapshot and its
    /// successors. `None` when `shutdown` came first.
    pub async fn first(&mut self, shutdown: &CancellationToken) -> Option<watch::Receiver<Arc<PolicySnapshot>>> {
        while !self.is_complete() {
            if !self.step(shutdown).await {
                return None;
            }
        }
        Some(self.published.subscribe())
    }

    /// Follows the changes until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while self.step(&shutdown).await {}
    }

    /// Everything that the rules need was read once.
    fn is_complete(&self) -> bool {
        self.kept.is_complete() && self.namespaces.as_ref().is_none_or(|namespaces| namespaces.known().is_some())
    }

    async fn step(&mut self, shutdown: &CancellationToken) -> bool {
        let event = tokio::select! {
            () = shutdown.cancelled() => return false,
            event = self.events.next() => event,
            () = next_of(&mut self.namespaces) => {
                self.publish_namespaces();
                return true;
            }
        };
        match event {
            None => return false,
            Some((kind, Err(error))) => {
                tracing::warn!(?kind, %error, "the watch of the rules was lost")
            }
            Some((kind, Ok(event))) => {
                self.kept.take(kind, event);
                if self.kept.is_complete() {
                    self.publish();
                    self.report().await;
                }
            }
        }
        true
    }

    fn publish(&mut self) {
        let mut snapshot = self.kept.snapshot();
        if snapshot.needs_namespaces() && self.namespaces.is_none() {
            self.namespaces = Some(NamespaceWatch::new(&self.client));
        }
        if let Some(namespaces) = self.namespaces.as_ref().and_then(NamespaceWatch::known) {
            snapshot = snapshot.with_namespaces(namespaces);
        }
        self.published.send_if_modified(|current| {
            let same_rules = current.hash() == snapshot.hash() && current.broken() == snapshot.broken();
            let is_new = !same_rules || !current.knows_the_same_namespaces(&snapshot);
            if !same_rules {
                tracing::info!(hash = %snapshot.hash(), "the rules in force changed");
            }
            if is_new {
                *current = Arc::new(snapshot);
            }
            is_new
        });
    }

    /// The same rules with other namespaces: nothing is compiled anew.
    fn publish_namespaces(&self) {
        let Some(namespaces) = self.namespaces.as_ref().and_then(NamespaceWatch::known) else { return };
        self.published.send_if_modified(|current| {
            let next = PolicySnapshot::clone(current).with_namespaces(namespaces);
            let is_new = !current.knows_the_same_namespaces(&next);
            if is_new {
                *current = Arc::new(next);
            }
            is_new
        });
    }

    /// Writes the `Loaded` condition wherever it says something else.
    async fn report(&mut self) {
        let now = Timestamp::now();
        let api = Api::<AgentClass>::all(self.client.clone());
        for (name, object) in &mut self.kept.classes {
            if let Some(status) = object.outdated(now) {
                write_status(&api, name, &status).await;
                object.status = status;
            }
        }
        let api = Api::<AgentPolicy>::all(self.client.clone());
        for (name, object) in &mut self.kept.policies {
            if let Some(status) = object.outdated(now) {
                write_status(&api, name, &status).await;
                object.status = status;
            }
        }
    }
}

/// The next change of namespaces; never, where nobody watches them.
async fn next_of(namespaces: &mut Option<NamespaceWatch>) {
    match namespaces {
        Some(namespaces) => namespaces.step().await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("kept", &self.kept).finish_non_exhaustive()
    }
}

/// Raw objects: one that this version cannot parse must not fail the whole list.
fn events<K>(client: &Client) -> impl Stream<Item = Result<watcher::Event<DynamicObject>, watcher::Error>> + use<K>
where
    K: Resource<DynamicType = ()>,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    watcher(api, watcher::Config::default()).backoff(super::back_off::BackOff::default())
}

async fn write_status<K>(api: &Api<K>, name: &str, status: &LoadStatus)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = json!({ "status": status });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_status(name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 404 => {}
        Err(error) => tracing::warn!(%name, %error, "cannot report whether the rules are loaded"),
    }
}

impl Kept {
    fn is_complete(&self) -> bool {
        [Kind::Class, Kind::Policy].iter().all(|kind| self.listed.contains(kind))
    }

    fn take(&mut self, kind: Kind, event: watcher::Event<DynamicObject>) {
        match event {
            watcher::Event::Init => drop(self.listing.insert(kind, Vec::new())),
            watcher::Event::InitApply(object) => {
                if let Some(names) = self.listing.get_mut(&kind) {
                    names.push(object.name_any());
                }
                self.apply(kind, object);
            }
            watcher::Event::InitDone => {
                if let Some(names) = self.listing.remove(&kind) {
                    self.retain(kind, &names);
                }
                if !self.listed.contains(&kind) {
                    self.listed.push(kind);
                }
            }
            watcher::Event::Apply(object) => self.apply(kind, object),
            watcher::Event::Delete(object) => {
                let name = object.name_any();
                match kind {
                    Kind::Class => drop(self.classes.remove(&name)),
                    Kind::Policy => drop(self.policies.remove(&name)),
                }
            }
        }
    }

    fn retain(&mut self, kind: Kind, names: &[String]) {
        match kind {
            Kind::Class => self.classes.retain(|name, _| names.contains(name)),
            Kind::Policy => self.policies.retain(|name, _| names.contains(name)),
        }
    }

    fn apply(&mut self, kind: Kind, object: DynamicObject) {
        match kind {
            Kind::Class => update(&mut self.classes, object, problems_of_class),
            Kind::Policy => update(&mut self.policies, object, problems_of_policy),
        }
    }

    fn snapshot(&self) -> PolicySnapshot {
        let (snapshot, _) = PolicySnapshot::load(&good(&self.classes), &good(&self.policies));
        let classes = nameless(&self.classes).map(|name| format!("AgentClass/{name}"));
        let policies = nameless(&self.policies).map(|name| format!("AgentPolicy/{name}"));
        classes.chain(policies).fold(snapshot, PolicySnapshot::with_broken)
    }
}

fn good<S: Clone>(objects: &BTreeMap<String, Object<S>>) -> BTreeMap<String, S> {
    objects.iter().filter_map(|(name, object)| object.last_good.clone().map(|spec| (name.clone(), spec))).collect()
}

/// Names of objects without any good version.
fn nameless<S>(objects: &BTreeMap<String, Object<S>>) -> impl Iterator<Item = &String> {
    objects.iter().filter(|(_, object)| object.last_good.is_none()).map(|(name, _)| name)
}

/// Parses and checks a new version; a broken one leaves the last good one in force.
fn update<S: serde::de::DeserializeOwned>(
    objects: &mut BTreeMap<String, Object<S>>,
    object: DynamicObject,
    check: fn(&str, &S) -> Vec<Problem>,
) {
    let name = object.name_any();
    let spec = object.data.get("spec").cloned().unwrap_or(Value::Null);
    let parsed = serde_json::from_value::<S>(spec).map_err(|error| format!("spec: {error}")).and_then(|spec| {
        let problems = check(&name, &spec);
        if problems.is_empty() { Ok(spec) } else { Err(listed(&problems)) }
    });
    let status =
        object.data.get("status").cloned().and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let previous = objects.remove(&name).and_then(|object| object.last_good);
    let (last_good, problem) = match parsed {
        Ok(spec) => (Some(spec), None),
        Err(problem) => {
            let kept = if previous.is_some() {
                "the last good version stays in force"
            } else {
                "there is no earlier version, so everything but reads is held or denied"
            };
            (previous, Some(clip(&format!("{kept}; {problem}"))))
        }
    };
    if let Some(problem) = &problem {
        tracing::warn!(%name, %problem, "refused a broken rule object");
    }
    objects.insert(name, Object { last_good, problem, generation, status });
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing to a `String` cannot fail.
        if write!(text, "{separator}{problem}").is_err() {
            text.push_str(separator);
        }
        text
    })
}

fn clip(text: &str) -> String {
    text.chars().take(MESSAGE_LIMIT).collect()
}

impl<S> Object<S> {
    /// The status to write, when it is not what is there.
    fn outdated(&self, now: Timestamp) -> Option<LoadStatus> {
        let next = self.status.next(self.generation, self.problem.clone(), now);
        (next != self.status).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, action: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "kustody.dev/v1alpha1", "kind": "AgentPolicy", "metadata": {"name": name, "generation": 3},
            "spec": {"rules": [{"id": "a", "reason": "r", "action": action,
                "match": {"resources": [{"apiGroups": [""], "resources": ["pods"]}]}}]}
        }))
        .unwrap()
    }

    fn kept() -> Kept {
        let mut kept = Kept::default();
        for kind in [Kind::Class, Kind::Policy] {
            kept.take(kind, watcher::Event::Init);
            kept.take(kind, watcher::Event::InitDone);
        }
        kept
    }

    #[test]
    fn a_broken_version_leaves_the_last_good_one_in_force_and_says_so() {
        let mut kept = kept();
        kept.take(Kind::Policy, watcher::Event::Apply(policy("p", "Deny")));
        let good = kept.snapshot();
        kept.take(Kind::Policy, watcher::Event::Apply(policy("p", "Maybe")));
        assert_eq!(kept.snapshot().hash(), good.hash());
        assert!(kept.snapshot().broken().is_empty());
        let problem = kept.policies["p"].problem.clone().unwrap();
        assert!(
            problem.starts_with("the last good version stays in force; spec: unknown variant `Maybe`"),
            "{problem}"
        );
    }

    #[test]
    fn a_broken_first_version_is_known_as_broken_and_harms_no_other() {
        let mut kept = kept();
        kept.take(Kind::Policy, watcher::Event::Apply(policy("good", "Deny")));
        kept.take(Kind::Policy, watcher::Event::Apply(policy("bad", "Maybe")));
        assert_eq!(kept.snapshot().broken(), ["AgentPolicy/bad"]);
        assert_eq!(kept.policies["good"].problem, None);
    }

    #[test]
    fn a_new_list_forgets_what_is_gone() {
        let mut kept = kept();
        kept.take(Kind::Policy, watcher::Event::Apply(policy("old", "Deny")));
        kept.take(Kind::Policy, watcher::Event::Init);
        kept.take(Kind::Policy, watcher::Event::InitApply(policy("new", "Deny")));
        assert_eq!(kept.policies.len(), 2, "nothing is forgotten before the list is whole");
        kept.take(Kind::Policy, watcher::Event::InitDone);
        assert_eq!(kept.policies.keys().collect::<Vec<_>>(), ["new"]);
    }
}
