//! AWS credentials from the standard chain, kept until shortly before they expire.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::aws::AwsCredential;
use object_store::client::CredentialProvider;
use tokio::sync::Mutex;

use super::ObjectError;

/// A PUT at 1 Mbit/s takes minutes, and is signed when it starts.
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(300);

/// Credentials that could not be had, told apart from a store's refusal. Travels inside an
/// `object_store` error, since a credential provider can only return those.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsTrouble {
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Expired(String),
}

impl CredentialsTrouble {
    pub(super) fn explain(&self, store: String) -> ObjectError {
        match self {
            Self::Missing(cause) => ObjectError::CredentialsMissing {
                store,
                cause: cause.clone(),
            },
            Self::Expired(cause) => ObjectError::CredentialsExpired {
                store,
                cause: cause.clone(),
            },
        }
    }
}

impl From<CredentialsTrouble> for object_store::Error {
    fn from(trouble: CredentialsTrouble) -> Self {
        object_store::Error::Generic {
            store: "credentials",
            source: Box::new(trouble),
        }
    }
}

/// An `aws-config` provider as `object_store` wants it.
pub(super) struct ChainCredentials {
    /// `None`: no source of credentials is configured at all.
    provider: Option<SharedCredentialsProvider>,
    /// One task at a time asks the chain; the others wait for its answer.
    held: Mutex<Option<Held>>,
}

#[derive(Clone)]
struct Held {
    credential: Arc<AwsCredential>,
    expiry: Option<SystemTime>,
}

impl fmt::Debug for ChainCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainCredentials(..)")
    }
}

impl ChainCredentials {
    pub(super) fn new(provider: Option<SharedCredentialsProvider>) -> Self {
        Self {
            provider,
            held: Mutex::new(None),
        }
    }

    /// Makes the next request ask the chain again: the store called these expired.
    pub(super) async fn forget(&self) {
        *self.held.lock().await = None;
    }

    async fn ask_chain(&self) -> Result<Held, CredentialsTrouble> {
        let Some(provider) = &self.provider else {
            let cause = "neither keys nor a profile are configured";
            return Err(CredentialsTrouble::Missing(cause.to_owned()));
        };
        let found = provider.provide_credentials().await;
        let found = found.map_err(|error| CredentialsTrouble::Missing(chain_of(&error)))?;
        let expiry = found.expiry();
        if expiry.is_some_and(|expiry| expiry <= SystemTime::now()) {
            let cause = "the chain returns credentials whose time is over";
            return Err(CredentialsTrouble::Expired(cause.to_owned()));
        }
        let credential = AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        };
        Ok(Held {
            credential: Arc::new(credential),
            expiry,
        })
    }
}

#[async_trait]
impl CredentialProvider for ChainCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let now = SystemTime::now();
        let mut held = self.held.lock().await;
        let usable = |held: &&Held, margin| held.expiry.is_none_or(|e| e > now + margin);
        if let Some(held) = held.as_ref().filter(|h| usable(h, RENEW_BEFORE_EXPIRY)) {
            return Ok(held.credential.clone());
        }
        match self.ask_chain().await {
            Ok(found) => Ok(held.insert(found).credential.clone()),
            // A source that fails for a moment does no harm while the old ones still work.
            Err(trouble) => match held.as_ref().filter(|h| usable(h, Duration::ZERO)) {
                Some(old) => Ok(old.credential.clone()),
                None => Err(trouble.into()),
            },
        }
    }
}

fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut current = error.source();
    while let Some(source) = current {
        let part = source.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        current = source.source();
    }
    text.chars().take(400).collect()
}
