//! The documents' examples are true: every configuration, class and policy in them is read by the code that reads a
//! user's, and every command in them exists.

use std::path::{Path, PathBuf};
use std::process::Command;

use kustody::core::policy::{ClassSpec, PolicySnapshot, PolicySpec, fixture::Suite};
use serde_json::Value;

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The fenced blocks of a language.
fn blocks(name: &str, language: &str) -> Vec<String> {
    let text = document(name);
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix(&format!("{language}\n"))).map(str::to_owned).collect()
}

#[test]
fn the_example_configuration_is_accepted() {
    let examples = blocks("docs/install.md", "yaml");
    assert_eq!(examples.len(), 1, "one configuration is shown");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kustody.yaml");
    std::fs::write(&file, &examples[0]).unwrap();
    let checked =
        Command::new(env!("CARGO_BIN_EXE_kustody")).args(["serve", "--check", "--config"]).arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn the_example_rules_load_without_a_problem_and_their_tests_pass() {
    let (mut classes, mut policies) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    let mut suites = Vec::new();
    for text in blocks("docs/rules.md", "yaml") {
        let object: Value = serde_saphyr::from_str(&text).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match object["kind"].as_str() {
            Some("AgentClass") => drop(classes.insert(name, class(&object))),
            Some("AgentPolicy") => drop(policies.insert(name, policy(&object))),
            Some(other) => unreachable!("a document shows {other:?}"),
            None => suites.push(serde_saphyr::from_str::<Suite>(&text).unwrap()),
        }
    }
    assert_eq!((classes.len(), policies.len(), suites.len()), (1, 4, 1));
    let (snapshot, problems) = PolicySnapshot::load(&classes, &policies);
    assert!(problems.is_empty(), "{problems:?}");
    for suite in suites {
        for case in &suite.tests {
            assert_eq!(suite.run(case, &snapshot).unwrap().failure, None, "{:?}", case.name);
        }
    }
}

fn class(object: &Value) -> ClassSpec {
    serde_json::from_value(object["spec"].clone()).unwrap()
}

fn policy(object: &Value) -> PolicySpec {
    serde_json::from_value(object["spec"].clone()).unwrap()
}

#[test]
fn every_command_in_the_documents_exists_with_its_options() {
    let mut seen = 0;
    for name in ["README.md", "docs/install.md", "docs/log.md", "docs/recordings.md", "docs/rules.md"] {
        for line in blocks(name, "bash").iter().chain(&blocks(name, "console")).flat_map(|block| block.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim().trim_start_matches("$ ");
            let Some(words) = line.strip_prefix("kustody ") else { continue };
            let mut words = words.split_whitespace();
            let command = words.next().unwrap();
            let sub = (command == "policy").then(|| words.next().unwrap());
            let help = help(&std::iter::once(command).chain(sub).collect::<Vec<_>>());
            for option in words.filter(|word| word.starts_with("--")) {
                let option = option.split('=').next().unwrap();
                assert!(help.contains(option), "{name}: `{line}`: no {option} in\n{help}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 7, "only {seen} commands found");
}

fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kustody")).args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "there is no command {command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    for name in [
        "README.md",
        "docs/grants.md",
        "docs/install.md",
        "docs/log.md",
        "docs/recordings.md",
        "docs/rules.md",
        "tests/cluster/README.md",
    ] {
        let text = document(name);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name).parent().map(PathBuf::from).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://");
            assert!(elsewhere || folder.join(target).exists(), "{name}: {link} leads nowhere");
        }
    }
}
