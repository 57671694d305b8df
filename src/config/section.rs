//! One mapping of the configuration file, read field by field. Every problem is noted with its path and a way
//! out, and reading goes on, so that a person sees all of them at once. A field nobody asked for is a problem too.
//! Knows nothing about what the fields mean. Main type: [`Section`].

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

/// What is wrong with the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, from the file's root: `webhook.park`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// A mapping being read. Absent sections read as empty ones, so that every field has its default.
pub(super) struct Section<'a> {
    path: String,
    fields: Map<String, Value>,
    known: Vec<&'static str>,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Section<'a> {
    /// The root of a parsed file.
    pub(super) fn root(value: Value, problems: &'a RefCell<Vec<Problem>>) -> Self {
        Self::of(String::new(), Some(value), problems)
    }

    fn of(path: String, value: Option<Value>, problems: &'a RefCell<Vec<Problem>>) -> Self {
        let fields = match value {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(fields)) => fields,
            Some(other) => {
                let place = if path.is_empty() { "the file" } else { &path };
                problems.borrow_mut().push(Problem {
                    path: place.to_owned(),
                    message: format!("expected a mapping, found {}", kind_of(&other)),
                });
                Map::new()
            }
        };
        Self { path, fields, known: Vec::new(), problems }
    }

    /// The mapping under `name`.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'a> {
        let value = self.take(name);
        Section::of(self.path_of(name), value, self.problems)
    }

    /// Notes a problem with the field `name`.
    pub(super) fn problem(&self, name: &str, message: impl Into<String>) {
        let problem = Problem { path: self.path_of(name), message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// A string, where given.
    pub(super) fn string(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) if text.is_empty() => {
                self.problem(name, "is empty; leave the field out for its default");
                None
            }
            Value::String(text) => Some(text),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                self.wrong(name, "a string", &other)
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        match self.take(name) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(value)) => value,
            Some(other) => self.wrong(name, "true or false", &other).unwrap_or(default),
        }
    }

    /// A whole number from 1 to `max`.
    pub(super) fn count(&mut self, name: &'static str, default: usize, max: usize) -> usize {
        let Some(value) = self.take(name) else { return default };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        match number {
            Some(n) if (1..=max).contains(&n) => n,
            _ => self.wrong(name, &format!("a whole number from 1 to {max}"), &value).unwrap_or(default),
        }
    }

    /// A list of strings.
    pub(super) fn strings(&mut self, name: &'static str) -> Vec<String> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let items: Option<Vec<String>> =
            value.as_array().and_then(|all| all.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        items.unwrap_or_else(|| self.wrong(name, "a list of strings", &value).unwrap_or_default())
    }

    /// A length of time such as `24s` or `15m`, between `min` and `max`.
    pub(super) fn duration(&mut self, name: &'static str, default: Duration, limits: (Duration, Duration)) -> Duration {
        let Some(text) = self.string(name) else { return default };
        let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        match parsed {
            Some(value) if value >= limits.0 && value <= limits.1 => value,
            Some(_) => {
                self.problem(name, format!("`{text}` is out of range; from {:?} to {:?}", limits.0, limits.1));
                default
            }
            None => {
                self.problem(name, format!("`{text}` is not a duration; write 500ms, 24s, 15m or 1h30m"));
                default
            }
        }
    }

    /// A number of bytes, as Kubernetes writes them: `512Mi`, `10Gi`, `1000000`.
    pub(super) fn bytes(&mut self, name: &'static str, default: u64) -> u64 {
        let Some(value) = self.take(name) else { return default };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        parse_bytes(&text).unwrap_or_else(|| {
            self.problem(name, format!("`{text}` is not a size; write 512Mi, 10Gi or a number of bytes"));
            default
        })
    }

    /// An address to listen on, `host:port`.
    pub(super) fn listen(&mut self, name: &'static str, default: SocketAddr) -> SocketAddr {
        let Some(text) = self.string(name) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.problem(name, format!("`{text}` is not an address; write 0.0.0.0:8443 or [::]:8443"));
            default
        })
    }

    /// A file that must exist and be readable.
    pub(super) fn file(&mut self, name: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.string(name)?);
        match std::fs::File::open(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                self.problem(name, format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice(&mut self, name: &'static str, choices: &[&'static str]) -> Option<&'static str> {
        let text = self.string(name)?;
        let found = choices.iter().copied().find(|choice| *choice == text);
        if found.is_none() {
            self.problem(name, format!("`{text}` is not one of {}", choices.join(", ")));
        }
        found
    }

    /// Whether the file has this field at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Notes every field that nobody asked for, with the nearest known one.
    pub(super) fn finish(self) {
        for unknown in self.fields.keys().filter(|field| !self.known.contains(&field.as_str())) {
            let near = self.known.iter().find(|known| close(known, unknown));
            let hint = match near {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.problem(unknown, format!("unknown field; {hint}"));
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.fields.get(name).cloned()
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn wrong<T>(&self, name: &str, wanted: &str, found: &Value) -> Option<T> {
        self.problem(name, format!("expected {wanted}, found {}", kind_of(found)));
        None
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text `{text}`"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Whether two field names differ by case, by one letter, or by a few letters at the end.
fn close(known: &str, written: &str) -> bool {
    let (a, b) = (known.to_ascii_lowercase(), written.to_ascii_lowercase().replace(['_', '-'], ""));
    if a == b || a.starts_with(&b) || b.starts_with(&a) {
        return true;
    }
    let same = a.chars().zip(b.chars()).filter(|(x, y)| x == y).count();
    a.len().abs_diff(b.len()) <= 1 && same + 1 >= a.len().min(b.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_problem_is_told_at_once_with_its_path() {
        let problems = RefCell::new(Vec::new());
        let mut root = Section::root(json!({"webhook": {"park": "soon", "parc": 1, "max": 0}, "odd": {}}), &problems);
        let mut webhook = root.section("webhook");
        let limits = (Duration::ZERO, Duration::from_secs(24));
        assert_eq!(webhook.duration("park", Duration::from_secs(24), limits), Duration::from_secs(24));
        assert_eq!(webhook.count("max", 7, 10), 7);
        webhook.finish();
        root.finish();
        let told: Vec<String> = problems.borrow().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told.iter().any(|p| p.starts_with("webhook.park: `soon` is not a duration")));
        assert!(told.iter().any(|p| p == "webhook.parc: unknown field; did you mean `park`?"));
        assert!(told.iter().any(|p| p.starts_with("webhook.max: expected a whole number")));
        assert!(told.iter().any(|p| p.starts_with("odd: unknown field")));
    }

    #[test]
    fn sizes_are_written_as_kubernetes_writes_them() {
        assert_eq!(parse_bytes("10Gi"), Some(10 << 30));
        assert_eq!(parse_bytes("1000"), Some(1000));
        assert_eq!(parse_bytes("2M"), Some(2_000_000));
        assert_eq!(parse_bytes("2MB"), None);
        assert_eq!(parse_bytes(""), None);
        assert_eq!(parse_bytes("99999999999Ti"), None);
    }
}
