//! `kustody export`: a recording in the format of another program, to a file or to standard output.
//!
//! Builds the encoder and feeds it chunk by chunk; the formats are `core::recording::export`'s business. Proves nothing:
//! that is `kustody verify`.

mod connections;
mod listing;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;

use super::output::tell;
use super::store_args::StoreArgs;
use crate::core::recording::chunk::Chunk;
use crate::core::recording::export::asciicast::Version;
use crate::core::recording::export::{Encoder, Format};
use crate::core::recording::sanitize::Sanitizer;
use crate::core::recording::{Channel, Event, Header, SessionId, SessionKind};
use crate::edge::store::{Store, catalog, reader};
pub(super) use listing::Listing;

/// Write a recorded session in the format of another program
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody export 019aa5c7 --format asciicast-v3 -f session.cast   # asciinema play session.cast\n  \
    kustody export 019aa5c7 --format text | less\n  \
    kustody export 019aa5c7 --format ndjson | jq -c 'select(.channel == \"stdin\")'\n  \
    kustody export 019aa5c7 --format files                          # what a kubectl cp copied\n  \
    kustody export 019aa5c7 --format files -f connections/          # what went through a port-forward\n\n\
    stdout, stderr and stdin are the exact bytes. A terminal shows them, and asciicasts, without the control sequences \
    that could harm it.")]
pub struct Args {
    /// Session id, or the beginning of one
    id: String,
    #[command(flatten)]
    store: StoreArgs,
    /// The format to write
    #[arg(long, value_enum)]
    format: Form,
    /// Where to write it, instead of to standard output; for the connections of a port-forward a new folder
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Leave terminal control sequences in asciicasts as they were recorded; dangerous with sessions you do not trust
    #[arg(long)]
    raw: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// What the terminal showed, with absolute times
    AsciicastV2,
    /// What the terminal showed, with intervals and the exit status
    AsciicastV3,
    /// What both output streams said, without control sequences
    Text,
    /// Every event as a line of JSON
    Ndjson,
    /// The bytes of standard output
    Stdout,
    /// The bytes of standard error
    Stderr,
    /// The bytes of standard input
    Stdin,
    /// The files of a tar stream that went by, or the connections of a port-forward as files
    Files,
}

/// Runs the command.
///
/// # Errors
/// When the session is not found or cannot be read, or nothing can be written.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = args.store.open().await?;
    let id = catalog::resolve(&store, &args.id).await?;
    let session = catalog::session(&store, id).await?;
    let sequences = reader::sequences(&store, &session).await?;
    let header = session.header.map_err(|problem| anyhow!("the header of {id} cannot be read: {problem}"))?;
    let feed = Feed { store: &store, id, sequences };
    match args.form() {
        Some(format) => {
            let mut target = Target::open(args.file.as_ref(), matches!(format, Format::Stream(_)))?;
            encoded(feed, Encoder::new(format, &header, args.raw), &mut target).await?;
        }
        None => files(feed, &header, args.file.as_ref()).await?,
    }
    if session.manifest.is_none() {
        tell("the session is still recording: this is what is in the store by now")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The chunks to be exported.
struct Feed<'a> {
    store: &'a Store,
    id: SessionId,
    sequences: Vec<u64>,
}

/// Where an export goes.
struct Target {
    to: Box<dyn Write + Send>,
    /// Exact bytes that go to a terminal are made safe for it.
    sanitizer: Option<Sanitizer>,
}

impl Args {
    /// The format of the one file; `None` for the files of a session.
    fn form(&self) -> Option<Format> {
        Some(match self.format {
            Form::AsciicastV2 => Format::Asciicast(Version::V2),
            Form::AsciicastV3 => Format::Asciicast(Version::V3),
            Form::Text => Format::Text,
            Form::Ndjson => Format::Ndjson,
            Form::Stdout => Format::Stream(Channel::Stdout),
            Form::Stderr => Format::Stream(Channel::Stderr),
            Form::Stdin => Format::Stream(Channel::Stdin),
            Form::Files => return None,
        })
    }
}

impl Feed<'_> {
    /// Calls for every chunk, until that says to stop.
    async fn each(self, mut take: impl FnMut(&Chunk) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let mut chunks = reader::chunks(self.store, self.id, self.sequences);
        while let Some(chunk) = chunks.next().await {
            if !take(&chunk?)? {
                break;
            }
        }
        Ok(())
    }
}

async fn encoded(feed: Feed<'_>, mut encoder: Encoder, target: &mut Target) -> anyhow::Result<()> {
    let mut out = Vec::new();
    feed.each(|chunk| {
        out.clear();
        for event in chunk.events() {
            encoder.push(&event?, &mut out);
        }
        target.write(&out)
    })
    .await?;
    out.clear();
    encoder.finish(&mut out);
    target.write(&out)?;
    if encoder.lost() > 0 {
        tell(&format!("{} bytes were not recorded and are missing here", encoder.lost()))?;
    }
    Ok(())
}

/// The list of a tar stream, or a port-forward's connections.
async fn files(feed: Feed<'_>, header: &Header, file: Option<&PathBuf>) -> anyhow::Result<()> {
    if header.kind == SessionKind::PortForward {
        let folder = file.context("a port-forward's connections become files: name a new folder with -f")?;
        let mut connections = connections::Folder::create(folder)?;
        feed.each(|chunk| chunk.events().try_for_each(|event| connections.push(&event?)).map(|()| true)).await?;
        return tell(&connections.told());
    }
    let mut target = Target::open(file, false)?;
    let mut listing = Listing::default();
    feed.each(|chunk| {
        let found = listing.push(chunk)?;
        target.write(found.iter().map(|entry| format!("{entry}\n")).collect::<String>().as_bytes())
    })
    .await?;
    match listing.told() {
        Ok(told) => tell(&told),
        Err(none) => bail!("{none}"),
    }
}

impl Target {
    fn open(file: Option<&PathBuf>, exact: bool) -> anyhow::Result<Self> {
        let Some(path) = file else {
            let stdout = io::stdout();
            let sanitizer = (exact && stdout.is_terminal()).then(Sanitizer::default);
            return Ok(Target { to: Box::new(stdout), sanitizer });
        };
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Target { to: Box::new(file), sanitizer: None })
    }

    /// False when nobody reads any more.
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        let mut clean = Vec::new();
        let bytes = match &mut self.sanitizer {
            Some(sanitizer) => {
                sanitizer.push(bytes, &mut clean);
                &clean
            }
            None => bytes,
        };
        match self.to.write_all(bytes).and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            other => other.map(|()| true).context("cannot write the export"),
        }
    }
}

/// One event's bytes for somebody who looks for a tar stream.
pub(super) fn stream_of(event: &Event) -> Option<(Channel, &[u8])> {
    use crate::core::recording::EventKind;
    let EventKind::Data { channel, bytes, .. } = &event.kind else { return None };
    matches!(channel, Channel::Stdin | Channel::Stdout).then_some((*channel, bytes.as_ref()))
}
