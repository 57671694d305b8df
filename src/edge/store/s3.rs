//! A store in an S3 bucket, by the AWS SDK: SHA-256 checksums on every write, `If-None-Match` on every create.
//!
//! 412 and 409 are treated alike. Until a probe has shown that the store honours the condition, a create looks first
//! whether the object is there. How the client is built is `client`; finding out what the bucket enforces is `probing`.

mod client;
mod probing;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::ObjectLockMode;
use bytes::Bytes;
use jiff::Timestamp;

use super::retention::{Mode, Retention};
use super::{Cause, Error, Object, Put, S3Config, chain, check_key};
use crate::core::recording::Digest;

/// A store in an S3 bucket.
#[derive(Clone)]
pub struct S3 {
    client: Client,
    bucket: String,
    /// Empty, or ends in `/`.
    prefix: String,
    /// A probe has shown that a conditional create is one.
    conditional: Arc<AtomicBool>,
    retention: Retention,
}

impl S3 {
    pub(super) async fn new(bucket: &str, prefix: &str, config: &S3Config) -> Result<Self, Error> {
        let client = client::build(config).await?;
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(S3 { client, bucket, prefix, conditional: Arc::default(), retention: config.retention })
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&self.prefix).max_keys(1);
        request.send().await.map_err(|error| failed("ListObjectsV2", &self.prefix, &error))?;
        Ok(())
    }

    pub(super) async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, Error> {
        let full = self.full(key)?;
        if !self.conditional.load(Ordering::Relaxed) && self.head(key).await?.is_some() {
            return Ok(Put::Exists);
        }
        let checksum = Digest::of(&body).to_base64();
        let request = self.client.put_object().bucket(&self.bucket).key(&full).if_none_match("*");
        let request = request.checksum_sha256(&checksum).body(ByteStream::from(body.clone()));
        let until = self.retention.until(key, Timestamp::now());
        let request = request
            .set_object_lock_mode(until.map(|_| self.lock_mode()))
            .set_object_lock_retain_until_date(until.map(|until| DateTime::from_secs(until.as_second())));
        // The checksum is among what is signed, and its server compares: hashing the body once more proves nothing.
        match request.customize().disable_payload_signing().send().await {
            Ok(output) if output.checksum_sha256() == Some(checksum.as_str()) => Ok(Put::Created),
            Ok(_) => self.read_back(key, &body).await,
            Err(error) if matches!(status(&error), Some(409 | 412)) => Ok(Put::Exists),
            Err(error) => Err(failed("PutObject", key, &error)),
        }
    }

    /// For servers that do not confirm a checksum: what is there is compared.
    async fn read_back(&self, key: &str, body: &Bytes) -> Result<Put, Error> {
        if self.get(key, None).await? == body { Ok(Put::Created) } else { Err(Error::Damaged(key.to_owned())) }
    }

    pub(super) async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let request = self.client.get_object().bucket(&self.bucket).key(self.full(key)?).set_range(range);
        let output = request.send().await.map_err(|error| match status(&error) {
            Some(404) => Error::NotFound(key.to_owned()),
            _ => failed("GetObject", key, &error),
        })?;
        let body = output.body.collect().await.map_err(|error| Error::Request {
            operation: "GetObject",
            key: key.to_owned(),
            cause: Cause(chain(&error)),
        })?;
        Ok(body.into_bytes())
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<u64>, Error> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.full(key)?);
        match request.send().await {
            Ok(output) => Ok(Some(output.content_length().and_then(|n| n.try_into().ok()).unwrap_or(0))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("HeadObject", key, &error)),
        }
    }

    pub(super) async fn locked_until(&self, key: &str) -> Result<Option<Timestamp>, Error> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.full(key)?);
        let head = request.send().await.map_err(|error| failed("HeadObject", key, &error))?;
        let until = head.object_lock_retain_until_date();
        Ok(until.and_then(|until| Timestamp::from_second(until.secs()).ok()))
    }

    fn lock_mode(&self) -> ObjectLockMode {
        match self.retention.mode {
            Mode::Compliance => ObjectLockMode::Compliance,
            Mode::Governance => ObjectLockMode::Governance,
        }
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(format!("{}{prefix}", self.prefix));
        let mut pages = request.into_paginator().send();
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ListObjectsV2", prefix, &error))?;
            for object in page.contents() {
                if let Some(key) = object.key().and_then(|key| key.strip_prefix(&self.prefix)) {
                    let size = object.size().and_then(|size| size.try_into().ok()).unwrap_or(0);
                    objects.push(Object { key: key.to_owned(), size });
                }
            }
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    pub(super) async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).delimiter("/");
        let mut pages = request.prefix(format!("{}{prefix}", self.prefix)).into_paginator().send();
        let mut folders = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ListObjectsV2", prefix, &error))?;
            let found = page.common_prefixes().iter().filter_map(|common| common.prefix());
            folders.extend(found.filter_map(|folder| folder.strip_prefix(&self.prefix)).map(str::to_owned));
        }
        folders.sort();
        Ok(folders)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Error> {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.full(key)?);
        request.send().await.map_err(|error| failed("DeleteObject", key, &error))?;
        Ok(())
    }

    fn full(&self, key: &str) -> Result<String, Error> {
        check_key(key)?;
        Ok(format!("{}{key}", self.prefix))
    }
}

/// The HTTP status of a failed request, when there was an answer.
fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

fn failed<E>(operation: &'static str, key: &str, error: &SdkError<E>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let cause = match (error.as_service_error(), status(error)) {
        (Some(service), Some(status)) => {
            let code = service.code().unwrap_or("no error code");
            format!("HTTP {status} {code}: {}", service.message().unwrap_or("no message"))
        }
        _ => chain(error),
    };
    Error::Request { operation, key: key.to_owned(), cause: Cause(cause) }
}
