//! What can go wrong with an object, each with the object, the store and the remedy.

use thiserror::Error;

/// `cause` fields hold the store's own words, shortened; no secret is in them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ObjectError {
    #[error("object {name} is not in {store}; check the vault URL, and if it is right, run verify")]
    NotFound { name: String, store: String },

    #[error(
        "{store} does not permit this on {name}: {cause}; give the credentials in use the right to do it"
    )]
    Denied {
        name: String,
        store: String,
        cause: String,
    },

    #[error(
        "no credentials for {store}: {cause}; set up a profile, the environment or an instance role as the cloud's own tools use it"
    )]
    CredentialsMissing { store: String, cause: String },

    #[error("the credentials for {store} have expired: {cause}; renew them (log in again)")]
    CredentialsExpired { store: String, cause: String },

    /// The bucket, container or directory itself.
    #[error(
        "{store} does not exist: its bucket, container or directory is missing; check the vault URL, mount it or create it"
    )]
    BucketMissing { store: String },

    #[error(
        "{store} cannot be reached for {name}: {cause}; check the network, the endpoint and the proxy"
    )]
    Unreachable {
        name: String,
        store: String,
        cause: String,
        /// False: no connection came about, so nothing was sent.
        connected: bool,
    },

    /// Too many requests, or a failure on the store's side (5xx).
    #[error(
        "{store} is busy or failing at {name}: {cause}; try again later, or with fewer requests at a time"
    )]
    Throttled {
        name: String,
        store: String,
        cause: String,
    },

    /// The object itself is shorter than asked for; a broken connection is `Unreachable`.
    #[error(
        "object {name} in {store} ends too early: {expected} bytes expected, {got} there; run verify to learn what is damaged"
    )]
    Truncated {
        name: String,
        store: String,
        expected: u64,
        got: u64,
    },

    #[error(
        "object {name} in {store} has {size} bytes, {limit} are read at most; it is no object of a vault"
    )]
    TooLarge {
        name: String,
        store: String,
        size: u64,
        limit: u64,
    },

    #[error("no space left in {store} for {name}: {cause}; free space there or enlarge it")]
    Full {
        name: String,
        store: String,
        cause: String,
    },

    #[error(
        "vault URL {url}: {cause}; write file:///directory, s3://bucket/prefix or azure://account/container/prefix"
    )]
    BadUrl { url: String, cause: String },

    #[error("{store} cannot be opened: {cause}")]
    Misconfigured { store: String, cause: String },

    #[error(
        "{name:?} cannot be an object's name: {cause}; this is a fault of the program or of the vault"
    )]
    BadName { name: String, cause: String },

    /// Only from `objects::faulty`: the process whose death is simulated does nothing more.
    #[error(
        "simulated death at operation {operation}; nothing is done after it, restart from the store"
    )]
    Dead { operation: u64 },

    #[error(
        "{store} answered unexpectedly about {name}: {cause}; if it persists, check the endpoint and the region"
    )]
    Other {
        name: String,
        store: String,
        cause: String,
    },
}

/// Whether the same call may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The answer will not change.
    No,
    /// Once, at once: credentials were dropped and will be fetched anew.
    Once,
    /// A few times: nobody listens there, and waiting long would only hide it.
    Briefly,
    /// With backoff.
    Patiently,
}

impl ObjectError {
    pub fn retry(&self) -> Retry {
        match self {
            Self::Throttled { .. } => Retry::Patiently,
            Self::Unreachable { connected, .. } => match connected {
                true => Retry::Patiently,
                false => Retry::Briefly,
            },
            Self::CredentialsExpired { .. } => Retry::Once,
            _ => Retry::No,
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
