use std::io::Write;

use super::*;
use crate::{linux::tree::Unread, paper::TreeOnPaper};

/// A cpio archive of these files.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files.iter().chain(&[("TRAILER!!!", &b""[..])]) {
        let header = format!(
            "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            1,
            0o100_644,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0
        );
        out.extend(header.bytes());
        out.extend(name.bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(*content);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// An initial file system with these modules of a kernel, and what it has built in.
pub fn with_modules(version: &str, modules: &[&str], built_in: &[&str]) -> Vec<u8> {
    let names: Vec<String> = modules
        .iter()
        .map(|name| format!("usr/lib/modules/{version}/kernel/drivers/x/{name}.ko"))
        .collect();
    let list: String = built_in
        .iter()
        .map(|name| format!("kernel/drivers/x/{name}.ko\n"))
        .collect();
    let builtin = format!("usr/lib/modules/{version}/modules.builtin");
    let mut files: Vec<(&str, &[u8])> = vec![("init", b"#!/bin/sh"), (&builtin, list.as_bytes())];
    files.extend(names.iter().map(|name| (name.as_str(), &b"ELF..."[..])));
    archive(&files)
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// The legacy format: its mark, then blocks with their length.
fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut out = 0x184c_2102_u32.to_le_bytes().to_vec();
    for piece in bytes.chunks(700) {
        let packed = lz4_flex::block::compress(piece);
        out.extend((packed.len() as u32).to_le_bytes());
        out.extend(packed);
    }
    out
}

fn read(content: &[u8], version: Option<&str>) -> (InitramfsFacts, Drivers) {
    let files = TreeOnPaper::default().file("/i", content);
    let unread = Unread::default();
    inspect(
        &Tree::of_one("sda:1", &files, &unread),
        &["/i".to_owned()],
        version,
    )
}

#[test]
fn every_compression_brings_the_same() {
    let plain = with_modules("6.1.0", &["virtio_blk", "nvme"], &["ext4"]);
    let mut microcode = archive(&[("kernel/x86/microcode/GenuineIntel.bin", &[7; 300])]);
    microcode.resize(microcode.len().next_multiple_of(512), 0);
    let kinds: [(&str, Vec<u8>); 4] = [
        ("none", plain.clone()),
        ("gzip", gzip(&plain)),
        ("zstd", zstd::encode_all(&plain[..], 1).expect("memory")),
        ("lz4", lz4(&plain)),
    ];
    for (kind, packed) in kinds {
        let (facts, drivers) = read(&[microcode.clone(), packed.clone()].concat(), Some("6.1.0"));
        assert_eq!((facts.broken, facts.unread), (None, None), "{kind}");
        assert!(facts.has_init && facts.kernels.contains("6.1.0"), "{kind}");
        assert_eq!(
            drivers.modules.into_iter().collect::<Vec<_>>(),
            ["nvme", "virtio_blk"],
            "{kind}"
        );
        assert!(drivers.built_in.contains("ext4"), "{kind}");
        if kind != "none" {
            assert_eq!(facts.compression.as_deref(), Some(kind));
            let (half, _) = read(&packed[..packed.len() / 2], None);
            assert!(half.broken.is_some(), "{kind}: {half:?}");
        }
    }
}

#[test]
fn xz_and_lzma_are_read() {
    // Made from archive(&[("init", b"#!/bin/sh")]) by `xz --check=crc32`, and by `xz --format=lzma`.
    for (kind, packed) in [("xz", XZ), ("lzma", LZMA)] {
        let packed = hex(packed);
        let (facts, _) = read(&packed, None);
        assert_eq!(
            (facts.broken, facts.unread, facts.files),
            (None, None, 1),
            "{kind}"
        );
        assert_eq!(facts.compression.as_deref(), Some(kind));
    }
}

#[test]
fn another_kernels_modules_do_not_count() {
    let (facts, drivers) = read(&gzip(&with_modules("6.1.0", &["nvme"], &[])), Some("6.2.0"));
    assert!(drivers.modules.is_empty());
    assert_eq!(facts.kernels.into_iter().collect::<Vec<_>>(), ["6.1.0"]);
}

#[test]
fn what_is_no_archive_is_broken_and_what_is_unknown_is_unread() {
    assert!(read(b"<html>not found</html>", None).0.broken.is_some());
    assert!(read(&[0; 2000], None).0.broken.is_some());
    assert!(read(b"BZh91AY&SY........", None).0.unread.is_some());
    let (facts, _) = read(b"", None);
    assert_eq!(
        (facts.presences[0].clone(), facts.broken),
        (Presence::Present { bytes: 0 }, None)
    );
}

#[test]
fn what_unpacks_without_end_is_left() {
    struct Nothing;
    impl cpio::Visitor for Nothing {
        fn wants(&self, _: &str) -> bool {
            false
        }
        fn entry(&mut self, _: &str, _: Option<&[u8]>) {}
    }
    let bomb = gzip(&archive(&[("a", &vec![0; 4 << 20][..])]));
    let result = unpack::unpack(&bomb[..], 1 << 20, &mut Nothing);
    assert!(matches!(result, Err(unpack::Failure::Unread(_))));
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len() / 2).map(|index| digit(index * 2)).collect()
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), cut in 0usize..400, flip in 0usize..400) {
        let _ = read(&bytes, None);
        for start in [&b"070701"[..], b"\x1f\x8b\x08\0", b"\xfd7zXZ\0", b"\x02\x21\x4c\x18", b"\x5d\0\0\x80\0", b"\x28\xb5\x2f\xfd"] {
            let _ = read(&[start, &bytes].concat(), None);
        }
        for mut packed in [with_modules("6", &["a"], &["b"]), gzip(&with_modules("6", &["a"], &["b"]))] {
            let length = packed.len();
            packed[flip % length] ^= 0x55;
            packed.truncate(cut.max(6).min(length));
            let _ = read(&packed, None);
        }
    }
}

const XZ: &str = concat!(
    "fd377a585a0000016922de360200210116000000742fe5a3e000fb003e5d00180ddd04639c721b76a1c028f1752eabeec38b",
    "4bd829417e7469fe92d720a78c72c023e501fae554b27dff82a698180f82699f23b41fb996e3d68891880000000045a43fd5",
    "000156fc010000000ee5fa2c3e300d8b020000000001595a",
);

const LZMA: &str = concat!(
    "5d00008000ffffffffffffffff00180ddd04639c721b76a1c028f1752eabeec38b4bd829417e7469fe92d720a78c72c023e5",
    "01fae554b27dff82a698180f82699f23b41fb996e3d6973f81dffff7d60000",
);
