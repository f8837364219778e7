//! From a vault URL to its objects.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::azure::open_azure;
use super::directory::open_directory;
use super::s3::open_s3;
use super::{Meter, ObjectError, Objects, RetryPolicy, Retrying, Throttle, Timeouts};

/// How a vault is opened. `Default` is what a program wants: the process's environment.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Stands over the environment, under the variables' names (`AWS_REGION`, …).
    pub settings: BTreeMap<String, String>,
    /// False: only `settings` count, so that tests do not see each other.
    pub environment: bool,
    /// Make the directory of a `file:` vault; only `init` does.
    pub create_directory: bool,
    /// Counts the requests; keep a clone to read it.
    pub meter: Meter,
    /// Paces all uploads together; keep a clone to change it.
    pub throttle: Throttle,
    pub retry: RetryPolicy,
    pub timeouts: Timeouts,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            settings: BTreeMap::new(),
            environment: true,
            create_directory: false,
            meter: Meter::new(),
            throttle: Throttle::default(),
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// Where a vault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Directory(PathBuf),
    S3 {
        bucket: String,
        prefix: String,
    },
    Azure {
        account: String,
        container: String,
        prefix: String,
    },
}

/// Opens the vault at `url`: `file:///directory`, `s3://bucket/prefix` or
/// `azure://account/container/prefix`. Whether bucket and credentials are right shows at the
/// first request.
pub async fn open_vault_url(
    url: &str,
    options: OpenOptions,
) -> Result<Arc<dyn Objects>, ObjectError> {
    let store = match parse(url)? {
        Place::Directory(root) => open_directory(&root, &options).await?,
        Place::S3 { bucket, prefix } => open_s3(&bucket, &prefix, &options).await?,
        Place::Azure {
            account,
            container,
            prefix,
        } => open_azure(&account, &container, &prefix, &options)?,
    };
    let seed = RandomState::new().hash_one(url);
    let retrying = Retrying::new(store, options.retry, seed);
    Ok(Arc::new(retrying.throttled(options.throttle)))
}

pub(super) fn parse(url: &str) -> Result<Place, ObjectError> {
    let refuse = |cause: &str| ObjectError::BadUrl {
        // A secret typed into a URL must not come back in a message.
        url: url.split(['?', '@']).next().unwrap_or_default().to_owned(),
        cause: cause.to_owned(),
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(refuse("it has no scheme"));
    };
    if rest.contains(['?', '#', '@', '%']) {
        return Err(refuse("it may hold no query, user or escapes"));
    }
    match scheme {
        "file" => match Path::new(rest) {
            path if path.is_absolute() => Ok(Place::Directory(path.to_owned())),
            _ => Err(refuse("the directory must be an absolute path")),
        },
        "s3" => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(refuse("the bucket is missing"));
            }
            Ok(Place::S3 {
                bucket: bucket.to_owned(),
                prefix: prefix_of(prefix).ok_or_else(|| refuse("the prefix is no plain path"))?,
            })
        }
        "azure" => {
            let (account, rest) = rest.split_once('/').unwrap_or((rest, ""));
            let (container, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if account.is_empty() || container.is_empty() {
                return Err(refuse("account or container is missing"));
            }
            Ok(Place::Azure {
                account: account.to_owned(),
                container: container.to_owned(),
                prefix: prefix_of(prefix).ok_or_else(|| refuse("the prefix is no plain path"))?,
            })
        }
        _ => Err(refuse("the scheme is unknown")),
    }
}

fn prefix_of(text: &str) -> Option<String> {
    super::name::check_prefix(text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_places() {
        let s3 = |bucket: &str, prefix: &str| Place::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(parse("s3://b").unwrap(), s3("b", ""));
        assert_eq!(parse("s3://b/p/q/").unwrap(), s3("b", "p/q"));
        assert_eq!(
            parse("file:///srv/vault").unwrap(),
            Place::Directory("/srv/vault".into())
        );
        assert_eq!(
            parse("azure://a/c/p").unwrap(),
            Place::Azure {
                account: "a".to_owned(),
                container: "c".to_owned(),
                prefix: "p".to_owned()
            }
        );
    }

    #[test]
    fn bad_urls_are_refused_without_their_secrets() {
        for url in [
            "/srv/vault",
            "file://srv",
            "s3://",
            "s3:///p",
            "azure://a",
            "azure://a/",
            "ftp://x/y",
            "s3://b/../c",
            "s3://b//c",
            "s3://key:secret@b/p",
            "s3://b/p?sig=secret",
        ] {
            let text = parse(url).unwrap_err().to_string();
            assert!(!text.contains("sig=secret"), "{text}");
            assert!(text.contains("azure://account"), "{text}");
        }
    }
}
