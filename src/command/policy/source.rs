//! Classes and policies from files: read whole, every problem with its file and line.

use super::located::{self, Located};
use crate::command::generate;
use crate::core::policy::{
    ClassSpec, PolicySnapshot, PolicySpec,
    problems::{Kind, Problem, problems_of_object},
};
use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A problem, where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// File, as it was named.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// `AgentPolicy/base`; empty when the file itself is the problem.
    pub object: String,
    /// Id of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Path of the field.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// What the files hold.
#[derive(Debug, Default)]
pub struct Source {
    /// Sound classes by name.
    pub classes: BTreeMap<String, ClassSpec>,
    /// Sound policies by name.
    pub policies: BTreeMap<String, PolicySpec>,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// Where each object was first seen.
    seen: BTreeMap<String, String>,
}

/// The files that are meant: a folder stands for the YAML and JSON files in it, without its sub-folders.
///
/// # Errors
/// When a folder cannot be read, or nothing is there.
pub fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.retain(|file| file.is_file() && is_yaml(file));
        found.sort();
        anyhow::ensure!(!found.is_empty(), "{} holds no YAML or JSON file", path.display());
        files.append(&mut found);
    }
    Ok(files)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

impl Source {
    /// Reads files and folders.
    ///
    /// # Errors
    /// When a file cannot be read at all.
    pub fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut source = Self::default();
        for path in files(paths)? {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            source.add(&path.display().to_string(), &text);
        }
        Ok(source)
    }

    /// The rules that come with Kustody.
    ///
    /// # Errors
    /// Never for a sound build: they are compiled in, and tested.
    pub fn of_defaults() -> anyhow::Result<Self> {
        let mut source = Self::default();
        for (name, text) in generate::default_rules()? {
            source.add(name, &text);
        }
        Ok(source)
    }

    /// Reads one text. Objects of other kinds are none of Kustody's business.
    pub fn add(&mut self, file: &str, text: &str) {
        match located::documents(text) {
            Ok(documents) => documents.iter().for_each(|document| self.document(file, document)),
            Err(error) => {
                let line = error.location().and_then(|at| usize::try_from(at.line()).ok()).unwrap_or(1);
                self.findings.push(Finding {
                    file: file.to_owned(),
                    line,
                    object: String::new(),
                    rule: None,
                    field: String::new(),
                    message: format!("is no YAML: {}", error.to_string().lines().next().unwrap_or_default()),
                    hint: String::new(),
                });
            }
        }
    }

    fn document(&mut self, file: &str, document: &Located) {
        let value = document.value();
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let ours = text("/apiVersion").starts_with("kustody.dev/");
        let Some(kind) = Kind::of(text("/kind")).filter(|_| ours) else { return };
        let name = text("/metadata/name");
        let object = format!("{}/{name}", text("/kind"));
        let spec = value.get("spec").unwrap_or(&Value::Null);
        let mut problems = problems_of_object(kind, name, spec);
        let problem = |field: &str, message: String, hint: &str| Problem {
            object: object.clone(),
            rule: None,
            field: field.to_owned(),
            message,
            hint: hint.to_owned(),
        };
        if name.is_empty() {
            problems.push(problem("metadata.name", "is missing".to_owned(), "name the object"));
        }
        let place = format!("{file}:{}", document.line());
        if let Some(first) = self.seen.insert(object.clone(), place) {
            problems.push(problem("metadata.name", format!("is also in {first}"), "give every object its own name"));
        }
        if problems.is_empty() {
            match kind {
                Kind::Class => keep(&mut self.classes, name, spec),
                Kind::Policy => keep(&mut self.policies, name, spec),
            }
        }
        self.findings.extend(problems.into_iter().map(|problem| Finding {
            file: file.to_owned(),
            line: document.line_of(&problem.field),
            object: problem.object,
            rule: problem.rule,
            field: problem.field,
            message: problem.message,
            hint: problem.hint,
        }));
    }

    /// The rules, ready to decide.
    ///
    /// # Errors
    /// When something is wrong with them: the first problem, and how many there are.
    pub fn snapshot(&self) -> anyhow::Result<PolicySnapshot> {
        if let Some(first) = self.findings.first() {
            anyhow::bail!("{} problems, the first: {first}; see `kustody policy check`", self.findings.len());
        }
        Ok(PolicySnapshot::load(&self.classes, &self.policies).0)
    }
}

fn keep<S: serde::de::DeserializeOwned>(specs: &mut BTreeMap<String, S>, name: &str, spec: &Value) {
    if let Ok(spec) = serde_json::from_value(spec.clone()) {
        specs.insert(name.to_owned(), spec);
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:", self.file, self.line)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        if let Some(rule) = &self.rule {
            write!(f, " rule {rule}")?;
        }
        if !self.field.is_empty() {
            write!(f, " {}:", self.field)?;
        }
        write!(f, " {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}
