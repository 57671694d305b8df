//! The status both rule kinds share: has Kustody loaded this version, and why not.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `status` of an AgentClass or AgentPolicy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadStatus {
    /// One condition, `Loaded`.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A condition as everywhere in Kubernetes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Loaded`.
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

impl LoadStatus {
    /// The status that says `problem`, or that all is well; keeps the transition time while nothing changes.
    pub(super) fn next(&self, generation: i64, problem: Option<String>, now: Timestamp) -> Self {
        let (status, reason) = if problem.is_some() { ("False", "Invalid") } else { ("True", "Loaded") };
        let before = self.conditions.iter().find(|condition| condition.kind == "Loaded");
        let since = before.filter(|condition| condition.status == status).map(|c| c.last_transition_time.clone());
        Self {
            conditions: vec![Condition {
                kind: "Loaded".to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: problem.unwrap_or_else(|| "in force".to_owned()),
                observed_generation: generation,
                last_transition_time: since.unwrap_or(Time(now)),
            }],
        }
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
