//! LVM2: physical volumes, the newest metadata of each volume group, and its logical volumes.
//!
//! On-disk format: lvm2, libdm and lib/format_text/layout.h; the text as `vgcfgbackup` writes it.

mod group;
mod physical;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use virtual_disk::DiskReader;

use super::{Content, Volume};

pub(super) use physical::PhysicalVolume;

/// A logical volume that a guest would see.
pub(super) struct LogicalVolume {
    pub group: String,
    pub name: String,
    pub size_bytes: u64,
    /// The disk that holds its first byte; where that is not known, one of its group's.
    pub disk: String,
    /// None for thin, RAID and cache volumes, and where a physical volume is missing.
    pub reader: Option<Arc<dyn DiskReader>>,
}

/// Logical volumes of all groups whose physical volumes lie among `volumes`, and what is wrong with them.
pub(super) fn assemble(volumes: &[Volume], faults: &mut Vec<String>) -> Vec<LogicalVolume> {
    let mut physical = Vec::new();
    for volume in volumes {
        if volume.content != Content::LvmPhysicalVolume {
            continue;
        }
        let Some(reader) = &volume.reader else {
            continue;
        };
        match PhysicalVolume::read(&volume.place, &volume.disk, reader.0.clone()) {
            Ok(found) => {
                faults.extend(found.faults.iter().cloned());
                physical.push(found);
            }
            Err(why) => faults.push(format!("{} (LVM2 physical volume): {why}", volume.place)),
        }
    }
    // Each physical volume may hold the group's metadata, of different age where one was away for a time.
    let mut groups: BTreeMap<String, group::Group> = BTreeMap::new();
    for volume in &physical {
        let Some(text) = &volume.metadata else {
            continue;
        };
        match group::Group::parse(text) {
            Ok(group) => match groups.get(&group.id) {
                Some(known) if known.sequence >= group.sequence => {}
                _ => {
                    groups.insert(group.id.clone(), group);
                }
            },
            Err(why) => faults.push(format!("{} (LVM2 metadata): {why}", volume.place)),
        }
    }
    for volume in &physical {
        if !groups.values().any(|group| group.names(&volume.uuid)) {
            faults.push(format!(
                "{} is an LVM2 physical volume of no volume group whose metadata was found",
                volume.place
            ));
        }
    }
    groups
        .values()
        .flat_map(|group| group.volumes(&physical, faults))
        .collect()
}

/// 32 characters as LVM2 prints them, in groups of 6-4-4-4-4-4-6; `None` when they are no such UUID.
pub(super) fn dashed_lvm_uuid(bytes: &[u8]) -> Option<String> {
    if bytes.len() != 32 || !bytes.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let mut text = String::with_capacity(38);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 6 | 10 | 14 | 18 | 22 | 26) {
            text.push('-');
        }
        text.push(char::from(*byte));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_grouped_as_lvm_prints_them() {
        assert_eq!(
            dashed_lvm_uuid(b"abcdefghijklmnopqrstuvwxyz012345").as_deref(),
            Some("abcdef-ghij-klmn-opqr-stuv-wxyz-012345")
        );
        assert_eq!(dashed_lvm_uuid(&[0; 32]), None);
    }
}
