//! [`Objects`] over any `object_store`: names, bounds and exact lengths are settled here,
//! the same for every store.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, PutPayload,
};

use crate::buffers::{Buffers, read};

use super::classify::{Answer, answer_of, classify, classify_io, deepest};
use super::credentials::ChainCredentials;
use super::http::StoreClock;
use super::local_file::Root;
use super::name::{check_name, check_prefix};
use super::{Created, Listed, MAX_GET_BYTES, Meter, ObjectError, Objects, RequestKind, Throttle};

/// Buffers for the ranged reads that an assemble has under way; a range has 4 MiB at most.
const RANGES_KEPT: usize = 8;

/// What differs between stores.
#[derive(Debug, Clone)]
pub(super) enum Backend {
    Memory,
    /// The vault's root, which must be there: an unmounted disk is no empty vault.
    Directory(Arc<Root>),
    Http {
        clock: StoreClock,
        /// S3's; Azure's are kept by `object_store`.
        credentials: Option<Arc<ChainCredentials>>,
    },
}

pub(super) struct StoreObjects {
    store: Arc<dyn ObjectStore>,
    backend: Backend,
    /// Between the bucket and the vault; empty or without slashes at its ends.
    prefix: String,
    url: String,
    meter: Meter,
    /// A directory's; behind HTTP, bodies are paced in `progress`.
    throttle: Throttle,
    buffers: Buffers,
}

/// Not derived: a store's own Debug may print keys.
impl fmt::Debug for StoreObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreObjects({})", self.url)
    }
}

impl StoreObjects {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        backend: Backend,
        prefix: String,
        url: String,
        meter: Meter,
    ) -> Self {
        Self {
            store,
            backend,
            prefix,
            url,
            meter,
            throttle: Throttle::default(),
            buffers: Buffers::new(RANGES_KEPT, 4 << 20),
        }
    }

    pub(super) fn throttled(mut self, throttle: Throttle) -> Self {
        self.throttle = throttle;
        self
    }

    fn path(&self, name: &str) -> Result<Path, ObjectError> {
        let full = match (self.prefix.as_str(), name) {
            ("", name) => name.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, name) => format!("{prefix}/{name}"),
        };
        Path::parse(full).map_err(|error| ObjectError::BadName {
            name: name.to_owned(),
            cause: error.to_string(),
        })
    }

    /// Stores behind HTTP are metered where the request is made, in `http`.
    fn count(&self, kind: RequestKind, sent: u64) {
        if !matches!(self.backend, Backend::Http { .. }) {
            self.meter.request(kind);
            self.meter.sent(sent);
        }
    }

    fn count_received(&self, bytes: u64) {
        if !matches!(self.backend, Backend::Http { .. }) {
            self.meter.received(bytes);
        }
    }

    async fn check_root(&self) -> Result<(), ObjectError> {
        if let Backend::Directory(root) = &self.backend
            && !tokio::fs::try_exists(&root.path).await.unwrap_or(false)
        {
            return Err(ObjectError::BucketMissing {
                store: self.url.clone(),
            });
        }
        Ok(())
    }

    /// `None`: this store has no such way.
    async fn create_file(
        &self,
        name: &str,
        path: &Path,
        bytes: &Bytes,
    ) -> Result<Option<Created>, ObjectError> {
        let Backend::Directory(root) = &self.backend else {
            return Ok(None);
        };
        let (root, bytes, throttle) = (root.clone(), bytes.clone(), self.throttle.clone());
        let path = root.path.join(path.as_ref());
        let runtime = tokio::runtime::Handle::current();
        // Gone when this is given up: the thread must not go on for minutes then, nor when there is no clock any more.
        let (_asks, asked) = tokio::sync::watch::channel(());
        let create = move || {
            let pace = |bytes| {
                let mut asked = asked.clone();
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        _ = asked.changed() => Err(std::io::Error::other("given up")),
                        () = throttle.take_in_pieces(bytes) => Ok(()),
                    }
                })
            };
            root.create(&path, &bytes, &pace)
        };
        let created = tokio::task::spawn_blocking(create).await;
        match created.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(created) => Ok(Some(created)),
            Err(error) => {
                self.check_root().await?;
                Err(classify_io(name.to_owned(), self.url.clone(), &error))
            }
        }
    }

    async fn explain(
        &self,
        name: &str,
        error: &object_store::Error,
        answer: &Answer,
    ) -> ObjectError {
        let error = classify(name, &self.url, error, answer);
        if let (ObjectError::CredentialsExpired { .. }, Backend::Http { credentials, .. }) =
            (&error, &self.backend)
            && let Some(credentials) = credentials
        {
            credentials.forget().await;
        }
        error
    }

    async fn fetch(
        &self,
        name: &str,
        range: Option<Range<u64>>,
    ) -> Result<(GetResult, Answer), ObjectError> {
        let path = self.path(name)?;
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let (result, answer) = answer_of(self.store.get_opts(&path, options)).await;
        match result {
            Ok(result) => Ok((result, answer)),
            Err(error) => {
                self.check_root().await?;
                Err(self.explain(name, &error, &answer).await)
            }
        }
    }

    /// Reads a body to its end; `expected` bytes, or `Truncated`.
    async fn read_body(
        &self,
        name: &str,
        result: GetResult,
        expected: u64,
    ) -> Result<Bytes, ObjectError> {
        let truncated = |got: u64| ObjectError::Truncated {
            name: name.to_owned(),
            store: self.url.clone(),
            expected,
            got,
        };
        let bytes = match result.payload {
            GetResultPayload::File(file, _) => {
                let range = result.range;
                // Not in that thread: of many threads that allocate, each keeps memory.
                let buffer = self.buffers.take((range.end - range.start) as usize);
                let read = tokio::task::spawn_blocking(move || read(file, &range, buffer)).await;
                let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                self.buffers.lend(
                    read.map_err(|error| classify_io(name.to_owned(), self.url.clone(), &error))?,
                )
            }
            GetResultPayload::Stream(mut stream) => {
                // `expected` is bounded by the callers, so this allocation is too.
                let mut bytes = self.buffers.take(expected as usize);
                while let Some(part) = stream.next().await {
                    let part = part.map_err(|error| self.broke_off(name, &error, bytes.len()))?;
                    if (bytes.len() + part.len()) as u64 > expected {
                        break;
                    }
                    bytes.extend_from_slice(&part);
                }
                self.buffers.lend(bytes)
            }
        };
        self.count_received(bytes.len() as u64);
        match bytes.len() as u64 == expected {
            true => Ok(bytes),
            false => Err(truncated(bytes.len() as u64)),
        }
    }

    /// The connection's fault, not the object's: unlike `Truncated`, it may go better again.
    fn broke_off(&self, name: &str, error: &object_store::Error, got: usize) -> ObjectError {
        ObjectError::Unreachable {
            name: name.to_owned(),
            store: self.url.clone(),
            cause: format!("the answer broke off after {got} bytes: {}", deepest(error)),
            connected: true,
        }
    }

    fn listed(&self, meta: ObjectMeta) -> Result<Option<Listed>, ObjectError> {
        let full = meta.location.as_ref();
        let name = match self.prefix.as_str() {
            "" => Some(full),
            prefix => full
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('/')),
        };
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let at = meta.last_modified;
        let store_time = Timestamp::new(at.timestamp(), at.timestamp_subsec_nanos() as i32)
            .map_err(|error| ObjectError::Other {
                name: name.to_owned(),
                store: self.url.clone(),
                cause: format!("its time is out of range: {error}"),
            })?;
        Ok(Some(Listed {
            name: name.to_owned(),
            size: meta.size,
            store_time,
        }))
    }
}

#[async_trait]
impl Objects for StoreObjects {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        check_name(name)?;
        let path = self.path(name)?;
        // A local create makes missing parents; the vault's own root must not be one of them.
        self.check_root().await?;
        self.count(RequestKind::Put, bytes.len() as u64);
        if let Some(created) = self.create_file(name, &path, &bytes).await? {
            return Ok(created);
        }
        let options = PutOptions::from(PutMode::Create);
        let put = self.store.put_opts(&path, PutPayload::from(bytes), options);
        let (result, answer) = answer_of(put).await;
        match result {
            Ok(_) => Ok(Created::New),
            Err(object_store::Error::AlreadyExists { .. }) if answer.means_exists() => {
                Ok(Created::Exists)
            }
            Err(error) => Err(self.explain(name, &error, &answer).await),
        }
    }

    async fn get(&self, name: &str) -> Result<Bytes, ObjectError> {
        check_name(name)?;
        self.count(RequestKind::Get, 0);
        let (result, _) = self.fetch(name, None).await?;
        let size = result.meta.size;
        if size > MAX_GET_BYTES {
            return Err(ObjectError::TooLarge {
                name: name.to_owned(),
                store: self.url.clone(),
                size,
                limit: MAX_GET_BYTES,
            });
        }
        self.read_body(name, result, size).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        check_name(name)?;
        let Some(expected) = range.end.checked_sub(range.start) else {
            return Err(ObjectError::BadName {
                name: name.to_owned(),
                cause: format!("the range {range:?} ends before it begins"),
            });
        };
        if expected == 0 {
            return Ok(Bytes::new());
        }
        if expected > MAX_GET_BYTES {
            return Err(ObjectError::TooLarge {
                name: name.to_owned(),
                store: self.url.clone(),
                size: expected,
                limit: MAX_GET_BYTES,
            });
        }
        self.count(RequestKind::Get, 0);
        match self.fetch(name, Some(range)).await {
            Ok((result, _)) => self.read_body(name, result, expected).await,
            // The range begins at or past the end, and the classifier cannot know its length.
            Err(ObjectError::Truncated {
                name, store, got, ..
            }) => Err(ObjectError::Truncated {
                name,
                store,
                expected,
                got,
            }),
            Err(error) => Err(error),
        }
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        check_name(name)?;
        let path = self.path(name)?;
        self.count(RequestKind::Head, 0);
        let (result, answer) = answer_of(self.store.head(&path)).await;
        match result {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) => {
                self.check_root().await?;
                match self.explain(name, &error, &answer).await {
                    ObjectError::NotFound { .. } => Ok(None),
                    error => Err(error),
                }
            }
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let path = self.path(check_prefix(prefix)?)?;
        self.check_root().await?;
        self.count(RequestKind::List, 0);
        let whole = path.as_ref().is_empty();
        let stream = self.store.list((!whole).then_some(&path));
        let (result, answer) = answer_of(stream.try_collect::<Vec<_>>()).await;
        let metas = match result {
            Ok(metas) => metas,
            Err(error) => {
                let what = format!("the list of {}", if whole { "/" } else { prefix });
                return Err(self.explain(&what, &error, &answer).await);
            }
        };
        let listed: Result<Vec<_>, _> = metas
            .into_iter()
            .filter_map(|meta| self.listed(meta).transpose())
            .collect();
        let mut listed = listed?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    fn store_time(&self) -> Option<Timestamp> {
        match &self.backend {
            Backend::Memory | Backend::Directory(_) => Some(Timestamp::now()),
            Backend::Http { clock, .. } => clock.newest(),
        }
    }

    fn describe(&self) -> String {
        self.url.clone()
    }
}
