//! One LVM2 physical volume: its label, and the metadata text if it holds one.

use std::sync::Arc;

use virtual_disk::{DiskError, DiskReader};

use super::super::bytes::Bytes;
use super::super::checksum::lvm_crc;
use super::dashed_lvm_uuid;

const METADATA_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
/// A metadata area's header takes one sector, and the text's ring begins behind it.
const HEADER_BYTES: u64 = 512;
/// The text of a group with 1,000 logical volumes has less than 1 MiB.
const MAX_TEXT_BYTES: u64 = 16 << 20;
/// A label has two metadata areas at most, and one data area.
const MAX_AREAS: usize = 16;

/// A physical volume that was found.
pub(crate) struct PhysicalVolume {
    pub place: String,
    pub disk: String,
    pub uuid: String,
    pub reader: Arc<dyn DiskReader>,
    /// The text of the newest valid metadata area.
    pub metadata: Option<String>,
    pub faults: Vec<String>,
}

impl PhysicalVolume {
    pub(super) fn read(
        place: &str,
        disk: &str,
        reader: Arc<dyn DiskReader>,
    ) -> Result<Self, String> {
        let label = read_label(&*reader)?;
        let mut faults = Vec::new();
        let mut metadata = None;
        for (start, size) in label.metadata_areas {
            match read_area(&*reader, start, size) {
                Ok(None) => {}
                Ok(Some(text)) => {
                    metadata = Some(text);
                    break;
                }
                Err(why) => faults.push(format!("{place} (LVM2 metadata area): {why}")),
            }
        }
        Ok(Self {
            place: place.to_owned(),
            disk: disk.to_owned(),
            uuid: label.uuid,
            reader,
            metadata,
            faults,
        })
    }
}

struct Label {
    uuid: String,
    metadata_areas: Vec<(u64, u64)>,
}

fn read_label(reader: &dyn DiskReader) -> Result<Label, String> {
    let mut head = vec![0u8; reader.size_bytes().min(4 * 512) as usize];
    reader.read_at(0, &mut head).map_err(in_words)?;
    let label = head
        .chunks_exact(512)
        .find(|sector| sector.has(0, b"LABELONE"))
        .ok_or("it has no label")?;
    // The sum covers all that follows it in the sector.
    if label.le32(16) != label.get(20..).map(lvm_crc) {
        return Err("the checksum of its label is wrong".to_owned());
    }
    parse_label(label).ok_or_else(|| "its label is cut off".to_owned())
}

/// pv_header: UUID, size, data areas up to an empty one, metadata areas up to an empty one.
fn parse_label(label: &[u8]) -> Option<Label> {
    let header = label.get(label.le32(20)? as usize..)?;
    let uuid = dashed_lvm_uuid(header.part(0, 32)?)?;
    let mut at = 40;
    let mut areas = || -> Option<Vec<(u64, u64)>> {
        let mut found = Vec::new();
        loop {
            let (start, size) = (header.le64(at)?, header.le64(at + 8)?);
            at += 16;
            if start == 0 {
                return Some(found);
            }
            if found.len() == MAX_AREAS {
                return None;
            }
            found.push((start, size));
        }
    };
    areas()?;
    Some(Label {
        uuid,
        metadata_areas: areas()?,
    })
}

/// `Ok(None)` when the area holds no text, or is to be ignored.
fn read_area(reader: &dyn DiskReader, start: u64, size: u64) -> Result<Option<String>, String> {
    let mut header = [0u8; HEADER_BYTES as usize];
    let end = start.checked_add(size);
    if size <= HEADER_BYTES || end.is_none_or(|end| end > reader.size_bytes()) {
        return Err("it lies behind the volume's end".to_owned());
    }
    reader.read_at(start, &mut header).map_err(in_words)?;
    if !header.has(4, METADATA_MAGIC) || header.le32(0) != header.get(4..).map(lvm_crc) {
        return Err("the checksum of its header is wrong".to_owned());
    }
    // mda_header: checksum, magic, version, start, size; then the places of the text, of which the first counts.
    let location = || {
        Some((
            header.le64(40)?,
            header.le64(48)?,
            header.le32(56)?,
            header.le32(60)?,
        ))
    };
    let Some((offset, length, checksum, flags)) = location() else {
        return Ok(None);
    };
    // Flag 1: RAW_LOCN_IGNORED.
    if offset == 0 || length == 0 || flags & 1 != 0 {
        return Ok(None);
    }
    if offset < HEADER_BYTES
        || offset >= size
        || length > MAX_TEXT_BYTES
        || length > size - HEADER_BYTES
    {
        return Err(format!(
            "its text of {length} bytes at {offset} does not fit into it"
        ));
    }
    let mut text = vec![0u8; length as usize];
    let first = length.min(size - offset) as usize;
    let (until_end, wrapped) = text.split_at_mut(first);
    reader
        .read_at(start + offset, until_end)
        .and_then(|()| reader.read_at(start + HEADER_BYTES, wrapped))
        .map_err(in_words)?;
    if lvm_crc(&text) != checksum {
        return Err("the checksum of its text is wrong".to_owned());
    }
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

fn in_words(error: DiskError) -> String {
    error.to_string()
}
