//! Ed25519 keys in files: made once, read afterwards, never printed. The values themselves are `core::keys`.
//!
//! A private key is a PKCS#8 PEM file of mode 0600; beside it lies the public key, for whoever verifies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;

use crate::core::keys::{self, PublicKey, Secret, SigningKey};

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("key file {0}")]
    File(PathBuf, #[source] io::Error),
    /// The file can be read by others than its owner.
    #[error("key file {0} is readable by others (mode {1:03o}); it must have mode 600")]
    Mode(PathBuf, u32),
    /// The file does not hold a key.
    #[error("key file {0}")]
    Key(PathBuf, #[source] keys::Error),
    /// The system gave no randomness.
    #[error("no new key could be made")]
    Generate,
}

/// Makes a new signing key.
pub fn generate() -> Result<SigningKey, Error> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| Error::Generate)?;
    SigningKey::from_pkcs8(document.as_ref()).map_err(|_| Error::Generate)
}

/// Reads a signing key.
pub fn load(path: &Path) -> Result<SigningKey, Error> {
    let io = |source| Error::File(path.to_owned(), source);
    let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(Error::Mode(path.to_owned(), mode));
    }
    let pem = Secret::new(fs::read_to_string(path).map_err(io)?);
    SigningKey::from_pkcs8_pem(pem.expose()).map_err(|source| Error::Key(path.to_owned(), source))
}

/// Reads a signing key, or makes one and writes it and its public key (`<path>.pub`) where there is none.
pub fn load_or_create(path: &Path) -> Result<SigningKey, Error> {
    if path.try_exists().map_err(|source| Error::File(path.to_owned(), source))? {
        return load(path);
    }
    let key = generate()?;
    let pem = key.to_pem().map_err(|source| Error::Key(path.to_owned(), source))?;
    match write_new(path, 0o600, pem.expose().as_bytes()) {
        Err(Error::File(_, source)) if source.kind() == io::ErrorKind::AlreadyExists => {
            return load(path);
        }
        other => other?,
    }
    write_public(&path.with_added_extension("pub"), key.public())?;
    Ok(key)
}

/// Writes a public key for whoever verifies, unless the file is there.
pub fn write_public(path: &Path, key: &PublicKey) -> Result<(), Error> {
    match write_new(path, 0o644, key.to_pem().as_bytes()) {
        Err(Error::File(_, source)) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Reads a public key.
pub fn load_public(path: &Path) -> Result<PublicKey, Error> {
    let pem = fs::read_to_string(path).map_err(|source| Error::File(path.to_owned(), source))?;
    PublicKey::from_pem(&pem).map_err(|source| Error::Key(path.to_owned(), source))
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| Error::File(path.to_owned(), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/signing.key");
        let made = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().public(), made.public());
        assert_eq!(load_public(&dir.path().join("deep/signing.key.pub")).unwrap(), *made.public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_everybody_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load(&path), Err(Error::Mode(_, 0o644))));
    }
}
