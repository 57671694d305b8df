//! Where approval requests go before they are removed from the cluster: each becomes one entry of the log, with who
//! asked, what for, who voted how and what became of it. Main function: [`into_log`].

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::core::action::{Action, ClassName, EXTRA_ON_BEHALF_OF, EXTRA_RUN, Identity};
use crate::core::approval::State;
use crate::core::audit::describe::Stamp;
use crate::core::audit::{Decided, Effect, Entry, Kind, Outcome, Text};
use crate::edge::cluster::approval_request::ApprovalRequest;
use crate::edge::cluster::approvals::Archive;
use crate::edge::store::wal::Wal;

/// An archive that is the log: what was appended is durable, and shipped like every other entry.
pub(super) fn into_log(log: Wal) -> Archive {
    Arc::new(move |request| {
        let log = log.clone();
        Box::pin(async move {
            let entry = entry(&request, &log.stamp(Duration::ZERO));
            log.append(&entry).await.map(drop).map_err(|error| error.to_string())
        })
    })
}

fn entry(request: &ApprovalRequest, stamp: &Stamp<'_>) -> Entry {
    let approval = request.approval();
    let state = approval.state(Timestamp::now());
    let spec = &request.spec;
    let (effect, outcome) = match state {
        State::Consumed => (Effect::Admitted, Outcome::Allow),
        State::Pending | State::Approved | State::Denied | State::Expired | State::Superseded => {
            (Effect::Refused, Outcome::Deny)
        }
    };
    let mut decided = Decided {
        approval: Some(Text::short(approval.id.as_str())),
        approvers: Vec::new(),
        grant: None,
        id: None,
        outcome,
        policy: Text::short(spec.policy.as_str()),
        policy_hash: None,
        reason: Text::short(spec.reason.as_str()),
        rule: Text::short(spec.rule.as_str()),
    };
    decided.voted(&approval);
    let mut note = format!("the approval request was {} when it was put away", state.as_str().to_lowercase());
    if let Some(release) = request.status.as_ref().and_then(|status| status.release.as_ref()) {
        note.push_str(&format!("; its suspended object: {:?}, {}", release.outcome, release.message));
    }
    let entry = Entry::blank(Kind::Approval, effect, stamp).about(&action(request)).decided(Some(decided));
    Entry { note: Some(Text::short(note)), ..entry }
}

/// The action as far as the request tells it.
fn action(request: &ApprovalRequest) -> Action {
    let (requester, asked) = (&request.spec.requester, &request.spec.action);
    let extra = [(EXTRA_RUN, &requester.run), (EXTRA_ON_BEHALF_OF, &requester.on_behalf_of)];
    let extra = extra.into_iter().filter_map(|(key, value)| Some((key.to_owned(), vec![value.clone()?]))).collect();
    Action {
        agent: Identity {
            user: requester.user.clone(),
            groups: requester.groups.clone(),
            extra,
            ..Identity::default()
        },
        class: ClassName::from(requester.class.as_str()),
        operation: asked.operation,
        verb: asked.operation.to_string().to_lowercase(),
        resource: asked.resource.clone(),
        namespace: asked.namespace.clone(),
        name: asked.name.clone(),
        labels: Default::default(),
        previous_labels: None,
        dry_run: false,
        stream: asked.stream.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_put_away_names_who_asked_and_who_voted() {
        let request: ApprovalRequest = serde_json::from_value(json!({
            "apiVersion": "kustody.dev/v1alpha1", "kind": "ApprovalRequest", "metadata": {"name": "apr-1"},
            "spec": {
                "requester": {"user": "bot", "class": "agents", "run": "r-7"},
                "action": {
                    "operation": "DELETE", "path": "pods", "target": "n/p", "namespace": "n", "name": "p",
                    "resource": {"group": "", "version": "v1", "resource": "pods"}
                },
                "fingerprint": "0".repeat(64), "policy": "p", "rule": "r", "reason": "why", "quorum": 1,
                "expiresAt": "2100-01-01T00:00:00Z"
            },
            "status": {
                "decisions": [{"by": "anna", "verdict": "Approve", "reason": "fine"}],
                "consumedAt": "2026-01-01T00:00:00Z"
            }
        }))
        .unwrap();
        let id = uuid::Uuid::now_v7().into();
        let stamp = Stamp { id, time: Timestamp::UNIX_EPOCH, latency_us: 0, cluster: "c", replica: "r" };
        let line = String::from_utf8(entry(&request, &stamp).to_line().unwrap()).unwrap();
        for part in ["\"approval\":\"apr-1\"", "anna", "fine", "r-7", "\"admitted\"", "consumed when it was put away"] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
    }
}
