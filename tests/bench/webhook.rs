//! What a review costs: allowed, by size and by number of rules, against bare handlers; and what a parked one holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bare::{self, Bare};
use crate::load::{Lane, Target};
use crate::stage::Stage;
use crate::stage::run::Processes;
use crate::{make_room, resident, rounds};

const REVIEW: &str = include_str!("review.json");
/// Rules added to the default ones.
const RULES: usize = 1000;
/// Rules a policy may have; the custom resource's own limit.
const RULES_OF_A_POLICY: usize = 125;
/// Calls parked at once.
const PARKED: usize = 2000;
/// How long they get to arrive.
const ARRIVING: Duration = Duration::from_secs(12);

/// The bare handlers.
pub(crate) struct Floors {
    raw: Bare,
    tree: Bare,
}

impl Floors {
    pub(crate) fn start(stage: &Stage, processes: &Arc<Processes>) -> anyhow::Result<Self> {
        let start = |kind| bare::start(kind, &stage.dir, processes);
        Ok(Self { raw: start("bare-raw")?, tree: start("bare-tree")? })
    }

    fn lanes(&self, review: &str) -> anyhow::Result<Vec<Lane>> {
        let lane = |name, bare: &Bare| {
            anyhow::Ok(Lane::new(name, post(&bare.url, &bare.authority, review)?).served_by(bare.pid))
        };
        Ok(vec![lane("floor: bare handler", &self.raw)?, lane("peer: whole tree", &self.tree)?])
    }
}

fn post(url: &str, authority: &[u8], review: &str) -> anyhow::Result<Target> {
    Target::post(&format!("{url}/admission?timeout=30s"), authority, review)
}

fn own(stage: &Stage, review: &str) -> anyhow::Result<Target> {
    let authority = std::fs::read(stage.dir.join("kustody-ca.crt"))?;
    post(&stage.kustody.webhook, &authority, review)
}

fn allowing(stage: &Stage, name: &str, review: &str) -> anyhow::Result<Lane> {
    Ok(Lane::new(name, own(stage, review)?.expecting("\"allowed\":true")).served_by(stage.kustody.pid()))
}

/// The small review that most are like.
pub(crate) async fn allow(stage: &Stage, floors: &Floors) -> anyhow::Result<()> {
    for connections in [1, 16, 64] {
        let mut lanes = floors.lanes(REVIEW)?;
        lanes.push(allowing(stage, "kustody", REVIEW)?);
        let title = format!("webhook, allow, {} byte review, {connections} connections", REVIEW.len());
        println!("\n{}", rounds(&title, &lanes, connections).await?);
    }
    Ok(())
}

/// One that carries a megabyte.
pub(crate) async fn large(stage: &Stage, floors: &Floors) -> anyhow::Result<()> {
    let review = grown(1 << 20)?;
    let mut lanes = floors.lanes(&review)?;
    lanes.push(allowing(stage, "kustody", &review)?);
    println!("\n{}", rounds(&format!("webhook, allow, {} byte review, 1 connection", review.len()), &lanes, 1).await?);
    Ok(())
}

/// The review with so many bytes more in its object's data.
fn grown(bytes: usize) -> anyhow::Result<String> {
    let mut review: Value = serde_json::from_str(REVIEW)?;
    let line = "value of some length, as configuration has it";
    for number in 0..bytes / (line.len() + 16) {
        review["request"]["object"]["data"][format!("grown-{number:05}")] = line.into();
    }
    Ok(review.to_string())
}

/// The same review before and after a thousand rules more.
pub(crate) async fn many_rules(stage: &Stage, floors: &Floors) -> anyhow::Result<()> {
    let mut lanes = floors.lanes(REVIEW)?;
    lanes.push(allowing(stage, "kustody", REVIEW)?);
    println!("\n{}", rounds("webhook, allow, 16 connections, the default rules", &lanes, 16).await?);
    let policies = policies();
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(policies.as_str()).ok()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let title = format!("webhook, allow, 16 connections, {RULES} rules more");
    println!("\n{}", rounds(&title, &lanes, 16).await?);
    stage.cluster.kubectl(&stage.cluster.admin, &["delete", "-f", "-"]).input(policies.as_str()).ok()?;
    Ok(())
}

/// Rules as a large organisation has them: by namespace and name, one in ten about the resource that is asked for.
fn policies() -> String {
    let mut text = String::new();
    for policy in 0..RULES / RULES_OF_A_POLICY {
        let head = "apiVersion: kustody.dev/v1alpha1\nkind: AgentPolicy\nmetadata:\n  name: bench";
        text += &format!("---\n{head}-{policy}\nspec:\n  rules:\n");
        for rule in 0..RULES_OF_A_POLICY {
            let (group, resource) = match rule % 10 {
                0 => ("", "configmaps"),
                1..=4 => ("", "pods"),
                5 | 6 => ("apps", "deployments"),
                7 => ("batch", "jobs"),
                _ => ("example.com", "widgets"),
            };
            text += &format!(
                "  - id: rule-{rule}\n    reason: belongs to team {rule}\n    action: Hold\n    match:\n      \
                 operations: [CREATE, UPDATE, DELETE]\n      resources: [{{apiGroups: [\"{group}\"], resources: [{resource}]}}]\n      \
                 namespaces: [team-{policy}-{rule}, team-{rule}-*]\n",
            );
        }
    }
    text
}

/// Memory of connections, and of calls parked on them.
pub(crate) async fn parked(stage: &mut Stage) -> anyhow::Result<()> {
    make_room(stage, "webhook", &["maxParked", "maxParkedPerAgent"])?;
    let before = resident(stage.kustody.pid())?;
    let lane = Lane::new("parked", own(stage, &held())?);
    let started = Instant::now();
    let settle = async |step: &'static str| {
        tokio::time::sleep(if step == "asked" { ARRIVING } else { Duration::from_secs(1) }).await;
        resident(stage.kustody.pid())
    };
    let (idle, parked) = lane.crowd(PARKED, settle).await?;
    println!("\nmemory of {PARKED} connections: {:.1} KiB each", (idle - before) as f64 / PARKED as f64);
    println!(
        "memory of {PARKED} calls parked on them: {:.1} KiB each ({} MiB in all, after {:.0} s)",
        parked.saturating_sub(idle) as f64 / PARKED as f64,
        parked / 1024,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A review of something that the default rules hold.
fn held() -> String {
    REVIEW.replace("\"configmaps\"", "\"persistentvolumeclaims\"").replace("\"ConfigMap\"", "\"PersistentVolumeClaim\"")
}
