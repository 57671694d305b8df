//! The published format of the log, for readers in other languages: files of `recordings-schema/`, made from the types
//! that write it. A golden test holds the checked-in files to what this gives.

use schemars::schema_for;

use super::entry::Entry;
use super::layout::ROOT;
use super::{GENERATION, MAX_LINE};

/// Every file: its path below the repository's root, and its text.
pub fn files() -> Vec<(&'static str, String)> {
    let schema = schema_for!(Entry).to_value();
    vec![("recordings-schema/log-entry.schema.json", format!("{schema:#}\n")), ("recordings-schema/log.md", readme())]
}

fn readme() -> String {
    format!(
        "# The log, generation {GENERATION}\n\
        \n\
        Written by `kustody generate schema`: change the code, not this file.\n\
        \n\
        `{ROOT}date=YYYY-MM-DD/<log id>/<number>.ndjson.zst`: one zstd frame each (`zstd -dc` reads it), in it one entry a\n\
        line, each line one JSON object of at most {MAX_LINE} bytes, described by `log-entry.schema.json`.\n\
        \n\
        - A log id (UUID) belongs to one spool folder of one replica. Its segments are numbered from 0 without a hole; a\n\
          number that is missing below the highest one is a segment that is not there (yet).\n\
        - The date is the UTC day on which the segment was begun; its last entries may be a few seconds into the next day.\n\
        - Entries of one log stand in the order in which they were written. Between logs order them by `time` and `id`.\n\
        - A line is canonical: members in the order of their names at every depth, no white space, so equal entries are\n\
          equal bytes.\n\
        - A value that was too long is replaced by `{{\"elided\":{{\"bytes\":N,\"sha256\":\"…\"}}}}`: length and SHA-256 of the\n\
          text's UTF-8, or of the canonical JSON of a list or map.\n\
        - `effect: admitted` says that the webhook let the request through before it was carried out. Whether it was\n\
          committed, only the API server's audit log says: `request` is its audit id for what came through the gateway,\n\
          and its audit event of a reviewed request carries the entry's id as the annotation `log-entry`.\n\
        - An entry is on the disk of the replica before the request it describes is answered; it is in the store a few\n\
          seconds later. Entries of kind `gap` say that bytes of a segment could not be read back after a crash.\n\
        - Nothing here proves that no entry was changed or removed later.\n"
    )
}
