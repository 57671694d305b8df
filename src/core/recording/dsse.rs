//! DSSE envelopes (secure-systems-lab/dsse, v1): a payload, its type and Ed25519 signatures over both.
//!
//! Signing and checking only; what a payload means is its owner's business (`manifest`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::keys::{PublicKey, SigningKey};

/// The JSON envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// What the payload is.
    pub payload_type: String,
    /// The payload in base64.
    #[schemars(extend("contentEncoding" = "base64"))]
    pub payload: String,
    /// Signatures over the pre-authentication encoding of type and payload.
    pub signatures: Vec<Signature>,
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The key's name: a hint, not a proof.
    pub keyid: String,
    /// The Ed25519 signature in base64.
    #[schemars(extend("contentEncoding" = "base64"))]
    pub sig: String,
}

/// Why an envelope is not good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the JSON of an envelope.
    #[error("not a DSSE envelope")]
    Json(#[from] serde_json::Error),
    /// The payload is not base64.
    #[error("the payload is not valid base64")]
    Base64,
    /// The payload is something else.
    #[error("the payload is `{0}`")]
    Type(String),
    /// The JSON is valid, and not as it was written.
    #[error("the envelope is not in the form in which it was written")]
    Form,
    /// There is no signature.
    #[error("it is not signed")]
    Unsigned,
    /// A signature is by a key that was not given.
    #[error("it is signed by key {0}, which was not given")]
    UnknownKey(String),
    /// A known key did not sign this.
    #[error("the signature does not fit")]
    Signature,
}

impl Envelope {
    /// Signs a payload.
    pub fn sign(payload_type: &str, payload: &[u8], key: &SigningKey) -> Self {
        let signature = key.sign(&pre_authentication(payload_type, payload));
        Envelope {
            payload_type: payload_type.to_owned(),
            payload: STANDARD.encode(payload),
            signatures: vec![Signature { keyid: key.id().to_string(), sig: STANDARD.encode(signature) }],
        }
    }

    /// The object's bytes.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads an object's bytes; only the one form that [`Envelope::to_json`] writes, so that no byte can change unseen.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let envelope: Envelope = serde_json::from_slice(json)?;
        if envelope.to_json()? == json { Ok(envelope) } else { Err(Error::Form) }
    }

    /// The payload, after every signature proved to be by one of the keys.
    pub fn open(&self, payload_type: &str, keys: &[PublicKey]) -> Result<Vec<u8>, Error> {
        let payload = self.open_unverified(payload_type)?;
        let message = pre_authentication(payload_type, &payload);
        if self.signatures.is_empty() {
            return Err(Error::Unsigned);
        }
        for signature in &self.signatures {
            let key = keys.iter().find(|key| key.id().as_str() == signature.keyid);
            let key = key.ok_or_else(|| Error::UnknownKey(signature.keyid.clone()))?;
            if !STANDARD.decode(&signature.sig).is_ok_and(|bytes| key.verify(&message, &bytes)) {
                return Err(Error::Signature);
            }
        }
        Ok(payload)
    }

    /// The payload without any proof: for showing, never for deciding.
    pub fn open_unverified(&self, payload_type: &str) -> Result<Vec<u8>, Error> {
        if self.payload_type != payload_type {
            return Err(Error::Type(self.payload_type.clone()));
        }
        STANDARD.decode(&self.payload).map_err(|_| Error::Base64)
    }
}

/// `"DSSEv1" SP len(type) SP type SP len(payload) SP payload`.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pre_authentication_encoding_is_that_of_the_specification() {
        let bytes = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }
}
