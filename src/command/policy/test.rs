//! `kustody policy test`: runs the cases of test files and says which fail.

use super::source::{self, Source};
use crate::command::output::{self, Format};
use crate::core::policy::{
    PolicySnapshot,
    fixture::{Case, Suite},
};
use anyhow::Context;
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Run tests of policies
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody policy test manifests/tests/\n  \
    kustody policy test shop-tests.yaml -o wide")]
pub struct Args {
    /// Test files, or folders of them
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How to print the results; `wide` shows also what passes
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// One case and what came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Test file.
    pub file: String,
    /// What the case shows.
    pub test: String,
    /// What it must give.
    pub wants: String,
    /// Why it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Runs the command; exit code 1 when a case fails.
///
/// # Errors
/// When a file cannot be read, or is no test file.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut rows = Vec::new();
    for file in source::files(&args.files)? {
        rows.extend(run_file(&file)?);
    }
    let failed = rows.iter().filter(|row| row.failure.is_some()).count();
    if args.output.is_table() {
        let wide = matches!(args.output, Format::Wide);
        let shown: Vec<Vec<String>> = rows
            .iter()
            .filter(|row| wide || row.failure.is_some())
            .map(|row| {
                let result = row.failure.as_ref().map_or("pass".to_owned(), |why| format!("FAIL {why}"));
                vec![row.file.clone(), row.test.clone(), row.wants.clone(), result]
            })
            .collect();
        if !shown.is_empty() {
            output::print_table(&["FILE", "TEST", "WANTS", "RESULT"], shown)?;
        }
        output::print(&format!("{} passed, {failed} failed\n", rows.len() - failed))?;
    } else {
        output::print_value(args.output, &rows)?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all cases of one file.
///
/// # Errors
/// When it cannot be read, is no test file, or has no cases.
pub fn run_file(file: &Path) -> anyhow::Result<Vec<Row>> {
    let shown = file.display().to_string();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let suite: Suite = serde_saphyr::from_str(&text).with_context(|| format!("{shown} is no test file"))?;
    anyhow::ensure!(!suite.tests.is_empty() || !suite.problems.is_empty(), "{shown} has no tests");
    let folder = file.parent().unwrap_or(Path::new(""));
    let named: Vec<PathBuf> = suite.files.iter().map(|name| folder.join(name)).collect();
    let mut source = Source::read(&named)?;
    source.policies.extend(suite.policies.clone());
    anyhow::ensure!(source.findings.is_empty(), "{}", source.snapshot().map_or_else(|e| e.to_string(), |_| shown));
    let (snapshot, problems) = PolicySnapshot::load(&source.classes, &source.policies);
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let mut rows = expected(&shown, &suite.problems, problems);
    rows.extend(suite.tests.iter().map(|case| row(&shown, &suite, case, &snapshot)));
    Ok(rows)
}

/// Problems that must be there, and no others.
fn expected(file: &str, wanted: &[String], mut found: Vec<String>) -> Vec<Row> {
    let row = |test: String, failure| Row { file: file.to_owned(), test, wants: "problem".to_owned(), failure };
    let mut rows = Vec::new();
    for part in wanted {
        let position = found.iter().position(|problem| problem.contains(part));
        let failure = position.is_none().then(|| "nothing says so".to_owned());
        if let Some(position) = position {
            found.swap_remove(position);
        }
        rows.push(row(part.clone(), failure));
    }
    rows.extend(found.into_iter().map(|problem| row(problem, Some("was not expected".to_owned()))));
    rows
}

fn row(file: &str, suite: &Suite, case: &Case, snapshot: &PolicySnapshot) -> Row {
    let failure = match suite.run(case, snapshot) {
        Ok(outcome) => outcome.failure,
        Err(error) => Some(error.to_string()),
    };
    Row {
        file: file.to_owned(),
        test: case.name.clone().unwrap_or_else(|| case.action.clone()),
        wants: case.gives.clone(),
        failure,
    }
}
