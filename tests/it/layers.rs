//! The house's arrows point down: `command → service → edge → core`. Reads every `use` line and every `crate::` path
//! of `src/` and fails on a wrong one, naming file and line.

use std::path::{Path, PathBuf};

/// Rooms of `src/` from top to bottom, each with what it may use.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("main", &["cli"]),
    ("cli", &["command"]),
    ("command", &["command", "config", "service", "edge", "core"]),
    ("config", &["config", "service", "edge", "core"]),
    ("edge", &["edge", "core"]),
    ("core", &["core"]),
];
/// Services by themselves: none uses another, except the gateway the relay that it starts.
const SERVICES_MAY_USE: [(&str, &[&str]); 1] = [("gateway", &["relay"])];
/// What a pure room never names.
const NOT_IN_CORE: [&str; 9] = [
    "async ",
    "tokio",
    "std::fs",
    "std::net",
    "std::env",
    "tracing::",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
];

#[test]
fn arrows_point_down() {
    let wrong: Vec<String> = sources().iter().flat_map(|file| wrong_arrows(file)).collect();
    assert!(wrong.is_empty(), "wrong arrows:\n{}", wrong.join("\n"));
}

#[test]
fn core_does_no_io_and_knows_no_clock() {
    let core = sources().into_iter().filter(|file| file.starts_with(root().join("core")));
    let wrong: Vec<String> = core.flat_map(|file| impure_lines(&file)).collect();
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_sees_a_wrong_arrow() {
    let told = arrows_of("core/policy.rs", "use crate::edge::store::Store;\n");
    assert_eq!(told, ["core/policy.rs:1: core must not use edge"]);
    let told = arrows_of("service/webhook.rs", "    let x = crate::service::gateway::Gateway::new();\n");
    assert_eq!(told, ["service/webhook.rs:1: the service webhook must not use the service gateway"]);
    assert!(arrows_of("service/gateway/forward.rs", "use crate::service::relay::Relay;\n").is_empty());
    assert!(arrows_of("command/serve.rs", "use crate::{edge::net, service::webhook};\n").is_empty());
    assert_eq!(arrows_of("edge/net.rs", "use crate::{core::keys, service::webhook};\n").len(), 1);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 10, "only {} sources found", found.len());
    found
}

fn wrong_arrows(file: &Path) -> Vec<String> {
    let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    arrows_of(&name, &std::fs::read_to_string(file).unwrap())
}

fn arrows_of(name: &str, text: &str) -> Vec<String> {
    let mut parts = name.trim_end_matches(".rs").split('/');
    let (room, service) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        for (used, inner) in used_rooms(line) {
            let place = format!("{name}:{}", number + 1);
            if room == "service" {
                if used == "service" && inner != service && !service_may_use(service, &inner) {
                    wrong.push(format!("{place}: the service {service} must not use the service {inner}"));
                } else if !["service", "edge", "core"].contains(&used.as_str()) {
                    wrong.push(format!("{place}: service must not use {used}"));
                }
            } else if MAY_USE.iter().any(|(above, below)| *above == room && !below.contains(&used.as_str())) {
                wrong.push(format!("{place}: {room} must not use {used}"));
            }
        }
    }
    wrong
}

fn service_may_use(service: &str, inner: &str) -> bool {
    SERVICES_MAY_USE.iter().any(|(above, below)| *above == service && below.contains(&inner))
}

/// The rooms named by `crate::room::inner` and `crate::{room::inner, …}` in one line.
fn used_rooms(line: &str) -> Vec<(String, String)> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let entries: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        for entry in entries {
            let room = word(entry);
            let inner = entry.strip_prefix(&format!("{room}::")).map(word).unwrap_or_default();
            if !room.is_empty() {
                found.push((room, inner));
            }
        }
    }
    found
}

fn impure_lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let wrong = lines.filter(|(_, line)| NOT_IN_CORE.iter().any(|word| line.contains(word)));
    wrong.map(|(number, line)| format!("{}:{}: {}", file.display(), number + 1, line.trim())).collect()
}
