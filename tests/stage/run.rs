//! Runs commands as a person at a terminal would: output captured, exit code kept, time measured, never longer than
//! a limit. Also keeps the processes that a stage started, so that they end with it. Main types: [`Run`], [`Done`].

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// No command of a test may take longer than this.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a running command is looked at.
const TICK: Duration = Duration::from_millis(5);
/// How long a process gets between the request to end and being killed.
const GRACE: Duration = Duration::from_secs(15);

/// A command, not yet started.
pub struct Run {
    argv: Vec<String>,
    command: Command,
    input: Vec<u8>,
    stays_open: bool,
    limit: Duration,
}

/// A command that has ended.
#[derive(Clone)]
pub struct Done {
    /// What was run.
    pub line: String,
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// When it ended.
    pub ended: Instant,
    /// How long it ran.
    pub took: Duration,
}

/// A command that runs.
pub struct Running {
    line: String,
    child: Child,
    started: Instant,
    limit: Duration,
    /// Gives the pipe back where it stays open.
    input: JoinHandle<Option<ChildStdin>>,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Run {
    /// A command by its arguments.
    pub fn new(argv: &[&str]) -> Self {
        let mut command = Command::new(argv.first().copied().unwrap_or_default());
        command.args(argv.iter().skip(1));
        let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        Self { argv, command, input: Vec::new(), stays_open: false, limit: LIMIT }
    }

    /// With a folder in front of the PATH; the program itself is looked up there first.
    pub fn path_first(mut self, folder: &Path) -> Self {
        let rest = std::env::var("PATH").unwrap_or_default();
        self.command.env("PATH", format!("{}:{rest}", folder.display()));
        let here = self.argv.first().map(|program| folder.join(program)).filter(|path| path.exists());
        if let Some(program) = here {
            let mut command = Command::new(program);
            command.args(self.argv.iter().skip(1)).env("PATH", format!("{}:{rest}", folder.display()));
            self.command = command;
        }
        self
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With several.
    pub fn envs(mut self, variables: Vec<(String, String)>) -> Self {
        self.command.envs(variables);
        self
    }

    /// With bytes on standard input.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// With a standard input that does not end before the command does.
    pub fn stays_open(mut self) -> Self {
        self.stays_open = true;
        self
    }

    /// With another limit than two minutes.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs to the end.
    pub fn done(self) -> anyhow::Result<Done> {
        self.start()?.done()
    }

    /// Runs to the end and fails unless it succeeded.
    pub fn ok(self) -> anyhow::Result<Done> {
        self.done()?.ok()
    }

    /// Starts it.
    pub fn start(mut self) -> anyhow::Result<Running> {
        let line = self.argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (input, stays_open) = (std::mem::take(&mut self.input), self.stays_open);
        let input = std::thread::spawn(move || {
            let mut pipe = stdin?;
            // A program that does not read its input closes it: nothing to tell.
            pipe.write_all(&input).ok();
            stays_open.then_some(pipe)
        });
        let (stdout, stderr) = (std::thread::spawn(move || read(stdout)), std::thread::spawn(move || read(stderr)));
        Ok(Running { line, child, started: Instant::now(), limit: self.limit, input, stdout, stderr })
    }
}

/// A word as a person would type it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,%+{}[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut all = Vec::new();
    pipe.map(|mut pipe| pipe.read_to_end(&mut all).ok());
    all
}

impl Running {
    /// Asks it to end, as Ctrl-C does.
    pub fn interrupt(&self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().context("cannot run kill").map(drop)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs still.
    pub fn runs(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it without asking.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill()?)
    }

    /// Waits for its end.
    pub fn done(mut self) -> anyhow::Result<Done> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if self.started.elapsed() > self.limit {
                self.child.kill()?;
                self.child.wait()?;
                let shown = self.stderr.join().unwrap_or_default();
                bail!("`{}` ran longer than {:?}: {}", self.line, self.limit, String::from_utf8_lossy(&shown));
            }
            std::thread::sleep(TICK);
        };
        let ended = Instant::now();
        self.input.join().ok();
        Ok(Done {
            line: self.line,
            code: status.code().unwrap_or(-1),
            stdout: self.stdout.join().unwrap_or_default(),
            stderr: self.stderr.join().unwrap_or_default(),
            ended,
            took: ended.duration_since(self.started),
        })
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {} after {:?}; stdout: {:?}, stderr: {:?}",
            self.line,
            self.code,
            self.took,
            self.out(),
            self.err()
        )
    }
}

impl Done {
    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Itself, where it succeeded.
    pub fn ok(self) -> anyhow::Result<Self> {
        if self.code != 0 {
            bail!("`{}` ended with {}: {}{}", self.line, self.code, self.out(), self.err());
        }
        Ok(self)
    }
}

/// The long-running processes of a stage.
#[derive(Default)]
pub struct Processes(Mutex<Vec<Child>>);

impl Processes {
    /// Takes a process in; returns its pid.
    pub fn keep(&self, child: Child) -> u32 {
        let pid = child.id();
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(child);
        pid
    }

    /// Whether the process runs still.
    pub fn runs(&self, pid: u32) -> bool {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.iter_mut().any(|child| child.id() == pid && matches!(child.try_wait(), Ok(None)))
    }

    /// Kills one process at once, as a crash would.
    pub fn kill(&self, pid: u32) -> anyhow::Result<()> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let child = all.iter_mut().find(|child| child.id() == pid).context("no such process")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks every process to end, waits, and kills what is left.
    pub fn end(&self) {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for child in &mut all {
            if matches!(child.try_wait(), Ok(None)) {
                Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status().ok();
            }
        }
        let asked = Instant::now();
        for mut child in all {
            while matches!(child.try_wait(), Ok(None)) && asked.elapsed() < GRACE {
                std::thread::sleep(TICK);
            }
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Asks again until it holds, at most `limit`; the last answer is the error.
pub fn eventually<T>(limit: Duration, mut ask: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > limit => return Err(error.context(format!("not within {limit:?}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Ctrl-C, or the end asked for otherwise.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => (),
        _ = terminate.recv() => (),
    }
}

/// Resident memory of a process, KiB.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
