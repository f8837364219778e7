//! Map layers of a cycle: what changed, inline while it is small, merged from local copies when there are many.

use super::Shared;
use super::rows::{DiskRow, LayerRow};
use super::state::state_error;
use crate::StoreError;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use vault_format::layer::{
    Layer, Run, RunBuilder, Slot, decode_runs, encode_layer_after, encode_runs,
};
use vault_format::layer_plan::{INLINE_LIMIT_BYTES, LayerSize, plan_layers};

/// Positions of one layer object: a base of 16 million positions is written as 16 of these, in bounded memory.
const POSITIONS_PER_LAYER: u64 = 1 << 20;

/// One layer's content.
type Runs = Vec<Run>;

impl Shared {
    /// Writes the layers of what `capture`, the next to be published, changes in `disk`, and updates its row.
    pub(super) async fn write_layers(
        &self,
        disk: &mut DiskRow,
        capture: u64,
    ) -> Result<(), StoreError> {
        if disk.layers.iter().any(|layer| self.is_damaged_layer(layer)) {
            // Heals it: the disk's whole map as it will be.
            disk.layers.clear();
            return self
                .write_runs(disk, capture, true, (Vec::new(), Some(0)))
                .await;
        }
        let (own, more) = self.runs_from(disk, capture, 0, false)?;
        if own.is_empty() {
            return Ok(());
        }
        if more.is_some() {
            // So much changed that merging would write it all again: the layers stand by themselves.
            return self.write_runs(disk, capture, false, (own, more)).await;
        }
        let own = LayerRow::inline(&own);
        let sizes = |row: &LayerRow, inline: bool| LayerSize {
            positions: row.positions(),
            bytes: row.bytes(),
            inline,
        };
        let mut all = vec![sizes(&own, own.bytes() <= INLINE_LIMIT_BYTES)];
        all.extend(
            disk.layers
                .iter()
                .map(|row| sizes(row, matches!(row, LayerRow::Inline { .. }))),
        );
        let plan = plan_layers(&all, disk.mapped);
        let merged = self
            .merge_layers(&own, &disk.layers[..plan.merge - 1])
            .await?;
        let layer = match plan.object {
            true => self.write_layer(&merged).await?,
            false => LayerRow::inline(&merged),
        };
        disk.layers.splice(..plan.merge - 1, [layer]);
        Ok(())
    }

    /// One layer object's worth of runs, so that a disk of any size takes the same memory.
    fn runs_from(
        &self,
        disk: &DiskRow,
        capture: u64,
        from: u64,
        whole: bool,
    ) -> Result<(Runs, Option<u64>), StoreError> {
        let disk = (disk.number, capture);
        self.state.runs_from(disk, from, whole, POSITIONS_PER_LAYER)
    }

    /// Writes runs, and what follows on them, as layers of their own.
    async fn write_runs(
        &self,
        disk: &mut DiskRow,
        capture: u64,
        whole: bool,
        (mut runs, mut more): (Runs, Option<u64>),
    ) -> Result<(), StoreError> {
        loop {
            if !runs.is_empty() {
                let layer = self.write_layer(&runs).await?;
                disk.layers.insert(0, layer);
            }
            match more {
                Some(from) => (runs, more) = self.runs_from(disk, capture, from, whole)?,
                None => return Ok(()),
            }
        }
    }

    async fn write_layer(&self, runs: &[Run]) -> Result<LayerRow, StoreError> {
        let encode = || {
            encode_layer_after(
                &self.key.writer,
                self.key.trust.keys.newest(),
                runs,
                self.state.header().log.last_damage(),
            )
        };
        let (name, bytes) = tokio::task::block_in_place(encode);
        let size = bytes.len() as u64;
        self.objects.create(&name, bytes.into()).await?;
        self.keep_copy(&name, runs)?;
        Ok(LayerRow::Object {
            name,
            size,
            positions: runs.iter().map(Run::count).sum(),
        })
    }

    /// One layer of `own` over `older` (newest first).
    async fn merge_layers(
        &self,
        own: &LayerRow,
        older: &[LayerRow],
    ) -> Result<Vec<Run>, StoreError> {
        let mut slots: BTreeMap<u64, Slot> = BTreeMap::new();
        for layer in older.iter().rev().chain([own]) {
            for run in self.runs_of(layer).await? {
                slots.extend(
                    (run.first()..run.end()).filter_map(|at| run.slot(at).map(|slot| (at, slot))),
                );
            }
        }
        let mut builder = RunBuilder::default();
        slots
            .into_iter()
            .for_each(|(position, slot)| builder.push(position, slot));
        Ok(builder.runs())
    }

    /// A layer's runs: from itself, from the copy in the state, or (after a rebuild) from the vault.
    pub(super) async fn runs_of(&self, layer: &LayerRow) -> Result<Vec<Run>, StoreError> {
        let LayerRow::Object { name, .. } = layer else {
            return layer.runs().map_err(state_error(self.state.directory()));
        };
        let copy = std::fs::read(self.copy_path(name))
            .ok()
            .and_then(|bytes| checked_copy(&bytes));
        if let Some(runs) = copy {
            return Ok(runs);
        }
        let bytes = self.objects.get(name).await?;
        let layer =
            Layer::open_whole(&self.key.trust, name, &bytes).map_err(StoreError::format(name))?;
        let mut runs = Vec::new();
        for number in 0..layer.root.parts.len() {
            let sealed = layer.root.sealed_part(&bytes, number);
            runs.extend(
                layer
                    .runs_of(number, sealed)
                    .map_err(StoreError::format(name))?,
            );
        }
        self.keep_copy(name, &runs)?;
        Ok(runs)
    }

    fn copy_path(&self, name: &str) -> PathBuf {
        self.state
            .directory()
            .join("layers")
            .join(name.rsplit('/').next().unwrap_or(name))
    }

    /// Keeps a layer's runs, so that merging costs no download; a lost copy costs one.
    fn keep_copy(&self, name: &str, runs: &[Run]) -> Result<(), StoreError> {
        let path = self.copy_path(name);
        let bytes = encode_runs(runs);
        let checksum = vault_format::ids::object_hash(&bytes);
        let write = || {
            std::fs::create_dir_all(self.state.directory().join("layers"))?;
            std::fs::write(&path, [&checksum.0[..], &bytes].concat())
        };
        write().map_err(state_error(&path))
    }

    /// Removes the copies of layers that no disk has any more: they were merged, or their disk is gone.
    pub(super) fn drop_old_copies(&self) -> Result<(), StoreError> {
        let Ok(copies) = std::fs::read_dir(self.state.directory().join("layers")) else {
            return Ok(());
        };
        let vms = self.state.vms()?;
        let layers = vms.iter().flat_map(|vm| &vm.disks).flat_map(|d| &d.layers);
        let kept: HashSet<PathBuf> = layers
            .filter_map(|layer| match layer {
                LayerRow::Object { name, .. } => Some(self.copy_path(name)),
                LayerRow::Inline { .. } => None,
            })
            .collect();
        for copy in copies.flatten().filter(|copy| !kept.contains(&copy.path())) {
            // What stays for now costs space only, and is tried again.
            let _ = std::fs::remove_file(copy.path());
        }
        Ok(())
    }
}

fn checked_copy(bytes: &[u8]) -> Option<Vec<Run>> {
    let (checksum, runs) = bytes.split_at_checked(32)?;
    (vault_format::ids::object_hash(runs).0 == checksum).then(|| decode_runs(runs).ok())?
}
