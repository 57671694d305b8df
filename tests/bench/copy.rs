//! What recording costs `kubectl cp`: a tree of files into a container and out again, by stock kubectl, on every way in
//! turn. Half of the files are text, half cannot be compressed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::figures::middle;
use crate::load::processor_time;
use crate::stage::Stage;
use crate::text;
use crate::ways::{SETTLED, Way};

const ROUNDS: usize = 5;
const FILES: usize = 256;
const FILE: usize = 256 * 1024;
/// Files of one folder.
const FOLDER: usize = 16;
const MEGABYTES: f64 = (FILES * FILE) as f64 / 1e6;
const DIRECTIONS: [&str; 2] = ["up", "down"];

/// What was measured in one direction.
#[derive(Default)]
struct Figures {
    /// Megabytes a second by way.
    rates: [Vec<f64>; 3],
    /// Kustody to the proxy, round by round.
    ratios: Vec<f64>,
    /// Kustody's processor time, milliseconds a megabyte.
    cost: Vec<f64>,
}

/// One copy: its rate, and what it cost Kustody.
struct Copied {
    rate: f64,
    cost: f64,
}

/// Prints rates, ratios and processor time.
pub(crate) fn measure(stage: &Stage, ways: &[Way; 3]) -> anyhow::Result<()> {
    let pod = stage.pod()?;
    let tree = stage.dir.join("tree");
    plant(&tree)?;
    let mut figures = DIRECTIONS.map(|_| Figures::default());
    for round in 0..ROUNDS {
        let mut rates = DIRECTIONS.map(|_| Vec::new());
        for (place, way) in ways.iter().enumerate() {
            let copied = both(stage, way, (&pod, &tree), round == 0).context(way.name)?;
            for ((figures, rates), copied) in figures.iter_mut().zip(&mut rates).zip(copied) {
                figures.rates[place].push(copied.rate);
                rates.push(copied.rate);
                if way.is_kustody() {
                    figures.cost.push(copied.cost);
                }
            }
        }
        for (figures, rates) in figures.iter_mut().zip(rates) {
            figures.ratios.push(rates[2] / rates[1]);
        }
    }
    std::fs::remove_dir_all(&tree)?;
    println!("\n### kubectl cp of {FILES} files, {MEGABYTES:.0} MB, recorded; medians of {ROUNDS} rounds\n");
    println!(
        "| kubectl cp | direct MB/s | plain proxy MB/s | kustody MB/s | kustody to proxy | CPU ms a MB of kustody |"
    );
    println!("|---|---|---|---|---|---|");
    for (direction, Figures { rates, ratios, cost }) in DIRECTIONS.iter().zip(figures) {
        let [direct, proxy, own] = rates.map(middle);
        let (ratio, cost) = (middle(ratios), middle(cost));
        println!("| {direction} | {direct:.0} | {proxy:.0} | {own:.0} | {ratio:.2} | {cost:.1} |");
    }
    Ok(())
}

/// Into the container and out again; nothing of it stays.
fn both(stage: &Stage, way: &Way, (pod, tree): (&str, &Path), compared: bool) -> anyhow::Result<[Copied; 2]> {
    let (there, back) = (format!("shop/{pod}:/tmp/tree"), stage.dir.join("tree-back"));
    let (tree_, back_) = (tree.to_string_lossy(), back.to_string_lossy());
    let up = copy(stage, way, [&tree_, &there])?;
    let down = copy(stage, way, [&there, &back_])?;
    if compared {
        same(tree, &back)?;
    }
    std::fs::remove_dir_all(&back)?;
    stage.cluster.admin(&["exec", "-n", "shop", pod, "--", "rm", "-rf", "/tmp/tree"])?;
    Ok([up, down])
}

fn copy(stage: &Stage, way: &Way, [from, to]: [&str; 2]) -> anyhow::Result<Copied> {
    let before = processor_time(stage.kustody.pid())?;
    let started = Instant::now();
    stage.run_argv(&way.kubeconfig, &["kubectl", "cp", from, to]).ok()?;
    let rate = MEGABYTES / started.elapsed().as_secs_f64();
    if !way.is_kustody() {
        return Ok(Copied { rate, cost: f64::NAN });
    }
    std::thread::sleep(SETTLED);
    let spent = processor_time(stage.kustody.pid())?.saturating_sub(before);
    Ok(Copied { rate, cost: spent.as_secs_f64() * 1e3 / MEGABYTES })
}

fn files(tree: &Path) -> impl Iterator<Item = PathBuf> {
    let tree = tree.to_owned();
    (0..FILES).map(move |number| tree.join(format!("part-{}", number / FOLDER)).join(format!("file-{number:03}")))
}

fn plant(tree: &Path) -> anyhow::Result<()> {
    for (file, seed) in files(tree).zip(0..) {
        std::fs::create_dir_all(file.parent().context("no folder")?)?;
        let bytes = if seed % 2 == 0 { text::fill(FILE, seed) } else { text::noise(FILE, seed) };
        std::fs::write(&file, bytes)?;
    }
    Ok(())
}

fn same(tree: &Path, back: &Path) -> anyhow::Result<()> {
    for (file, copied) in files(tree).zip(files(back)) {
        let copy = std::fs::read(&copied).with_context(|| format!("{} did not come back", copied.display()))?;
        ensure!(std::fs::read(&file)? == copy, "{} came back with other bytes", file.display());
    }
    Ok(())
}
