//! Log lines of a running Kustody, on stderr: text for people, JSON for collectors. What agents do is no log line:
//! that is evidence, and lives in recordings. Main function: [`start`].

use tracing_subscriber::EnvFilter;

/// How log lines look and which are written.
#[derive(Debug, Clone)]
pub struct Config {
    /// JSON instead of text.
    pub json: bool,
    /// A filter such as `info` or `kustody=debug,hyper=warn`.
    pub filter: String,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[error("cannot start logging")]
pub struct Error(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Starts logging for the whole process.
///
/// # Errors
/// Where logging runs already.
pub fn start(config: &Config) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|error| Error(error.into()))?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    if config.json { lines.json().try_init() } else { lines.try_init() }.map_err(Error)
}

/// Whether `filter` can be used, for checking a configuration.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}
