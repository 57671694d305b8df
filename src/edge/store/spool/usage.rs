//! How much the spool holds and whether there is room: a byte count against the quota, and the file system's free
//! space against the floor. Counts only; who waits or refuses is the caller's business.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Config, Error};

/// The account of one spool.
#[derive(Debug)]
pub(crate) struct Usage {
    dir: PathBuf,
    used: AtomicU64,
    quota: u64,
    floor: u64,
}

impl Usage {
    /// Counts what lies in the folder.
    pub(super) fn measure(config: &Config) -> Result<Self, Error> {
        let used = size_of(&config.dir).map_err(|source| Error::File(config.dir.clone(), source))?;
        Ok(Usage {
            dir: config.dir.clone(),
            used: AtomicU64::new(used),
            quota: config.quota,
            floor: config.free_space_floor,
        })
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        // The closure never refuses, so there is no error to handle.
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok();
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// `Ok` while there is room, else why not. A file system that cannot be asked counts as full.
    pub(crate) fn check(&self) -> Result<(), String> {
        let used = self.used();
        if used >= self.quota {
            return Err(format!("{used} bytes wait for upload and the quota is {}", self.quota));
        }
        let stat = rustix::fs::statvfs(&self.dir).map_err(|error| format!("free space is unknown: {error}"))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.floor {
            return Err(format!("{free} bytes are free on the disk and the floor is {}", self.floor));
        }
        Ok(())
    }
}

fn size_of(dir: &Path) -> std::io::Result<u64> {
    let mut total: u64 = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        total = total.saturating_add(if meta.is_dir() { size_of(&entry.path())? } else { meta.len() });
    }
    Ok(total)
}
