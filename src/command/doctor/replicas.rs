//! Checks of the running replicas, by what each says of itself in its Lease: heard of, ready, the same rules in force,
//! its certificate, its store, and whom it saw that nobody knows.

use std::time::Duration;

use jiff::Timestamp;
use kube::Client;

use super::finding::Finding;
use super::gate::{Rules, ending};
use crate::core::admission::strangers::Strangers;
use crate::edge::cluster::replica::{GONE, Replica, Report, replicas};

/// A replica that has been silent for longer went away for good; its Lease is only not removed yet.
const FORGOTTEN: Duration = Duration::from_secs(600);

pub(super) async fn check(client: &Client, rules: &Rules) -> Vec<Finding> {
    let now = Timestamp::now();
    let all = match replicas(client).await {
        Ok(all) => all,
        Err(error) => return vec![Finding::blind("replicas", "the replicas' leases", &error)],
    };
    let heard: Vec<&Replica> = all.iter().filter(|replica| replica.is_heard(GONE, now)).collect();
    let mut findings = Vec::new();
    for lost in all.iter().filter(|one| !one.is_heard(GONE, now) && one.is_heard(FORGOTTEN, now)) {
        let fix = "kubectl get pods -n kustody-system; it may be gone on purpose";
        findings.push(Finding::yellow("replicas", format!("{} has not been heard of lately", lost.name)).fix(fix));
    }
    if heard.is_empty() {
        let fix = "start Kustody; agents' writes fail until it runs, nobody else's";
        findings.push(Finding::red("replicas", "no replica is heard of").fix(fix));
        return findings;
    }
    let mut strangers = Strangers::default();
    let wanted = rules.snapshot.as_ref().ok().map(|snapshot| snapshot.hash().to_string());
    for replica in &heard {
        let Some(report) = &replica.report else {
            let found = format!("{} runs another version and cannot be understood", replica.name);
            findings.push(Finding::yellow("replicas", found).fix("finish the upgrade, or use that version's doctor"));
            continue;
        };
        findings.extend(one(&replica.name, report, wanted.as_deref(), now));
        strangers.merge(&report.strangers);
    }
    findings.push(unclassified(&strangers));
    findings
}

fn one(name: &str, report: &Report, wanted: Option<&str>, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (part, why) in &report.not_ready {
        let fix = "kubectl logs -n kustody-system deployment/kustody";
        findings.push(Finding::red("replicas", format!("{name} is not ready: {part}: {why}")).fix(fix));
    }
    if wanted.is_some_and(|wanted| wanted != report.policy) {
        let found = format!("{name} decides by other rules than the cluster has now");
        let fix = "look again in some seconds; if it stays, see its log and the Loaded conditions";
        findings.push(Finding::yellow("replicas", found).fix(fix));
    }
    if !report.broken.is_empty() {
        let found = format!("{name} has no good version of {}", report.broken.join(", "));
        findings.push(Finding::red("replicas", found).fix("correct them: until then nothing but reads passes unasked"));
    }
    if let Some(why) = &report.not_gated {
        findings.push(Finding::red("replicas", format!("{name} says that agents are not gated: {why}")));
    }
    if findings.is_empty() {
        findings.push(Finding::green("replicas", format!("{name} ({}) is ready and has the rules", report.version)));
    }
    findings.extend(report.certificate_ends.map(|ends| ending(&format!("certificate of {name}"), ends, now)));
    findings.push(if report.worm {
        Finding::green("store", report.store.clone())
    } else {
        let fix = "a bucket with Object Lock and a default retention keeps evidence from being changed";
        Finding::yellow("store", report.store.clone()).fix(fix)
    });
    findings
}

fn unclassified(strangers: &Strangers) -> Finding {
    if strangers.is_empty() {
        return Finding::green("identities", "nobody writes who is neither of a class nor known");
    }
    let said = |(user, one): (&str, &crate::core::admission::strangers::Stranger)| format!("{user} ({})", one.first);
    let named: Vec<String> = strangers.iter().map(said).collect();
    Finding::yellow("identities", format!("neither of a class nor known: {}", named.join(", ")))
        .fix("agents belong in an AgentClass, people and controllers in webhook.observe of the configuration")
}
