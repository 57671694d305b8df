//! The connections of a port-forward as files: one for each connection and direction, in a new folder.
//!
//! File names are made of numbers alone. At most a few files are open at a time, so that a session of many connections
//! needs no more.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::core::recording::{Direction, Event, EventKind};

/// Files that are open at the same time.
const OPEN: usize = 64;

/// The folder, while it is filled.
pub(super) struct Folder {
    path: PathBuf,
    ports: BTreeMap<u32, u16>,
    open: BTreeMap<(u32, Direction), File>,
    opened: u64,
    bytes: u64,
    lost: u64,
}

impl Folder {
    /// Makes the folder; one that is there already is left alone.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir(path).with_context(|| format!("cannot create the folder {}", path.display()))?;
        let (ports, open) = (BTreeMap::new(), BTreeMap::new());
        Ok(Folder { path: path.to_owned(), ports, open, opened: 0, bytes: 0, lost: 0 })
    }

    /// Takes one event.
    pub(super) fn push(&mut self, event: &Event) -> anyhow::Result<()> {
        match &event.kind {
            EventKind::ConnectionOpened { connection, port } => {
                self.opened += 1;
                self.ports.insert(*connection, *port);
            }
            EventKind::ConnectionData { connection, direction, bytes } => {
                self.bytes = self.bytes.saturating_add(bytes.len() as u64);
                self.file(*connection, *direction)?.write_all(bytes).context("cannot write")?;
            }
            EventKind::ConnectionClosed { connection, .. } => {
                self.ports.remove(connection);
                self.open.retain(|(of, _), _| of != connection);
            }
            EventKind::Gap { bytes, .. } => self.lost = self.lost.saturating_add(*bytes),
            EventKind::Data { .. }
            | EventKind::HalfClose { .. }
            | EventKind::Resize { .. }
            | EventKind::Status { .. }
            | EventKind::Marker { .. }
            | EventKind::Input { .. }
            | EventKind::Close { .. }
            | EventKind::ConnectionHalfClose { .. }
            | EventKind::ConnectionError { .. } => {}
        }
        Ok(())
    }

    /// What was written, in words.
    pub(super) fn told(&self) -> String {
        let lost = if self.lost > 0 { format!(", {} bytes were not recorded", self.lost) } else { String::new() };
        format!("{} connections, {} bytes in {}{lost}", self.opened, self.bytes, self.path.display())
    }

    fn file(&mut self, connection: u32, direction: Direction) -> anyhow::Result<&mut File> {
        let key = (connection, direction);
        if self.open.len() >= OPEN && !self.open.contains_key(&key) {
            self.open.clear();
        }
        match self.open.entry(key) {
            std::collections::btree_map::Entry::Occupied(file) => Ok(file.into_mut()),
            std::collections::btree_map::Entry::Vacant(place) => {
                let port = self.ports.get(&connection).copied().unwrap_or_default();
                let way = if direction == Direction::ToContainer { "to-container" } else { "to-client" };
                let path = self.path.join(format!("connection-{connection}-port-{port}-{way}"));
                let file = OpenOptions::new().append(true).create(true).open(&path);
                Ok(place.insert(file.with_context(|| format!("cannot create {}", path.display()))?))
            }
        }
    }
}
