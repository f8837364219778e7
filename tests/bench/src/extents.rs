//! Byte ranges of a disk, in an order of their own: where data lies, or where
//! the pages of one file went.

use serde::{Deserialize, Serialize};

use crate::BLOCK;

/// Ranges as (offset, length), both multiples of 4 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extents(Vec<(u64, u64)>);

impl Extents {
    /// Appends a range, joined to the last one where it continues it.
    pub fn push(&mut self, offset: u64, bytes: u64) {
        match self.0.last_mut() {
            Some((start, length)) if *start + *length == offset => *length += bytes,
            _ => self.0.push((offset, bytes)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, length)| length).sum()
    }

    /// The disk offset of each 4 KiB block, in order.
    pub fn block_offsets(&self) -> Vec<u64> {
        self.iter()
            .flat_map(|(offset, bytes)| (offset..offset + bytes).step_by(BLOCK))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_and_order_is_kept() {
        let mut extents = Extents::default();
        extents.push(8192, 4096);
        extents.push(12288, 4096);
        extents.push(0, 4096);
        assert_eq!(
            extents.iter().collect::<Vec<_>>(),
            [(8192, 8192), (0, 4096)]
        );
        assert_eq!(extents.block_offsets(), [8192, 12288, 0]);
        assert_eq!(extents.bytes(), 12288);
    }
}
