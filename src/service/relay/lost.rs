//! What went by unrecorded while the spool had no room, in sessions whose rules want them to go on all the same; counted,
//! and told in the recording as soon as there is room again. Main type: [`Lost`].

use crate::core::recording::keeping::Mode;
use crate::core::recording::{Channel, Direction, EventKind};
use crate::edge::store::spool::{Error, Recording};
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub(super) struct Lost {
    since: Option<Duration>,
    bytes: BTreeMap<(Channel, Direction), u64>,
}

impl Lost {
    /// Records an event, or counts it.
    pub(super) async fn append(
        &mut self,
        recording: &mut Recording,
        mode: Mode,
        (at, event): (Duration, EventKind),
    ) -> Result<(), Error> {
        let passed = (event.place(), size(&event));
        if self.since.is_some() {
            if !recording.has_room() {
                self.count(passed);
                return Ok(());
            }
            self.settle(recording).await?;
        }
        match recording.append(at, event).await {
            Err(error @ (Error::Full(_) | Error::Stalled)) if mode == Mode::BestEffort => {
                tracing::error!(session = %recording.session(), %error, "recording degraded: the session goes on unrecorded");
                self.since = Some(at);
                self.count(passed);
                Ok(())
            }
            written => written,
        }
    }

    /// Tells what was lost, if anything was.
    pub(super) async fn settle(&mut self, recording: &mut Recording) -> Result<(), Error> {
        let Some(since) = self.since.take() else { return Ok(()) };
        let at = recording.elapsed();
        let seconds = at.saturating_sub(since).as_secs_f64();
        tracing::error!(session = %recording.session(), seconds, lost = ?self.bytes, "recording lost: told as gaps");
        let detail = format!("for {seconds:.1} s there was no room for what went by");
        recording.append_beyond_quota(at, &EventKind::Marker { name: "degraded".to_owned(), detail })?;
        for ((channel, direction), bytes) in std::mem::take(&mut self.bytes) {
            let why = "the spool had no room".to_owned();
            recording.append_beyond_quota(at, &EventKind::Gap { channel, direction, bytes, why })?;
        }
        Ok(())
    }

    fn count(&mut self, (place, bytes): ((Channel, Direction), u64)) {
        if bytes > 0 {
            let total = self.bytes.entry(place).or_default();
            *total = total.saturating_add(bytes);
        }
    }
}

/// Bytes that an event stands for; those that were not going to be kept are no less lost.
fn size(event: &EventKind) -> u64 {
    if let EventKind::Gap { bytes, .. } = event { *bytes } else { event.payload() }
}
