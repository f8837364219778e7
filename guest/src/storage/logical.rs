//! A logical volume: segments one after another, each linear or striped over parts of several disks.

use std::ops::Range;
use std::sync::Arc;

use virtual_disk::{DiskError, DiskReader};

use super::window::check_range;

/// A stretch of a logical volume.
pub(crate) struct Segment {
    /// Bytes of the logical volume that it covers.
    pub length: u64,
    /// Bytes that go to one stripe before the next; of no meaning with one stripe, but never 0.
    pub stripe_bytes: u64,
    /// Disk and byte where each stripe begins; at least one.
    pub stripes: Vec<(Arc<dyn DiskReader>, u64)>,
}

impl Segment {
    /// Where byte `within` of this segment lies, and how many bytes follow there without a break.
    fn locate(&self, within: u64) -> Option<(&Arc<dyn DiskReader>, u64, u64)> {
        let count = self.stripes.len() as u64;
        let left = self.length.checked_sub(within)?;
        if count == 1 {
            let (disk, start) = self.stripes.first()?;
            return Some((disk, start.checked_add(within)?, left));
        }
        let stripe = within.checked_div(self.stripe_bytes)?;
        let in_stripe = within % self.stripe_bytes;
        let (disk, start) = self
            .stripes
            .get(usize::try_from(stripe.checked_rem(count)?).ok()?)?;
        let row = (stripe / count).checked_mul(self.stripe_bytes)?;
        Some((
            disk,
            start.checked_add(row)?.checked_add(in_stripe)?,
            left.min(self.stripe_bytes - in_stripe),
        ))
    }
}

/// Reads segments as one disk.
pub(crate) struct LogicalDisk {
    name: String,
    /// Each with the byte where it begins, in order, without gaps.
    segments: Vec<(u64, Segment)>,
    length: u64,
}

impl LogicalDisk {
    /// `None` when a segment has no stripe or a stripe size of 0, or the sum is larger than 64 bits.
    pub(crate) fn new(name: &str, segments: Vec<Segment>) -> Option<Self> {
        let mut length = 0u64;
        let mut placed = Vec::with_capacity(segments.len());
        for segment in segments {
            if segment.stripes.is_empty() || segment.stripe_bytes == 0 {
                return None;
            }
            let start = length;
            length = length.checked_add(segment.length)?;
            placed.push((start, segment));
        }
        Some(Self {
            name: name.to_owned(),
            segments: placed,
            length,
        })
    }

    /// The segment that holds `offset`, and the offset within it.
    fn segment(&self, offset: u64) -> Option<(&Segment, u64)> {
        let after = self.segments.partition_point(|(start, _)| *start <= offset);
        // Empty segments begin where the next one does: the last that begins at or before is the one that holds.
        let (start, segment) = self.segments.get(after.checked_sub(1)?)?;
        Some((segment, offset - start))
    }

    fn outside(&self, offset: u64, length: usize) -> DiskError {
        DiskError::OutOfRange {
            disk: self.name.clone(),
            offset,
            length: length as u64,
            size_bytes: self.length,
        }
    }
}

impl DiskReader for LogicalDisk {
    fn size_bytes(&self) -> u64 {
        self.length
    }

    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), DiskError> {
        check_range(&self.name, offset, buf.len(), self.length)?;
        while !buf.is_empty() {
            let (disk, at, together) = self
                .segment(offset)
                .and_then(|(segment, within)| segment.locate(within))
                .filter(|(_, _, together)| *together > 0)
                .ok_or_else(|| self.outside(offset, buf.len()))?;
            let length = usize::try_from(together).map_or(buf.len(), |t| t.min(buf.len()));
            let (now, later) = buf.split_at_mut(length);
            disk.read_at(at, now)?;
            buf = later;
            offset += length as u64;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        let mut offset = offset;
        while offset < self.length {
            let Some((segment, within)) = self.segment(offset) else {
                return Ok(None);
            };
            let end = offset - within + segment.length;
            let [(disk, start)] = segment.stripes.as_slice() else {
                // More than there is may be said: what is striped is called data as a whole.
                return Ok(Some(offset..end));
            };
            let Some(from) = start.checked_add(within) else {
                return Ok(None);
            };
            let found = disk
                .next_data(from)?
                .filter(|range| range.start - from < end - offset);
            if let Some(range) = found {
                let begin = offset + (range.start - from);
                return Ok(Some(begin..end.min(begin + (range.end - range.start))));
            }
            offset = end;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::memory::MemoryDisk;
    use super::*;

    fn disk(bytes: Range<u8>) -> Arc<dyn DiskReader> {
        Arc::new(MemoryDisk(bytes.collect()))
    }

    #[test]
    fn segments_follow_each_other_over_disks() {
        let (first, second) = (disk(0..100), disk(100..200));
        let volume = LogicalDisk::new(
            "vg/lv",
            vec![
                Segment {
                    length: 10,
                    stripe_bytes: 1,
                    stripes: vec![(first.clone(), 50)],
                },
                Segment {
                    length: 12,
                    stripe_bytes: 2,
                    stripes: vec![(first, 0), (second.clone(), 10)],
                },
                Segment {
                    length: 5,
                    stripe_bytes: 1,
                    stripes: vec![(second, 95)],
                },
            ],
        )
        .unwrap();
        assert_eq!(volume.size_bytes(), 27);
        let mut buf = [0; 27];
        volume.read_at(0, &mut buf).unwrap();
        let expected = [
            50, 51, 52, 53, 54, 55, 56, 57, 58, 59, // linear
            0, 1, 110, 111, 2, 3, 112, 113, 4, 5, 114, 115, // striped
            195, 196, 197, 198, 199, // linear on the second disk
        ];
        assert_eq!(buf, expected);
        let mut part = [0; 4];
        volume.read_at(13, &mut part).unwrap();
        assert_eq!(part, [111, 2, 3, 112]);
        assert!(volume.read_at(24, &mut part).is_err());
        assert_eq!(volume.next_data(3).unwrap(), Some(3..10));
        assert_eq!(volume.next_data(11).unwrap(), Some(11..22));
        assert_eq!(volume.next_data(27).unwrap(), None);
    }

    #[test]
    fn a_segment_without_stripes_is_no_volume() {
        let segment = Segment {
            length: 1,
            stripe_bytes: 1,
            stripes: vec![],
        };
        assert!(LogicalDisk::new("vg/lv", vec![segment]).is_none());
    }
}
