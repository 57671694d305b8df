//! A store's URL: `file:///var/lib/kustody` or `s3://bucket/prefix`. Parses and prints; opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// An absolute path.
    Directory(PathBuf),
    /// A bucket and a prefix; the prefix is empty or ends in `/`.
    S3 {
        /// The bucket.
        bucket: String,
        /// Stands before every key.
        prefix: String,
    },
}

/// Why a text is not a store URL.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a store URL: {1}")]
pub struct NotALocation(String, &'static str);

/// Takes the URL of an S3 service.
///
/// # Errors
/// When it is not HTTPS: recordings and log do not travel unencrypted.
pub fn endpoint(url: &str) -> Result<String, NotALocation> {
    let host = url.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    if host.is_some_and(|host| !host.is_empty()) {
        Ok(url.to_owned())
    } else {
        Err(NotALocation(
            url.to_owned(),
            "an endpoint begins with https://, as what is stored does not travel unencrypted",
        ))
    }
}

impl FromStr for Location {
    type Err = NotALocation;

    fn from_str(url: &str) -> Result<Self, NotALocation> {
        let wrong = |why| NotALocation(url.to_owned(), why);
        if let Some(path) = url.strip_prefix("file://") {
            return if path.starts_with('/') {
                Ok(Location::Directory(path.into()))
            } else {
                Err(wrong("a directory needs an absolute path (file:///var/lib/kustody)"))
            };
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err(wrong("it must begin with file:// or s3://"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(letter) {
            return Err(wrong("a bucket has 3 to 63 lower-case letters, digits, dots and hyphens"));
        }
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() && super::check_key(prefix).is_err() {
            return Err(wrong("a prefix has letters, digits and =-_. between single slashes"));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Location::S3 { bucket: bucket.to_owned(), prefix })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(path) => write!(f, "file://{}", path.display()),
            Location::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_printed() {
        for (url, printed) in [
            ("file:///var/lib/kustody", "file:///var/lib/kustody"),
            ("s3://evidence", "s3://evidence/"),
            ("s3://evidence/team/a/", "s3://evidence/team/a/"),
        ] {
            assert_eq!(url.parse::<Location>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn other_urls_are_refused_with_a_hint() {
        for url in ["", "/var", "file://var", "s3://", "s3://A", "s3://ok-bucket/../x", "https://bucket"] {
            assert!(url.parse::<Location>().is_err(), "{url}");
        }
    }

    #[test]
    fn endpoints_are_https() {
        assert!(endpoint("https://s3.example.com:9000/x").is_ok());
        for url in ["http://minio:9000", "minio:9000", "https://", "https:///x", ""] {
            assert!(endpoint(url).unwrap_err().to_string().contains("https://"), "{url}");
        }
    }
}
