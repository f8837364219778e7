//! The journal of ext3 and ext4 (jbd2): which blocks of the file system stand newer in it.
//!
//! Recovery as Linux does it (fs/jbd2/recovery.c): scan from the first transaction to the first that is not whole, gather
//! what was revoked, then take the last copy of each block that no later transaction revoked. Nothing is written; the result
//! is a map from blocks to their copies. Format: Documentation/filesystems/ext4/journal.rst. All numbers are big-endian.

use std::collections::BTreeMap;

use super::inode::{self, Run};
use super::{Ext, JournalCopy};
use crate::GuestError;
use crate::storage::bytes::Bytes;
use crate::storage::checksum::kernel_crc32c;

pub(super) const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_1: u32 = 3;
const SUPERBLOCK_2: u32 = 4;
const REVOKE: u32 = 5;

const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CHECKSUM_2: u32 = 0x8;
const INCOMPAT_CHECKSUM_3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
/// Revocations, 64 bits, asynchronous commits, checksums of both kinds, fast commits.
const INCOMPAT_KNOWN: u32 = 0x3f;
/// mke2fs makes journals of up to 1 GiB by itself; this is 8 GiB in blocks of 4 KiB.
const MAX_BLOCKS: u32 = 1 << 21;

/// What the journal holds beyond the file system.
#[derive(Default)]
pub(super) struct Replay {
    pub overlay: BTreeMap<u64, JournalCopy>,
    pub notes: Vec<String>,
}

pub(super) fn read(ext: &Ext) -> Result<Replay, GuestError> {
    let inode = ext.inode(ext.superblock.journal_inode)?;
    inode.check_readable(&ext.what(inode.number))?;
    let block_bytes = ext.superblock.block_bytes;
    let in_file = (inode.size / block_bytes).min(u64::from(MAX_BLOCKS));
    let runs = inode::runs(ext, &inode, 0..in_file)?;
    for run in &runs {
        ext.check_run(&inode, run)?;
    }
    let what = format!("{} (journal)", ext.volume.place());
    let first =
        log_block(&runs, 0).ok_or_else(|| GuestError::damaged(&what, "it has no blocks"))?;
    let header = ext.block(first)?;
    let Some(log) = Log::parse(ext, runs, &header, in_file) else {
        return Err(GuestError::damaged(&what, "its superblock is damaged"));
    };
    if log.incompat & !INCOMPAT_KNOWN != 0 {
        return Err(GuestError::unsupported(
            &what,
            format!("it uses features {:#x}", log.incompat & !INCOMPAT_KNOWN),
        ));
    }
    let mut replay = Replay::default();
    if log.incompat & INCOMPAT_FAST_COMMIT != 0 {
        replay.notes.push(
            "its journal uses fast commits, which are not read: the last seconds of changes may be missing"
                .to_owned(),
        );
    }
    // Zero: nothing to replay.
    if log.start != 0 {
        replay.overlay = log.scan()?.resolve();
    }
    Ok(replay)
}

fn log_block(runs: &[Run], index: u64) -> Option<u64> {
    let after = runs.partition_point(|run| run.logical <= index);
    let run = runs.get(after.checked_sub(1)?)?;
    let within = index - run.logical;
    (within < run.count).then(|| run.physical.saturating_add(within))
}

/// The journal as a ring of blocks.
struct Log<'a> {
    ext: &'a Ext,
    runs: Vec<Run>,
    /// The ring is `first..end`.
    first: u32,
    end: u32,
    start: u32,
    sequence: u32,
    incompat: u32,
    checksum_seed: u32,
}

/// What whole transactions hold, in their order.
#[derive(Default)]
struct Transactions {
    /// Transaction, block of the file system, its copy.
    copies: Vec<(u32, u64, JournalCopy)>,
    /// The last transaction that revoked a block.
    revoked: BTreeMap<u64, u32>,
}

impl Transactions {
    fn resolve(self) -> BTreeMap<u64, JournalCopy> {
        let mut overlay = BTreeMap::new();
        for (sequence, block, copy) in self.copies {
            // A revocation counts for its own transaction and all before (tid_gt in jbd2_journal_test_revoke).
            let is_revoked = self
                .revoked
                .get(&block)
                .is_some_and(|revoked| !is_after(sequence, *revoked));
            if !is_revoked {
                overlay.insert(block, copy);
            }
        }
        overlay
    }
}

/// Transaction numbers wrap around.
fn is_after(left: u32, right: u32) -> bool {
    (left.wrapping_sub(right) as i32) > 0
}

impl<'a> Log<'a> {
    fn parse(ext: &'a Ext, runs: Vec<Run>, header: &[u8], in_file: u64) -> Option<Self> {
        let kind = header.be32(4)?;
        let sane = header.be32(0)? == MAGIC
            && matches!(kind, SUPERBLOCK_1 | SUPERBLOCK_2)
            && u64::from(header.be32(12)?) == ext.superblock.block_bytes;
        sane.then_some(())?;
        // Version 1 has no features.
        let incompat = if kind == SUPERBLOCK_2 {
            header.be32(40)?
        } else {
            0
        };
        let mut end = header.be32(16)?;
        if incompat & INCOMPAT_FAST_COMMIT != 0 {
            // Their blocks are the last of the journal; 256 where the field is zero (JBD2_DEFAULT_FAST_COMMIT_BLOCKS).
            let fast = match header.be32(0x54)? {
                0 => 256,
                blocks => blocks,
            };
            end = end.checked_sub(fast)?;
        }
        let (first, start) = (header.be32(20)?, header.be32(28)?);
        let fits = first > 0
            && first < end
            && u64::from(end) <= in_file
            && end <= MAX_BLOCKS
            && (start == 0 || (first..end).contains(&start));
        fits.then_some(Self {
            ext,
            runs,
            first,
            end,
            start,
            sequence: header.be32(24)?,
            incompat,
            checksum_seed: kernel_crc32c(!0, header.part(48, 16)?),
        })
    }

    fn has_checksums(&self) -> bool {
        self.incompat & (INCOMPAT_CHECKSUM_2 | INCOMPAT_CHECKSUM_3) != 0
    }

    fn advance(&self, at: u32, by: u32) -> u32 {
        let ring = self.end - self.first;
        self.first + (at - self.first + by % ring) % ring
    }

    /// All transactions up to the first that is not whole. What the journal does not hold together ends it, as for Linux.
    fn scan(&self) -> Result<Transactions, GuestError> {
        let mut whole = Transactions::default();
        let mut copies = Vec::new();
        let mut revoked = Vec::new();
        let (mut at, mut sequence) = (self.start, self.sequence);
        let mut left = self.end - self.first;
        while left > 0 {
            let Some(place) = log_block(&self.runs, u64::from(at)) else {
                break;
            };
            let block = self.ext.block(place)?;
            if block.be32(0) != Some(MAGIC) || block.be32(8) != Some(sequence) {
                break;
            }
            let mut used = 1;
            match block.be32(4) {
                Some(DESCRIPTOR) if self.is_intact(&block, block.len() - 4) => {
                    let Some(tags) = self.tags(&block) else { break };
                    for (block, escaped) in tags {
                        let copy = log_block(&self.runs, u64::from(self.advance(at, used)));
                        copies.extend(copy.map(|copy| {
                            let copy = JournalCopy {
                                block: copy,
                                escaped,
                            };
                            (sequence, block, copy)
                        }));
                        used += 1;
                    }
                }
                Some(REVOKE) if self.is_intact(&block, block.len() - 4) => {
                    let Some(mut blocks) = self.revocations(&block) else {
                        break;
                    };
                    revoked.append(&mut blocks);
                }
                Some(COMMIT) if self.is_intact(&block, 16) => {
                    whole.copies.append(&mut copies);
                    for block in revoked.drain(..) {
                        whole.revoked.insert(block, sequence);
                    }
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
            at = self.advance(at, used);
            left = left.saturating_sub(used);
        }
        Ok(whole)
    }

    /// Whether the checksum at `field` is that of the block with the field zeroed; right where there are none.
    fn is_intact(&self, block: &[u8], field: usize) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let mut summed = block.to_vec();
        let Some(stored) = block.be32(field) else {
            return false;
        };
        summed[field..field + 4].fill(0);
        kernel_crc32c(self.checksum_seed, &summed) == stored
    }

    /// Blocks that a descriptor announces, with whether each is escaped.
    fn tags(&self, block: &[u8]) -> Option<Vec<(u64, bool)>> {
        const ESCAPED: u32 = 1;
        const SAME_UUID: u32 = 2;
        const LAST: u32 = 8;
        let version_3 = self.incompat & INCOMPAT_CHECKSUM_3 != 0;
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        // journal_tag_bytes in fs/jbd2/journal.c.
        let tag_bytes = if version_3 {
            16
        } else {
            let checksum = if self.incompat & INCOMPAT_CHECKSUM_2 != 0 {
                2
            } else {
                0
            };
            8 + checksum + if wide { 4 } else { 0 }
        };
        let end = block.len() - if self.has_checksums() { 4 } else { 0 };
        let mut tags = Vec::new();
        let mut at = 12;
        while at + tag_bytes <= end {
            let flags = if version_3 {
                block.be32(at + 4)?
            } else {
                u32::from(block.be16(at + 6)?)
            };
            let high = if wide { block.be32(at + 8)? } else { 0 };
            let number = u64::from(block.be32(at)?) | u64::from(high) << 32;
            tags.push((number, flags & ESCAPED != 0));
            at += tag_bytes + if flags & SAME_UUID != 0 { 0 } else { 16 };
            if flags & LAST != 0 {
                break;
            }
        }
        Some(tags)
    }

    fn revocations(&self, block: &[u8]) -> Option<Vec<u64>> {
        let used = (block.be32(12)? as usize).min(block.len());
        let entries = block.get(16..used)?;
        Some(if self.incompat & INCOMPAT_64BIT != 0 {
            entries
                .chunks_exact(8)
                .filter_map(|entry| entry.be64(0))
                .collect()
        } else {
            entries
                .chunks_exact(4)
                .filter_map(|entry| entry.be32(0).map(u64::from))
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_takes_copies_of_its_own_and_earlier_transactions() {
        let copy = |block| JournalCopy {
            block,
            escaped: false,
        };
        let transactions = Transactions {
            copies: vec![
                (1, 100, copy(1000)),
                (2, 100, copy(1001)),
                (3, 100, copy(1002)),
                (1, 200, copy(1003)),
                (u32::MAX, 300, copy(1004)),
            ],
            revoked: BTreeMap::from([(100, 2), (200, 1), (300, 0)]),
        };
        let overlay = transactions.resolve();
        assert_eq!(overlay.get(&100), Some(&copy(1002)));
        // 300: transaction 0 comes after u32::MAX.
        assert_eq!(overlay.len(), 1);
    }

    #[test]
    fn log_blocks_are_found_in_their_runs() {
        let runs = [
            Run {
                logical: 0,
                physical: 50,
                count: 3,
            },
            Run {
                logical: 5,
                physical: 90,
                count: 2,
            },
        ];
        assert_eq!(log_block(&runs, 2), Some(52));
        assert_eq!(log_block(&runs, 3), None);
        assert_eq!(log_block(&runs, 6), Some(91));
        assert_eq!(log_block(&[], 0), None);
    }
}
