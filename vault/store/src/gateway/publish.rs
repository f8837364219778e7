//! Publishing: everything that a point needs is stored; then its manifest goes under the VM's next number, by conditional
//! create. What it will be is noted in the state first, so that a process that dies in between knows what it sent.

use super::rows::{DiskRow, PackRow, PendingRow, VmRow};
use super::{Gateway, PointReport};
use crate::StoreError;
use crate::objects::Created;
use crate::setup::random;
use std::collections::BTreeMap;
use vault_format::entry::Entry;
use vault_format::ids::{CaptureId, PackName, PointId, object_hash};
use vault_format::manifest::{
    Consistency, Disk, Facts, Manifest, NewestPoint, ObjectRef, PointBytes, Unindexed,
};
use vault_format::segment::ListedPack;
use vault_format::{VmId, names};

/// The largest number that a decimal name part can hold.
const MOST_DECIMAL: u64 = 9_999_999_999;

/// What a manifest says of its capture.
pub(super) struct CaptureFacts {
    pub vm: String,
    pub vm_id: VmId,
    pub captured_at: String,
    pub consistency: Consistency,
    pub software: String,
}

impl Gateway {
    pub(super) async fn publish(
        &mut self,
        about: CaptureFacts,
        mut disks: Vec<DiskRow>,
        dropped_disks: Vec<u32>,
        report: &mut PointReport,
    ) -> Result<(), StoreError> {
        for disk in &mut disks {
            self.write_layers(disk).await?;
        }
        let capture = CaptureId(random()?);
        let before = self.state.vm(&about.vm_id)?;
        let sequence = before.as_ref().map_or(1, |vm| vm.point.sequence + 1);
        let point = PointId {
            epoch: self.state.header.epoch,
            sequence,
        };
        if point.sequence.max(point.epoch) > MOST_DECIMAL {
            return Err(StoreError::Other(format!(
                "VM {}: point {point} has a number of more than ten digits, which no name can hold",
                about.vm
            )));
        }
        let open = self
            .state
            .open_packs()?
            .into_iter()
            .filter(|(_, pack)| pack.arrived);
        let (held, own): (Vec<_>, Vec<_>) = open.partition(|(_, pack)| pack.holder.is_some());
        let facts = Facts {
            vm: about.vm.clone(),
            vm_id: about.vm_id,
            point,
            captured_at: about.captured_at.clone(),
            store_time: self.objects.store_time().map(|time| time.to_string()),
            consistency: about.consistency,
            capture,
            previous: previous(before.as_ref()),
            newest: self.newest_points()?,
            log: self.state.header.log.number,
            expires_at: None,
            hold: false,
            bytes: PointBytes {
                read: report.read_bytes,
                changed: report.changed_bytes,
                sent: report.stored_bytes,
            },
            software: about.software,
            hardware: None,
            packs: own
                .iter()
                .map(|(_, pack)| ListedPack {
                    name: pack.name,
                    size: pack.size,
                })
                .collect(),
            unindexed: by_holder(&held),
        };
        let manifest = Manifest {
            facts,
            disks: disk_refs(&disks)?,
            entries: self.entries_for(&own)?,
        };
        let object = manifest.object_name();
        let bytes = manifest.encode(&self.key.writer, self.key.trust.keys.newest());
        let row = VmRow {
            name: about.vm,
            vm_id: about.vm_id,
            point,
            hash: object_hash(&bytes),
            object,
            captured_at: about.captured_at,
            capture,
            consistency: about.consistency.to_string(),
            taken_from: None,
            disks,
        };
        let packs = own.iter().map(|(ordinal, _)| *ordinal).collect();
        self.state.put_pending(&PendingRow {
            manifest: bytes,
            vm: row,
            packs,
            dropped_disks,
        })?;
        self.settle_pending().await?;
        self.drop_old_copies()?;
        report.point = Some(point);
        Ok(())
    }

    fn entries_for(&self, packs: &[(u64, PackRow)]) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for (number, (ordinal, _)) in packs.iter().enumerate() {
            let its = self.state.entries_of(*ordinal)?;
            entries.extend(its.into_iter().map(|entry| Entry {
                pack: number as u32,
                ..entry
            }));
        }
        Ok(entries)
    }

    fn newest_points(&self) -> Result<Vec<NewestPoint>, StoreError> {
        let newest = |vm: VmRow| NewestPoint {
            vm_id: vm.vm_id,
            point: vm.point,
            hash: vm.hash,
        };
        Ok(self
            .state
            .vms()?
            .into_iter()
            .filter(|vm| !vm.object.is_empty())
            .map(newest)
            .collect())
    }

    /// Sends manifests that are noted as on their way, whether for the first time or again.
    pub(super) async fn settle_pending(&mut self) -> Result<(), StoreError> {
        for pending in self.state.pending()? {
            let object = pending.vm.object.clone();
            let created = self
                .objects
                .create(&object, pending.manifest.clone().into())
                .await?;
            let ours = match created {
                Created::New => true,
                // A lost answer, or somebody else: the bytes tell.
                Created::Exists => self.objects.get(&object).await? == pending.manifest,
            };
            if !ours {
                self.state.drop_pending(&pending.vm.vm_id)?;
                self.state.header.epoch = 0;
                self.state.save_header()?;
                return Err(StoreError::Conflict { object });
            }
            self.state.apply_pending(&pending)?;
        }
        Ok(())
    }
}

fn previous(before: Option<&VmRow>) -> Option<ObjectRef> {
    let before = before.filter(|vm| !vm.object.is_empty())?;
    Some(ObjectRef {
        object: before.object.clone(),
        hash: before.hash,
    })
}

fn by_holder(held: &[(u64, PackRow)]) -> Vec<Unindexed> {
    let mut groups: BTreeMap<&str, Vec<PackName>> = BTreeMap::new();
    for (_, pack) in held {
        groups
            .entry(pack.holder.as_deref().unwrap_or_default())
            .or_default()
            .push(pack.name);
    }
    groups
        .into_iter()
        .map(|(object, packs)| Unindexed {
            object: object.to_owned(),
            packs,
        })
        .collect()
}

fn disk_refs(disks: &[DiskRow]) -> Result<Vec<Disk>, StoreError> {
    let disk = |row: &DiskRow| {
        let layers = row
            .layers
            .iter()
            .map(|layer| layer.to_ref())
            .collect::<Result<_, _>>();
        let layers = layers.map_err(StoreError::format(names::MAPS))?;
        Ok(Disk {
            name: row.name.clone(),
            size_bytes: row.size_bytes,
            excluded: row.excluded,
            layers,
        })
    };
    disks.iter().map(disk).collect()
}
