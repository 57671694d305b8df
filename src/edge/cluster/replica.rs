//! What each running replica says of itself: a Lease a replica, renewed every few seconds, with a report beside it for
//! `kustody doctor`; and what all replicas know together, as conditions of every AgentClass: `Gated` (the API server
//! asks about its agents) and `UnclassifiedIdentities`. Each replica learns from here how many there are, which is its
//! share of a budget, and nothing else. Main type: [`Reporter`].

use super::agent_class::AgentClass;
use super::conditions::Said;
use super::registration::GateState;
use crate::core::{action::NAMESPACE, admission::strangers::Strangers};
use crate::edge::budgets::Budgets;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Label of these Leases, with its value.
pub const LABEL: (&str, &str) = ("kustody.dev/replica", "true");
/// Annotation with the report.
const REPORT: &str = "kustody.dev/report";
/// Renewed this often.
const EVERY: Duration = Duration::from_secs(10);
/// Older than this, a replica is no more.
pub const GONE: Duration = Duration::from_secs(45);
/// A Lease of a replica that has been gone for so long is removed.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// So many strangers are named in a condition.
const NAMED: usize = 8;

/// What a replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// The hash of the rules in force.
    pub policy: String,
    /// Rule objects that have no good version.
    pub broken: Vec<String>,
    /// Why agents are not gated, as far as this replica knows.
    pub not_gated: Option<String>,
    /// Parts that are not ready, and why.
    pub not_ready: BTreeMap<String, String>,
    /// What the store enforces, in words.
    pub store: String,
    /// Whether the store keeps what was written from being changed.
    pub worm: bool,
    /// When the serving certificate ends.
    pub certificate_ends: Option<Timestamp>,
    /// Who was seen that nobody knows.
    pub strangers: Strangers,
}

/// A replica as its Lease shows it.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// When it was last heard of.
    pub renewed: Option<Timestamp>,
    /// What it said; none where another version of this program cannot be understood.
    pub report: Option<Report>,
}

/// Keeps one replica's Lease and the common conditions.
pub struct Reporter<F> {
    client: Client,
    name: String,
    describe: F,
    budgets: Option<Budgets>,
}

/// Every replica that has a Lease.
///
/// # Errors
/// Where the API server refuses or cannot be reached.
pub async fn replicas(client: &Client) -> kube::Result<Vec<Replica>> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let list = leases.list(&ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1))).await?;
    Ok(list.items.iter().map(read).collect())
}

fn read(lease: &Lease) -> Replica {
    Replica {
        name: lease.name_any(),
        renewed: lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0),
        report: lease.annotations().get(REPORT).and_then(|text| serde_json::from_str(text).ok()),
    }
}

/// How many replicas are heard of, the one of this name included, whether or not it has a Lease yet.
///
/// # Errors
/// Where the API server refuses or cannot be reached.
pub async fn count(client: &Client, own: &str) -> kube::Result<u32> {
    Ok(counted(&replicas(client).await?, &lease_name(own), Timestamp::now()))
}

fn counted(all: &[Replica], own: &str, now: Timestamp) -> u32 {
    let others = all.iter().filter(|one| one.name != own && one.is_heard(GONE, now)).count();
    u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1)
}

/// A Lease's name takes few characters.
fn lease_name(replica: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let name: String = replica.chars().map(plain).take(200).collect();
    format!("kustody-{}", name.trim_matches('-'))
}

impl Replica {
    /// Whether it was heard of within `span` before `now`.
    #[must_use]
    pub fn is_heard(&self, span: Duration, now: Timestamp) -> bool {
        self.renewed.and_then(|at| at.checked_add(span).ok()).is_some_and(|until| until >= now)
    }
}

impl<F: Fn() -> Report + Send + Sync> Reporter<F> {
    /// Reports under `name` what `describe` says.
    pub fn new(client: Client, name: &str, describe: F) -> Self {
        Self { client, name: lease_name(name), describe, budgets: None }
    }

    /// Tells the budgets how many replicas share them.
    #[must_use]
    pub fn counting(self, budgets: Budgets) -> Self {
        Self { budgets: Some(budgets), ..self }
    }

    /// Reports until `shutdown`; at once when the gate's state changes.
    pub async fn run(self, mut gate: watch::Receiver<GateState>, shutdown: CancellationToken) {
        let mut told = String::new();
        loop {
            match self.report().await {
                Ok(()) => told.clear(),
                Err(error) if error.to_string() != told => {
                    tracing::warn!(%error, "cannot report on this replica");
                    told = error.to_string();
                }
                Err(_) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = gate.changed() => (),
                () = tokio::time::sleep(EVERY) => (),
            }
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        if let Err(error) = leases.delete(&self.name, &DeleteParams::default()).await {
            tracing::debug!(%error, "the lease of this replica stays until another removes it");
        }
    }

    async fn report(&self) -> kube::Result<()> {
        let (own, now) = ((self.describe)(), Timestamp::now());
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let text = serde_json::to_string(&own).map_err(kube::Error::SerdeError)?;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": self.name, "namespace": NAMESPACE, "annotations": {REPORT: text},
                "labels": {LABEL.0: LABEL.1, "app.kubernetes.io/name": "kustody"}
            },
            "spec": {
                "holderIdentity": self.name, "leaseDurationSeconds": GONE.as_secs(),
                "renewTime": format!("{now:.6}")
            }
        });
        leases.patch(&self.name, &PatchParams::apply("kustody").force(), &Patch::Apply(lease)).await?;
        let mut strangers = own.strangers.clone();
        let all = replicas(&self.client).await?;
        if let Some(budgets) = &self.budgets {
            budgets.replicas(counted(&all, &self.name, now));
        }
        for other in all {
            if !other.is_heard(FORGOTTEN, now) {
                leases.delete(&other.name, &DeleteParams::default()).await?;
            } else if let Some(report) = other.report.as_ref().filter(|_| other.is_heard(GONE, now)) {
                strangers.merge(&report.strangers);
            }
        }
        self.conditions(&own, &strangers, now).await
    }

    /// Says on every class whether its agents are gated, and who else was seen.
    async fn conditions(&self, own: &Report, strangers: &Strangers, now: Timestamp) -> kube::Result<()> {
        let classes: Api<AgentClass> = Api::all(self.client.clone());
        let gated = match &own.not_gated {
            None => Said {
                kind: "Gated",
                is: true,
                reason: "Registered",
                message: "the API server asks about its agents".to_owned(),
            },
            Some(why) => Said { kind: "Gated", is: false, reason: "NotRegistered", message: why.clone() },
        };
        let unclassified = unclassified(strangers);
        for class in classes.list(&ListParams::default()).await?.items {
            let (name, generation) = (class.name_any(), class.metadata.generation.unwrap_or_default());
            let before = class.status.clone().unwrap_or_default();
            let next = before.with(&gated, generation, now).with(&unclassified, generation, now);
            if next == before {
                continue;
            }
            let version = class.metadata.resource_version.clone();
            let patch = json!({"metadata": {"resourceVersion": version}, "status": next});
            match classes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => {}
                // Somebody else was faster: the next report says it.
                Err(kube::Error::Api(answer)) if [404, 409].contains(&answer.code) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn unclassified(strangers: &Strangers) -> Said {
    let kind = "UnclassifiedIdentities";
    if strangers.is_empty() {
        let message = "everybody who writes is of a class or known".to_owned();
        return Said { kind, is: false, reason: "NoneSeen", message };
    }
    let named: Vec<&str> = strangers.iter().map(|(user, _)| user).take(NAMED).collect();
    let rest = strangers.iter().count().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let message = format!(
        "neither of a class nor known: {}{more}. Name them in a class, or in webhook.observe of the configuration",
        named.join(", ")
    );
    Said { kind, is: true, reason: "Seen", message }
}

impl<F> std::fmt::Debug for Reporter<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_gone_when_it_was_not_heard_of_for_a_while() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let replica = Replica { name: "a".into(), renewed: Some(at(100)), report: None };
        assert!(replica.is_heard(GONE, at(120)));
        assert!(!replica.is_heard(GONE, at(200)));
        assert!(!Replica { renewed: None, ..replica }.is_heard(GONE, at(100)));
    }

    #[test]
    fn a_replica_counts_itself_and_whoever_was_heard_of_lately() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let lease = |name: &str, second| Replica { name: lease_name(name), renewed: Some(at(second)), report: None };
        let all = [lease("own", 0), lease("Other.1", 90), lease("dead", 10)];
        assert_eq!(counted(&all, &lease_name("own"), at(100)), 2);
        assert_eq!(counted(&[], &lease_name("own"), at(100)), 1);
    }
}
