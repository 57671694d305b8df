//! Conditions against the answers of Kubernetes' own environment (`tests/cel`), and what no text may do.

use kustody::core::expression::{Expression, Fuel, Scope};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Expressions Kubernetes accepts and Kustody refuses at load, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("{1.5: 1}", "a double is no key"),
    ("google.protobuf.Timestamp{seconds: 1}", "messages are not made; timestamp(…) says the same"),
];

#[derive(Deserialize)]
struct Corpus {
    inputs: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Answer {
    group: String,
    #[serde(default)]
    input: String,
    expression: String,
    value: Option<String>,
    error: Option<String>,
    #[serde(default)]
    refused: bool,
    #[serde(default)]
    message: String,
}

fn folder() -> std::path::PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cel");
    std::env::var_os("KUSTODY_CEL_CORPUS").map_or_else(|| default.into(), Into::into)
}

fn found(expression: &str, variables: &BTreeMap<String, Box<RawValue>>) -> (&'static str, String) {
    let compiled = match Expression::compile_any(expression) {
        Ok(compiled) => compiled,
        Err(problem) => return ("refused", problem.to_string()),
    };
    let scope = Scope::from_json(variables.iter().map(|(name, raw)| (name.as_str(), &**raw)));
    match compiled.print(&scope, Fuel::default()) {
        Ok(value) => ("value", value),
        Err(error) => ("error", error.kind.as_str().to_owned()),
    }
}

#[test]
fn every_expression_of_the_corpus_means_what_it_means_to_kubernetes() {
    let corpus: Corpus =
        serde_saphyr::from_str(&std::fs::read_to_string(folder().join("corpus.yaml")).unwrap()).unwrap();
    let answers = std::fs::read_to_string(folder().join("answers.json")).unwrap();
    let answers: Vec<Answer> = serde_json::from_str(&answers).unwrap();
    let inputs: BTreeMap<&str, BTreeMap<String, Box<RawValue>>> = corpus
        .inputs
        .iter()
        .map(|(name, variables)| {
            let raw = |value: &serde_json::Value| match value.as_str() {
                Some(json) => serde_json::from_str(json).unwrap(),
                None => serde_json::value::to_raw_value(value).unwrap(),
            };
            (name.as_str(), variables.iter().map(|(name, value)| (name.clone(), raw(value))).collect())
        })
        .collect();
    let empty = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut refused = Vec::new();
    for answer in &answers {
        let variables = inputs.get(answer.input.as_str()).unwrap_or(&empty);
        let (kind, text) = found(&answer.expression, variables);
        let agrees = match (&answer.value, &answer.error) {
            (Some(value), _) => kind == "value" && *value == text,
            (None, Some(error)) => kind == "error" && *error == text,
            (None, None) => answer.refused && kind == "refused",
        };
        if kind == "refused" && !answer.refused {
            refused.push(answer.expression.as_str());
        } else if !agrees {
            let Answer { group, expression, message, value, error, .. } = answer;
            wrong.push(format!(
                "{group}: {expression}\n    Kubernetes: {value:?} {error:?} {message}\n    Kustody: {kind} {text}"
            ));
        }
    }
    let listed: Vec<&str> = REFUSED.iter().map(|(expression, _)| *expression).collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), answers.len(), wrong.join("\n"));
    assert_eq!(refused, listed, "what is refused although Kubernetes accepts it");
}
