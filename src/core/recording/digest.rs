//! SHA-256 digests: the links of the chain and the fingerprints in a manifest. Lower-case hex in JSON, raw bytes in a
//! chunk's head.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Length of a digest in bytes.
pub const LEN: usize = 32;

/// The SHA-256 of an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
pub struct Digest([u8; LEN]);

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error)]
#[error("not a SHA-256 digest in lower-case hex")]
pub struct NotADigest;

impl Digest {
    /// Hashes the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut context = Digest::begin();
        context.update(bytes);
        Digest::finish(context)
    }

    /// Begins to hash what comes in pieces.
    pub fn begin() -> Context {
        Context::new(&SHA256)
    }

    /// The digest of all pieces of what was begun here.
    pub fn finish(context: Context) -> Self {
        let mut raw = [0; LEN];
        for (to, from) in raw.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Digest(raw)
    }

    /// Takes the raw bytes of a digest.
    pub fn from_raw(raw: [u8; LEN]) -> Self {
        Digest(raw)
    }

    /// The raw bytes.
    pub fn as_raw(&self) -> &[u8; LEN] {
        &self.0
    }

    /// The digest in base64, as S3 checksum headers carry it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != 2 * LEN || !text.as_bytes().iter().all(lower) {
            return Err(NotADigest);
        }
        let mut raw = [0; LEN];
        for (to, pair) in raw.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NotADigest)?;
            *to = u8::from_str_radix(pair, 16).map_err(|_| NotADigest)?;
        }
        Ok(Digest(raw))
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_sha_256_and_reads_its_own_hex() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    }
}
