//! One approval request whole, for reading: who asks, what for, why it is held, what changes, what would follow.
//! Whatever comes from the cluster is made plain before it reaches a terminal.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use super::super::output::{self, plain};
use crate::core::approval::blast::{Finding, Findings, TrialOutcome};
use crate::core::approval::{Approval, State};
use crate::edge::cluster::approval_request::ApprovalRequest;

/// The page.
pub(crate) fn page(request: &ApprovalRequest, now: Timestamp) -> String {
    let approval = request.approval();
    let mut lines = asked(request, &approval, now);
    lines.extend(terms(request, &approval));
    let mut text: String =
        lines.iter().map(|(key, value)| format!("{:<14}{}\n", format!("{key}:"), plain(value))).collect();
    text.push_str(&changes(request));
    text.push_str(&follows(request));
    text.push_str(&object(request));
    if approval.state(now) == State::Pending {
        text.push_str(&how(&approval));
    }
    text
}

fn asked(request: &ApprovalRequest, approval: &Approval, now: Timestamp) -> Vec<(&'static str, String)> {
    let spec = &request.spec;
    let mut lines = vec![
        ("Request", approval.id.clone()),
        ("State", state(approval, now)),
        ("Agent", format!("{} (class {})", spec.requester.user, spec.requester.class)),
    ];
    let mut optional = |key, value: Option<String>| lines.extend(value.map(|value| (key, value)));
    optional("Run", spec.requester.run.clone());
    optional("On behalf of", spec.requester.on_behalf_of.clone());
    optional("Group", Some(spec.group.clone()).filter(|group| !group.is_empty()));
    lines.push(("Action", format!("{} {} {}", spec.action.operation, spec.action.path, spec.action.target)));
    if let Some(stream) = &spec.action.stream {
        lines.push(("Command", output::command_line(&stream.command)));
    }
    lines.push((
        "Asked today",
        match spec.asked_today {
            0 => "not before".to_owned(),
            1 => "once before".to_owned(),
            times => format!("{times} times before"),
        },
    ));
    if let Some(suspended) = &spec.suspended {
        let then = if suspended.by_author { "stays suspended, as its author wrote it" } else { "starts" };
        lines.push(("Created", format!("suspended; approved, it {then}; denied or expired, it stays as it is")));
    }
    if let Some(release) = request.status.as_ref().and_then(|status| status.release.as_ref()) {
        lines.push(("Became", format!("{:?} at {}: {}", release.outcome, release.at, release.message)));
    }
    if let Some(older) = &spec.supersedes {
        lines.push(("Again because", format!("{} {} was asked for", older.because.as_text(), older.id)));
    }
    lines
}

fn terms(request: &ApprovalRequest, approval: &Approval) -> Vec<(&'static str, String)> {
    let spec = &request.spec;
    let lists: Vec<String> = spec.approvers.iter().map(|groups| groups.join(" or ")).collect();
    let who = if lists.is_empty() { "whoever may approve".to_owned() } else { lists.join(", and also of ") };
    let mut lines = vec![
        ("Held by", format!("rule {} of policy {}: {}", spec.rule, spec.policy, spec.reason)),
        ("Quorum", format!("{} of {}", approval.approvers().len(), approval.quorum)),
        ("Approvers", if lists.is_empty() { who } else { format!("members of {who}") }),
        ("Expires", approval.expires_at.to_string()),
    ];
    for vote in &approval.votes {
        let why = vote.reason.as_deref().unwrap_or("no reason given");
        lines.push(("Decision", format!("{:?} by {}: {why}", vote.verdict, vote.by)));
    }
    lines
}

fn state(approval: &Approval, now: Timestamp) -> String {
    let state = approval.state(now);
    let left = Duration::try_from(approval.expires_at.duration_since(now)).unwrap_or_default();
    match state {
        State::Pending | State::Approved => format!("{} for another {}", state.as_str(), output::duration(left)),
        State::Denied | State::Consumed | State::Expired | State::Superseded => state.as_str().to_owned(),
    }
}

fn changes(request: &ApprovalRequest) -> String {
    let exhibit = &request.spec.exhibit;
    if exhibit.changes.is_empty() {
        return String::new();
    }
    let mut text = "Changes:\n".to_owned();
    for change in &exhibit.changes {
        text.push_str(&format!("  {}\n", plain(&change.path)));
        for (sign, value) in [('-', &change.old), ('+', &change.new)] {
            text.extend(value.iter().map(|value| format!("    {sign} {}\n", plain(value))));
        }
    }
    if exhibit.more_changes > 0 {
        text.push_str(&format!("  … {} more\n", exhibit.more_changes));
    }
    text
}

fn follows(request: &ApprovalRequest) -> String {
    let Some(findings) = request.status.as_ref().and_then(|status| status.findings.as_ref()) else {
        return "Would follow: not looked into (yet)\n".to_owned();
    };
    let mut text = "Would follow:\n".to_owned();
    if findings.blast_radius.is_empty() {
        text.push_str("  nothing known hangs on it\n");
    }
    text.extend(findings.blast_radius.iter().map(|finding| format!("  {}\n", plain(&line(finding)))));
    text.push_str(&tried(findings));
    text
}

fn line(finding: &Finding) -> String {
    let mut line = format!("{}: ", finding.subject);
    match (&finding.unknown, finding.count) {
        (Some(why), _) => line.push_str(&format!("unknown: {why}")),
        (None, Some(0)) if !finding.at_least => line.push_str("none"),
        (None, count) => {
            let least = if finding.at_least { "at least " } else { "" };
            line.push_str(&format!("{least}{}", count.unwrap_or_default()));
        }
    }
    if !finding.names.is_empty() {
        let more = finding.count.unwrap_or_default() > u64::try_from(finding.names.len()).unwrap_or(u64::MAX);
        // Writing to a String cannot fail.
        write!(line, " ({}{})", finding.names.join(", "), if more { ", …" } else { "" }).ok();
    }
    line
}

fn tried(findings: &Findings) -> String {
    let trial = &findings.dry_run;
    let word = match trial.outcome {
        TrialOutcome::Passed => "the API server would do it",
        TrialOutcome::Refused => "the API server would refuse it: ",
        TrialOutcome::Unknown => "unknown: ",
    };
    let mut text = format!("Dry run:      {word}{}\n", plain(trial.message.as_deref().unwrap_or_default()));
    text.extend(trial.warnings.iter().map(|warning| format!("  Warning: {}\n", plain(warning))));
    text
}

/// The object as YAML where it is whole, else as it was kept.
fn object(request: &ApprovalRequest) -> String {
    let exhibit = &request.spec.exhibit;
    let value: Option<serde_json::Value> =
        serde_json::from_str(&exhibit.object).ok().filter(|value| *value != serde_json::Value::Null);
    let text = match value.map(|value| serde_saphyr::to_string(&value)) {
        Some(Ok(yaml)) => yaml,
        Some(Err(_)) => exhibit.object.clone(),
        None if exhibit.truncated => format!("{}\n(too large to show whole)", exhibit.object),
        None => return String::new(),
    };
    let indented: String = text.lines().map(|line| format!("  {}\n", plain(line))).collect();
    format!("Object:\n{indented}")
}

fn how(approval: &Approval) -> String {
    let id = &approval.id;
    format!("Decide with:  kustody approve {id} --reason …   or   kustody deny {id} --reason …\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(change: impl FnOnce(&mut serde_json::Value)) -> ApprovalRequest {
        let mut value = json!({
            "apiVersion": "kustody.dev/v1alpha1", "kind": "ApprovalRequest",
            "metadata": {"name": "apr-1", "namespace": "kustody-system"},
            "spec": {
                "requester": {"user": "bot", "class": "agents", "run": "r-7", "onBehalfOf": "anna"},
                "action": {
                    "operation": "UPDATE", "path": "deployments.apps", "target": "shop/web",
                    "resource": {"group": "apps", "version": "v1", "resource": "deployments"}
                },
                "exhibit": {"object": "", "changes": [{"path": "/spec/replicas", "old": "3", "new": "0"}], "moreChanges": 7},
                "fingerprint": "0".repeat(64), "policy": "p", "rule": "r", "reason": "why", "quorum": 2, "askedToday": 4,
                "group": "grp-1", "approvers": [["sre", "leads"], ["security"]], "expiresAt": "2100-01-01T00:00:00Z"
            },
            "status": {"findings": {
                "blastRadius": [
                    {"subject": "pods of it", "count": 12, "names": ["a", "b"]},
                    {"subject": "services that lead to its pods", "count": 0},
                    {"subject": "secrets", "unknown": "kustody may not read it"}
                ],
                "dryRun": {"outcome": "Refused", "message": "422: \u{1b}[31mno"}
            }}
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_page_tells_who_what_why_and_what_would_follow() {
        let text = page(&request(|_| {}), Timestamp::UNIX_EPOCH);
        for line in [
            "Agent:        bot (class agents)",
            "Run:          r-7",
            "On behalf of: anna",
            "Asked today:  4 times before",
            "Approvers:    members of sre or leads, and also of security",
            "Quorum:       0 of 2",
            "  /spec/replicas\n    - 3\n    + 0\n  … 7 more",
            "  pods of it: 12 (a, b, …)",
            "  services that lead to its pods: none",
            "  secrets: unknown: kustody may not read it",
            r"Dry run:      the API server would refuse it: 422: \u{1b}[31mno",
            "Decide with:  kustody approve apr-1",
        ] {
            assert!(text.contains(line), "{line}\n---\n{text}");
        }
    }

    #[test]
    fn a_suspended_object_is_told_and_what_became_of_it() {
        let text = page(
            &request(|value| {
                value["spec"]["suspended"] = json!({"uid": "u", "mark": "apr-1", "digest": "0".repeat(64)});
                value["status"]["release"] =
                    json!({"outcome": "Blocked", "message": "may not patch", "at": "2026-01-01T00:00:00Z"});
            }),
            Timestamp::UNIX_EPOCH,
        );
        assert!(text.contains("Created:      suspended; approved, it starts;"), "{text}");
        assert!(text.contains("Became:       Blocked at 2026-01-01T00:00:00Z: may not patch"), "{text}");
    }

    #[test]
    fn what_was_not_looked_into_is_told() {
        let text = page(&request(|value| value["status"] = json!({})), Timestamp::UNIX_EPOCH);
        assert!(text.contains("Would follow: not looked into (yet)"), "{text}");
    }
}
