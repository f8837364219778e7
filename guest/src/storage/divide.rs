//! All disks of a guest into volumes.

use std::sync::Arc;

use virtual_disk::{DiskError, DiskReader};

use super::table::{Entry, Table, is_zero};
use super::window::Window;
use super::{
    BootCode, Content, DiskLayout, NamedDisk, Storage, TableKind, Volume, VolumeReader, boot_code,
    lvm, probe, table,
};

/// Reads partition tables, LVM2 metadata and signatures. What cannot be read is a fault in words, never an error: the
/// other disks still tell what they hold.
pub fn divide(disks: &[NamedDisk]) -> Storage {
    let mut storage = Storage::default();
    for disk in disks {
        match divide_disk(disk, &mut storage) {
            Ok(layout) => storage.disks.push(layout),
            Err(why) => {
                storage
                    .faults
                    .push(format!("disk {} is not read: {why}", disk.name));
                storage.disks.push(DiskLayout {
                    disk: disk.name.clone(),
                    size_bytes: disk.reader.size_bytes(),
                    table: TableKind::None,
                    has_boot_code: false,
                    boot_code: BootCode::None,
                    backup_gpt_read: false,
                    faults: vec![why.to_string()],
                });
            }
        }
    }
    let mut faults = Vec::new();
    for volume in lvm::assemble(&storage.volumes, &mut faults) {
        let place = format!("{}/{}", volume.group, volume.name);
        let mut found = Volume {
            disk: volume.disk,
            size_bytes: volume.size_bytes,
            lvm: Some((volume.group, volume.name)),
            ..unknown_volume(&place)
        };
        if let Some(reader) = volume.reader {
            recognise(&mut found, reader, &mut faults);
        }
        storage.volumes.push(found);
    }
    storage.faults.append(&mut faults);
    storage
}

fn unknown_volume(place: &str) -> Volume {
    Volume {
        place: place.to_owned(),
        disk: String::new(),
        number: None,
        size_bytes: 0,
        content: Content::Unknown,
        uuid: None,
        label: None,
        part_uuid: None,
        part_label: None,
        part_type: None,
        bootable: false,
        lvm: None,
        reader: None,
    }
}

/// Probes what `reader` holds and gives it to the volume.
fn recognise(volume: &mut Volume, reader: Arc<dyn DiskReader>, faults: &mut Vec<String>) {
    match probe::probe(&*reader) {
        Ok(signature) => {
            volume.content = signature.content;
            volume.uuid = signature.uuid;
            volume.label = signature.label;
        }
        Err(why) => faults.push(format!("{} is not read: {why}", volume.place)),
    }
    volume.reader = Some(VolumeReader(reader));
}

fn divide_disk(disk: &NamedDisk, storage: &mut Storage) -> Result<DiskLayout, DiskError> {
    let size = disk.reader.size_bytes();
    let mut first_sector = [0u8; 512];
    let there = size.min(512) as usize;
    disk.reader.read_at(0, &mut first_sector[..there])?;

    let mut whole = Volume {
        disk: disk.name.clone(),
        size_bytes: size,
        ..unknown_volume(&disk.name)
    };
    let mut faults = Vec::new();
    recognise(&mut whole, disk.reader.clone(), &mut faults);
    // Signatures that leave the first sector to a table, as those of ext and RAID at the end do, do not speak against one.
    let is_boot_sector = matches!(
        whole.content,
        Content::Fat | Content::Ntfs | Content::BitLocker | Content::Xfs | Content::Luks
    );
    let table = table::read(&*disk.reader, &first_sector, is_boot_sector)?;
    let Table {
        kind,
        entries,
        from_backup,
        faults: table_faults,
    } = table;
    if kind == TableKind::None {
        storage.faults.append(&mut faults);
        storage.volumes.push(whole);
    } else {
        for entry in entries {
            storage
                .volumes
                .push(partition(disk, entry, &mut storage.faults));
        }
    }
    Ok(DiskLayout {
        disk: disk.name.clone(),
        size_bytes: size,
        table: kind,
        has_boot_code: !is_zero(&first_sector[..440]),
        boot_code: boot_code::read(&*disk.reader, &first_sector)?,
        backup_gpt_read: from_backup,
        faults: table_faults,
    })
}

fn partition(disk: &NamedDisk, entry: Entry, faults: &mut Vec<String>) -> Volume {
    let place = format!("{}:{}", disk.name, entry.number);
    let window = entry
        .start
        .zip(entry.length)
        .and_then(|(start, length)| Window::new(&place, disk.reader.clone(), start, length));
    let mut volume = Volume {
        disk: disk.name.clone(),
        number: Some(entry.number),
        size_bytes: entry.length.unwrap_or(0),
        part_uuid: entry.part_uuid,
        part_label: entry.part_label,
        part_type: Some(entry.part_type),
        bootable: entry.bootable,
        ..unknown_volume(&place)
    };
    // A partition behind the end has been told as a fault of its table.
    if let Some(window) = window {
        recognise(&mut volume, Arc::new(window), faults);
    }
    volume
}
