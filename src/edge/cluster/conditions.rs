//! The status both rule kinds share: has Kustody loaded this version, and why not.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `status` of an AgentClass or AgentPolicy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadStatus {
    /// `Loaded`; of a class also `Gated` and `UnclassifiedIdentities`.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A condition as everywhere in Kubernetes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Loaded`, `Gated`, `UnclassifiedIdentities`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// `Loaded`, `Invalid`.
    pub reason: String,
    /// Every problem, and what stays in force meanwhile.
    pub message: String,
    /// Generation this speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Since when the status is what it is.
    pub last_transition_time: Time,
}

/// What is to be said in a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// `type`.
    pub(super) kind: &'static str,
    /// `status`.
    pub(super) is: bool,
    /// `reason`.
    pub(super) reason: &'static str,
    /// `message`.
    pub(super) message: String,
}

impl LoadStatus {
    /// The status that says `problem`, or that all is well; keeps the transition time while nothing changes.
    pub(super) fn next(&self, generation: i64, problem: Option<String>, now: Timestamp) -> Self {
        let (is, reason) = if problem.is_some() { (false, "Invalid") } else { (true, "Loaded") };
        let message = problem.unwrap_or_else(|| "in force".to_owned());
        self.with(&Said { kind: "Loaded", is, reason, message }, generation, now)
    }

    /// The status that says this, and of everything else what it said before.
    pub(super) fn with(&self, said: &Said, generation: i64, now: Timestamp) -> Self {
        let status = if said.is { "True" } else { "False" };
        let before = self.conditions.iter().find(|condition| condition.kind == said.kind);
        let since = before.filter(|condition| condition.status == status).map(|c| c.last_transition_time.clone());
        let mut conditions: Vec<Condition> =
            self.conditions.iter().filter(|condition| condition.kind != said.kind).cloned().collect();
        conditions.push(Condition {
            kind: said.kind.to_owned(),
            status: status.to_owned(),
            reason: said.reason.to_owned(),
            message: said.message.clone(),
            observed_generation: generation,
            last_transition_time: since.unwrap_or(Time(now)),
        });
        // In one order, whoever writes: an equal status is not written again.
        conditions.sort_by(|one, other| one.kind.cmp(&other.kind));
        Self { conditions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = LoadStatus::default().next(1, None, at(10));
        assert_eq!(first.next(1, None, at(20)), first);
        let broken = first.next(2, Some("bad".into()), at(30));
        assert_eq!(
            (broken.conditions[0].status.as_str(), &broken.conditions[0].last_transition_time.0),
            ("False", &at(30))
        );
    }
}
