//! Which one action an approval fits: a digest of who, what and with which content.
//!
//! One user request can be many reviews, and each carries values the API server made afresh (uid, timestamps,
//! generated names, the suffix of a service account volume). [`normalise`] takes those out, so that the
//! repeats of one request have one fingerprint and any other content has another. The facts behind each
//! normalisation are recorded pairs of reviews in `tests/reviews`.

use crate::core::canonical;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Lower-case hexadecimal SHA-256.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct Fingerprint(#[schemars(regex(pattern = "^[0-9a-f]{64}$"))] String);

impl Fingerprint {
    /// The fingerprint of canonical bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(canonical::sha256_hex(bytes))
    }

    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, which name the ApprovalRequest.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
