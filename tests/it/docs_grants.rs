//! The examples of `docs/grants.md` are true: each Grant is read by the code that reads a user's, and every command in
//! it exists with its options.

use kustody::core::grant::GrantSpec;
use serde_json::Value;
use std::process::Command;

const DOCUMENT: &str = include_str!("../../docs/grants.md");

fn blocks(language: &str) -> Vec<&'static str> {
    let fenced = DOCUMENT.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix(language)).collect()
}

#[test]
fn the_example_grants_are_read() {
    let examples = blocks("yaml\n");
    assert_eq!(examples.len(), 2);
    for text in examples {
        let object: Value = serde_saphyr::from_str(text).unwrap();
        let spec: GrantSpec = serde_json::from_value(object["spec"].clone()).unwrap();
        assert!(!spec.actions.is_empty() || spec.role_binding.is_some());
    }
}

#[test]
fn every_grant_command_exists_with_its_options() {
    let mut seen = 0;
    for line in blocks("bash\n").iter().flat_map(|block| block.lines()) {
        let words: Vec<&str> = line.split('#').next().unwrap().split_whitespace().collect();
        let depth = if words[1] == "grant" { 3 } else { 2 };
        let output = Command::new(env!("CARGO_BIN_EXE_kustody")).args(&words[1..depth]).arg("--help").output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        let help = String::from_utf8(output.stdout).unwrap();
        for option in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "`{line}`: no {option} in\n{help}");
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}
