//! Ed25519 keys as pure values: what signs a manifest or a ticket, what checks it, and how both look as PEM.
//!
//! Making a key (randomness) and keeping it in files is `edge::keys`; Kubernetes Secrets are `edge::cluster`.
//! Nothing here prints key bytes: `SigningKey` and `Secret` redact themselves in `Debug`, errors never carry input.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// Length of a raw Ed25519 public key.
pub const PUBLIC_KEY_LEN: usize = 32;
/// SubjectPublicKeyInfo of an Ed25519 key is this prefix and the 32 raw bytes (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// Why a key could not be read or written. Never carries any of the input.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text holds no block of the expected kind.
    #[error("no PEM block `{0}` found")]
    NoPem(&'static str),
    /// The block is there, and its base64 is broken.
    #[error("the PEM block `{0}` is not valid base64")]
    Base64(&'static str),
    /// The private key is not a PKCS#8 Ed25519 key.
    #[error("not an Ed25519 private key in PKCS#8 form")]
    Private,
    /// The public key is not an Ed25519 key.
    #[error("not an Ed25519 public key")]
    Public,
    /// The key could not be serialized.
    #[error("the key cannot be written as PKCS#8")]
    Encode,
}

/// A value that must be asked for by name: it prints as `***` and is wiped when dropped.
pub struct Secret<T: Zeroize>(Zeroizing<T>);

/// An Ed25519 key that signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// An Ed25519 key that verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; PUBLIC_KEY_LEN]);

/// Names a public key: the first 16 bytes of the SHA-256 of its raw bytes, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl<T: Zeroize> Secret<T> {
    /// Takes custody of a value.
    pub fn new(value: T) -> Self {
        Secret(Zeroizing::new(value))
    }

    /// Gives the value to the one place that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl SigningKey {
    /// Reads an unencrypted PKCS#8 DER document, as OpenSSL or Kustody write it.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| Error::Private)?;
        let public = PublicKey::from_raw(pair.public_key().as_ref())?;
        Ok(SigningKey { pair, public })
    }

    /// Reads the first `PRIVATE KEY` block of a PEM text.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, Error> {
        Self::from_pkcs8(&Zeroizing::new(pem_block(pem, PRIVATE_LABEL)?))
    }

    /// The key as a PKCS#8 PEM text, wiped from memory when dropped.
    pub fn to_pem(&self) -> Result<Secret<String>, Error> {
        let der = self.pair.to_pkcs8().map_err(|_| Error::Encode)?;
        Ok(Secret::new(to_pem(der.as_ref(), PRIVATE_LABEL)))
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The name of the public key.
    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    /// A 64-byte Ed25519 signature over the message.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl PublicKey {
    /// Takes the 32 raw bytes.
    pub fn from_raw(raw: &[u8]) -> Result<Self, Error> {
        raw.try_into().map(PublicKey).map_err(|_| Error::Public)
    }

    /// Reads the first `PUBLIC KEY` block (SubjectPublicKeyInfo) of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let der = pem_block(pem, PUBLIC_LABEL)?;
        let raw = der.strip_prefix(SPKI_PREFIX.as_slice()).ok_or(Error::Public)?;
        Self::from_raw(raw)
    }

    /// The key as a SubjectPublicKeyInfo PEM text, which `openssl pkey -pubin` reads.
    pub fn to_pem(&self) -> String {
        to_pem(&[SPKI_PREFIX.as_slice(), self.0.as_slice()].concat(), PUBLIC_LABEL)
    }

    /// The 32 raw bytes.
    pub fn as_raw(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.0
    }

    /// The name of this key.
    pub fn id(&self) -> KeyId {
        let hash = digest(&SHA256, &self.0);
        KeyId(hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// True when the signature is this key's over exactly this message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KeyId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn pem_block(pem: &str, label: &'static str) -> Result<Vec<u8>, Error> {
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let (_, rest) = pem.split_once(&begin).ok_or(Error::NoPem(label))?;
    let (body, _) = rest.split_once(&end).ok_or(Error::NoPem(label))?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    STANDARD.decode(body.as_bytes()).map_err(|_| Error::Base64(label))
}

fn to_pem(der: &[u8], label: &str) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut pem = format!("-----BEGIN {label}-----\n");
    for (at, letter) in body.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(letter);
    }
    pem.push_str(&format!("\n-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl genpkey -algorithm ed25519` (PKCS#8 version 1, no public key inside), made for this test.
    const OPENSSL: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIOEglcBAa5bmvXmmYkru6RmpLHq7iLKp92x/4F9E8XLV\n-----END PRIVATE KEY-----\n";
    /// RFC 8032 section 7.1, test 2: the public key of the secret 4ccd089b28ff96da....
    const RFC_SECRET: [u8; 32] = [
        0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f, 0x5b, 0x8a,
        0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb,
    ];

    fn rfc_key() -> SigningKey {
        let prefix: [u8; 16] =
            [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        SigningKey::from_pkcs8(&[prefix.as_slice(), &RFC_SECRET].concat()).unwrap()
    }

    #[test]
    fn signs_as_rfc_8032_says() {
        let key = rfc_key();
        let signature = key.sign(&[0x72]);
        assert_eq!(signature[..4], [0x92, 0xa0, 0x09, 0xa9]);
        assert_eq!(key.public().as_raw()[..4], [0x3d, 0x40, 0x17, 0xc3]);
        assert!(key.public().verify(&[0x72], &signature));
        assert!(!key.public().verify(&[0x73], &signature));
    }

    #[test]
    fn private_pem_round_trips() {
        let key = rfc_key();
        let again = SigningKey::from_pkcs8_pem(key.to_pem().unwrap().expose()).unwrap();
        assert_eq!(again.public(), key.public());
    }

    #[test]
    fn reads_a_key_made_by_openssl() {
        let key = SigningKey::from_pkcs8_pem(OPENSSL).unwrap();
        assert!(key.public().verify(b"x", &key.sign(b"x")));
    }

    #[test]
    fn public_pem_round_trips_and_names_the_same_key() {
        let public = rfc_key().public().clone();
        let again = PublicKey::from_pem(&public.to_pem()).unwrap();
        assert_eq!(again, public);
        assert_eq!(again.id().as_str().len(), 32);
    }

    #[test]
    fn debug_shows_no_key_bytes() {
        let key = rfc_key();
        let pem = key.to_pem().unwrap();
        assert_eq!(format!("{pem:?}"), "***");
        assert_eq!(format!("{key:?}"), format!("SigningKey {{ id: {:?}, .. }}", key.id()));
    }

    #[test]
    fn refuses_what_is_not_a_key_without_quoting_it() {
        for pem in [
            "",
            "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----",
        ] {
            let error = SigningKey::from_pkcs8_pem(pem).unwrap_err().to_string();
            assert!(!error.contains("QUJD") && !error.contains("!!"), "{error}");
        }
    }
}
