//! Index segments, written when due: a segment for every 64 packs, and one for every 8 such segments, so that each entry
//! is written at most twice.

use super::Shared;
use super::rows::{PackRow, SegmentRow};
use crate::StoreError;
use vault_format::entry::Entry;
use vault_format::names::Span;
use vault_format::segment::{ListedPack, encode_segment_after};

/// Packs without a segment, at most.
pub(super) const PACKS_PER_SEGMENT: usize = 64;
/// Segments that become one.
const FAN_OUT: usize = 8;

impl Shared {
    /// Writes the segments that are due.
    pub(super) async fn write_due_segments(&self) -> Result<(), StoreError> {
        loop {
            let open = self.state.open_packs()?;
            // Only packs that certainly arrived, and in order: a segment's span has no gaps that fill up later.
            let arrived: Vec<(u64, PackRow)> = open
                .into_iter()
                .take_while(|(_, pack)| pack.arrived)
                .collect();
            if arrived.len() < PACKS_PER_SEGMENT {
                return Ok(());
            }
            self.write_segment(&[], &arrived[..PACKS_PER_SEGMENT], false)
                .await?;
            self.merge_segments().await?;
        }
    }

    async fn merge_segments(&self) -> Result<(), StoreError> {
        let segments = self.state.segments()?;
        let small: Vec<&(u64, SegmentRow)> = segments
            .iter()
            .filter(|(_, segment)| !segment.merged)
            .collect();
        if small.len() < FAN_OUT {
            return Ok(());
        }
        let gone: Vec<u64> = small[..FAN_OUT].iter().map(|(first, _)| *first).collect();
        let spans: Vec<(u64, u64)> = small[..FAN_OUT]
            .iter()
            .map(|(first, row)| (*first, row.last))
            .collect();
        let inside = |n: u64| {
            spans
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&n))
        };
        let packs = self.state.packs()?.into_iter();
        let packs: Vec<(u64, PackRow)> = packs
            .filter(|(n, pack)| pack.indexed && !pack.adopted && inside(*n))
            .collect();
        self.write_segment(&gone, &packs, true).await
    }

    async fn write_segment(
        &self,
        gone: &[u64],
        packs: &[(u64, PackRow)],
        merged: bool,
    ) -> Result<(), StoreError> {
        let (Some((first, _)), Some((last, _))) = (packs.first(), packs.last()) else {
            return Ok(());
        };
        let (first, last) = (gone.first().copied().unwrap_or(*first), *last);
        let mut entries: Vec<Entry> = Vec::new();
        for (number, (ordinal, _)) in packs.iter().enumerate() {
            let its = self.state.entries_of(*ordinal)?;
            entries.extend(its.into_iter().map(|entry| Entry {
                pack: number as u32,
                ..entry
            }));
        }
        let listed: Vec<ListedPack> = packs
            .iter()
            .map(|(_, pack)| ListedPack {
                name: pack.name,
                size: pack.size,
            })
            .collect();
        let span = Span {
            writer: self.key.writer.id,
            epoch: self.state.header().epoch,
            first,
            last,
        };
        let (name, bytes) = tokio::task::block_in_place(|| {
            encode_segment_after(
                &self.key.writer,
                self.key.trust.keys.newest(),
                &span,
                &listed,
                entries,
                self.state.header().log.last_damage(),
            )
        });
        // "Exists": an earlier run wrote the same; the name comes from the content.
        self.objects.create(&name, bytes.into()).await?;
        let ordinals: Vec<u64> = packs.iter().map(|(ordinal, _)| *ordinal).collect();
        self.state
            .put_segment(gone, first, &SegmentRow { name, last, merged }, &ordinals)
    }
}
