//! Which store a command works on: `--store` and its options, or `KUSTODY_STORE…` in the environment.

use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::edge::store::{self, Config, Location, S3Config, Store};

/// The id of the option that names the store.
const STORE: &str = "store";

/// Options that say where recordings are kept.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// Where recordings are kept: file:///path or s3://bucket/prefix
    #[arg(long, env = "KUSTODY_STORE", value_name = "URL")]
    pub store: Location,
    /// URL of an S3 service that is not AWS
    #[arg(long, env = "KUSTODY_STORE_ENDPOINT", value_name = "URL", value_parser = store::endpoint)]
    pub store_endpoint: Option<String>,
    /// S3 region; else AWS_REGION, else us-east-1
    #[arg(long, env = "KUSTODY_STORE_REGION", value_name = "NAME")]
    pub store_region: Option<String>,
    /// Put the bucket in the path instead of the host name
    #[arg(long, env = "KUSTODY_STORE_PATH_STYLE")]
    pub store_path_style: bool,
    /// PEM file of the certificate authorities to trust for S3
    #[arg(long, env = "KUSTODY_STORE_CA_FILE", value_name = "FILE")]
    pub store_ca_file: Option<PathBuf>,
    /// File with the access key id; without it credentials come from where AWS tools find them
    #[arg(long, env = "KUSTODY_STORE_ACCESS_KEY_FILE", value_name = "FILE", requires = "store_secret_key_file")]
    pub store_access_key_file: Option<PathBuf>,
    /// File with the secret access key
    #[arg(long, env = "KUSTODY_STORE_SECRET_KEY_FILE", value_name = "FILE", requires = "store_access_key_file")]
    pub store_secret_key_file: Option<PathBuf>,
    /// Use checksums only where S3 demands them, for servers that know no others
    #[arg(long, env = "KUSTODY_STORE_CHECKSUMS_WHEN_REQUIRED")]
    pub store_checksums_when_required: bool,
}

/// The same options for a command that does not always need a store.
#[derive(Debug, Clone)]
pub struct MaybeStoreArgs(Option<StoreArgs>);

impl MaybeStoreArgs {
    /// Opens the store.
    ///
    /// # Errors
    /// When none was named, or it cannot be used.
    pub async fn open(&self) -> anyhow::Result<Store> {
        let args = self.0.as_ref().context("sessions are in a store: name it with --store or KUSTODY_STORE")?;
        args.open().await
    }
}

impl FromArgMatches for MaybeStoreArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let named = matches.contains_id(STORE);
        Ok(MaybeStoreArgs(if named { Some(StoreArgs::from_arg_matches(matches)?) } else { None }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for MaybeStoreArgs {
    fn augment_args(command: Command) -> Command {
        StoreArgs::augment_args(command).mut_arg(STORE, |arg| arg.required(false))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl StoreArgs {
    /// What was typed, as the store reads it.
    pub fn config(&self) -> Config {
        Config {
            location: self.store.clone(),
            s3: S3Config {
                endpoint: self.store_endpoint.clone(),
                region: self.store_region.clone(),
                path_style: self.store_path_style,
                ca_file: self.store_ca_file.clone(),
                access_key_file: self.store_access_key_file.clone(),
                secret_key_file: self.store_secret_key_file.clone(),
                checksums_when_required: self.store_checksums_when_required,
                // These commands write nothing.
                ..S3Config::default()
            },
        }
    }

    /// Opens the store.
    ///
    /// # Errors
    /// When it cannot be used; names URL and cause.
    pub async fn open(&self) -> anyhow::Result<Store> {
        Store::open(&self.config()).await.context("cannot open the store")
    }
}
