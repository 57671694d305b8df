//! `kustody policy export`: Deny rules as native ValidatingAdmissionPolicies, which hold while Kustody is down.

use super::source::Source;
use crate::command::output::{self, Format};
use crate::core::{
    admission::registration,
    policy::{Agents, Class, export},
};
use std::{io::Write, path::PathBuf, process::ExitCode};

/// Write Deny rules as native ValidatingAdmissionPolicies
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody policy export > guard.yaml\n  \
    kustody policy export --policies my-policies/ | kubectl apply -f -")]
pub struct Args {
    /// Files or folders with classes and policies; the default ones when none is given
    #[arg(long, value_name = "FILE")]
    policies: Vec<PathBuf>,
    /// How to print the objects: yaml or json
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

/// Runs the command. What has no native form is named on standard error.
///
/// # Errors
/// When a file cannot be read, or there is no class.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = if args.policies.is_empty() { Source::of_defaults()? } else { Source::read(&args.policies)? };
    let snapshot = source.snapshot()?;
    anyhow::ensure!(!snapshot.classes().is_empty(), "without an AgentClass nobody is an agent: name its file too");
    let agents = |names: Option<&[String]>| {
        let meant = |class: &&Class| names.is_none_or(|names| names.iter().any(|name| name == class.name().as_str()));
        let classes: Vec<Class> = snapshot.classes().iter().filter(meant).cloned().collect();
        registration::agents(&classes)
    };
    let export = export(&source.policies, &Agents { of: &agents, class: registration::class(snapshot.classes()) });
    for (rule, why) in &export.left_out {
        // Nothing is left to tell where stderr itself is gone.
        writeln!(std::io::stderr(), "not exported: {rule}: {why}").ok();
    }
    if matches!(args.output, Format::Json) {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": export.objects});
        output::print_value(args.output, &list)?;
    } else {
        for object in &export.objects {
            output::print("---\n")?;
            output::print_value(Format::Yaml, object)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
