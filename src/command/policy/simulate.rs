//! `kustody policy simulate`: what changed rules would have said of requests that were made.
//!
//! A line of input is an AdmissionReview or an entry of the log. A review is compared with what other rules say, or with
//! nothing; an entry with what was decided. Entries keep no whole objects, so rules that look into one hold there.

use super::source::{self, Source};
use crate::command::output::{self, Format};
use crate::core::{
    action::{Action, ClassName, Identity, Operation, Resource, StreamKind, StreamRequest},
    admission::{review, subject},
    audit::entry::{Entry, Outcome},
    policy::{Circumstances, Content, Facts, PolicySnapshot, decide},
};
use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;
use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode};

/// Replay reviews or log entries against changed rules
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody policy simulate entries.jsonl --policies changed/\n  \
    kustody policy simulate reviews/ --policies changed/ --against manifests/default-policy.yaml -o wide")]
pub struct Args {
    /// Files, or folders of files, with one AdmissionReview or log entry in each line
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Files or folders with the changed classes and policies
    #[arg(long, required = true, value_name = "FILE")]
    policies: Vec<PathBuf>,
    /// Files or folders with the rules to compare reviews with; the default rules when none is given
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// Class of the agents in reviews, where the files hold no classes
    #[arg(long, default_value = "agents")]
    class: String,
    /// Fail when any verdict would change
    #[arg(long)]
    fail_on_change: bool,
    /// How to print the result; `wide` shows also what stays
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// One request: what was said, and what would be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    place: String,
    agent: String,
    action: String,
    before: String,
    after: String,
    #[serde(skip)]
    is_change: bool,
}

/// The rules before and after.
struct Rules {
    before: PolicySnapshot,
    after: PolicySnapshot,
    class: String,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, a line is neither review nor entry, or the rules are broken.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let old = if args.against.is_empty() { Source::of_defaults()? } else { Source::read(&args.against)? };
    let rules =
        Rules { before: old.snapshot()?, after: Source::read(&args.policies)?.snapshot()?, class: args.class.clone() };
    let mut rows = Vec::new();
    for file in source::files(&args.files)? {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let place = format!("{}:{}", file.display(), number + 1);
            rows.extend(rules.row(line, &place).with_context(|| place.clone())?);
        }
    }
    let changed = rows.iter().filter(|row| row.is_change).count();
    let total = rows.len();
    if !matches!(args.output, Format::Wide) {
        rows.retain(|row| row.is_change);
    }
    if args.output.is_table() {
        let cells =
            |row: &Row| [&row.place, &row.agent, &row.action, &row.before, &row.after].map(String::clone).to_vec();
        if !rows.is_empty() {
            output::print_table(&["LINE", "AGENT", "ACTION", "BEFORE", "AFTER"], rows.iter().map(cells).collect())?;
        }
        output::print(&format!("{changed} of {total} requests would be decided otherwise\n"))?;
    } else {
        output::print_value(args.output, &rows)?;
    }
    Ok(if args.fail_on_change && changed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Rules {
    /// `None` for an entry without a decision, such as an answered read.
    fn row(&self, line: &str, place: &str) -> anyhow::Result<Option<Row>> {
        if let Ok(request) = review::decode(line.as_bytes()) {
            return self.of_review(&request, place).map(Some);
        }
        let entry: Entry = serde_json::from_str(line).context("is neither an AdmissionReview nor a log entry")?;
        Ok(self.of_entry(&entry, place))
    }

    fn of_review(&self, request: &review::Request<'_>, place: &str) -> anyhow::Result<Row> {
        let class = |rules: &PolicySnapshot| {
            rules
                .classify(&request.identity())
                .map_or(ClassName::from(self.class.as_str()), |class| class.name().clone())
        };
        let content = Content::of_review(request);
        let action = subject::action(request, class(&self.after))?;
        let before = verdict(&self.before, &Facts { action: &action, content });
        let after = verdict(&self.after, &Facts { action: &action, content });
        Ok(row(place, &action, before, after))
    }

    fn of_entry(&self, entry: &Entry, place: &str) -> Option<Row> {
        let decided = entry.decision.as_ref()?;
        let action = action(entry)?;
        let word = match decided.outcome {
            Outcome::Allow => "allow",
            Outcome::Deny => "deny",
            Outcome::Hold => "hold",
        };
        let before = format!("{word} {}/{}", decided.policy, decided.rule);
        Some(row(place, &action, before, verdict(&self.after, &Facts::bare(&action))))
    }
}

fn verdict(rules: &PolicySnapshot, facts: &Facts<'_>) -> String {
    let decision = decide(rules, facts, &Circumstances::at(Timestamp::UNIX_EPOCH));
    format!("{} {}/{}", decision.outcome.word(), decision.policy, decision.rule)
}

/// A change is another verdict; the same verdict by another rule is none.
fn row(place: &str, action: &Action, before: String, after: String) -> Row {
    let word = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    Row {
        place: place.to_owned(),
        agent: action.agent.user.clone(),
        action: format!("{} {} {}", action.operation, action.resource, action.target()),
        is_change: word(&before) != word(&after),
        before,
        after,
    }
}

/// The action an entry tells of; `None` where a part of it was too large to be kept.
fn action(entry: &Entry) -> Option<Action> {
    let agent = &entry.principal.agent;
    let verb = entry.verb.as_str()?;
    let operation = match verb {
        "create" => Operation::Create,
        "update" | "patch" => Operation::Update,
        "delete" | "deletecollection" => Operation::Delete,
        "connect" => Operation::Connect,
        _ => Operation::Read,
    };
    let text = |text: &Option<crate::core::audit::bounded::Text>| {
        text.as_ref().and_then(|text| text.as_str()).map(str::to_owned)
    };
    Some(Action {
        agent: Identity {
            user: agent.user.as_str()?.to_owned(),
            uid: text(&agent.uid).unwrap_or_default(),
            groups: agent.groups.whole()?.clone(),
            extra: agent.extra.as_ref().and_then(|extra| extra.whole()).cloned().unwrap_or_default(),
        },
        class: ClassName::from(text(&entry.class).unwrap_or_default()),
        operation,
        verb: verb.to_owned(),
        resource: Resource {
            group: entry.group.as_str()?.to_owned(),
            version: entry.version.as_str()?.to_owned(),
            resource: entry.resource.as_str()?.to_owned(),
            subresource: text(&entry.subresource),
        },
        namespace: text(&entry.namespace),
        name: text(&entry.name),
        labels: BTreeMap::new(),
        previous_labels: None,
        dry_run: entry.dry_run,
        stream: stream(entry),
    })
}

/// An exec as far as an entry tells of it: its command.
fn stream(entry: &Entry) -> Option<StreamRequest> {
    let kind = entry.subresource.as_ref().and_then(|text| text.as_str()).and_then(StreamKind::of_subresource)?;
    let command = entry.command.as_ref().and_then(|command| command.whole()).cloned().unwrap_or_default();
    Some(StreamRequest { kind, container: None, command, stdin: false, stdout: true, stderr: true, tty: false })
}
