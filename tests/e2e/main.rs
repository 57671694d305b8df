//! End to end, on a real cluster with a real S3 server and real kubectl. One stage is set up for all tests and taken
//! down after them, also after a failure or Ctrl-C. Tests run one after another: they share one Kustody, and some
//! kill it. A test that fails is run once more, since two cores under load miss deadlines; the end names those that
//! passed only then. `cargo test --test e2e -- NAME` runs a part. `KUSTODY_E2E_CLUSTER` names the cluster, for runs side by side.
#![expect(
    unreachable_pub,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program for people who test: it prints, and fails loudly"
)]

#[path = "../stage/stage.rs"]
#[expect(dead_code, reason = "some of the stage serves the demo and the benchmarks alone")]
mod stage;

#[path = "../clients/rust/client.rs"]
mod client_of_kube;

mod aggregated;
mod approvals;
mod asking;
mod audit_log;
mod budgets;
mod bulk;
mod caller;
mod clients;
mod coverage;
mod custody;
mod debugging;
mod drain;
mod evasions;
mod export;
mod grants;
mod guard;
mod holds;
mod in_cluster;
mod install;
mod kept;
mod live;
mod log;
mod plane;
mod recorded;
mod rights;
mod rules;
mod sessions;
mod streams;
mod suspended;
mod trouble;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};
use stage::run::Processes;
use stage::{Plan, Stage, story, tear_down};

/// A test: its name says the behaviour it protects.
type Test = (&'static str, fn(&mut Stage) -> anyhow::Result<()>);

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(clients::KUBE) {
        return client_of_kube::main(words);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let name = std::env::var("KUSTODY_E2E_CLUSTER").map_or("e2e", |name| &*name.leak());
    let plan = Plan { name, kustody: PathBuf::from(env!("CARGO_BIN_EXE_kustody")), say: |step| println!("==> {step}") };
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    let processes = Arc::new(Processes::default());
    on_interrupt(&plan, &processes);
    let result = Stage::up(&plan, &processes)
        .map(|stage| libtest_mimic::run(&arguments, trials(Some(&Arc::new(Mutex::new(stage))))));
    let code = match result {
        Ok(conclusion) => {
            for flaky in FLAKY.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
                println!("FLAKY, passed at the second try: {flaky}");
            }
            conclusion.exit_code()
        }
        Err(error) => {
            eprintln!("the stage could not be set: {error:#}");
            ExitCode::FAILURE
        }
    };
    if let Err(error) = tear_down(&plan, &processes) {
        eprintln!("the stage could not be taken down: {error:#}");
        return ExitCode::FAILURE;
    }
    code
}

fn trials(stage: Option<&Arc<Mutex<Stage>>>) -> Vec<Trial> {
    let mut all: Vec<Trial> = Vec::new();
    for (name, act) in story::ACTS {
        all.push(trial(format!("story: {name}"), stage, move |stage| act(stage)));
    }
    let missing = if clients::has_scripts() { &[][..] } else { clients::SCRIPTS };
    for (name, test) in [
        approvals::TESTS,
        holds::TESTS,
        grants::TESTS,
        rules::TESTS,
        log::TESTS,
        export::TESTS,
        budgets::TESTS,
        streams::TESTS,
        clients::TESTS,
        clients::SCRIPTS,
        suspended::TESTS,
        sessions::TESTS,
        live::TESTS,
        bulk::TESTS,
        debugging::TESTS,
        kept::TESTS,
        evasions::TESTS,
        trouble::TESTS,
        in_cluster::TESTS,
        install::TESTS,
        plane::TESTS,
        custody::TESTS,
        coverage::TESTS,
        aggregated::TESTS,
        caller::TESTS,
        drain::TESTS,
        // Last: it looks back on what all others made Kustody do.
        rights::TESTS,
    ]
    .into_iter()
    .flatten()
    {
        let ignored = missing.iter().any(|(missing, _)| missing == name);
        all.push(trial((*name).to_owned(), stage, test).with_ignored_flag(ignored));
    }
    all
}

/// The tests that passed at the second try only, with what went wrong at the first.
static FLAKY: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn trial(
    name: String,
    stage: Option<&Arc<Mutex<Stage>>>,
    test: impl Fn(&mut Stage) -> anyhow::Result<()> + Send + 'static,
) -> Trial {
    let stage = stage.cloned();
    Trial::test(name.clone(), move || {
        let stage = stage.ok_or_else(|| Failed::from("no stage"))?;
        // A test that panicked leaves a stage that the next ones can use: they set up what they need.
        let mut stage = stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Err(first) = test(&mut stage) else { return Ok(()) };
        println!("failed, and is run once more: {first:#}");
        test(&mut stage).map_err(|again| Failed::from(format!("first: {first:#}\nthen: {again:#}")))?;
        let mut flaky = FLAKY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        flaky.push(format!("{name}: {first:#}"));
        Ok(())
    })
}

/// Ctrl-C and a request to end take the stage down before the process ends.
fn on_interrupt(plan: &Plan, processes: &Arc<Processes>) {
    let (plan, processes) = (plan.clone(), Arc::clone(processes));
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(stage::run::interrupted());
        eprintln!("interrupted: taking the stage down");
        for error in
            [tear_down(&plan, &processes), install::clean_up(), caller::clean_up()].into_iter().filter_map(Result::err)
        {
            eprintln!("{error:#}");
        }
        std::process::exit(130);
    });
}
