//! `make demo`: sets the stage up, plays the main job on it, printing every command and what it gave, and then stays
//! up for trying things by hand. Ctrl-C ends everything at any time, also half way; a second one exits at once.
#![expect(
    unreachable_pub,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program for people who test: it prints, and fails loudly"
)]

#[path = "../stage/stage.rs"]
#[expect(dead_code, reason = "some of the stage serves the end-to-end tests alone")]
mod stage;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use stage::run::{Processes, interrupted};
use stage::{Plan, Stage, story, tear_down};

fn say(step: &str) {
    let (bold, plain) = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("{bold}==> {step}{plain}");
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(kustody) = std::env::var_os("KUSTODY_BIN").map(PathBuf::from) else {
        eprintln!("error: KUSTODY_BIN is not set: run this through `make demo`");
        return ExitCode::from(2);
    };
    let plan = Plan { name: "demo", kustody, say };
    let processes = Arc::new(Processes::default());
    let playing = tokio::task::spawn_blocking({
        let (plan, processes) = (plan.clone(), Arc::clone(&processes));
        move || play(&plan, &processes)
    });
    let played = tokio::select! {
        played = playing => played.map_err(anyhow::Error::new).and_then(|played| played),
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    let code = match played {
        Ok(()) if std::env::var_os("KUSTODY_DEMO_ONCE").is_some() => 0,
        Ok(()) => {
            say("Ctrl-C ends the demo and removes everything it started");
            interrupted().await;
            0
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    };
    say("cleaning up");
    let cleaning = tokio::task::spawn_blocking(move || tear_down(&plan, &processes));
    let cleaned = tokio::select! {
        cleaned = cleaning => cleaned.map_err(anyhow::Error::new).and_then(|cleaned| cleaned),
        () = interrupted() => std::process::exit(130),
    };
    if let Err(error) = cleaned {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
    // Not by returning: a story that was interrupted may still wait for a command that has lost its cluster.
    std::process::exit(code)
}

fn play(plan: &Plan, processes: &Arc<Processes>) -> anyhow::Result<()> {
    let started = Instant::now();
    let stage = Stage::up(plan, processes)?;
    say(&format!("the stage is set, {:.0} s after the start", started.elapsed().as_secs_f64()));
    for (number, (title, act)) in (1..).zip(story::ACTS) {
        say(&format!("{number}. {title}"));
        act(&stage)?;
    }
    say(&format!("the story is told, {:.0} s after the start", started.elapsed().as_secs_f64()));
    story::invite(&stage);
    Ok(())
}
