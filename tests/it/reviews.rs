//! Recorded pairs of reviews: the API server's repeats of one kubectl command have one fingerprint, any two
//! commands have two. `tests/reviews/NAME-a.json` and `-b.json` are two calls of the same command.
#![expect(clippy::panic, reason = "a test that fails says so by panicking")]

use kustody::core::{
    action::ClassName,
    admission::{review, subject},
    approval::{Fingerprint, exhibit},
};
use std::{collections::BTreeMap, path::Path};

const NAMES: [&str; 13] = [
    "configmap",
    "delete",
    "deployment",
    "exec",
    "exec-stdin",
    "job",
    "job-generated",
    "label",
    "pod",
    "pod-generated",
    "rollout-restart",
    "scale",
    "server-side-apply",
];

fn recorded(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/reviews/{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fingerprint(body: &str) -> Fingerprint {
    let request = review::decode(body.as_bytes()).unwrap();
    let action = subject::action(&request, ClassName::from("agents")).unwrap();
    Fingerprint::of_review(&action, &request).unwrap()
}

#[test]
fn repeats_of_one_command_have_one_fingerprint_and_other_commands_another() {
    let mut seen: BTreeMap<Fingerprint, &str> = BTreeMap::new();
    for name in NAMES {
        let (a, b) = (recorded(&format!("{name}-a")), recorded(&format!("{name}-b")));
        assert_ne!(a, b, "{name}: the two reviews differ at least in their uid");
        assert_eq!(fingerprint(&a), fingerprint(&b), "{name}");
        if let Some(other) = seen.insert(fingerprint(&a), name) {
            panic!("{name} and {other} have the same fingerprint");
        }
    }
}

#[test]
fn any_change_of_content_or_identity_changes_the_fingerprint() {
    for (name, from, to) in [
        ("pod-a", "\"local/tiny:1\"", "\"local/tiny:2\""),
        ("pod-a", "\"sleep\"", "\"sleeq\""),
        ("job-a", "\"restartPolicy\":\"Never\"", "\"restartPolicy\":\"OnFailure\""),
        ("scale-a", "\"spec\":{}", "\"spec\":{\"replicas\":2}"),
        ("configmap-a", "\"k\":\"v\"", "\"k\":\"w\""),
        ("delete-a", "\"propagationPolicy\":\"Background\"", "\"propagationPolicy\":\"Orphan\""),
        ("exec-a", "\"sh\",\"-c\",\"x\"", "\"sh\",\"-c\",\"y\""),
        ("exec-a", "system:serviceaccount:agents:bot", "system:serviceaccount:agents:bat"),
        ("label-a", "\"x\":\"y\"", "\"x\":\"z\""),
    ] {
        let body = recorded(name);
        assert!(body.contains(from), "{name} holds {from}");
        assert_ne!(fingerprint(&body), fingerprint(&body.replace(from, to)), "{name}: {from} -> {to}");
    }
}

#[test]
fn what_an_approver_is_shown_stays_small_and_speaks_of_the_change() {
    let body = recorded("scale-a");
    let request = review::decode(body.as_bytes()).unwrap();
    let action = subject::action(&request, ClassName::from("agents")).unwrap();
    let shown = exhibit::of_review(&action, &request).unwrap();
    assert_eq!(shown.changes[0].to_string(), "/spec/replicas: 1 -> 0");
    assert!(!shown.object.contains("managedFields") && !shown.truncated);
}
