//! What is fuzzed, from what, and which laws must hold besides not crashing.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use kustody::core::action::{Action, ClassName};
use kustody::core::admission::answer::Answer;
use kustody::core::admission::{review, sound, subject};
use kustody::core::approval::{Fingerprint, exhibit};
use kustody::core::audit::describe::Stamp;
use kustody::core::audit::{Decided, Effect, Entry, Kind, MAX_LINE, segment};
use kustody::core::expression::{Documents, Expression, Fuel, Scope};
use kustody::core::policy::{Circumstances, ClassSpec, Content, Facts, PolicySnapshot, PolicySpec, decide};
use serde_json::Value;

use crate::{recordings, wire};

/// One thing that is fuzzed.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) corpus: fn() -> Vec<Vec<u8>>,
    pub(crate) run: fn(&[u8]),
    /// New inputs of a run that is not told how long it may take.
    pub(crate) inputs: u64,
}

/// What most targets take in a few seconds.
const SOME: u64 = 10_000;

/// All of them. What decides about an agent's request is fed for about a minute.
pub(crate) const TARGETS: [Target; 15] = [
    Target { name: "review", corpus: reviews, run: read_review, inputs: 120_000 },
    Target { name: "policy", corpus: policies, run: load_policy, inputs: 35_000 },
    Target { name: "cel", corpus: expressions, run: evaluate, inputs: 150_000 },
    Target { name: "fingerprint", corpus: reviews, run: fingerprint, inputs: 85_000 },
    Target { name: "diff", corpus: secrets, run: diff, inputs: 300_000 },
    Target { name: "segment", corpus: segments, run: read_segment, inputs: SOME },
    Target { name: "entry", corpus: entries, run: read_entry, inputs: SOME },
    Target { name: "spdy", corpus: wire::spdy_streams, run: wire::read_spdy, inputs: SOME },
    Target { name: "websocket", corpus: wire::frames, run: wire::read_frames, inputs: SOME },
    Target { name: "channels", corpus: wire::messages, run: wire::read_channels, inputs: SOME },
    Target { name: "tunnel", corpus: wire::tunnels, run: wire::read_tunnel, inputs: SOME },
    Target { name: "handshake", corpus: wire::heads, run: wire::read_head, inputs: SOME },
    Target { name: "screen", corpus: recordings::outputs, run: recordings::show, inputs: SOME },
    Target { name: "chunk", corpus: recordings::chunks, run: recordings::read_chunk, inputs: SOME },
    Target { name: "archive", corpus: recordings::archives, run: recordings::list, inputs: SOME },
];

/// Stands for every secret value in the corpus.
const SECRET: &str = "S3CR3TS3CR3TS3CR3T";

fn stamp() -> Stamp<'static> {
    let (id, time) = (uuid::Uuid::nil().into(), Timestamp::UNIX_EPOCH);
    Stamp { id, time, latency_us: 0, cluster: "fuzz", replica: "fuzz" }
}

pub(crate) fn files(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.iter().map(|path| std::fs::read(path).expect("file")).collect()
}

fn reviews() -> Vec<Vec<u8>> {
    files("tests/reviews", "json")
}

/// Everything the webhook does with a review before and after it is decided.
fn read_review(input: &[u8]) {
    let Ok(request) = review::decode(input) else { return };
    let is_sound = request.check().is_ok();
    let Ok(action) = subject::action(&request, ClassName::from("agents")) else { return };
    let mut answer = Answer::forbid(action.target().to_string());
    answer.warnings.push(action.resource.to_string());
    let answer: Value = serde_json::from_slice(&answer.encode(&request.uid).expect("answer")).expect("JSON");
    assert_eq!(answer["response"]["uid"], request.uid.as_str());
    let entry = Entry::blank(Kind::Review, Effect::Refused, &stamp()).about(&action).changing(&action, &request);
    let line = entry.to_line().expect("line");
    assert!(line.len() <= MAX_LINE && !line.contains(&b'\n'));
    let again = Entry::from_line(&line).expect("entry").to_line().expect("line");
    assert_eq!(line, again, "a line is read back as what it is");
    if is_sound && let Some(object) = request.object {
        assert!(serde_json::from_str::<Value>(object.get()).is_ok(), "what is sound can be read");
    }
}

fn policies() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for text in files("manifests", "yaml").iter().chain(&files("tests/cases", "yaml")) {
        for document in String::from_utf8_lossy(text).split("\n---\n") {
            let Ok(value) = serde_saphyr::from_str::<Value>(document) else { continue };
            let tables = value.get("policies").and_then(Value::as_object).into_iter().flat_map(|all| all.values());
            let spec = value.get("spec").filter(|spec| spec.get("rules").is_some());
            found.extend(spec.into_iter().chain(tables).map(|spec| spec.to_string().into_bytes()));
        }
    }
    found
}

/// Loading finds every problem and never fails; deciding by whatever was loaded never fails either.
fn load_policy(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(policy) = serde_saphyr::from_str::<PolicySpec>(&text) else { return };
    let policies = BTreeMap::from([("fuzz".to_owned(), policy)]);
    let (snapshot, problems) = PolicySnapshot::load(&BTreeMap::<String, ClassSpec>::new(), &policies);
    problems.iter().for_each(|problem| drop(problem.to_string()));
    for (action, body) in actions() {
        let request = review::decode(&body).expect("review");
        let content = Content::of_review(&request);
        let now = Circumstances::at(Timestamp::UNIX_EPOCH);
        let decision = decide(&snapshot, &Facts { action: &action, content }, &now);
        let entry = Entry::blank(Kind::Review, Effect::Refused, &stamp()).decided(Some(Decided::of(&decision)));
        entry.to_line().expect("line");
        drop(decide(&snapshot, &Facts::bare(&action), &now));
    }
}

/// A few recorded reviews with their actions.
fn actions() -> Vec<(Action, Vec<u8>)> {
    let some = reviews().into_iter().step_by(5);
    some.map(|body| {
        let action = subject::action(&review::decode(&body).expect("review"), ClassName::from("agents"));
        (action.expect("action"), body)
    })
    .collect()
}

fn expressions() -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = [
        "object.metadata.name.startsWith('a') && size(object.metadata.labels) > 2",
        "object.spec.template.spec.containers.all(c, c.image.matches('^[a-z]+/.*') || has(c.resources.limits))",
        "oldObject == null || object.spec.replicas < oldObject.spec.replicas * 2",
        "quantity(object.spec.resources.requests.memory).isGreaterThan(quantity('1Gi'))",
        "cidr('10.0.0.0/8').containsIP(ip('10.1.2.3')) && isURL('https://a.b/c?d=e')",
        "[1, 2, 3].map(x, x * 2).filter(x, x > 2).exists(x, x == 4) ? 'a' == 'b' : {'k': 1}['k'] == 1",
        "object.?metadata.?labels['a'].orValue('b') in ['b', 'c']",
        "duration('1h') + duration('30m') > duration('45m') && timestamp('2026-11-21T00:00:00Z').getFullYear() == 2026",
        "'a,b,c'.split(',').join('-').replace('-', '+').upperAscii() == 'A+B+C' && 'x'.format([]) == r'\\d'",
        "agent.user.contains('bot') && action.verb in ['create', 'update'] && run != null && request.dryRun == false",
        "semver('1.2.3').isLessThan(semver('2.0.0')) && sets.contains([1, 2], [2]) && [3, 1, 2].sum() == 6",
        "dyn(1) == 1.0 && b'a' + b'\\xff' != b'' && -9223372036854775807 - 1 < 0 && 18446744073709551615u > 0u",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    for spec in policies() {
        let Ok(spec) = serde_json::from_slice::<Value>(&spec) else { continue };
        for rule in spec["rules"].as_array().into_iter().flatten() {
            let texts =
                rule["when"].as_array().into_iter().flatten().map(|when| when.as_str().or(when["expression"].as_str()));
            found.extend(texts.flatten().map(|text| text.as_bytes().to_vec()));
        }
    }
    found
}

/// What compiles is evaluated within its fuel, twice with one result.
fn evaluate(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let expression = match Expression::compile(&text) {
        Ok(expression) => expression,
        Err(problem) => return drop(problem.to_string()),
    };
    for (action, body) in actions() {
        let request = review::decode(&body).expect("review");
        let documents = Documents {
            object: request.object,
            old_object: request.old_object,
            options: request.options,
            ..Documents::default()
        };
        let once = expression.evaluate(&Scope::new(&action, documents), Fuel::default());
        let again = expression.evaluate(&Scope::new(&action, documents), Fuel::default());
        assert_eq!(format!("{once:?}"), format!("{again:?}"), "an expression has one result");
    }
}

/// A fingerprint does not depend on the order of members, and depends on who asks.
fn fingerprint(input: &[u8]) {
    let of = |body: &[u8]| -> Option<Fingerprint> {
        let request = review::decode(body).ok()?;
        request.check().ok()?;
        let action = subject::action(&request, ClassName::from("agents")).ok()?;
        Fingerprint::of_review(&action, &request).ok()
    };
    let Some(once) = of(input) else { return };
    assert_eq!(of(input), Some(once.clone()), "equal reviews have one fingerprint");
    // Beside the objects a review may nest deeper than a tree can.
    let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
    let again = serde_json::to_string_pretty(&value).expect("JSON");
    if request_is_exact(&value) {
        assert_eq!(of(again.as_bytes()), Some(once.clone()), "white space and order do not matter");
    }
    let mut other = value;
    // What is no object cannot be given another name.
    let Some(Value::Object(who)) = other.pointer_mut("/request/userInfo") else { return };
    who.insert("username".to_owned(), Value::String("somebody else".to_owned()));
    assert_ne!(of(other.to_string().as_bytes()), Some(once), "somebody else is somebody else");
}

/// Numbers that are written back as they were.
fn request_is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64() || number.is_u64(),
        Value::Array(items) => items.iter().all(request_is_exact),
        Value::Object(members) => members.values().all(request_is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Reviews of Secrets whose every value is [`SECRET`].
fn secrets() -> Vec<Vec<u8>> {
    let object = |extra: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"s","uid":"u"{extra}}},"data":{{"a":"{SECRET}","b":"{SECRET}"}},"stringData":{{"c":"{SECRET}"}}}}"#
        )
    };
    let copy = format!(r#","annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"{SECRET}"}}"#);
    let review = |operation: &str, object: &str, old: &str| {
        format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"1","resource":{{"group":"","version":"v1","resource":"secrets"}},"operation":"{operation}","namespace":"n","name":"s","userInfo":{{"username":"bot"}},"object":{object},"oldObject":{old},"options":null}}}}"#
        )
    };
    vec![
        review("CREATE", &object(""), "null").into_bytes(),
        review("UPDATE", &object(&copy), &object("")).into_bytes(),
        review("DELETE", "null", &object(&copy)).into_bytes(),
    ]
}

/// Whatever the shape of a Secret's data, no value of it is shown.
fn diff(input: &[u8]) {
    let Ok(request) = review::decode(input) else { return };
    let Ok(action) = subject::action(&request, ClassName::from("agents")) else { return };
    let shown = exhibit::of_review(&action, &request);
    let entry = Entry::blank(Kind::Review, Effect::Refused, &stamp()).changing(&action, &request);
    entry.to_line().expect("line");
    let is_secret = exhibit::is_secret(&action.resource) && request.check().is_ok();
    let elsewhere = [request.object, request.old_object].into_iter().flatten().any(|raw| outside_data(raw.get()));
    if is_secret && !elsewhere {
        let entry = String::from_utf8(entry.to_line().expect("line")).expect("UTF-8");
        let shown = shown.map(|exhibit| format!("{exhibit:?}")).unwrap_or_default();
        assert!(!entry.contains(SECRET), "the log shows a secret: {entry}");
        assert!(!shown.contains(SECRET), "the exhibit shows a secret: {shown}");
    }
}

/// Whether a mutation carried the secret to a place that is not one of a Secret's.
fn outside_data(object: &str) -> bool {
    let Ok(mut value) = serde_json::from_str::<Value>(object) else { return true };
    if let Some(members) = value.as_object_mut() {
        members.retain(|key, _| key != "data" && key != "stringData");
        if let Some(annotations) = members.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"))
            && let Some(annotations) = annotations.as_object_mut()
        {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    value.to_string().contains(SECRET)
}

fn entries() -> Vec<Vec<u8>> {
    let entry = |body: &Vec<u8>| {
        let request = review::decode(body).expect("review");
        let action = subject::action(&request, ClassName::from("agents")).expect("action");
        let entry = Entry::blank(Kind::Review, Effect::Refused, &stamp()).about(&action).changing(&action, &request);
        entry.decided(Some(Decided::built_in("fuzz", "why"))).to_line().expect("line")
    };
    reviews().iter().map(entry).collect()
}

fn segments() -> Vec<Vec<u8>> {
    let head = segment::Head { log: uuid::Uuid::nil().into(), number: 1, begun: 0 };
    let framed = |lines: &[Vec<u8>]| {
        let frames = lines.iter().flat_map(|line| [segment::prefix(line).to_vec(), line.clone()]);
        [vec![head.bytes()], frames.collect()].concat().concat()
    };
    let lines = entries();
    let shipped = segment::object(lines.iter().map(Vec::as_slice)).expect("object");
    vec![framed(&lines), framed(&lines[..2]), framed(&[]), shipped]
}

/// Lines, gaps and the end of a segment account for every byte; what is shipped is the lines.
fn read_segment(input: &[u8]) {
    drop(segment::Head::read(input).map(|head| head.place().key()));
    drop(segment::unpack(input));
    let found = segment::read(input);
    let lines: usize = found.lines.iter().map(|line| segment::PREFIX_LEN + line.len()).sum();
    let gaps: usize = found.gaps.iter().map(|gap| gap.bytes).sum();
    assert_eq!(segment::HEAD_LEN.min(input.len()) + lines + gaps, found.end);
    assert!(found.end <= input.len() && found.lines.iter().all(|line| line.len() <= MAX_LINE));
}

/// What is an entry is written as a line that is the same entry; sound JSON is read by everybody.
fn read_entry(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        && sound::check(text).is_ok()
    {
        serde_json::from_str::<Value>(text).expect("what is sound can be read");
    }
    let Ok(entry) = Entry::from_line(input) else { return };
    // Short fields of a line from elsewhere may be long: then there is no line.
    let Ok(line) = entry.to_line() else { return };
    assert!(line.len() <= MAX_LINE);
    assert_eq!(Entry::from_line(&line).expect("entry").to_line().expect("line"), line);
}
