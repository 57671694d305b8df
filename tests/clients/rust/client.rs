//! A client of exec, attach and port-forward as Rust programs are: the crate kube. The end-to-end binary runs itself
//! as this program when its first argument says so.
//!
//! Its command line is that of all programs of this folder; `tests/e2e/clients.rs` runs them and says what they must see.

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, TerminalSize};
use kube::{Api, Client};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, copy, stderr, stdin, stdout};

const BETWEEN_SIZES: Duration = Duration::from_millis(500);
/// Far more than the default, which is a kilobyte.
const BUFFER: Option<usize> = Some(256 * 1024);

/// What was typed.
#[derive(Default)]
struct Asked {
    stdin: bool,
    sizes: Vec<TerminalSize>,
    rest: Vec<String>,
}

impl Asked {
    fn read(words: impl Iterator<Item = String>) -> anyhow::Result<Asked> {
        let mut asked = Asked::default();
        let mut words = words.peekable();
        while let Some(flag) = words.next_if(|word| word.starts_with('-')) {
            match flag.as_str() {
                "-i" => asked.stdin = true,
                "-t" => {
                    for size in words.next().context("-t needs sizes")?.split(',') {
                        let (rows, columns) = size.split_once('x').context("a size is ROWSxCOLS")?;
                        asked.sizes.push(TerminalSize { height: rows.parse()?, width: columns.parse()? });
                    }
                }
                other => bail!("{other} is not known here"),
            }
        }
        asked.rest = words.collect();
        Ok(asked)
    }
}

/// The program: it ends with the exit code of the command.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    match run(words) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut words: impl Iterator<Item = String>) -> anyhow::Result<u8> {
    let verb = words.next().context("say exec, attach or port-forward")?;
    let asked = Asked::read(words)?;
    let [namespace, pod, rest @ ..] = asked.rest.as_slice() else { bail!("a namespace and a pod are missing") };
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(async {
        let pods: Api<Pod> = Api::namespaced(Client::try_default().await?, namespace);
        match verb.as_str() {
            "port-forward" => forward(&pods, pod, rest.first().context("name a port")?.parse()?).await,
            _ => stream(&pods, pod, (verb == "exec").then_some(rest), &asked).await,
        }
    });
    // Standard input may be read still, and whoever holds it open is not waited for.
    runtime.shutdown_background();
    ended
}

async fn stream(pods: &Api<Pod>, pod: &str, command: Option<&[String]>, asked: &Asked) -> anyhow::Result<u8> {
    let tty = !asked.sizes.is_empty();
    let params = AttachParams {
        stdin: asked.stdin,
        stdout: true,
        stderr: !tty,
        tty,
        max_stdin_buf_size: BUFFER,
        max_stdout_buf_size: BUFFER,
        ..AttachParams::default()
    };
    let mut process = match command {
        Some(command) => pods.exec(pod, command.iter().cloned(), &params).await?,
        None => pods.attach(pod, &params).await?,
    };
    let status = process.take_status().context("no status")?;
    if let Some(mut to) = process.terminal_size() {
        let sizes: Vec<TerminalSize> =
            asked.sizes.iter().map(|s| TerminalSize { height: s.height, width: s.width }).collect();
        tokio::spawn(async move {
            for size in sizes {
                to.try_send(size).ok();
                tokio::time::sleep(BETWEEN_SIZES).await;
            }
        });
    }
    if let Some(mut to) = process.stdin() {
        tokio::spawn(async move {
            // Whoever ends without reading its input closes it.
            copy(&mut stdin(), &mut to).await.ok();
            to.shutdown().await.ok();
        });
    }
    let (out, err) = (process.stdout(), process.stderr());
    let out = async {
        if let Some(mut from) = out {
            copy(&mut from, &mut stdout()).await.ok();
        }
    };
    let err = async {
        if let Some(mut from) = err {
            copy(&mut from, &mut stderr()).await.ok();
        }
    };
    let (status, (), ()) = tokio::join!(status, out, err);
    stdout().flush().await?;
    stderr().flush().await?;
    status.map_or_else(|| bail!("the session ended without a status"), |status| code(&status))
}

fn code(status: &Status) -> anyhow::Result<u8> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_deref()).unwrap_or_default();
    let code = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_ref());
    match code {
        Some(code) => Ok(code.parse()?),
        None => bail!("{}", status.message.as_deref().unwrap_or("failed")),
    }
}

async fn forward(pods: &Api<Pod>, pod: &str, port: u16) -> anyhow::Result<u8> {
    let mut forwarded = pods.portforward(pod, &[port]).await?;
    let (mut from, mut to) = tokio::io::split(forwarded.take_stream(port).context("no stream")?);
    copy(&mut stdin(), &mut to).await?;
    copy(&mut from, &mut stdout()).await?;
    stdout().flush().await?;
    Ok(0)
}
