//! `kustody generate`: writes the checked-in files that follow from the code.
//!
//! Custom resources come from the Rust types, the webhook configuration from the classes, permissions from the
//! names the code uses. `tests/it/generate.rs` holds the checked-in files to what this writes.

mod approval_policy;
mod crds;
mod defaults;
mod flow_control;
mod grant_policy;
mod rbac;
mod self_protection;
mod suspended;
mod termination_policy;
mod workload;

use crate::core::{
    admission::registration::{Address, Known, Site, configuration},
    audit,
    policy::{PolicySnapshot, Problem},
    recording::schema,
};
use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use serde_json::Value;
use std::{io::Write as _, path::PathBuf, process::ExitCode};

/// Write custom resources, the webhook configuration, all manifests, or the recording format.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    kustody generate crds | kubectl apply -f -\n  \
    kustody generate manifests --out .      # writes ./manifests and ./webhook-config\n  \
    kustody generate schema --out .         # writes ./recordings-schema")]
pub struct Args {
    /// What to write.
    pub what: What,
    /// Folder to write files into; without it everything goes to standard output.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// What can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Custom resource definitions.
    Crds,
    /// The ValidatingWebhookConfiguration.
    Webhook,
    /// Everything that is applied to every cluster, the two above included.
    Manifests,
    /// What a cluster applies to have new objects created suspended instead of held.
    AdmitSuspended,
    /// The recording format, for readers in other languages.
    Schema,
}

/// One file: its path below the folder, and its text.
pub type File = (&'static str, String);

/// Runs the command.
///
/// # Errors
/// When a file cannot be written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let files = files(args.what)?;
    match args.out {
        None => {
            let mut out = std::io::stdout().lock();
            for (_, text) in files {
                out.write_all(text.as_bytes()).context("cannot write to standard output")?;
            }
        }
        Some(folder) => {
            for (name, text) in files {
                let path = folder.join(name);
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)
                        .with_context(|| format!("cannot create the folder {}", parent.display()))?;
                }
                std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The files `what` stands for.
///
/// # Errors
/// When something cannot be written as YAML, or the default rules are not valid.
pub fn files(what: What) -> anyhow::Result<Vec<File>> {
    let crds = || anyhow::Ok(("manifests/crds.yaml", yaml("Custom resources of Kustody.", &crds::all()?)?));
    let webhook = || anyhow::Ok(("webhook-config/kustody.yaml", webhook()?));
    match what {
        What::Crds => Ok(vec![crds()?]),
        What::Webhook => Ok(vec![webhook()?]),
        What::AdmitSuspended => {
            Ok(vec![("manifests/opt-in/admit-suspended.yaml", yaml(suspended::ABOUT, &suspended::all())?)])
        }
        What::Schema => Ok(schema::files().into_iter().chain(audit::schema::files()).collect()),
        What::Manifests => Ok(vec![
            (
                "manifests/namespaces.yaml",
                yaml("Kustody's own namespace, and one for agents.", &workload::namespaces())?,
            ),
            crds()?,
            ("manifests/rbac.yaml", yaml("What Kustody and approvers may do, and nothing more.", &rbac::all())?),
            ("manifests/approval-policy.yaml", yaml(approval_policy::ABOUT, &approval_policy::all())?),
            ("manifests/self-protection.yaml", yaml(self_protection::ABOUT, &self_protection::all()?)?),
            ("manifests/grant-policy.yaml", yaml(grant_policy::ABOUT, &grant_policy::all())?),
            ("manifests/termination-policy.yaml", yaml(termination_policy::ABOUT, &termination_policy::all())?),
            ("manifests/flow-control.yaml", yaml(flow_control::ABOUT, &flow_control::all())?),
            ("manifests/default-class.yaml", yaml("Who is an agent by default.", &[defaults::class()?])?),
            ("manifests/default-policy.yaml", defaults::POLICIES.to_owned()),
            ("manifests/deployment.yaml", yaml("Kustody inside the cluster.", &workload::deployment())?),
            ("manifests/service.yaml", yaml("How the API server and agents reach Kustody.", &workload::service())?),
            webhook()?,
        ]),
    }
}

/// The native admission policies and their bindings, as this version writes them.
///
/// # Errors
/// When they cannot be built.
pub fn guards() -> anyhow::Result<Vec<Value>> {
    let all =
        [approval_policy::all(), self_protection::all()?, grant_policy::all(), termination_policy::all()].concat();
    Ok(all.into_iter().filter(is_guard).collect())
}

/// The same of the opt-in that has objects created suspended.
#[must_use]
pub fn suspension_guards() -> Vec<Value> {
    suspended::all().into_iter().filter(is_guard).collect()
}

fn is_guard(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| kind.starts_with("ValidatingAdmission"))
}

/// The class and the policies that come with Kustody, by file.
pub(super) fn default_rules() -> anyhow::Result<Vec<File>> {
    let files = files(What::Manifests)?;
    Ok(files.into_iter().filter(|(name, _)| name.starts_with("manifests/default-")).collect())
}

/// The registration as installed: for the default class, and trusting nobody until Kustody adds its CA.
fn webhook() -> anyhow::Result<String> {
    let (classes, policies) = defaults::specs()?;
    let (snapshot, problems) = PolicySnapshot::load(&classes, &policies);
    let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
    anyhow::ensure!(problems.is_empty(), "the default rules are not valid: {}", problems.join("; "));
    yaml(
        "Asks Kustody about every request of an agent. Kustody itself keeps caBundle and matchConditions up to date.\n\
         # Until it has, requests of agents fail, and nobody else's.",
        &[configuration(&snapshot, &Site { address: Address::Service, known: Some(Known::default()) }, None)],
    )
}

fn yaml(about: &str, documents: &[Value]) -> anyhow::Result<String> {
    let mut text = format!("# {about}\n# Written by `kustody generate`: change the code, not this file.\n");
    for document in documents {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(document).context("cannot write YAML")?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}
