//! A cycle's begin: the control log's news, whether this gateway may still write, and the epoch under which it does.

use super::Shared;
use super::rebuild::RebuildReport;
use super::rows::VmRow;
use crate::StoreError;
use crate::objects::Created;
use jiff::{SignedDuration, Timestamp};
use vault_format::VmId;
use vault_format::control_log::LogEntry;
use vault_format::ids::object_hash;

/// Gateway and store may disagree by this before it is a finding.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(15);

/// What a cycle begins with.
#[derive(Debug, Default)]
pub struct CycleStart {
    pub findings: Vec<String>,
    /// The state was new, or of another vault, and was rebuilt.
    pub rebuilt: Option<RebuildReport>,
}

impl Shared {
    pub(super) async fn begin_cycle(
        &self,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<CycleStart, StoreError> {
        let mut start = CycleStart::default();
        if self.state.header().epoch == 0 {
            start.rebuilt = Some(self.rebuild(progress).await?);
        }
        if let Some(rebuilt) = &start.rebuilt {
            start.findings.extend(rebuilt.findings.iter().cloned());
        }
        start.findings.extend(self.read_log().await?);
        if self.state.header().unsure_chains {
            self.relearn_chunks()?;
            self.meet_packs().await?;
        }
        self.check_standing()?;
        self.settle_pending().await?;
        start.findings.extend(self.heed_damage().await?);
        if let Some(store) = self.objects.store_time() {
            let now = Timestamp::now();
            if now.duration_since(store).abs() > CLOCK_TOLERANCE {
                start.findings.push(format!(
                    "this machine's clock says {now}, the store's says {store}: set the clock (points are ordered by number, but people read their times)"
                ));
            }
        }
        Ok(start)
    }

    /// Reads what is new in the log. Returns what is void in it.
    pub(super) async fn read_log(&self) -> Result<Vec<String>, StoreError> {
        let before = self.state.header();
        let (mut log, mut epoch) = (before.log.clone(), None);
        loop {
            let name = log.next_name();
            let bytes = match self.objects.get(&name).await {
                Ok(bytes) => bytes,
                Err(e) if e.is_not_found() => break,
                Err(e) => return Err(e.into()),
            };
            log.read(&self.key.trust.control, &bytes)
                .map_err(StoreError::format(&name))?;
            if before.intent == Some(object_hash(&bytes)) {
                epoch = Some(log.number);
            }
        }
        let news = before.log.number + 1;
        let void = log.void.range(news..);
        let void = void
            .map(|(number, why)| format!("control log entry {number} is void: {why}"))
            .collect();
        if log.number >= news {
            self.state.change_header(|header| {
                header.log = log;
                if let Some(epoch) = epoch.filter(|_| header.epoch != 0) {
                    (header.epoch, header.intent) = (epoch, None);
                }
            })?;
        }
        Ok(void)
    }

    /// Whether this gateway may go on: not revoked, and nobody else has taken an epoch with its key.
    pub(super) fn check_standing(&self) -> Result<(), StoreError> {
        let header = self.state.header();
        if header.log.revoked.contains_key(&header.writer) {
            return Err(StoreError::Revoked {
                writer: header.writer.to_string(),
            });
        }
        match header.log.epochs.get(&header.writer) {
            Some(found) if *found != header.epoch && header.epoch != 0 => {
                Err(StoreError::TakenOver {
                    own: header.epoch,
                    found: *found,
                })
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that no other gateway captures this VM now, or that this one may take it over: with an entry in the
    /// log, so that the other stops, and finds out without a request of its own.
    pub(super) async fn claim_vm(&self, name: &str, vm: &VmId) -> Result<Vec<String>, StoreError> {
        let Some(row) = self.state.vm(vm)? else {
            return Ok(Vec::new());
        };
        let own = self.key.writer.id;
        let header = self.state.header();
        let log = &header.log;
        if let Some(former) = row.taken_from {
            let label = log.label(&former);
            let revoked = log.revoked.contains_key(&former);
            self.take_epoch(&[*vm]).await?;
            self.state.put_vm(&VmRow {
                taken_from: None,
                ..row
            })?;
            return Ok(match revoked {
                true => Vec::new(),
                false => vec![format!(
                    "VM {name} was captured by gateway {label} so far, and is by this one from now on: if that machine is gone, revoke its key; if it captures another VM of this name, give one of them another name"
                )],
            });
        }
        let since = row.point.epoch.max(header.epoch);
        if let Some(takeover) = log.taken_from(&own, vm, row.point.epoch) {
            return Err(StoreError::TakenVm {
                vm: name.to_owned(),
                by: log.label(&takeover.writer),
            });
        }
        // Above the epochs of a writer that took the VM and was revoked, or new points would not be the newest.
        let taken = log.takeovers.get(vm);
        if taken.is_some_and(|takeover| takeover.writer != own && takeover.epoch > since) {
            self.take_epoch(&[*vm]).await?;
        }
        Ok(Vec::new())
    }

    /// Takes a new epoch: the number of its log entry, so above all that were taken before. `vms` are taken over by it.
    pub(super) async fn take_epoch(&self, vms: &[VmId]) -> Result<(), StoreError> {
        let entry = LogEntry::Epoch {
            writer: self.key.writer.id,
            vms: vms.to_vec(),
        };
        let mut log = self.state.header().log.clone();
        loop {
            let (name, bytes) = (
                log.next_name(),
                log.encode_as_writer(&self.key.writer, &entry, &Timestamp::now().to_string()),
            );
            // If we die or fail before the answer, the next reading of the log finds it there, or not.
            let intent = object_hash(&bytes);
            self.state
                .change_header(|header| header.intent = Some(intent))?;
            let stored = match self.objects.create(&name, bytes.clone().into()).await? {
                Created::New => bytes.clone().into(),
                Created::Exists => self.objects.get(&name).await?,
            };
            log.read(&self.key.trust.control, &stored)
                .map_err(StoreError::format(&name))?;
            if stored == bytes {
                return self.state.change_header(|header| {
                    header.epoch = log.number;
                    header.log = log;
                    header.intent = None;
                });
            }
            if log.revoked.contains_key(&self.key.writer.id) {
                return Err(StoreError::Revoked {
                    writer: self.key.writer.id.to_string(),
                });
            }
        }
    }
}
