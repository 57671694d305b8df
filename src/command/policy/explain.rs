//! `kustody policy explain`: what would become of a manifest or an action, by which rule, and why. Without a cluster.

use super::manifest;
use super::source::Source;
use crate::command::output::{self, Format};
use crate::core::{
    action::EXTRA_RUN,
    policy::{
        Circumstances, PolicySnapshot, Say, decide, explain,
        fixture::{Agent, Case},
    },
};
use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

/// Say what would become of a manifest, and by which rule
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody policy explain -f deployment.yaml\n  \
    kustody policy explain -f new.yaml --old-file old.yaml --operation update --as system:serviceaccount:agents:bot\n  \
    kustody policy explain --action 'DELETE deployments.apps shop/web' --policies my-policies/")]
pub struct Args {
    /// Manifest of what is created, updated or deleted
    #[arg(short = 'f', long, value_name = "FILE", required_unless_present = "action", conflicts_with = "action")]
    filename: Option<PathBuf>,
    /// The object before an update
    #[arg(long, value_name = "FILE", requires = "filename")]
    old_file: Option<PathBuf>,
    /// What is done with the manifest
    #[arg(long, value_enum, default_value = "create")]
    operation: manifest::Operation,
    /// An action in place of a manifest: `OPERATION resource[.group][/subresource] [namespace/]name`
    #[arg(long)]
    action: Option<String>,
    /// Plural of the manifest's resource, where it does not follow from the kind
    #[arg(long)]
    resource: Option<String>,
    /// Namespace of manifests that name none
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Labels of the namespace
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    namespace_labels: Vec<String>,
    /// User name of the agent
    #[arg(long = "as", default_value = "system:serviceaccount:agents:agent")]
    user: String,
    /// Groups of the agent
    #[arg(long = "as-group")]
    groups: Vec<String>,
    /// The agent's run
    #[arg(long)]
    run: Option<String>,
    /// Nothing would be persisted
    #[arg(long)]
    dry_run: bool,
    /// Files or folders with classes and policies; the default rules when none is given
    #[arg(long, value_name = "FILE")]
    policies: Vec<PathBuf>,
    /// Show also the rules that do not match
    #[arg(long)]
    all: bool,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// The answer for one object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    action: String,
    verdict: &'static str,
    policy: String,
    rule: String,
    reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    rules: Vec<Say>,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, the rules are broken, or the user is no agent by the classes given.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = if args.policies.is_empty() { Source::of_defaults()? } else { Source::read(&args.policies)? };
    let snapshot = source.snapshot()?;
    let agent = agent(args, &snapshot)?;
    let labels = args
        .namespace_labels
        .iter()
        .map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect::<Option<BTreeMap<String, String>>>()
        .context("--namespace-labels takes KEY=VALUE")?;
    let mut answers = Vec::new();
    for case in cases(args, &agent)? {
        answers.push(answer(args, &snapshot, &case, &labels)?);
    }
    if args.output.is_table() {
        answers.iter().try_for_each(print)?;
    } else {
        output::print_value(args.output, &answers)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The agent, with the groups the API server would give a service account, and its class.
fn agent(args: &Args, snapshot: &PolicySnapshot) -> anyhow::Result<Agent> {
    let mut groups = args.groups.clone();
    groups.push("system:authenticated".to_owned());
    let account = args.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    if let Some((namespace, _)) = account {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    let extra = args.run.iter().map(|run| (EXTRA_RUN.to_owned(), vec![run.clone()])).collect();
    let mut agent = Agent { user: args.user.clone(), groups, extra, ..Agent::default() };
    if !snapshot.classes().is_empty() {
        let class = snapshot.classify(&agent.identity());
        let none = || format!("{} belongs to no class of these files, so Kustody is never asked", args.user);
        agent.class = class.with_context(none)?.name().to_string();
    }
    Ok(agent)
}

fn cases(args: &Args, agent: &Agent) -> anyhow::Result<Vec<Case>> {
    let whole = |case: Case| Case { agent: agent.clone(), dry_run: args.dry_run, ..case };
    if let Some(action) = &args.action {
        return Ok(vec![whole(Case { action: action.clone(), ..Case::default() })]);
    }
    let path = args.filename.as_ref().context("give a manifest or an action")?;
    let old = args.old_file.as_ref().map(|path| manifest::read(path)).transpose()?.unwrap_or_default();
    let names = manifest::Names { resource: args.resource.as_deref(), namespace: &args.namespace };
    let objects = manifest::read(path)?;
    objects.into_iter().map(|object| Ok(whole(manifest::case(object, &old, args.operation, &names)?))).collect()
}

fn answer(
    args: &Args,
    snapshot: &PolicySnapshot,
    case: &Case,
    labels: &BTreeMap<String, String>,
) -> anyhow::Result<Answer> {
    let mut scene = case.scene(&BTreeMap::new()).with_context(|| case.action.clone())?;
    scene.set_namespace_labels(labels.clone());
    let decision = decide(snapshot, &scene.facts(), &Circumstances::at(Timestamp::UNIX_EPOCH));
    let mut rules = explain(snapshot, &scene.facts());
    rules.retain(|say| say.counts || args.all);
    Ok(Answer {
        action: case.action.clone(),
        verdict: decision.outcome.word(),
        policy: decision.policy,
        rule: decision.rule,
        reason: decision.reason,
        warnings: decision.warnings,
        rules,
    })
}

fn print(answer: &Answer) -> anyhow::Result<()> {
    let verdict = answer.verdict.to_uppercase();
    output::print(&format!(
        "{}\n{verdict} by rule {} of policy {}: {}\n",
        answer.action, answer.rule, answer.policy, answer.reason
    ))?;
    for warning in &answer.warnings {
        output::print(&format!("Warning: {warning}\n"))?;
    }
    if !answer.rules.is_empty() {
        let cells = |say: &Say| {
            let severity = say.severity.map(|severity| format!("{severity:?}")).unwrap_or_default();
            vec![format!("{}/{}", say.policy, say.rule), format!("{:?}", say.action), severity, say.says.clone()]
        };
        output::print("\n")?;
        output::print_table(&["RULE", "ACTION", "SEVERITY", "SAYS"], answer.rules.iter().map(cells).collect())?;
    }
    output::print("\n")
}
