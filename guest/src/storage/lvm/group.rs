//! A volume group as its metadata tells it, and its logical volumes over the physical volumes that are there.

use std::sync::Arc;

use virtual_disk::DiskReader;

use super::super::logical::{LogicalDisk, Segment};
use super::super::window::Window;
use super::text::{self, Section, Value};
use super::{LogicalVolume, PhysicalVolume};

const SECTOR: u64 = 512;
/// LVM2 itself has no limit; a volume of more pieces than this is damage.
const MAX_SEGMENTS: u64 = 65_536;

/// One group's metadata.
pub(super) struct Group {
    pub id: String,
    pub sequence: u64,
    name: String,
    extent_bytes: u64,
    root: Section,
}

impl Group {
    pub(super) fn parse(metadata: &str) -> Result<Self, String> {
        let root = text::parse(metadata)?;
        let (name, group) = root
            .sections()
            .find(|(_, section)| section.section("physical_volumes").is_some())
            .ok_or("it names no volume group")?;
        let extent_bytes = group
            .number("extent_size")
            .and_then(|sectors| sectors.checked_mul(SECTOR))
            .filter(|bytes| *bytes > 0)
            .ok_or("its extent size is missing")?;
        Ok(Self {
            id: group.text("id").ok_or("its id is missing")?.to_owned(),
            sequence: group.number("seqno").unwrap_or(0),
            name: name.to_owned(),
            extent_bytes,
            root,
        })
    }

    fn section(&self, name: &str) -> Option<&Section> {
        self.root.section(&self.name)?.section(name)
    }

    /// Whether a physical volume belongs to this group.
    pub(super) fn names(&self, uuid: &str) -> bool {
        self.section("physical_volumes").is_some_and(|volumes| {
            volumes
                .sections()
                .any(|(_, volume)| volume.text("id") == Some(uuid))
        })
    }

    /// The visible logical volumes. What hides beneath (images, pools, logs) is part of those.
    pub(super) fn volumes(
        &self,
        found: &[PhysicalVolume],
        faults: &mut Vec<String>,
    ) -> Vec<LogicalVolume> {
        for (name, volume) in self
            .section("physical_volumes")
            .into_iter()
            .flat_map(Section::sections)
        {
            let id = volume.text("id").unwrap_or_default();
            if !found.iter().any(|there| there.uuid == id) {
                let device = volume.text("device").unwrap_or("unknown");
                faults.push(format!(
                    "volume group {} lacks its physical volume {name} ({id}, last seen as {device})",
                    self.name
                ));
            }
        }
        self.section("logical_volumes")
            .into_iter()
            .flat_map(Section::sections)
            .filter(|(_, volume)| is_visible(volume) && !is_pool(volume))
            .map(|(name, volume)| self.volume(name, volume, found, faults))
            .collect()
    }

    fn volume(
        &self,
        name: &str,
        volume: &Section,
        found: &[PhysicalVolume],
        faults: &mut Vec<String>,
    ) -> LogicalVolume {
        let place = format!("{}/{name}", self.name);
        let size_bytes = self.size(volume).unwrap_or(0);
        let (disk, reader) = match self.reader(&place, volume, found) {
            Ok((disk, reader)) => (disk, Some(reader)),
            Err(why) => {
                faults.push(format!("logical volume {place} is not read: {why}"));
                let first = found.iter().find(|physical| self.names(&physical.uuid));
                (
                    first.map_or_else(String::new, |physical| physical.disk.clone()),
                    None,
                )
            }
        };
        LogicalVolume {
            group: self.name.clone(),
            name: name.to_owned(),
            size_bytes,
            disk,
            reader,
        }
    }

    fn size(&self, volume: &Section) -> Option<u64> {
        segments(volume)
            .ok()?
            .iter()
            .try_fold(0u64, |sum, segment| {
                sum.checked_add(segment.number("extent_count")?)
            })?
            .checked_mul(self.extent_bytes)
    }

    fn reader(
        &self,
        place: &str,
        volume: &Section,
        found: &[PhysicalVolume],
    ) -> Result<(String, Arc<dyn DiskReader>), String> {
        let mut disk = None;
        let mut parts = Vec::new();
        let mut next_extent = 0;
        for segment in segments(volume)? {
            let kind = segment.text("type").unwrap_or("unknown");
            if !matches!(kind, "striped" | "linear") {
                return Err(format!("it is of type {kind}"));
            }
            if segment.number("start_extent") != Some(next_extent) {
                return Err("its segments do not follow each other".to_owned());
            }
            let count = segment
                .number("extent_count")
                .ok_or("a segment has no size")?;
            next_extent = count
                .checked_add(next_extent)
                .ok_or("a segment has too many extents")?;
            parts.push(self.segment(segment, count, found, &mut disk)?);
        }
        let disk = disk.ok_or("it has no segment")?;
        let reader = LogicalDisk::new(place, parts).ok_or("its segments make no sense")?;
        Ok((disk, Arc::new(reader)))
    }

    fn segment(
        &self,
        segment: &Section,
        extents: u64,
        found: &[PhysicalVolume],
        disk: &mut Option<String>,
    ) -> Result<Segment, String> {
        let stripes = segment.list("stripes").ok_or("a segment has no stripes")?;
        let count = stripes.len() as u64 / 2;
        if count == 0 || stripes.len() % 2 != 0 || !extents.is_multiple_of(count) {
            return Err("a segment's stripes make no sense".to_owned());
        }
        let too_large = || "a segment lies behind the end of a physical volume".to_owned();
        let length = extents
            .checked_mul(self.extent_bytes)
            .ok_or_else(too_large)?;
        let mut readers: Vec<(Arc<dyn DiskReader>, u64)> = Vec::new();
        for pair in stripes.chunks_exact(2) {
            let [Value::Text(name), Value::Number(extent)] = pair else {
                return Err("a segment's stripes make no sense".to_owned());
            };
            let (physical, start) = self.physical(name, found)?;
            let start = extent
                .checked_mul(self.extent_bytes)
                .and_then(|bytes| bytes.checked_add(start))
                .ok_or_else(too_large)?;
            // The window refuses what lies behind the end before anything is read.
            let part = Window::new(
                &physical.place,
                physical.reader.clone(),
                start,
                length / count,
            )
            .ok_or_else(too_large)?;
            disk.get_or_insert_with(|| physical.disk.clone());
            readers.push((Arc::new(part), 0));
        }
        let stripe_bytes = match segment.number("stripe_size") {
            Some(sectors) if count > 1 => sectors.checked_mul(SECTOR).filter(|bytes| *bytes > 0),
            _ if count == 1 => Some(SECTOR),
            _ => None,
        };
        Ok(Segment {
            length,
            stripe_bytes: stripe_bytes.ok_or("a striped segment has no stripe size")?,
            stripes: readers,
        })
    }

    /// The physical volume that the metadata calls `name`, and the byte where its first extent begins.
    fn physical<'a>(
        &self,
        name: &str,
        found: &'a [PhysicalVolume],
    ) -> Result<(&'a PhysicalVolume, u64), String> {
        let volume = self
            .section("physical_volumes")
            .and_then(|volumes| volumes.section(name))
            .ok_or_else(|| format!("it lies on {name}, which its group does not name"))?;
        let id = volume.text("id").unwrap_or_default();
        let physical = found
            .iter()
            .find(|there| there.uuid == id)
            .ok_or_else(|| format!("its physical volume {name} ({id}) is missing"))?;
        let start = volume
            .number("pe_start")
            .and_then(|sectors| sectors.checked_mul(SECTOR))
            .ok_or_else(|| format!("{name} does not say where its extents begin"))?;
        Ok((physical, start))
    }
}

fn is_visible(volume: &Section) -> bool {
    volume
        .list("status")
        .is_some_and(|status| status.contains(&Value::Text("VISIBLE".to_owned())))
}

/// Pools hold volumes and no file system of their own.
fn is_pool(volume: &Section) -> bool {
    volume
        .section("segment1")
        .and_then(|segment| segment.text("type"))
        .is_some_and(|kind| matches!(kind, "thin-pool" | "cache-pool" | "vdo-pool"))
}

fn segments(volume: &Section) -> Result<Vec<&Section>, String> {
    let count = volume
        .number("segment_count")
        .filter(|count| *count <= MAX_SEGMENTS)
        .ok_or("its number of segments makes no sense")?;
    (1..=count)
        .map(|number| {
            volume
                .section(&format!("segment{number}"))
                .ok_or_else(|| format!("segment {number} is missing"))
        })
        .collect()
}
