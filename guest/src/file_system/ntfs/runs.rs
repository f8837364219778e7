//! Mapping pairs of NTFS: where the clusters of an attribute lie.

use crate::storage::bytes::Bytes;

/// A stretch of clusters; `physical` is none where they are sparse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub logical: u64,
    pub physical: Option<u64>,
    pub count: u64,
}

/// Runs of one attribute; a fragmented file of 4 GiB has fewer.
pub(super) const MAX_RUNS: usize = 1 << 20;

/// Adds the runs of one mapping, which begins at cluster `logical` of the attribute. `None` when it does not hold together.
pub(super) fn parse(mapping: &[u8], mut logical: u64, runs: &mut Vec<Run>) -> Option<()> {
    let mut at = 0;
    let mut physical = 0i64;
    loop {
        let header = mapping.byte(at)?;
        if header == 0 {
            return Some(());
        }
        let (length_bytes, offset_bytes) = (usize::from(header & 0xf), usize::from(header >> 4));
        let count = u64::try_from(signed(mapping.part(at + 1, length_bytes)?)?).ok()?;
        let offset = mapping.part(at + 1 + length_bytes, offset_bytes)?;
        at += 1 + length_bytes + offset_bytes;
        if count == 0 || runs.len() == MAX_RUNS {
            return None;
        }
        let place = if offset_bytes == 0 {
            None
        } else {
            // Each start is told as its distance from the one before.
            physical = physical.checked_add(signed(offset)?)?;
            Some(u64::try_from(physical).ok()?)
        };
        runs.push(Run {
            logical,
            physical: place,
            count,
        });
        logical = logical.checked_add(count)?;
    }
}

/// A little-endian number of up to 8 bytes with a sign.
fn signed(bytes: &[u8]) -> Option<i64> {
    let last = bytes.last()?;
    let fill = if last & 0x80 != 0 { 0xff } else { 0 };
    let mut whole = [fill; 8];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn distances_go_forth_and_back_and_holes_have_none() {
        let mapping = [
            0x21, 0x18, 0x34, 0x56, // 0x18 clusters at 0x5634
            0x01, 0x05, // 5 sparse
            0x11, 0x10, 0xf0, // 0x10 clusters, 16 before
            0,
        ];
        let mut runs = Vec::new();
        parse(&mapping, 10, &mut runs).unwrap();
        let run = |logical, physical, count| Run {
            logical,
            physical,
            count,
        };
        assert_eq!(
            runs,
            [
                run(10, Some(0x5634), 0x18),
                run(34, None, 5),
                run(39, Some(0x5624), 0x10)
            ]
        );
        assert!(parse(&[0x11, 1, 0xff, 0], 0, &mut Vec::new()).is_none());
        assert!(parse(&[0x21, 1], 0, &mut Vec::new()).is_none());
    }

    proptest! {
        #[test]
        fn any_mapping_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes, 0, &mut Vec::new());
        }
    }
}
