//! `make bench`: Kustody beside a floor and a peer, interleaved in one run on the same machine, as medians and ratios.
//! Absolute figures of a shared machine drift; ratios of neighbouring rounds hold. Loads are bounded in time.
//!
//! - webhook (`webhook.rs`): the floor is a bare hyper and rustls handler that looks only for the uid; the peer parses the
//!   whole review into a tree, as webhooks commonly do;
//! - the steps of one review by themselves (`stages.rs`);
//! - log (`wal.rs`): the floor is a plain write and fdatasync of the same bytes;
//! - gateway: the floor is the API server itself; the peer is `kubectl proxy`;
//! - create: a ConfigMap created through the API server, as a dry run; the floor is an identity that nobody gates;
//! - exec: the floor is kubectl directly at the API server;
//! - streams (`streams.rs`) and `kubectl cp` (`copy.rs`): the floor is a client directly at the API server, the peer a
//!   plain TLS proxy before it;
//! - stored (`stored.rs`): what a recording takes in the store, beside plain `zstd -3` of the same bytes;
//! - active and idle (`crowd.rs`): many sessions at once, that print all the time, and in which nothing happens.
//!
//! `cargo bench --bench kustody -- LANE…` runs these alone: stages, log, allow, large, gateway, create, exec, streams,
//! cp, replay, stored, active, idle, rules, parked. `KUSTODY_BENCH_CLUSTER` names the cluster, for runs side by side.
#![expect(
    unreachable_pub,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program for people who test: it prints, and fails loudly"
)]

#[path = "../stage/stage.rs"]
#[expect(dead_code, reason = "some of the stage serves the end-to-end tests alone")]
mod stage;

mod bare;
mod copy;
mod crowd;
mod figures;
mod load;
mod occupant;
mod proxy;
mod stages;
mod stored;
mod streams;
mod text;
mod wal;
mod ways;
mod webhook;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use figures::Table;
use load::{Lane, Target};
use stage::run::{Processes, resident};
use stage::{Plan, Stage, tear_down};
use tokio::runtime::Runtime;
use ways::Way;

/// What is measured.
const LANES: [&str; 15] = [
    "stages", "log", "allow", "large", "gateway", "create", "exec", "streams", "cp", "replay", "stored", "active",
    "idle", "rules", "parked",
];
/// Rounds; each visits every lane once.
const ROUNDS: usize = 7;
/// How long a lane is loaded in a round.
const SPELL: Duration = Duration::from_millis(1500);
/// Executions of `kubectl exec` a lane.
const EXECS: usize = 25;

fn main() -> ExitCode {
    // `cargo bench` adds --bench; the bare handlers are this program too, as processes of their own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Some(kind) = arguments.first().filter(|word| word.starts_with("bare-")) {
        return ended(bare::serve(kind, arguments.get(1).map(Path::new)));
    }
    if arguments.first().is_some_and(|word| word == proxy::KIND) {
        return ended(proxy::serve(&arguments));
    }
    if arguments.first().is_some_and(|word| occupant::KINDS.contains(&word.as_str())) {
        return ended(occupant::serve(&arguments));
    }
    if let Some(unknown) = arguments.iter().find(|word| !LANES.contains(&word.as_str())) {
        return ended(Err(anyhow::anyhow!("there is no lane {unknown}, only {}", LANES.join(", "))));
    }
    if arguments == ["stages"] {
        return ended(stages::measure());
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: no TLS provider");
        return ExitCode::FAILURE;
    }
    let kustody = PathBuf::from(env!("CARGO_BIN_EXE_kustody"));
    let name = std::env::var("KUSTODY_BENCH_CLUSTER").map_or("bench", |name| &*name.leak());
    let plan = Plan { name, kustody, say: |step| println!("==> {step}") };
    let processes = Arc::new(Processes::default());
    on_interrupt(&plan, &processes);
    let measured = Stage::up(&plan, &processes).and_then(|mut stage| measure(&mut stage, &processes, &arguments));
    let torn_down = tear_down(&plan, &processes);
    ended(measured.and(torn_down))
}

/// Ctrl-C and a request to end take the stage down before the process ends.
fn on_interrupt(plan: &Plan, processes: &Arc<Processes>) {
    let (plan, processes) = (plan.clone(), Arc::clone(processes));
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(stage::run::interrupted());
        eprintln!("interrupted: taking the stage down");
        ended(tear_down(&plan, &processes));
        std::process::exit(130);
    });
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(stage: &mut Stage, processes: &Arc<Processes>, lanes: &[String]) -> anyhow::Result<()> {
    let wanted = |lane: &str| lanes.is_empty() || lanes.iter().any(|word| word == lane);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("\nmemory of an idle `kustody serve`: {} MiB", resident(stage.kustody.pid())? / 1024);
    if wanted("stages") {
        stages::measure()?;
    }
    if wanted("log") {
        runtime.block_on(wal::measure(&stage.dir))?;
    }
    let bare = webhook::Floors::start(stage, processes)?;
    if wanted("allow") {
        runtime.block_on(webhook::allow(stage, &bare))?;
    }
    if wanted("large") {
        runtime.block_on(webhook::large(stage, &bare))?;
    }
    if wanted("gateway") {
        runtime.block_on(gateway(stage, processes))?;
    }
    if wanted("create") {
        runtime.block_on(create(stage))?;
    }
    println!("memory after the load: {} MiB", resident(stage.kustody.pid())? / 1024);
    if wanted("exec") {
        exec(stage)?;
    }
    many_bytes(stage, processes, &runtime, wanted)?;
    if wanted("idle") {
        runtime.block_on(crowd::idle(stage))?;
    }
    if wanted("rules") {
        runtime.block_on(webhook::many_rules(stage, &bare))?;
    }
    if wanted("parked") {
        runtime.block_on(webhook::parked(stage))?;
    }
    Ok(())
}

/// The lanes about what streams carry.
fn many_bytes(
    stage: &mut Stage,
    processes: &Arc<Processes>,
    runtime: &Runtime,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    if !["streams", "cp", "replay", "stored", "active"].into_iter().any(&wanted) {
        return Ok(());
    }
    let ways = runtime.block_on(Way::all(stage, processes))?;
    if wanted("streams") {
        runtime.block_on(streams::measure(stage, &ways))?;
    }
    if wanted("cp") {
        copy::measure(stage, &ways)?;
    }
    if wanted("replay") {
        runtime.block_on(streams::replay(stage, &ways[2]))?;
    }
    if wanted("stored") {
        runtime.block_on(stored::measure(stage, &ways[2]))?;
    }
    if wanted("active") {
        runtime.block_on(crowd::active(stage, &ways))?;
    }
    Ok(())
}

async fn gateway(stage: &Stage, processes: &Arc<Processes>) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/shop/pods/{}", stage.pod()?);
    let own = std::fs::read(stage.dir.join("kustody-ca.crt"))?;
    let cluster = std::fs::read(&stage.cluster.ca_file)?;
    let (agent, direct) = (token(&stage.people.agent)?, token(&stage.people.agent_direct)?);
    let proxy = kubectl_proxy(stage, processes)?;
    for connections in [1, 16] {
        let lanes = vec![
            Lane::new("floor: direct", Target::get(&format!("{}{path}", stage.cluster.server), &cluster, &direct)?),
            Lane::new("peer: kubectl proxy", Target::get(&format!("{proxy}{path}"), &[], "")?),
            Lane::new("kustody", Target::get(&format!("{}{path}", stage.kustody.gateway), &own, &agent)?),
        ];
        println!(
            "\n{}",
            rounds(&format!("gateway, GET of one pod, {connections} connections"), &lanes, connections).await?
        );
    }
    Ok(())
}

/// What a create costs whose answer waits for the webhook. Nothing is kept of a dry run, and it is decided all the same.
async fn create(stage: &Stage) -> anyhow::Result<()> {
    const BODY: &str =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"bench-"},"data":{"a":"b"}}"#;
    let path = "/api/v1/namespaces/agents/configmaps?dryRun=All";
    let own = std::fs::read(stage.dir.join("kustody-ca.crt"))?;
    let cluster = std::fs::read(&stage.cluster.ca_file)?;
    let at = |server: &str, ca: &[u8], token: &str| {
        anyhow::Ok(Target::post(&format!("{server}{path}"), ca, BODY)?.by(token))
    };
    let (server, agent) = (&stage.cluster.server, token(&stage.people.agent)?);
    for connections in [1, 16] {
        let lanes = vec![
            Lane::new("floor: nobody gates", at(server, &cluster, &ungated(stage)?)?),
            Lane::new("kustody's webhook", at(server, &cluster, &token(&stage.people.agent_direct)?)?),
            Lane::new("its gateway and webhook", at(&stage.kustody.gateway, &own, &agent)?),
        ];
        println!(
            "\n{}",
            rounds(&format!("create of a ConfigMap, {connections} connections"), &lanes, connections).await?
        );
    }
    Ok(())
}

/// The token of an identity that may do everything and is no agent.
fn ungated(stage: &Stage) -> anyhow::Result<String> {
    let cluster = &stage.cluster;
    if cluster.admin(&["get", "clusterrolebinding", "bench"]).is_err() {
        cluster.admin(&["create", "serviceaccount", "bench", "-n", "default"])?;
        let who = "--serviceaccount=default:bench";
        cluster.admin(&["create", "clusterrolebinding", "bench", "--clusterrole=cluster-admin", who])?;
    }
    Ok(cluster.admin(&["create", "token", "bench", "-n", "default"])?.out().trim().to_owned())
}

/// Visits every lane once a round.
async fn rounds(title: &str, lanes: &[Lane], connections: usize) -> anyhow::Result<Table> {
    let mut table = Table::new(title, lanes.iter().map(Lane::name));
    for _ in 0..ROUNDS {
        for (lane, column) in lanes.iter().zip(0..) {
            table.add(column, lane.load(connections, SPELL).await.with_context(|| lane.name().to_owned())?);
        }
    }
    Ok(table)
}

fn exec(stage: &Stage) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let argv = ["kubectl", "exec", "-n", "shop", &pod, "--", "true"];
    let once = |who: &Path| -> anyhow::Result<Duration> {
        let started = Instant::now();
        stage.run_argv(who, &argv).ok()?;
        Ok(started.elapsed())
    };
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..EXECS {
        direct.push(once(&stage.cluster.admin)?);
        through.push(once(&stage.people.agent)?);
    }
    let (direct, through) = (figures::median(direct), figures::median(through));
    println!(
        "\nkubectl exec true, p50 of {EXECS}: directly {:.1} ms, recorded through the gateway {:.1} ms, added {:.1} ms",
        direct * 1e3,
        through * 1e3,
        (through - direct) * 1e3
    );
    Ok(())
}

/// Starts Kustody anew with a section's limits far above what is measured.
fn make_room(stage: &mut Stage, section: &str, limits: &[&str]) -> anyhow::Result<()> {
    stage.kustody.kill()?;
    let text = std::fs::read_to_string(&stage.kustody.config)?;
    let head = format!("{section}:\n");
    anyhow::ensure!(text.contains(&head), "the configuration does not look as expected");
    let missing = limits.iter().map(|limit| format!("  {limit}: 10000\n")).filter(|line| !text.contains(line));
    let room: String = missing.collect();
    std::fs::write(&stage.kustody.config, text.replacen(&head, &format!("{head}{room}"), 1))?;
    stage.kustody.launch()
}

/// The token in a kubeconfig of the stage.
fn token(kubeconfig: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(kubeconfig)?;
    let rest = text.split("token: \"").nth(1).context("no token")?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

fn kubectl_proxy(stage: &Stage, processes: &Arc<Processes>) -> anyhow::Result<String> {
    let log = stage.dir.join("kubectl-proxy.log");
    let child = std::process::Command::new(&stage.cluster.kubectl)
        .args(["proxy", "--port=0", "--kubeconfig"])
        .arg(&stage.people.agent_direct)
        .stdout(std::fs::File::create(&log)?)
        .spawn()?;
    processes.keep(child);
    stage::run::eventually(Duration::from_secs(10), || {
        let text = std::fs::read_to_string(&log)?;
        let address = text.trim().strip_prefix("Starting to serve on ").context("not serving yet")?;
        Ok(format!("http://{address}"))
    })
}
