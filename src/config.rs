//! What is valid: the configuration file of `kustody serve`, read into the configurations that the rooms take.
//! All problems are found at once; every field has a default but `store.url` and `spool.dir`. Secrets are never in
//! the file: it names files and environment variables. Main type: [`Config`].

mod section;

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::core::admission::registration::{Address, Known, Site};
use crate::core::recording::manifest::Worm;
use crate::edge::cluster::approvals;
use crate::edge::cluster::grants;
use crate::edge::net::tls::files::Files as TlsFiles;
use crate::edge::net::tls::rotation::Lifetimes;
use crate::edge::store::retention::{LONGEST, Mode, Retention};
use crate::edge::store::wal::Fsync;
use crate::edge::store::{self, Location, S3Config, spool, wal};
use crate::edge::telemetry;
use crate::service::relay::Limits;
use crate::service::{gateway, webhook};
pub use section::Problem;
use section::Section;

/// Longest that a webhook call is parked: the API server waits 30 s, and a late answer counts as a failure.
const LONGEST_PARK: Duration = Duration::from_secs(24);
/// Longest that the gateway parks a request.
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3_600);
/// Longest that sessions may go on after shutdown began.
const LONGEST_GRACE: Duration = Duration::from_secs(3_600);
/// Longest that a session may last or be idle.
const LONGEST_SESSION: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Longest between two looks at the tokens of running sessions.
const LONGEST_RECHECK: Duration = Duration::from_secs(3_600);
/// Clients and API servers send messages of up to 32 KiB, and SPDY headers of up to 64 KiB are read.
const SMALLEST_MESSAGE: usize = 64 << 10;
/// The least that the recording of a session may be limited to.
const SMALLEST_RECORDING: u64 = 1 << 20;
/// Longest that an approval request stays in the cluster after it is over.
const LONGEST_RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Longest that the webhook goes on serving after the end was asked for.
const LONGEST_DRAIN: Duration = Duration::from_secs(300);
/// How long the self-managed certificates may live, and an overlap may last.
const LIFETIMES: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(20 * 365 * 86_400));
/// A service that people find by its name in Kustody's namespace.
const SERVICE_HOSTS: [&str; 3] =
    ["kustody.kustody-system.svc", "kustody.kustody-system.svc.cluster.local", "kustody.kustody-system"];

/// What `kustody serve` runs with.
#[derive(Debug)]
pub struct Config {
    /// The cluster and how to reach its API server.
    pub cluster: Cluster,
    /// The webhook's listener and limits.
    pub webhook: Webhook,
    /// How many of Kustody run side by side, each with its share of a budget; counted in the cluster where not given.
    pub replicas: Option<u32>,
    /// How long grants last, and how many an agent may ask for.
    pub grants: grants::Config,
    /// The gateway's listener and limits; none where it is switched off.
    pub gateway: Option<Gateway>,
    /// Where liveness and readiness are answered, without TLS.
    pub health: SocketAddr,
    /// The serving certificate.
    pub tls: Tls,
    /// How many approval requests there may be, and for how long.
    pub approvals: approvals::Config,
    /// Where recordings go.
    pub store: store::Config,
    /// Whether a store that does not enforce object lock is refused at start.
    pub require_object_lock: bool,
    /// Where recordings are before they are shipped.
    pub spool: spool::Config,
    /// The signing key's file; without one it is kept in a Secret.
    pub signing_key_file: Option<PathBuf>,
    /// The log of what agents asked and what was decided.
    pub audit: wal::Config,
    /// What this process calls itself: its pod, else its host.
    pub replica: String,
    /// Log lines.
    pub telemetry: telemetry::Config,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    /// What recordings call it.
    pub name: String,
    /// A kubeconfig; without one `$KUBECONFIG`, then the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it.
    pub context: Option<String>,
}

/// The webhook.
#[derive(Debug)]
pub struct Webhook {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the API server finds it, and whom it need not be told about.
    pub site: Site,
    /// The API server's own certificate, where it presents one.
    pub client: Option<ClientCertificate>,
    /// How long it goes on serving, and says so, after the end was asked for.
    pub drain: Duration,
    /// Its limits.
    pub service: webhook::Config,
}

/// Whose certificate a caller of the webhook must bring.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The authorities that signed it.
    pub authority: PathBuf,
    /// Common names; none given: any.
    pub names: Vec<String>,
}

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The audience that agents' tokens must have.
    pub audience: String,
    /// Its limits.
    pub service: gateway::Config,
}

/// The serving certificate.
#[derive(Debug)]
pub struct Tls {
    /// Names and addresses that a self-managed certificate serves.
    pub hosts: Vec<String>,
    /// How long what is self-managed lives.
    pub lifetimes: Lifetimes,
    /// Own files instead of a self-managed certificate.
    pub files: Option<TlsFiles>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// The file is no YAML.
    #[error("{0} is not valid YAML: {1}")]
    Yaml(PathBuf, String),
    /// The file says something that cannot be; all of it.
    #[error("{} in {path}:{}", count(problems.len()), list(problems))]
    Problems {
        /// The file.
        path: PathBuf,
        /// Every problem in it.
        problems: Vec<Problem>,
    },
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read, is no YAML, or has problems: then all of them.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::File(path.to_owned(), error))?;
        let value = serde_saphyr::from_str(&text).map_err(|error| Error::Yaml(path.to_owned(), error.to_string()))?;
        Self::read(value).map_err(|problems| Error::Problems { path: path.to_owned(), problems })
    }

    fn read(value: serde_json::Value) -> Result<Self, Vec<Problem>> {
        let problems = RefCell::new(Vec::new());
        let mut root = Section::root(value, &problems);
        let cluster = cluster(root.section("cluster"));
        let replicas = root.has("replicas").then(|| u32::try_from(root.count("replicas", 1, 64)).unwrap_or(1));
        let gateway_section = root.section("gateway");
        let (gateway, gateway_url) = gateway(gateway_section, &cluster.name);
        let webhook = webhook(root.section("webhook"), gateway_url);
        let mut health = root.section("health");
        let health_listen = health.listen("listen", anywhere(8080));
        health.finish();
        let (store, require_object_lock) = store(root.section("store"));
        let audit = audit(root.section("audit"), &cluster.name);
        let config = Self {
            cluster,
            webhook,
            replicas,
            grants: grants(root.section("grants")),
            gateway,
            health: health_listen,
            tls: tls(root.section("tls")),
            approvals: approvals(root.section("approvals")),
            store,
            require_object_lock,
            spool: spool(root.section("spool")),
            signing_key_file: signing_key(root.section("keys")),
            audit,
            replica: replica(),
            telemetry: log(root.section("log")),
        };
        root.finish();
        let problems = problems.into_inner();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}

fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

fn replica() -> String {
    let named = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_default();
    if named.is_empty() { "local".to_owned() } else { named }
}

fn cluster(mut section: Section<'_>) -> Cluster {
    let cluster = Cluster {
        name: section.string("name").unwrap_or_else(|| "kubernetes".to_owned()),
        kubeconfig: section.file("kubeconfig"),
        context: section.string("context"),
    };
    section.finish();
    cluster
}

fn webhook(mut section: Section<'_>, gateway_url: Option<String>) -> Webhook {
    let defaults = webhook::Config::default();
    let url = section.string("url");
    let place = url.as_deref().and_then(|url| url.strip_prefix("https://"));
    if url.is_some() && place.is_none() {
        section.problem("url", "must begin with https://; the API server calls no other");
    }
    let path = place.and_then(|place| place.find('/').and_then(|start| place.get(start..))).map(str::to_owned);
    let client = client_certificate(section.section("clientCertificate"));
    let webhook = Webhook {
        listen: section.listen("listen", anywhere(9443)),
        site: Site { address: url.map_or(Address::Service, Address::Url), known: observe(section.section("observe")) },
        drain: section.duration("drain", Duration::from_secs(10), (Duration::ZERO, LONGEST_DRAIN)),
        service: webhook::Config {
            path: path.unwrap_or(defaults.path),
            park: section.duration("park", defaults.park, (Duration::ZERO, LONGEST_PARK)),
            max_parked: section.count("maxParked", defaults.max_parked, 100_000),
            max_parked_per_agent: section.count("maxParkedPerAgent", defaults.max_parked_per_agent, 100_000),
            gateway_url: gateway_url.unwrap_or_default(),
            caller_is_proved: client.is_some(),
        },
        client,
    };
    section.finish();
    webhook
}

/// Whom the observing webhook knows; none where it is switched off.
fn observe(mut section: Section<'_>) -> Option<Known> {
    let enabled = section.flag("enabled", true);
    let known = Known { users: section.strings("knownUsers"), groups: section.strings("knownGroups") };
    for (field, patterns) in [("knownUsers", &known.users), ("knownGroups", &known.groups)] {
        for pattern in patterns.iter().filter(|one| one.trim_end_matches('*').contains('*') || one.is_empty()) {
            section.problem(field, format!("`{pattern}` is neither a name nor a prefix followed by one *"));
        }
    }
    section.finish();
    enabled.then_some(known)
}

fn client_certificate(mut section: Section<'_>) -> Option<ClientCertificate> {
    let (authority, names) = (section.file("caFile"), section.strings("names"));
    if !names.is_empty() && !section.has("caFile") {
        section.problem("caFile", "is needed: names alone prove nothing");
    }
    section.finish();
    authority.map(|authority| ClientCertificate { authority, names })
}

/// The gateway, and the URL that a denied agent is told.
fn gateway(mut section: Section<'_>, cluster: &str) -> (Option<Gateway>, Option<String>) {
    let defaults = gateway::Config::default();
    let enabled = section.flag("enabled", true);
    let url = section.string("url");
    let limits = limits(&mut section);
    let gateway = Gateway {
        listen: section.listen("listen", anywhere(8443)),
        audience: section.string("audience").unwrap_or_else(|| "kustody".to_owned()),
        service: gateway::Config {
            hold: section.duration("hold", defaults.hold, (Duration::ZERO, LONGEST_HOLD)),
            grace: section.duration("grace", defaults.grace, (Duration::ZERO, LONGEST_GRACE)),
            max_sessions: section.count("maxSessions", defaults.max_sessions, 100_000),
            max_sessions_per_agent: section.count("maxSessionsPerAgent", defaults.max_sessions_per_agent, 100_000),
            recheck: section.duration("recheck", defaults.recheck, (Duration::from_secs(1), LONGEST_RECHECK)),
            limits,
            max_parked: section.count("maxParked", defaults.max_parked, 100_000),
            keep_forwarded: section.bytes("keepForwarded", defaults.keep_forwarded),
            cluster: cluster.to_owned(),
            replica: replica(),
            gated_apis: section.strings("gatedApis"),
        },
    };
    section.finish();
    if enabled { (Some(gateway), url) } else { (None, None) }
}

/// What one session may take.
fn limits(section: &mut Section<'_>) -> Limits {
    let defaults = Limits::default();
    let shortest = Duration::from_secs(1);
    let message = section.bytes("maxMessage", defaults.max_message as u64);
    let max_message = usize::try_from(message).unwrap_or(usize::MAX);
    if !(SMALLEST_MESSAGE..=defaults.max_message).contains(&max_message) {
        let message = format!("must be from 64Ki, which clients send, to {}Mi", defaults.max_message >> 20);
        section.problem("maxMessage", message);
    }
    let recording = section.bytes("maxRecording", defaults.recording);
    if recording < SMALLEST_RECORDING {
        section.problem("maxRecording", "must be at least 1Mi: a session that may leave no trace may do nothing");
    }
    Limits {
        max_message,
        recording,
        idle: section.duration("maxIdle", defaults.idle, (shortest, LONGEST_SESSION)),
        lifetime: section.duration("maxLifetime", defaults.lifetime, (shortest, LONGEST_SESSION)),
        connections: section.count("maxConnections", defaults.connections, 10_000),
    }
}

fn grants(mut section: Section<'_>) -> grants::Config {
    let defaults = grants::Config::default();
    let shortest = Duration::from_secs(60);
    let grants = grants::Config {
        longest: section.duration("longest", defaults.longest, (shortest, defaults.longest)),
        max_open_per_agent: section.count("maxOpenPerAgent", defaults.max_open_per_agent, 1_000),
    };
    section.finish();
    grants
}

fn tls(mut section: Section<'_>) -> Tls {
    let mut hosts = section.strings("hosts");
    hosts.extend(SERVICE_HOSTS.map(str::to_owned));
    let names = ["caFile", "certFile", "keyFile"];
    let given = names.iter().filter(|name| section.has(name)).count();
    let files = (section.file("caFile"), section.file("certFile"), section.file("keyFile"));
    if given != 0 && given != names.len() {
        section.problem("certFile", "caFile, certFile and keyFile go together: give all three or none");
    }
    let defaults = Lifetimes::default();
    let lifetimes = Lifetimes {
        authority: section.duration("authorityLifetime", defaults.authority, LIFETIMES),
        leaf: section.duration("certificateLifetime", defaults.leaf, LIFETIMES),
        overlap: section.duration("overlap", defaults.overlap, (Duration::from_secs(1), LIFETIMES.1)),
    };
    if lifetimes.overlap * 12 > lifetimes.authority {
        section
            .problem("overlap", "must be less than a twelfth of authorityLifetime: two of them pass in its last sixth");
    }
    section.finish();
    let files = match files {
        (Some(authority), Some(certificate), Some(key)) => Some(TlsFiles { authority, certificate, key }),
        _ => None,
    };
    Tls { hosts, lifetimes, files }
}

fn approvals(mut section: Section<'_>) -> approvals::Config {
    let defaults = approvals::Config::default();
    let config = approvals::Config {
        max_open_per_agent: section.count("maxOpenPerAgent", defaults.max_open_per_agent, 1_000),
        retention: section.duration("retention", defaults.retention, (Duration::ZERO, LONGEST_RETENTION)),
        ..defaults
    };
    section.finish();
    config
}

fn store(mut section: Section<'_>) -> (store::Config, bool) {
    let nowhere = Location::Directory(PathBuf::new());
    let location = match section.string("url") {
        None => {
            section.problem("url", "is needed: file:///var/lib/kustody/store or s3://bucket/prefix");
            nowhere
        }
        Some(url) => url.parse().unwrap_or_else(|error: store::NotALocation| {
            section.problem("url", error.to_string());
            nowhere
        }),
    };
    let checksums = section.choice("checksums", &["always", "when_required"]);
    let endpoint = section.string("endpoint");
    if let Some(Err(error)) = endpoint.as_deref().map(store::endpoint) {
        section.problem("endpoint", error.to_string());
    }
    let s3 = S3Config {
        endpoint,
        region: section.string("region"),
        path_style: section.flag("pathStyle", false),
        ca_file: section.file("caFile"),
        access_key_file: section.file("accessKeyFile"),
        secret_key_file: section.file("secretKeyFile"),
        checksums_when_required: checksums == Some("when_required"),
        retention: retention(section.section("retention"), &location),
    };
    let require_object_lock = section.flag("requireObjectLock", false);
    section.finish();
    (store::Config { location, s3 }, require_object_lock)
}

fn retention(mut section: Section<'_>, location: &Location) -> Retention {
    let mut days = |name| {
        let is_given = section.has(name);
        let days = u32::try_from(section.count(name, 1, LONGEST)).unwrap_or(1);
        is_given.then_some(days)
    };
    let (recordings, log) = (days("recordingsDays"), days("logDays"));
    let mode = match section.choice("mode", &["Compliance", "Governance"]) {
        Some("Governance") => Mode::Governance,
        Some(_) | None => Mode::Compliance,
    };
    let retention = Retention { mode, recordings, log };
    if retention.locks() && matches!(location, Location::Directory(_)) {
        section.problem("mode", "locks are a matter of S3: a directory has none; leave `retention` out");
    }
    section.finish();
    retention
}

fn spool(mut section: Section<'_>) -> spool::Config {
    let dir = section.string("dir").unwrap_or_else(|| {
        section.problem("dir", "is needed: a folder that survives a restart, such as /var/lib/kustody/spool");
        String::new()
    });
    let defaults = spool::Config::new(dir);
    let spool = spool::Config {
        quota: section.bytes("quota", defaults.quota),
        free_space_floor: section.bytes("freeSpaceFloor", defaults.free_space_floor),
        fsync_every: section.duration("fsyncEvery", defaults.fsync_every, (Duration::ZERO, Duration::from_secs(60))),
        worm: Worm::NotEnforced,
        ..defaults
    };
    section.finish();
    spool
}

fn signing_key(mut section: Section<'_>) -> Option<PathBuf> {
    let file = section.string("signingKeyFile").map(PathBuf::from);
    section.finish();
    file
}

fn audit(mut section: Section<'_>, cluster: &str) -> wal::Config {
    let defaults = wal::Config::default();
    let fsync = match section.choice("fsync", &["always", "everySecond"]) {
        Some("everySecond") => Fsync::EverySecond,
        Some(_) | None => Fsync::Always,
    };
    let limits = (Duration::from_secs(1), Duration::from_secs(600));
    let segment_age = section.duration("shipEvery", defaults.segment_age, limits);
    section.finish();
    wal::Config { cluster: cluster.to_owned(), replica: replica(), fsync, segment_age, ..defaults }
}

fn log(mut section: Section<'_>) -> telemetry::Config {
    let json = section.choice("format", &["text", "json"]) == Some("json");
    let filter = section.string("filter").unwrap_or_else(|| "info".to_owned());
    if let Err(why) = telemetry::check_filter(&filter) {
        section.problem("filter", format!("`{filter}` is not a filter such as `info` or `kustody=debug`: {why}"));
    }
    section.finish();
    telemetry::Config { json, filter }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_minimal_file_is_enough() {
        let config = Config::read(json!({"store": {"url": "file:///tmp/x"}, "spool": {"dir": "/tmp/y"}})).unwrap();
        assert_eq!(config.webhook.site.address, Address::Service);
        assert_eq!(config.webhook.service.park, LONGEST_PARK);
        assert!(config.gateway.is_some());
        assert!(config.tls.hosts.contains(&"kustody.kustody-system.svc".to_owned()));
    }

    #[test]
    fn all_problems_of_a_file_are_told_at_once() {
        let told = Config::read(json!({
            "webhook": {"park": "31s", "url": "http://x"},
            "gateway": {"hold": "soon", "maxIdle": "0s", "maxMessage": 10, "maxRecording": "1k", "recheck": "2h"},
            "tls": {"certFile": "/nowhere"},
            "store": {"url": "ftp://x", "checksums": "never", "endpoint": "http://minio:9000"},
            "spool": {"quota": "lots"},
            "log": {"filter": "=="},
            "extra": 1,
        }));
        let told: Vec<String> = told.unwrap_err().iter().map(|problem| problem.path.clone()).collect();
        for path in [
            "webhook.park",
            "webhook.url",
            "gateway.hold",
            "gateway.maxIdle",
            "gateway.maxMessage",
            "gateway.maxRecording",
            "gateway.recheck",
            "tls.certFile",
            "store.url",
            "store.checksums",
            "store.endpoint",
            "spool.quota",
            "spool.dir",
            "log.filter",
            "extra",
        ] {
            assert!(told.contains(&path.to_owned()), "{path} is missing in {told:?}");
        }
    }
}
