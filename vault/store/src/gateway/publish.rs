//! Publishing: everything that a point needs is stored; then its manifest goes under the VM's next number, by conditional
//! create. What it will be is noted in the state first, so that a process that dies in between knows what it sent.

use super::Shared;
use super::rows::{DiskRow, FencedRow, PackRow, PendingRow, PointFacts, QueueRow, VmRow};
use crate::StoreError;
use crate::objects::Created;
use std::collections::BTreeMap;
use vault_format::entry::Entry;
use vault_format::ids::{PackName, PointId, object_hash};
use vault_format::manifest::{Disk, Facts, Manifest, NewestPoint, ObjectRef, Unindexed};
use vault_format::names;
use vault_format::segment::ListedPack;

/// The largest number that a decimal name part can hold.
const MOST_DECIMAL: u64 = 9_999_999_999;

impl Shared {
    /// Publishes a capture whose packs have arrived.
    pub(super) async fn publish(
        &self,
        ordinal: u64,
        row: QueueRow,
        about: PointFacts,
    ) -> Result<PointId, StoreError> {
        let before = self.state.vm(&row.vm_id)?;
        let mut disks = row.disks;
        for disk in &mut disks {
            let known = before.iter().flat_map(|vm| &vm.disks);
            let known = known.filter(|known| known.number == disk.number);
            disk.layers = known.flat_map(|known| known.layers.clone()).collect();
            self.write_layers(disk, ordinal).await?;
        }
        self.write_due_segments().await?;
        let sequence = before.as_ref().map_or(1, |vm| vm.point.sequence + 1);
        let point = PointId {
            epoch: self.state.header().epoch,
            sequence,
        };
        if point.sequence.max(point.epoch) > MOST_DECIMAL {
            return Err(StoreError::Other(format!(
                "VM {}: point {point} has a number of more than ten digits, which no name can hold",
                row.vm
            )));
        }
        let open = self
            .state
            .open_packs()?
            .into_iter()
            .filter(|(_, pack)| pack.arrived);
        let (held, own): (Vec<_>, Vec<_>) = open.partition(|(_, pack)| pack.holder.is_some());
        // Also what waited since before the fence was known here: it is none of what was failed over.
        let header = self.state.header();
        let fence = header.log.fence(&row.vm_id).map(|fence| fence.number);
        let diverged = about.fence.or(fence);
        let facts = Facts {
            vm: row.vm.clone(),
            vm_id: row.vm_id,
            point,
            captured_at: about.captured_at.clone(),
            store_time: self.objects.store_time().map(|time| time.to_string()),
            consistency: about.consistency,
            capture: about.capture,
            previous: previous(before.as_ref()),
            newest: self.newest_points()?,
            log: about.log,
            diverged,
            expires_at: None,
            hold: false,
            bytes: about.bytes,
            software: about.software,
            hardware: about.hardware,
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
        let vm = VmRow {
            name: row.vm,
            vm_id: row.vm_id,
            point,
            hash: object_hash(&bytes),
            object,
            captured_at: about.captured_at,
            capture: about.capture,
            consistency: about.consistency.to_string(),
            taken_from: None,
            disks,
            fenced: FencedRow::after(before.as_ref(), point, (about.fence, diverged)),
        };
        let packs = own.iter().map(|(ordinal, _)| *ordinal).collect();
        self.state.put_pending(&PendingRow {
            manifest: bytes,
            vm,
            packs,
            capture: ordinal,
        })?;
        self.settle_pending().await?;
        self.drop_old_copies()?;
        Ok(point)
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
    pub(super) async fn settle_pending(&self) -> Result<(), StoreError> {
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
                self.state.change_header(|header| header.epoch = 0)?;
                return Err(StoreError::Conflict { object });
            }
            let before = self.state.vm(&pending.vm.vm_id)?;
            let disks = before.map_or(Vec::new(), |vm| vm.disks);
            self.state.apply_pending(&pending, &disks)?;
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
