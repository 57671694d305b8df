//! Finds out by trying what a bucket enforces: two creates of one name, and a delete of a locked version.
//!
//! The lock is tried in governance mode for a minute, so that the probe can clean up after itself where it may bypass
//! the lock; elsewhere one small object stays until its lock ends and is left to the bucket's life-cycle rules.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockMode};
use jiff::Timestamp;
use uuid::Uuid;

use super::super::{Error, ProbeReport};
use super::{S3, failed, status};

const LOCKED_FOR: Duration = Duration::from_secs(60);

impl S3 {
    pub(in super::super) async fn probe(&self) -> Result<ProbeReport, Error> {
        let conditional_create = self.try_two_creates().await?;
        self.conditional.store(conditional_create, Ordering::Relaxed);
        let versioning = self.has_versioning().await?;
        let default_retention = self.default_retention().await;
        let object_lock = versioning && self.try_lock().await?;
        Ok(ProbeReport { conditional_create, versioning, object_lock, default_retention, retention: self.retention })
    }

    /// True when the second create of one name was refused.
    async fn try_two_creates(&self) -> Result<bool, Error> {
        let key = format!("probe/{}", Uuid::now_v7());
        let create = |body: &'static [u8]| {
            let request = self.client.put_object().bucket(&self.bucket).key(format!("{}{key}", self.prefix));
            request.if_none_match("*").body(ByteStream::from_static(body)).send()
        };
        let first = create(b"first").await.map_err(|error| failed("PutObject", &key, &error))?;
        let second = create(b"second").await;
        self.remove_version(&key, first.version_id()).await;
        match second {
            Ok(output) => {
                self.remove_version(&key, output.version_id()).await;
                Ok(false)
            }
            Err(error) if matches!(status(&error), Some(409 | 412)) => Ok(true),
            Err(error) => Err(failed("PutObject", &key, &error)),
        }
    }

    async fn has_versioning(&self) -> Result<bool, Error> {
        match self.client.get_bucket_versioning().bucket(&self.bucket).send().await {
            Ok(output) => Ok(output.status() == Some(&BucketVersioningStatus::Enabled)),
            // Servers without versioning answer 501 or 405, buckets that may not be asked 403: not proved.
            Err(error) if status(&error).is_some() => Ok(false),
            Err(error) => Err(failed("GetBucketVersioning", "", &error)),
        }
    }

    /// The bucket's default retention in words.
    async fn default_retention(&self) -> Option<String> {
        let output = self.client.get_object_lock_configuration().bucket(&self.bucket).send().await.ok()?;
        let retention = output.object_lock_configuration()?.rule()?.default_retention()?.clone();
        let mode = retention.mode()?.as_str().to_lowercase();
        match (retention.days(), retention.years()) {
            (Some(days), _) => Some(format!("{mode}, {days} days")),
            (None, Some(years)) => Some(format!("{mode}, {years} years")),
            (None, None) => None,
        }
    }

    /// True when a locked version could not be deleted.
    async fn try_lock(&self) -> Result<bool, Error> {
        let key = format!("probe/{}", Uuid::now_v7());
        let until = Timestamp::now().as_second().saturating_add_unsigned(LOCKED_FOR.as_secs());
        let request = self.client.put_object().bucket(&self.bucket).key(format!("{}{key}", self.prefix));
        let request = request.object_lock_mode(ObjectLockMode::Governance);
        let request = request.object_lock_retain_until_date(DateTime::from_secs(until));
        let output = match request.body(ByteStream::from_static(b"locked")).send().await {
            Ok(output) => output,
            Err(error) if status(&error).is_some() => return Ok(false),
            Err(error) => return Err(failed("PutObject", &key, &error)),
        };
        let Some(version) = output.version_id() else {
            return Ok(false);
        };
        let delete = || self.client.delete_object().bucket(&self.bucket).key(format!("{}{key}", self.prefix));
        let refused = delete().version_id(version).send().await.is_err();
        // Refused for another reason would not be a proof: the version must still be there.
        let head = self.client.head_object().bucket(&self.bucket).key(format!("{}{key}", self.prefix));
        let there = head.version_id(version).send().await.is_ok();
        delete().version_id(version).bypass_governance_retention(true).send().await.ok();
        Ok(refused && there)
    }

    /// Cleans up; what cannot be removed stays.
    async fn remove_version(&self, key: &str, version: Option<&str>) {
        let request = self.client.delete_object().bucket(&self.bucket).key(format!("{}{key}", self.prefix));
        let request = request.set_version_id(version.map(str::to_owned));
        request.bypass_governance_retention(version.is_some()).send().await.ok();
    }
}
