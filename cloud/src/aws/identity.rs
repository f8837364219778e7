//! The credentials of the standard chain, kept until shortly before they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use tokio::sync::Mutex;

use crate::{CloudError, Kind};

/// A block is signed when it is begun, and may be a while under way.
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(300);

/// Shared by all clients, so that what one of them learns (they are no longer good) all know.
#[derive(Debug, Clone)]
pub(super) struct Identity(Arc<Held>);

#[derive(Debug)]
struct Held {
    chain: SharedCredentialsProvider,
    /// One asks the chain, which may start a program; the others wait for its answer.
    newest: Mutex<Option<Credentials>>,
}

impl Identity {
    pub(super) fn new(chain: SharedCredentialsProvider) -> Self {
        let newest = Mutex::new(None);
        Identity(Arc::new(Held { chain, newest }))
    }

    pub(super) async fn get(&self) -> Result<Credentials, CloudError> {
        self.load().await.map_err(|error| {
            CloudError::new(
                "get AWS credentials",
                Kind::Credentials,
                "",
                chain_of(&error),
            )
        })
    }

    /// Whether anything in the chain has credentials, or should have and fails.
    pub(super) async fn is_configured(&self) -> bool {
        !matches!(
            self.load().await,
            Err(CredentialsError::CredentialsNotLoaded(_))
        )
    }

    /// The cloud does not take these (any more), by their key's id: the chain is asked again. Newer ones stay.
    pub(super) async fn forget(&self, key: Option<&str>) {
        let mut newest = self.0.newest.lock().await;
        if key.is_none_or(|key| {
            newest
                .as_ref()
                .is_some_and(|held| held.access_key_id() == key)
        }) {
            *newest = None;
        }
    }

    async fn load(&self) -> Result<Credentials, CredentialsError> {
        let now = SystemTime::now();
        let good = |found: &&Credentials, margin| found.expiry().is_none_or(|e| e > now + margin);
        let mut newest = self.0.newest.lock().await;
        if let Some(held) = newest
            .as_ref()
            .filter(|held| good(held, RENEW_BEFORE_EXPIRY))
        {
            return Ok(held.clone());
        }
        match self.0.chain.provide_credentials().await {
            Ok(found) => Ok(newest.insert(found).clone()),
            // A source that fails for a moment does no harm while the old ones still work.
            Err(error) => match newest.as_ref().filter(|held| good(held, Duration::ZERO)) {
                Some(old) => Ok(old.clone()),
                None => Err(error),
            },
        }
    }
}

impl ProvideCredentials for Identity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.load().await as provider::Result })
    }
}

/// An error and what caused it, each once.
pub(super) fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut current = error.source();
    while let Some(source) = current {
        let part = source.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        current = source.source();
    }
    text
}
