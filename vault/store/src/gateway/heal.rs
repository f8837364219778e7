//! Damage that the control log names: nothing new builds on it, and what the site's disks still hold is sent again, full.

use super::Shared;
use super::rows::{ChunkRow, LayerRow, PackRow};
use super::snapshot::Snapshot;
use crate::StoreError;
use std::collections::HashSet;
use vault_format::ChunkId;
use vault_format::entry::Entry;
use vault_format::ids::PackName;
use vault_format::names::{self, Name};

impl Shared {
    /// Heeds damage entries that were not heeded yet.
    pub(super) async fn heed_damage(&self) -> Result<Vec<String>, StoreError> {
        let header = self.state.header();
        let news = header
            .log
            .damaged
            .iter()
            .filter(|(_, entry)| **entry > header.heeded);
        let objects: Vec<String> = news.map(|(object, _)| object.clone()).collect();
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let mut findings = Vec::new();
        let packs: HashSet<PackName> = objects.iter().filter_map(|o| pack_of(o)).collect();
        if !packs.is_empty() {
            let lost = self.lose_packs(&packs)?;
            findings.push(format!(
                "the control log says that {} packs are lost or damaged: {lost} chunks are sent again wherever a disk still has them",
                packs.len()
            ));
        }
        self.lose_segments(&objects)?;
        self.lose_holders(&objects)?;
        self.state
            .change_header(|header| header.heeded = header.log.number)?;
        Ok(findings)
    }

    /// Marks as lost every chunk whose chain needs one of these packs. Returns how many.
    fn lose_packs(&self, packs: &HashSet<PackName>) -> Result<usize, StoreError> {
        let rows = self.state.packs()?;
        let gone: Vec<u64> = rows
            .iter()
            .filter(|(_, p)| packs.contains(&p.name))
            .map(|(ordinal, _)| *ordinal)
            .collect();
        let gone_set: HashSet<u64> = gone.iter().copied().collect();
        let lost = self.spread_loss(
            &rows,
            |ordinal, _| gone_set.contains(&ordinal),
            |ordinal, _, _| Ok(gone_set.contains(&ordinal)),
        )?;
        self.state.mark_lost(&lost, &gone)?;
        Ok(lost.len())
    }

    /// After a rebuild: a patch whose parent is nowhere, or not of a smaller depth, is as good as lost.
    pub(super) fn lose_broken_chains(&self) -> Result<(), StoreError> {
        let rows = self.state.packs()?;
        let broken = |_, row: &ChunkRow, snapshot: &Snapshot| match row.kind.parent() {
            None => Ok(false),
            Some(parent) => Ok(snapshot
                .chunk(&parent)?
                .is_none_or(|parent| parent.kind.depth() >= row.kind.depth())),
        };
        let lost = self.spread_loss(&rows, |_, _| false, broken)?;
        match lost.is_empty() {
            true => Ok(()),
            false => self.state.mark_lost(&lost, &[]),
        }
    }

    /// The chunks that are lost by themselves, and all whose chain needs one of them. Patches are always looked at, full
    /// records only where `also` says so, which spares most look-ups.
    fn spread_loss(
        &self,
        rows: &[(u64, PackRow)],
        also: impl Fn(u64, &Entry) -> bool,
        by_itself: impl Fn(u64, &ChunkRow, &Snapshot) -> Result<bool, StoreError>,
    ) -> Result<Vec<ChunkId>, StoreError> {
        let snapshot = self.state.snapshot()?;
        let mut lost: HashSet<ChunkId> = HashSet::new();
        // A parent's pack may have a higher number than its child's (after a rebuild), hence until nothing is added.
        loop {
            let before = lost.len();
            for (ordinal, _) in rows {
                for entry in self.state.entries_of(*ordinal)? {
                    let concerned = entry.kind.depth() > 0 || also(*ordinal, &entry);
                    if !concerned || lost.contains(&entry.id) {
                        continue;
                    }
                    let row = snapshot.chunk(&entry.id)?;
                    let Some(row) = row.filter(|row| row.pack == *ordinal) else {
                        continue;
                    };
                    let parent_lost = row.kind.parent().is_some_and(|p| lost.contains(&p));
                    if parent_lost || by_itself(*ordinal, &row, &snapshot)? {
                        lost.insert(entry.id);
                    }
                }
            }
            if lost.len() == before {
                return Ok(lost.into_iter().collect());
            }
        }
    }

    /// After a rebuild: what a map names and no pack has is lost, and sent again if the disk still has it.
    pub(super) fn lose_unknown(&self, slots: &[(u64, ChunkId)]) -> Result<(), StoreError> {
        let snapshot = self.state.snapshot()?;
        let mut lost = Vec::new();
        for (_, id) in slots {
            if snapshot.chunk(id)?.is_none() {
                lost.push(*id);
            }
        }
        drop(snapshot);
        match lost.is_empty() {
            true => Ok(()),
            false => self.state.mark_lost(&lost, &[]),
        }
    }

    /// Segments that are lost are written again: their packs count as not indexed.
    fn lose_segments(&self, objects: &[String]) -> Result<(), StoreError> {
        for (first, segment) in self.state.segments()? {
            if objects.contains(&segment.name) {
                let its = self.state.packs()?.into_iter().filter(|(n, pack)| {
                    pack.indexed && !pack.adopted && (first..=segment.last).contains(n)
                });
                let packs: Vec<u64> = its.map(|(ordinal, _)| ordinal).collect();
                self.state.drop_segment(first, &packs)?;
            }
        }
        Ok(())
    }

    /// Packs whose entries are in a lost manifest are entered again in the next one.
    fn lose_holders(&self, objects: &[String]) -> Result<(), StoreError> {
        let open = self.state.open_packs()?.into_iter();
        let lost = open.filter(|(_, pack)| {
            pack.holder
                .as_ref()
                .is_some_and(|holder| objects.contains(holder))
        });
        let ordinals: Vec<u64> = lost.map(|(ordinal, _)| ordinal).collect();
        self.state
            .update_packs(&ordinals, |pack| pack.holder = None)
    }

    /// Whether a layer is one that the log calls damaged: then the disk's whole map is written anew.
    pub(super) fn is_damaged_layer(&self, layer: &LayerRow) -> bool {
        match layer {
            LayerRow::Object { name, .. } => self.state.header().log.damaged.contains_key(name),
            LayerRow::Inline { .. } => false,
        }
    }
}

fn pack_of(object: &str) -> Option<PackName> {
    match names::parse(object) {
        Some(Name::Pack(pack)) => Some(pack),
        _ => None,
    }
}
