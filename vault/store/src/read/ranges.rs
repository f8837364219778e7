//! Which byte ranges to ask a store for: neighbours together, so that many small reads become few.

use crate::objects::{ObjectError, Objects};
use bytes::Bytes;
use std::ops::Range;

/// Gaps up to this many bytes are read along: cheaper than another request.
pub(super) const MAX_GAP_BYTES: u64 = 64 * 1024;
/// Longest range of one request (a single longer item is still one request): 16 chunks of 256 KiB with what seals them.
/// With 4 MiB sharp it was 15, and of 32 chunks two made a third request.
pub(super) const MAX_RANGE_BYTES: u64 = (4 << 20) + MAX_GAP_BYTES;

/// Exactly this range. Stores keep that promise already; whoever slices what comes back relies on it here.
pub(super) async fn get_exact(
    objects: &dyn Objects,
    name: &str,
    range: Range<u64>,
) -> Result<Bytes, ObjectError> {
    let expected = range.end.saturating_sub(range.start);
    let bytes = objects.get_range(name, range).await?;
    match bytes.len() as u64 {
        got if got == expected => Ok(bytes),
        got => Err(ObjectError::Truncated {
            name: name.to_owned(),
            store: objects.describe(),
            expected,
            got,
        }),
    }
}

/// Some items and the bytes that hold them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Together {
    pub items: Range<usize>,
    pub bytes: Range<u64>,
}

/// Groups `items`, sorted by start, into ranges; they may overlap.
pub(super) fn coalesce(items: &[Range<u64>], max_gap: u64, max_range: u64) -> Vec<Together> {
    let mut out: Vec<Together> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        match out.last_mut() {
            Some(last)
                if item.start <= last.bytes.end.saturating_add(max_gap)
                    && item.end.max(last.bytes.end) - last.bytes.start <= max_range =>
            {
                last.items.end = i + 1;
                last.bytes.end = last.bytes.end.max(item.end);
            }
            _ => out.push(Together {
                items: i..i + 1,
                bytes: item.clone(),
            }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn near_items_are_read_together_and_far_ones_apart() {
        let items = [0..10, 10..20, 25..30, 100..110];
        let groups = coalesce(&items, 5, 1000);
        assert_eq!(groups.len(), 2);
        assert_eq!(
            groups[0],
            Together {
                items: 0..3,
                bytes: 0..30
            }
        );
        assert_eq!(coalesce(&items, 1000, 20).len(), 3, "a range has its limit");
    }

    #[test]
    fn thirty_two_sealed_chunks_are_two_requests() {
        let length = (256 << 10) + 40;
        let items: Vec<Range<u64>> = (0..32).map(|i| i * length..(i + 1) * length).collect();
        assert_eq!(coalesce(&items, MAX_GAP_BYTES, MAX_RANGE_BYTES).len(), 2);
    }

    proptest! {
        #[test]
        fn every_item_is_in_its_range_and_none_is_left_out(
            mut items in proptest::collection::vec((0u64..5000, 1u64..300), 0..60), gap in 0u64..200, max in 1u64..2000,
        ) {
            items.sort();
            let items: Vec<Range<u64>> = items.iter().map(|(start, length)| *start..start + length).collect();
            let groups = coalesce(&items, gap, max);
            let covered: Vec<usize> = groups.iter().flat_map(|g| g.items.clone()).collect();
            prop_assert_eq!(covered, (0..items.len()).collect::<Vec<_>>());
            for group in groups {
                prop_assert!(group.items.len() == 1 || group.bytes.end - group.bytes.start <= max);
                for i in group.items.clone() {
                    prop_assert!(items[i].start >= group.bytes.start && items[i].end <= group.bytes.end);
                }
            }
        }
    }
}
