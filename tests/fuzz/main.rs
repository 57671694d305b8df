//! Mutates what Kustody reads and looks for a crash, a hang or a broken law; no toolchain but stable Rust is needed.
//!
//! `cargo test --test fuzz` runs every target on the inputs that were found once (`tests/fuzz/found/`) and on new ones,
//! the same every time, two targets side by side. `KUSTODY_FUZZ_SECONDS=600` goes on for so long per target, from another
//! seed each time, or from `KUSTODY_FUZZ_SEED`; names select targets: `KUSTODY_FUZZ_SECONDS=600 cargo test --test fuzz --
//! review cel`. It starts from the recorded reviews, manifests and tables of `tests/` and changes both bytes and structure
//! (`mutate.rs`); it is not guided by coverage. A failing input is written to `target/fuzz/` and run again by
//! `cargo test --test fuzz -- --replay FILE`, whose name says the target; it is kept by moving it to `tests/fuzz/found/`.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a program for people who test: it prints, and fails loudly"
)]

mod mutate;
mod recordings;
mod targets;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use mutate::Mutator;
use targets::{TARGETS, Target};

/// An input that takes longer hangs. Debug builds on a busy machine are slow; a hang is not.
const HANG: Duration = Duration::from_secs(20);
/// Targets that run at the same time.
const BESIDE: usize = 2;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// As deep as a thread of the program itself can go.
const STACK: usize = 2 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Some(at) = arguments.iter().position(|word| word == "--replay") {
        return replay(Path::new(arguments.get(at + 1).expect("--replay needs a file")));
    }
    let budget = number("KUSTODY_FUZZ_SECONDS").map(Duration::from_secs);
    let other = budget.map_or(0, |_| u64::from(std::process::id()));
    let seed = number("KUSTODY_FUZZ_SEED").unwrap_or(SEED ^ other);
    let names: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |target: &&Target| names.is_empty() || names.iter().any(|name| target.name.contains(name.as_str()));
    let queue = Mutex::new(TARGETS.iter().filter(wanted));
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..BESIDE {
            scope.spawn(|| {
                // The queue is free again before the target runs.
                let next = || queue.lock().expect("no thread panics here").next();
                while let Some(target) = next() {
                    let started = Instant::now();
                    let result = run(target, seed, budget);
                    if !tell(target, &result, started.elapsed(), seed) {
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if failed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints what became of a target; true when all was well.
fn tell(target: &Target, result: &Result<u64, String>, took: Duration, seed: u64) -> bool {
    match result {
        Ok(runs) => println!("fuzz {:<12} ok, {runs} inputs in {} s, seed {seed}", target.name, took.as_secs()),
        Err(why) => println!("fuzz {:<12} FAILED: {why}", target.name),
    }
    result.is_ok()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Feeds a target for so long, or its own number of times; gives how many new inputs it took.
fn run(target: &'static Target, seed: u64, budget: Option<Duration>) -> Result<u64, String> {
    let corpus = (target.corpus)();
    assert!(!corpus.is_empty(), "{} has nothing to start from", target.name);
    for input in corpus.iter().chain(&found(target)) {
        attempt(target, input)?;
    }
    let mut mutator = Mutator::new(seed, corpus);
    let (feed, fed) = mpsc::sync_channel::<Vec<u8>>(1);
    let (tell, told) = mpsc::channel();
    // One thread runs the target, so that one that never ends is seen from here.
    let worker = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        while let Ok(input) = fed.recv() {
            if tell.send(attempt(target, &input)).is_err() {
                return;
            }
        }
    });
    let _worker = worker.map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut runs = 0;
    while budget.map_or(runs < target.inputs, |budget| started.elapsed() < budget) {
        let input = mutator.next();
        feed.send(input.clone()).map_err(|error| error.to_string())?;
        match told.recv_timeout(HANG) {
            Ok(result) => result?,
            Err(_) => return Err(kept(target, &input, "it does not end")),
        }
        runs += 1;
    }
    Ok(runs)
}

/// The inputs that broke a target once.
fn found(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found");
    let files = std::fs::read_dir(folder).expect("tests/fuzz/found").map(|entry| entry.expect("entry").path());
    let named = |file: &PathBuf| file.file_name().is_some_and(|name| is_of(target, &name.to_string_lossy()));
    files.filter(named).map(|file| std::fs::read(file).expect("input")).collect()
}

/// True for `target-digest`.
fn is_of(target: &Target, name: &str) -> bool {
    name.split_once('-').is_some_and(|(found, _)| found == target.name)
}

fn attempt(target: &Target, input: &[u8]) -> Result<(), String> {
    let run = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    run.map_err(|panic| {
        let why = panic.downcast_ref::<String>().cloned();
        let why = why.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        kept(target, input, &why.unwrap_or_default())
    })
}

/// Writes a failing input down, and says where.
fn kept(target: &Target, input: &[u8], why: &str) -> String {
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from)
        .join("fuzz");
    let name = kustody::core::canonical::sha256_hex(input);
    let file = folder.join(format!("{}-{}", target.name, &name[..12]));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input));
    format!("{why}\n  input: {} ({} bytes, written: {})", file.display(), input.len(), written.is_ok())
}

fn replay(file: &Path) -> ExitCode {
    let input = std::fs::read(file).expect("the file cannot be read");
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let target = TARGETS.iter().find(|target| is_of(target, &name)).expect("no target of this name");
    (target.run)(&input);
    println!("fuzz {}: this input passes", target.name);
    ExitCode::SUCCESS
}
