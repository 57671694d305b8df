//! The files of a session's tar stream: looks at standard input and at standard output, and lists the one that is an
//! archive. `kubectl cp` sends one to the container or gets one from it.

use super::stream_of;
use crate::core::recording::Channel;
use crate::core::recording::chunk::Chunk;
use crate::core::recording::export::tar::{Entry, Lister, Standing};

/// Looks for an archive in both directions.
#[derive(Default)]
pub(crate) struct Listing {
    stdin: Lister,
    stdout: Lister,
    size: u64,
    leading_out: u64,
}

impl Listing {
    /// Takes one chunk, and gives the files that are told in it.
    pub(crate) fn push(&mut self, chunk: &Chunk) -> anyhow::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for event in chunk.events() {
            match stream_of(&event?) {
                Some((Channel::Stdin, bytes)) => self.stdin.push(bytes, &mut found),
                Some((_, bytes)) => self.stdout.push(bytes, &mut found),
                None => {}
            }
        }
        self.size = found.iter().fold(self.size, |size, entry| size.saturating_add(entry.size));
        self.leading_out += found.iter().filter(|entry| entry.leads_out()).count() as u64;
        Ok(found)
    }

    /// What was listed, in words; `Err` when there was no archive.
    pub(crate) fn told(&self) -> Result<String, &'static str> {
        let is_archive = |lister: &Lister| !matches!(lister.standing(), Standing::Empty | Standing::Other);
        let (way, lister) = match (is_archive(&self.stdin), is_archive(&self.stdout)) {
            (true, _) => ("to the container", &self.stdin),
            (_, true) => ("from the container", &self.stdout),
            (false, false) => {
                return Err("no tar archive went through this session (compressed ones are not recognised)");
            }
        };
        let found = self.stdin.found() + self.stdout.found();
        let mut told = format!("{found} entries, {} bytes, {way}", self.size);
        if self.leading_out > 0 {
            told.push_str(&format!("; {} lead out of the folder they are unpacked in", self.leading_out));
        }
        match lister.standing() {
            Standing::Broken(why) => {
                told.push_str(&format!("; the archive is damaged: {why}; what follows is not listed"))
            }
            Standing::Reading => told.push_str("; the archive has no end"),
            Standing::Empty | Standing::Other | Standing::Ended => {}
        }
        Ok(told)
    }
}
