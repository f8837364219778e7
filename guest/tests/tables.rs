//! Partition tables as `sfdisk` writes them, damaged in all the ways that disks come in.

mod images;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use guest_inspection::storage::{BootCode, Content, NamedDisk, TableKind, divide};
use images::{blank, blkid, divided, fed, has, named, run};
use virtual_disk::{DiskError, DiskReader};

const SIZE: u64 = 64 << 20;

fn partitioned(folder: &Path, script: &str) -> PathBuf {
    let image = folder.join("image");
    blank(&image, SIZE);
    fed("sfdisk", &[&"--quiet", &image], script);
    image
}

const GPT: &str = "label: gpt\n\
    label-id: 7D444840-9DC0-11D1-B245-5FFDCE74FAD2\n\
    start=2048, size=16384, type=uefi, uuid=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=\"EFI System\"\n\
    start=20480, size=4096, type=21686148-6449-6E6F-744E-656564454649, attrs=LegacyBIOSBootable\n\
    start=40960, size=65536, type=linux\n";

#[test]
fn a_gpt_and_its_backup() {
    if !has("sfdisk", "fdisk") || !has("mke2fs", "e2fsprogs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = partitioned(folder.path(), GPT);
    let part = folder.path().join("part");
    blank(&part, 65536 * 512);
    run("mke2fs", &[&"-q", &"-F", &"-L", &"root", &part]);
    let mut bytes = std::fs::read(&image).unwrap();
    let file_system = std::fs::read(&part).unwrap();
    bytes[40960 * 512..][..file_system.len()].copy_from_slice(&file_system);

    let check = |bytes: &[u8], faults: &[&str]| {
        let storage = divided(bytes.to_vec());
        let layout = &storage.disks[0];
        assert_eq!(layout.table, TableKind::Gpt);
        assert_eq!(layout.faults.len(), faults.len(), "{:?}", layout.faults);
        for (found, expected) in layout.faults.iter().zip(faults) {
            assert!(found.contains(expected), "{found}: {expected}");
        }
        let [esp, bios, root] = storage.volumes.as_slice() else {
            panic!("{:?}", storage.volumes);
        };
        assert_eq!((esp.place.as_str(), esp.number), ("sda:1", Some(1)));
        assert_eq!(esp.size_bytes, 16384 * 512);
        assert_eq!(
            esp.part_type.as_deref(),
            Some("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
        );
        assert_eq!(
            esp.part_uuid.as_deref(),
            Some("0fc63daf-8483-4772-8e79-3d69d8477de4")
        );
        assert_eq!(esp.part_label.as_deref(), Some("EFI System"));
        assert!(!esp.bootable && bios.bootable);
        assert_eq!(root.content, Content::Ext);
        assert_eq!(root.label.as_deref(), Some("root"));
        assert_eq!(root.uuid.as_ref(), blkid(&part).get("UUID"));
    };
    check(&bytes, &[]);
    let layout = divided(bytes.clone()).disks.remove(0);
    assert_eq!(
        (layout.has_boot_code, layout.boot_code),
        (false, BootCode::None)
    );

    let end = bytes.len();
    let mut damaged = bytes.clone();
    damaged[512 + 60] ^= 1;
    check(&damaged, &["checksum", "backup"]);
    // Entries of the first table, which its header's sum covers.
    let mut damaged = bytes.clone();
    damaged[1024 + 40] ^= 1;
    check(&damaged, &["checksum of its entries", "backup"]);
    let mut damaged = bytes.clone();
    damaged[512..1024].fill(0);
    check(&damaged, &["missing", "backup"]);
    let mut damaged = bytes.clone();
    damaged[end - 512..].fill(0);
    check(&damaged, &["backup GPT is missing"]);
    let mut damaged = bytes.clone();
    damaged[..512].fill(0);
    check(&damaged, &["protective MBR is missing"]);
    let mut grown = bytes.clone();
    grown.resize(end + (1 << 20), 0);
    check(&grown, &["not at the disk's end"]);

    // Cut off behind the first partition.
    let storage = divided(bytes[..20480 * 512].to_vec());
    let faults = storage.disks[0].faults.join("; ");
    assert!(
        faults.contains("shorter") && faults.contains("partition 3 reaches behind"),
        "{faults}"
    );
    assert!(storage.volumes[0].reader.is_some() && storage.volumes[2].reader.is_none());

    // Nothing left of it but the protective entry.
    let mut gone = bytes.clone();
    gone[512..1024].fill(0);
    gone[end - 512..].fill(0);
    let storage = divided(gone);
    assert_eq!(storage.disks[0].table, TableKind::Gpt);
    assert!(storage.volumes.is_empty() && storage.disks[0].faults.len() == 1);
}

#[test]
fn a_gpt_of_large_sectors() {
    if !has("sfdisk", "fdisk") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    blank(&image, SIZE);
    let commands = "g\nn\n1\n256\n+1023\nn\n2\n2048\n+1023\nw\n";
    fed("fdisk", &[&"-b", &"4096", &image], commands);
    let storage = divided(std::fs::read(&image).unwrap());
    assert_eq!(storage.disks[0].table, TableKind::Gpt);
    assert_eq!(storage.disks[0].faults, Vec::<String>::new());
    let sizes: Vec<_> = storage.volumes.iter().map(|v| v.size_bytes).collect();
    assert_eq!(sizes, [1024 * 4096, 1024 * 4096]);
}

#[test]
fn an_mbr_with_logical_partitions() {
    if !has("sfdisk", "fdisk") || !has("mkswap", "util-linux") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "label: dos\nlabel-id: 0xcafe0123\n\
        start=2048, size=16384, type=83, bootable\n\
        start=20480, size=100000, type=5\n\
        start=22528, size=8192, type=82\n\
        start=34816, size=8192, type=83\n\
        start=49152, size=8192, type=8e\n";
    let image = partitioned(folder.path(), script);
    let part = folder.path().join("part");
    blank(&part, 8192 * 512);
    run("mkswap", &[&"-L", &"swap0", &part]);
    let mut bytes = std::fs::read(&image).unwrap();
    let swap = std::fs::read(&part).unwrap();
    bytes[22528 * 512..][..swap.len()].copy_from_slice(&swap);

    let storage = divided(bytes.clone());
    let layout = &storage.disks[0];
    assert_eq!(layout.table, TableKind::Mbr);
    assert_eq!(layout.faults, Vec::<String>::new());
    let numbers: Vec<_> = storage.volumes.iter().filter_map(|v| v.number).collect();
    assert_eq!(numbers, [1, 5, 6, 7]);
    let boot = &storage.volumes[0];
    assert!(boot.bootable && !storage.volumes[1].bootable);
    assert_eq!(boot.part_type.as_deref(), Some("0x83"));
    assert_eq!(boot.part_uuid.as_deref(), Some("cafe0123-01"));
    let swap = &storage.volumes[1];
    assert_eq!(swap.content, Content::Swap);
    assert_eq!(swap.label.as_deref(), Some("swap0"));
    assert_eq!(swap.uuid.as_ref(), blkid(&part).get("UUID"));
    assert_eq!(storage.volumes[3].part_type.as_deref(), Some("0x8e"));
    assert_eq!(storage.volumes[3].part_uuid.as_deref(), Some("cafe0123-07"));

    // A chain that leads back to its beginning.
    let mut looped = bytes.clone();
    let second = (0..bytes.len())
        .step_by(512)
        .find(|&at| at > 20480 * 512 && bytes[at + 510..].starts_with(&[0x55, 0xaa]))
        .expect("a second extended boot record");
    looped[second + 446 + 16 + 8..][..4].fill(0);
    let storage = divided(looped);
    assert!(
        storage.disks[0]
            .faults
            .iter()
            .any(|fault| fault.contains("does not end")),
        "{:?}",
        storage.disks[0].faults
    );
    assert!(storage.volumes.len() >= 3);
}

#[test]
fn overlapping_and_hybrid_tables_are_told() {
    if !has("sfdisk", "fdisk") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = partitioned(folder.path(), GPT);
    let mut bytes = std::fs::read(&image).unwrap();
    // A second entry beside the protective one.
    bytes[446 + 16..446 + 32]
        .copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
    let storage = divided(bytes);
    assert_eq!(storage.disks[0].table, TableKind::Gpt);
    assert!(storage.disks[0].faults[0].contains("hybrid"));

    let mut sector = vec![0u8; 1 << 20];
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (slot, first) in [(0, 8u32), (1, 100)] {
        let at = 446 + 16 * slot;
        sector[at + 4] = 0x83;
        sector[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&200u32.to_le_bytes());
    }
    let storage = divided(sector);
    assert_eq!(storage.disks[0].faults, ["partitions 1 and 2 overlap"]);
}

#[test]
fn a_file_system_without_a_table_is_a_volume() {
    if !has("mformat", "mtools") || !has("mke2fs", "e2fsprogs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (program, arguments, content) in [
        (
            "mformat",
            &["-i", "IMAGE", "-T", "131072", "-h", "64", "-s", "32", "::"][..],
            Content::Fat,
        ),
        ("mke2fs", &["-q", "-F", "IMAGE"], Content::Ext),
    ] {
        let image = folder.path().join(program);
        blank(&image, SIZE);
        let path = image.display().to_string();
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = Vec::new();
        for argument in arguments {
            all.push(if *argument == "IMAGE" {
                &path
            } else {
                argument
            });
        }
        run(program, &all);
        let storage = divided(std::fs::read(&image).unwrap());
        assert_eq!(storage.disks[0].table, TableKind::None, "{program}");
        let [volume] = storage.volumes.as_slice() else {
            panic!("{program}: {:?}", storage.volumes);
        };
        assert_eq!((volume.place.as_str(), volume.content), ("sda", content));
        assert_eq!(volume.number, None);
    }
}

#[test]
fn boot_code_of_grub() {
    let path = "/usr/lib/grub/i386-pc/boot.img";
    let Ok(code) = std::fs::read(path) else {
        testkit::skip("grub-pc-bin");
        return;
    };
    let mut disk = vec![0u8; 1 << 20];
    disk[..440].copy_from_slice(&code[..440]);
    // boot.img comes with its core at sector 1, where grub-install puts it on a disk with an MBR.
    let grub = |core_present| BootCode::Grub {
        core_sector: 1,
        core_present,
    };
    let layout = divided(disk.clone()).disks.remove(0);
    assert_eq!(
        (layout.has_boot_code, layout.boot_code),
        (true, grub(false))
    );
    disk[512] = 0x52;
    let layout = divided(disk).disks.remove(0);
    assert_eq!(layout.boot_code, grub(true));
    let printed = serde_json::to_value(&layout).unwrap();
    assert_eq!(printed["boot_code"]["kind"], "grub");
    assert_eq!(printed["boot_code"]["core_present"], true);
}

/// A disk whose medium fails.
struct Failing;

impl DiskReader for Failing {
    fn size_bytes(&self) -> u64 {
        1 << 30
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), DiskError> {
        Err(DiskError::Size {
            path: "sda".into(),
            reason: "the medium fails".into(),
        })
    }
    fn next_data(&self, _: u64) -> Result<Option<std::ops::Range<u64>>, DiskError> {
        Ok(None)
    }
}

#[test]
fn tiny_disks_and_those_that_fail_do_not_hide_the_others() {
    let mut disks: Vec<NamedDisk> = [0, 1, 511, 512, 1023, 4096]
        .into_iter()
        .map(|size| named("tiny", vec![0xff; size]))
        .collect();
    disks.push(NamedDisk {
        name: "failing".into(),
        reader: Arc::new(Failing),
    });
    disks.push(named("last", vec![0; 1 << 20]));
    let storage = divide(&disks);
    assert_eq!(storage.disks.len(), 8);
    assert!(
        storage.faults[0].contains("disk failing is not read") && storage.faults.len() == 1,
        "{:?}",
        storage.faults
    );
    assert_eq!(
        storage.volumes.last().map(|v| v.place.as_str()),
        Some("last")
    );
}
