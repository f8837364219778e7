//! A disk written into an EBS snapshot, block by block (EBS direct APIs: StartSnapshot, PutSnapshotBlock, CompleteSnapshot).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ebs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ebs::types::{ChecksumAggregationMethod, ChecksumAlgorithm, Tag};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use reqwest::Method;
use ring::digest::{SHA256, digest};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::aggregate::Aggregate;
use super::http::Call;
use super::identity::chain_of;
use super::retry::{passing, retrying};
use super::schedule::refusal;
use super::{Aws, Tags};
use crate::blocks::{BLOCK_BYTES, Blocks, count};
use crate::error::kind_of;
use crate::{CloudError, Kind};

/// Read at once: 16 MiB.
const GROUP: u64 = 32;
/// Blocks of one disk that are being sent, or wait for it: 32 MiB, and as much again with a group.
const IN_HAND: usize = 64;
/// EBS cancels a snapshot of which nothing was heard for so long (10 to 4,320 minutes): time to take a run over elsewhere.
const TIMEOUT_MINUTES: i32 = 720;
/// How long a call is tried again.
const PATIENCE: Duration = Duration::from_secs(600);
/// A snapshot that was started may not be known for two minutes (coldsnap, issue 43).
const KNOWN_PATIENCE: Duration = Duration::from_secs(180);
/// Blocks that may be ahead of one that hangs: 1 GiB is sent again after a kill.
const MOST_AHEAD: usize = 2048;
const MOST_GIB: u64 = 65_536;
const GIB: u64 = 1 << 30;

#[derive(Debug, Clone)]
pub struct SnapshotRequest {
    /// The same request with the same token is the same snapshot; at most 255 characters.
    pub token: String,
    pub size_bytes: u64,
    pub description: String,
    pub tags: Tags,
    /// ARN of the KMS key that encrypts it; the account's default decides without one.
    pub volume_key: Option<String>,
}

/// How far a snapshot has come: what another process needs to go on with it.
#[derive(Debug, Clone)]
pub struct Mark {
    pub snapshot: String,
    /// Blocks before this one are there.
    pub next: u64,
    /// So many of them were sent; the others are zero.
    pub put: u64,
    /// An encrypted volume reads what was never put as noise, not as zeroes.
    writes_zeroes: bool,
    aggregate: Aggregate,
    /// By this process.
    begun: Instant,
}

/// Why a snapshot is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// The disk cannot be read.
    #[error("{0}")]
    Disk(String),
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

impl Mark {
    pub fn to_words(&self) -> BTreeMap<String, String> {
        let words = [
            ("snapshot", self.snapshot.clone()),
            ("next", self.next.to_string()),
            ("put", self.put.to_string()),
            ("zeroes", self.writes_zeroes.to_string()),
            ("aggregate", self.aggregate.to_hex()),
        ];
        words.map(|(name, word)| (name.to_owned(), word)).into()
    }

    /// So much of a disk of this size is there: behind its end nothing of it is.
    pub fn of(&self, size_bytes: u64) -> u64 {
        self.next.saturating_mul(BLOCK_BYTES).min(size_bytes)
    }

    /// `None`: these are of something else.
    pub fn from_words(words: &BTreeMap<String, String>) -> Option<Mark> {
        Some(Mark {
            snapshot: words.get("snapshot")?.clone(),
            next: words.get("next")?.parse().ok()?,
            put: words.get("put")?.parse().ok()?,
            writes_zeroes: words.get("zeroes")?.parse().ok()?,
            aggregate: Aggregate::from_hex(words.get("aggregate")?)?,
            begun: Instant::now(),
        })
    }
}

impl Aws {
    pub async fn start_snapshot(&self, request: &SnapshotRequest) -> Result<Mark, CloudError> {
        let attempted = format!("start the snapshot of {}", request.description);
        let gib = request.size_bytes.div_ceil(GIB).max(1);
        if gib > MOST_GIB {
            let why = format!("the disk has {gib} GiB, and a volume has at most {MOST_GIB}");
            return Err(CloudError::new(attempted, Kind::Refused, "", why));
        }
        let tag = |(name, value): &(String, String)| Tag::builder().key(name).value(value).build();
        let call = self
            .0
            .ebs
            .start_snapshot()
            .volume_size(gib as i64)
            .description(&request.description)
            .client_token(&request.token)
            .timeout(TIMEOUT_MINUTES)
            .set_tags(Some(request.tags.iter().map(tag).collect()))
            .set_encrypted(request.volume_key.as_ref().map(|_| true))
            .set_kms_key_arn(request.volume_key.clone());
        let started = self
            .again(PATIENCE, || async {
                self.0.start_pace.turn().await;
                let sent = call.clone().send().await;
                sent.map_err(|error| of_sdk(&attempted, error))
            })
            .await?;
        let refuse = |why: &str| CloudError::new(&attempted, Kind::Refused, "", why);
        if started
            .block_size
            .is_some_and(|size| size as u64 != BLOCK_BYTES)
        {
            return Err(refuse(
                "the cloud asks for blocks of another size than 512 KiB",
            ));
        }
        Ok(Mark {
            snapshot: started
                .snapshot_id
                .ok_or_else(|| refuse("the answer names no snapshot"))?,
            next: 0,
            put: 0,
            writes_zeroes: started.kms_key_arn.is_some(),
            aggregate: Aggregate::default(),
            begun: Instant::now(),
        })
    }

    /// Sends what is not there yet. `marks` always has how far it came, and `on_bytes` is told of the disk's bytes that are
    /// done. Dropped, it stops at once.
    pub async fn fill_snapshot(
        &self,
        blocks: Arc<dyn Blocks>,
        marks: &watch::Sender<Mark>,
        on_bytes: impl Fn(u64),
    ) -> Result<(), FillError> {
        let mut mark = marks.borrow().clone();
        let size = blocks.size_bytes();
        let total = count(size);
        // A volume has whole GiB: behind the disk's end, too, an encrypted one would read noise.
        let end = match mark.writes_zeroes {
            true => size.div_ceil(GIB).max(1) * (GIB / BLOCK_BYTES),
            false => total,
        };
        let mut read = read_ahead(blocks, total, mark.next..end);
        let mut puts = JoinSet::new();
        // Of blocks behind `mark.next`: their digests, where they were put.
        let mut done = BTreeMap::<u64, Option<[u8; 32]>>::new();
        let mut reading = true;
        while reading || !puts.is_empty() {
            tokio::select! {
                group = read.groups.recv(), if reading && puts.len() < IN_HAND && done.len() < MOST_AHEAD => match group {
                    None => reading = false,
                    Some(Err(why)) => return Err(FillError::Disk(why)),
                    Some(Ok((first, group))) => for (index, block) in (first..).zip(group) {
                        let (aws, mark) = (self.clone(), mark.clone());
                        puts.spawn(async move { (index, aws.put(&mark, index, block).await) });
                    },
                },
                Some(put) = puts.join_next() => {
                    // A put that panicked is a fault of this program.
                    let (index, put) = put.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                    done.insert(index, put?);
                }
            }
            let (before, known) = (mark.next, mark.of(size));
            while let Some(digest) = done.remove(&mark.next) {
                mark.next += 1;
                if let Some(digest) = digest {
                    mark.put += 1;
                    mark.aggregate.add(&digest);
                }
            }
            if mark.next > before {
                on_bytes(mark.of(size) - known);
                marks.send_replace(mark.clone());
            }
        }
        Ok(())
    }

    /// The digest of what was put; `None` where nothing need be.
    async fn put(
        &self,
        mark: &Mark,
        index: u64,
        block: Option<Bytes>,
    ) -> Result<Option<[u8; 32]>, CloudError> {
        let block = match block {
            Some(block) => block,
            None if mark.writes_zeroes => Bytes::from_static(&[0; BLOCK_BYTES as usize]),
            None => return Ok(None),
        };
        let sum: [u8; 32] = digest(&SHA256, &block)
            .as_ref()
            .try_into()
            .unwrap_or_default();
        // By hand: the SDK's own work on a request takes longer than the hash of its block (docs/decisions/0008).
        let call = Call {
            service: "ebs",
            method: Method::PUT,
            url: format!(
                "{}/snapshots/{}/blocks/{index}",
                self.0.ebs_url, mark.snapshot
            ),
            headers: vec![
                ("content-type", "application/octet-stream".into()),
                ("x-amz-checksum", BASE64_STANDARD.encode(sum)),
                ("x-amz-checksum-algorithm", "SHA256".into()),
                ("x-amz-data-length", BLOCK_BYTES.to_string()),
            ],
            body: block,
            digest: Some(hex::encode(sum)),
            timeout: self.0.block_patience,
            lane: index as usize,
            attempted: format!("put block {index} of snapshot {}", mark.snapshot),
        };
        // A snapshot that was just started is not known everywhere at once.
        let passing = passing(Some(mark.begun + KNOWN_PATIENCE));
        retrying(PATIENCE, passing, || async {
            let _place = self.0.puts.place().await;
            self.0.put_pace.turn().await;
            let put = self.0.http.once(&call, refusal).await;
            match &put {
                Ok(_) => {
                    self.0.put_pace.answered();
                    self.0.puts.answered();
                }
                Err(error) => match error.kind {
                    Kind::Throttled => self.0.put_pace.throttled(),
                    Kind::Late => self.0.puts.late(),
                    _ => {}
                },
            }
            put
        })
        .await?;
        Ok(Some(sum))
    }

    /// Ends a snapshot of which every block is there. Returns whether the cloud took the checksum over all of them: how it is
    /// to be written was never tried against AWS itself, and a failover does not fail by it, since each block has its own.
    pub async fn complete_snapshot(&self, mark: &Mark) -> Result<bool, CloudError> {
        let attempted = format!("complete the snapshot {}", mark.snapshot);
        let call = self
            .0
            .ebs
            .complete_snapshot()
            .snapshot_id(&mark.snapshot)
            .changed_blocks_count(mark.put as i32);
        let with_sum = call
            .clone()
            .checksum(BASE64_STANDARD.encode(mark.aggregate.finish()))
            .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .checksum_aggregation_method(ChecksumAggregationMethod::ChecksumAggregationLinear);
        let once = |call: &aws_sdk_ebs::operation::complete_snapshot::builders::CompleteSnapshotFluentBuilder| {
            let (call, attempted) = (call.clone(), attempted.clone());
            async move {
                self.0.start_pace.turn().await;
                call.send().await.map_err(|error| of_sdk(&attempted, error))
            }
        };
        if mark.put == 0 {
            self.again(PATIENCE, || once(&call)).await?;
            return Ok(true);
        }
        match self.again(PATIENCE, || once(&with_sum)).await {
            Ok(_) => Ok(true),
            Err(error)
                if error.kind == Kind::Refused
                    && error.message.to_lowercase().contains("checksum") =>
            {
                self.again(PATIENCE, || once(&call)).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// A call of the EBS SDK, again while what is in the way is passing; a snapshot may not be known yet.
    async fn again<T, F>(&self, patience: Duration, call: impl Fn() -> F) -> Result<T, CloudError>
    where
        F: Future<Output = Result<T, CloudError>>,
    {
        let passing = passing(Some(Instant::now() + KNOWN_PATIENCE));
        retrying(patience, passing, || async {
            let done = call().await;
            if done
                .as_ref()
                .is_err_and(|error| error.kind == Kind::Credentials)
            {
                self.0.identity.forget(None).await;
            }
            done
        })
        .await
    }
}

/// The first one's index, and the blocks.
type Group = (u64, Vec<Option<Bytes>>);

/// Groups of blocks, read while others are sent.
struct ReadAhead {
    groups: mpsc::Receiver<Result<Group, String>>,
    /// Ends the reading with this.
    _task: JoinSet<()>,
}

/// Behind `total`, all is zero.
fn read_ahead(blocks: Arc<dyn Blocks>, total: u64, range: std::ops::Range<u64>) -> ReadAhead {
    let (out, groups) = mpsc::channel(1);
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut first = range.start;
        while first < range.end {
            let behind = first >= total;
            let next = (first + GROUP).min(if behind {
                range.end
            } else {
                range.end.min(total)
            });
            let read = match behind {
                true => Ok(vec![None; (next - first) as usize]),
                false => blocks.read(first..next).await,
            };
            let wanted = (next - first) as usize;
            let read = match read {
                Ok(read) if read.len() != wanted => {
                    Err(format!("{} blocks were read of {wanted}", read.len()))
                }
                other => other,
            };
            let failed = read.is_err();
            if out.send(read.map(|read| (first, read))).await.is_err() || failed {
                break;
            }
            first = next;
        }
    });
    ReadAhead {
        groups,
        _task: task,
    }
}

fn of_sdk<E>(attempted: &str, error: SdkError<E, HttpResponse>) -> CloudError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error
        .raw_response()
        .map_or(0, |response| response.status().as_u16());
    if let Some(said) = error.as_service_error() {
        let code = said.code().unwrap_or_default();
        let why = said
            .message()
            .map_or_else(|| format!("HTTP status {status}"), str::to_owned);
        return CloudError::new(attempted, kind_of(status, code), code, why);
    }
    let kind = match error {
        _ if is_of_credentials(&error) => Kind::Credentials,
        SdkError::ConstructionFailure(_) => Kind::Refused,
        _ => Kind::Unavailable,
    };
    CloudError::new(
        attempted,
        kind,
        "",
        format!("no answer: {}", chain_of(&error)),
    )
}

fn is_of_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut current = Some(error);
    while let Some(error) = current {
        if error.is::<CredentialsError>() {
            return true;
        }
        current = error.source();
    }
    false
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
