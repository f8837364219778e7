//! LVM2 from metadata laid out by hand, as `pvcreate` and `vgcreate` would: those tools need block devices, and `lvcreate` a
//! device mapper, which tests do not have. Layout: lvm2, lib/format_text/layout.h.

mod images;

use std::fmt::Write;
use std::sync::OnceLock;

use guest_inspection::storage::{Content, NamedDisk, Storage, Volume, divide};
use images::{named, pattern};
use proptest::prelude::*;

const EXTENT: usize = 64 * 1024;
const FIRST_EXTENT: usize = 1 << 20;
const AREA: usize = 4096;
const AREA_BYTES: usize = FIRST_EXTENT - AREA;

/// LVM2's checksum, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |mut sum, &byte| {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
        sum
    })
}

fn uuid(index: usize) -> String {
    format!("abcdef{index:026}")
}

fn dashed(uuid: &str) -> String {
    let mut parts = Vec::new();
    let mut rest = uuid;
    for length in [6, 4, 4, 4, 4, 4, 6] {
        let (part, later) = rest.split_at(length);
        parts.push(part);
        rest = later;
    }
    parts.join("-")
}

/// What fills an extent, of the 32 of two physical volumes.
fn extent_bytes(extent: usize) -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| pattern(32 * EXTENT));
    &pattern[extent * EXTENT..][..EXTENT]
}

/// One physical volume of 16 extents, each filled with a pattern of its own.
fn physical(index: usize, metadata: Option<&str>, text_at: usize) -> Vec<u8> {
    let mut disk = vec![0u8; FIRST_EXTENT];
    for extent in 0..16 {
        disk.extend_from_slice(extent_bytes(index * 16 + extent));
    }
    let label = &mut disk[512..1024];
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[20] = 32;
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(uuid(index).as_bytes());
    let mut number = |at: usize, value: usize| {
        label[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
    };
    number(64, FIRST_EXTENT + 16 * EXTENT);
    number(72, FIRST_EXTENT);
    number(104, AREA);
    number(112, AREA_BYTES);
    let sum = checksum(&label[20..]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());

    let mut header = vec![0u8; 512];
    header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    header[20] = 1;
    header[24..32].copy_from_slice(&(AREA as u64).to_le_bytes());
    header[32..40].copy_from_slice(&(AREA_BYTES as u64).to_le_bytes());
    if let Some(text) = metadata {
        header[40..48].copy_from_slice(&(text_at as u64).to_le_bytes());
        header[48..56].copy_from_slice(&(text.len() as u64).to_le_bytes());
        header[56..60].copy_from_slice(&checksum(text.as_bytes()).to_le_bytes());
        // The text's ring begins again behind the header.
        for (index, byte) in text.bytes().enumerate() {
            let mut at = text_at + index;
            if at >= AREA_BYTES {
                at = at - AREA_BYTES + 512;
            }
            disk[AREA + at] = byte;
        }
    }
    let sum = checksum(&header[4..]);
    header[..4].copy_from_slice(&sum.to_le_bytes());
    disk[AREA..AREA + 512].copy_from_slice(&header);
    disk
}

/// Metadata of a group over `count` physical volumes with these logical volumes.
fn metadata(sequence: usize, count: usize, volumes: &str) -> String {
    let mut text = String::from("vg0 {\nid = \"grpgrp-0000-0000-0000-0000-0000-000000\"\n");
    write!(
        text,
        "seqno = {sequence}\nformat = \"lvm2\" # informational\nstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\n\
         extent_size = {}\t\t# 64 Kilobytes\nmax_lv = 0\nphysical_volumes {{\n",
        EXTENT / 512
    )
    .unwrap();
    for index in 0..count {
        write!(
            text,
            "pv{index} {{\nid = \"{}\"\ndevice = \"/dev/sd{index}\"\nstatus = [\"ALLOCATABLE\"]\ndev_size = 4096\n\
             pe_start = {}\npe_count = 16\n}}\n",
            dashed(&uuid(index)),
            FIRST_EXTENT / 512
        )
        .unwrap();
    }
    write!(text, "}}\nlogical_volumes {{\n{volumes}\n}}\n}}\n# Generated\ncontents = \"Text Format Volume Group\"\nversion = 1\n").unwrap();
    text
}

fn logical(name: &str, segments: &[String]) -> String {
    let mut text = format!(
        "{name} {{\nid = \"x\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\ncreation_time = 1700000000\nsegment_count = {}\n",
        segments.len()
    );
    for (number, segment) in (1..).zip(segments) {
        write!(text, "segment{number} {{\n{segment}\n}}\n").unwrap();
    }
    text + "}\n"
}

fn linear(start: usize, count: usize, physical: usize, extent: usize) -> String {
    format!(
        "start_extent = {start}\nextent_count = {count}\ntype = \"striped\"\nstripe_count = 1\nstripes = [\n\"pv{physical}\", {extent}\n]"
    )
}

fn volume<'a>(storage: &'a Storage, place: &str) -> &'a Volume {
    storage
        .volumes
        .iter()
        .find(|volume| volume.place == place)
        .unwrap_or_else(|| panic!("{place} in {:?}", storage.volumes))
}

fn read(volume: &Volume) -> Vec<u8> {
    let reader = &volume.reader.as_ref().expect("a reader").0;
    let mut bytes = vec![0u8; reader.size_bytes() as usize];
    reader.read_at(0, &mut bytes).unwrap();
    bytes
}

fn extents(wanted: &[usize]) -> Vec<u8> {
    wanted
        .iter()
        .flat_map(|extent| extent_bytes(*extent).to_vec())
        .collect()
}

fn disks(texts: [Option<&str>; 2], text_at: usize) -> Vec<NamedDisk> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| named(["sda", "sdb"][index], physical(index, *text, text_at)))
        .collect()
}

fn volumes() -> String {
    let striped = "start_extent = 0\nextent_count = 4\ntype = \"striped\"\nstripe_count = 2\nstripe_size = 32\n\
                   stripes = [\n\"pv0\", 8,\n\"pv1\", 4\n]"
        .to_owned();
    let thin = "start_extent = 0\nextent_count = 100\ntype = \"thin\"\nthin_pool = \"pool\"\ndevice_id = 1".to_owned();
    let pool = "start_extent = 0\nextent_count = 2\ntype = \"thin-pool\"".to_owned();
    let mirror =
        "start_extent = 0\nextent_count = 2\ntype = \"raid1\"\ndevice_count = 2".to_owned();
    logical("root", &[linear(0, 2, 0, 3), linear(2, 1, 1, 0)])
        + &logical("striped", &[striped])
        + &logical("thin", &[thin])
        + &logical("pool", &[pool])
        + &logical("mirror", &[mirror])
        + &logical("hidden", &[linear(0, 1, 0, 0)]).replace(", \"VISIBLE\"", "")
}

#[test]
fn linear_and_striped_volumes_over_two_disks() {
    let text = metadata(3, 2, &volumes());
    // At the beginning of the ring, and around its end.
    for text_at in [512, AREA_BYTES - 700] {
        let storage = divide(&disks([Some(&text), Some(&text)], text_at));
        let places: Vec<_> = storage.volumes.iter().map(|v| v.place.as_str()).collect();
        assert_eq!(
            places,
            [
                "sda",
                "sdb",
                "vg0/mirror",
                "vg0/root",
                "vg0/striped",
                "vg0/thin"
            ]
        );
        assert_eq!(storage.volumes[0].content, Content::LvmPhysicalVolume);
        assert_eq!(
            storage.volumes[0].uuid.as_deref(),
            Some(dashed(&uuid(0)).as_str())
        );
        let root = volume(&storage, "vg0/root");
        assert_eq!(root.lvm, Some(("vg0".into(), "root".into())));
        assert_eq!(
            (root.disk.as_str(), root.size_bytes),
            ("sda", 3 * EXTENT as u64)
        );
        assert!(read(root) == extents(&[3, 4, 16]));

        // Stripes of 16 KiB, in turn from either disk.
        let (first, second) = (extents(&[8, 9]), extents(&[20, 21]));
        let expected: Vec<u8> = first
            .chunks(16 << 10)
            .zip(second.chunks(16 << 10))
            .flat_map(|(left, right)| [left, right].concat())
            .collect();
        assert!(read(volume(&storage, "vg0/striped")) == expected);

        assert!(volume(&storage, "vg0/thin").reader.is_none());
        assert_eq!(volume(&storage, "vg0/thin").size_bytes, 100 * EXTENT as u64);
        let faults = storage.faults.join("\n");
        assert_eq!(storage.faults.len(), 2, "{faults}");
        assert!(
            faults.contains("vg0/thin is not read: it is of type thin"),
            "{faults}"
        );
        assert!(faults.contains("type raid1"), "{faults}");
    }
}

#[test]
fn the_newest_metadata_counts_and_one_copy_is_enough() {
    let older = metadata(3, 2, &logical("root", &[linear(0, 1, 0, 0)]));
    let newer = metadata(4, 2, &logical("renamed", &[linear(0, 1, 0, 0)]));
    for texts in [
        [Some(older.as_str()), Some(newer.as_str())],
        [Some(newer.as_str()), Some(older.as_str())],
        [None, Some(newer.as_str())],
    ] {
        let storage = divide(&disks(texts, 512));
        assert_eq!(storage.faults, Vec::<String>::new());
        assert_eq!(storage.volumes.len(), 3);
        assert!(read(volume(&storage, "vg0/renamed")) == extents(&[0]));
    }
}

#[test]
fn a_missing_disk_and_damage_are_told() {
    let text = metadata(3, 2, &volumes());
    let storage = divide(&disks([Some(&text), Some(&text)], 512)[..1]);
    let faults = storage.faults.join("\n");
    assert!(
        faults.contains(&format!(
            "lacks its physical volume pv1 ({}",
            dashed(&uuid(1))
        )),
        "{faults}"
    );
    assert!(
        faults.contains("vg0/root is not read: its physical volume pv1"),
        "{faults}"
    );
    assert!(volume(&storage, "vg0/root").reader.is_none());

    for (at, expected) in [
        (512 + 40, "checksum of its label"),
        (AREA + 30, "checksum of its header"),
        (AREA + 600, "checksum of its text"),
    ] {
        let mut disk = physical(0, Some(&text), 512);
        disk[at] ^= 1;
        let storage = divide(&[named("sda", disk)]);
        assert!(storage.faults[0].contains(expected), "{:?}", storage.faults);
        assert_eq!(storage.volumes.len(), 1);
    }
    // Whole as far as sums tell, and nonsense all the same.
    for segment in [
        linear(1, 1, 0, 0),
        linear(0, 1, 0, usize::MAX),
        linear(0, usize::MAX, 0, 0),
        linear(0, 1, 0, 16),
        linear(0, 1, 7, 0),
        linear(0, 3, 0, 0).replace("\"pv0\", 0", "\"pv0\", 0, \"pv1\", 0"),
        "type = \"striped\"".to_owned(),
    ] {
        let text = metadata(3, 2, &logical("root", &[segment]));
        let storage = divide(&disks([Some(&text), None], 512));
        assert!(volume(&storage, "vg0/root").reader.is_none());
        assert_eq!(storage.faults.len(), 1, "{:?}", storage.faults);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Metadata with right sums and wrong words.
    #[test]
    fn any_metadata_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[{}\\[\\]\"=,0-9a]"), 1..8)
    ) {
        let mut text = metadata(3, 2, &volumes()).into_bytes();
        for (index, letter) in &changes {
            let at = index.index(text.len());
            text[at] = letter.as_bytes()[0];
        }
        let text = String::from_utf8(text).unwrap();
        let storage = divide(&disks([Some(&text), None], 512));
        for volume in &storage.volumes {
            if let Some(reader) = &volume.reader {
                let mut buf = vec![0u8; reader.0.size_bytes().min(1 << 20) as usize];
                let _ = reader.0.read_at(0, &mut buf);
                let _ = reader.0.next_data(0);
            }
        }
    }
}
