//! The S3 client: endpoint, region, trusted authorities, credentials, time-outs. Sends nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aws_config::{BehaviorVersion, ConfigLoader};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};

use super::super::{Error, S3Config};

const DEFAULT_REGION: &str = "us-east-1";

pub(super) async fn build(config: &S3Config) -> Result<Client, Error> {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(30))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region(config)))
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(3));
    loader = with_credentials(loader, config)?;
    if let Some(path) = &config.ca_file {
        loader = with_authorities(loader, path)?;
    }
    let shared = loader.load().await;
    // What is read is given out as it lies there: a reader that proves things must see altered bytes to name them,
    // and the chain finds what a checksum kept beside the object finds.
    let mut builder = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(config.path_style)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    if config.checksums_when_required {
        builder = builder.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
    }
    Ok(Client::from_conf(builder.build()))
}

fn region(config: &S3Config) -> String {
    let from = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = config.region.clone().or_else(|| from("AWS_REGION")).or_else(|| from("AWS_DEFAULT_REGION"));
    named.unwrap_or_else(|| DEFAULT_REGION.to_owned())
}

fn with_credentials(loader: ConfigLoader, config: &S3Config) -> Result<ConfigLoader, Error> {
    let (access, secret) = match (&config.access_key_file, &config.secret_key_file) {
        (None, None) => return Ok(loader),
        (Some(access), Some(secret)) => (read(access)?, read(secret)?),
        _ => {
            return Err(Error::Config("access key file and secret key file go together".into()));
        }
    };
    Ok(loader.credentials_provider(Credentials::new(access, secret, None, None, "files")))
}

fn with_authorities(loader: ConfigLoader, path: &Path) -> Result<ConfigLoader, Error> {
    let pem = fs::read(path).map_err(|source| Error::File(path.to_owned(), source))?;
    let trusted = TrustStore::empty().with_pem_certificate(pem);
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| Error::Config(format!("CA file {}: {error}", path.display())))?;
    let client = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(context).build_https();
    Ok(loader.http_client(client))
}

fn read(path: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File(path.to_owned(), source))?;
    Ok(text.trim().to_owned())
}
