//! Kustody's own credential towards the API server: a token, a token file that is read again every
//! minute (bound tokens rotate), or nothing beside the client certificate of the TLS handshake.

use super::{Error, header};
use http::header::HeaderValue;
use kube::config::AuthInfo;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const RELOAD: Duration = Duration::from_secs(60);

pub(super) enum Credential {
    Certificate,
    Token(HeaderValue),
    File { path: String, held: Mutex<Option<(HeaderValue, Instant)>> },
}

impl Credential {
    pub(super) fn new(auth: &AuthInfo) -> Result<Self, Error> {
        if let Some(path) = &auth.token_file {
            return Ok(Credential::File { path: path.clone(), held: Mutex::new(None) });
        }
        if let Some(token) = &auth.token {
            use secrecy::ExposeSecret;
            return Ok(Credential::Token(header(&format!("Bearer {}", token.expose_secret()))?));
        }
        if auth.exec.is_some() || auth.auth_provider.is_some() || auth.username.is_some() {
            return Err(Error::Config("kustody's own user needs a token, a token file or a client certificate".into()));
        }
        Ok(Credential::Certificate)
    }

    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, Error> {
        let (path, held) = match self {
            Credential::Certificate => return Ok(None),
            Credential::Token(value) => return Ok(Some(value.clone())),
            Credential::File { path, held } => (path, held),
        };
        let mut held = held.lock().await;
        if let Some((value, read)) = held.as_ref()
            && read.elapsed() < RELOAD
        {
            return Ok(Some(value.clone()));
        }
        match tokio::fs::read_to_string(path).await {
            Ok(token) => {
                let value = header(&format!("Bearer {}", token.trim()))?;
                *held = Some((value.clone(), Instant::now()));
                Ok(Some(value))
            }
            // A file that is just being replaced: the token in hand is good for a while yet.
            Err(source) => match held.as_ref() {
                Some((value, _)) => Ok(Some(value.clone())),
                None => Err(Error::Token { path: path.clone(), source }),
            },
        }
    }
}
