//! Every format that is written compares equal under qemu-img; what is unfinished leaves nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use virtual_disk::format::vhd::{AZURE_MIN_BYTES, Geometry, VhdFooter, VhdKind};
use virtual_disk::{
    CreateOptions, DiskError, DiskReader, DiskWriter, Format, OpenOptions, create, open_in_place,
};

use crate::images::{DISK_BYTES, IMAGES, MIB, convert, open, qemu_img, read_all, sparse_disk};

const WRITTEN: [Format; 5] = [
    Format::Raw,
    Format::Qcow2,
    Format::Vhd,
    Format::Vhdx,
    Format::Vmdk,
];

/// Writes what `from` holds, four threads at once, a MiB at a time.
fn copy(from: &dyn DiskReader, to: &dyn DiskWriter) {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(range) = from.next_data(at).unwrap() {
        at = range.end;
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + MIB);
            pieces.push(start..end);
            start = end;
        }
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pieces = &pieces;
            scope.spawn(move || {
                for piece in pieces.iter().skip(thread).step_by(4) {
                    let mut buf = vec![0; (piece.end - piece.start) as usize];
                    from.read_at(piece.start, &mut buf).unwrap();
                    to.write_at(piece.start, &buf).unwrap();
                }
            });
        }
    });
}

fn leftovers(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".sparesite"))
        .collect()
}

#[test]
fn every_format_is_written_as_qemu_reads_it() {
    let (dir, raw) = sparse_disk();
    let source = open(&raw).unwrap();
    for format in WRITTEN {
        let path = dir.path().join(format!("out.{format}"));
        let path_text = path.to_str().unwrap();
        let writer = create(&path, format, DISK_BYTES, &CreateOptions::default()).unwrap();
        assert!(writer.starts_as_zeroes());
        copy(&*source, &*writer);
        assert!(!path.exists(), "{format} exists before it is finished");
        writer.finish().unwrap();
        qemu_img(&[
            "compare",
            "-f",
            "raw",
            "-F",
            format.qemu_name(),
            raw.to_str().unwrap(),
            path_text,
        ]);
        assert_eq!(open(&path).unwrap().size_bytes(), DISK_BYTES);
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.blocks() * 512 < 40 * MIB, "{format} is not sparse");
        assert_eq!(
            metadata.permissions().mode() & 0o077,
            0,
            "{format} is open to others"
        );
        if matches!(format, Format::Qcow2 | Format::Vmdk) {
            qemu_img(&["check", "-q", "-f", format.qemu_name(), path_text]);
        }
    }
    assert_eq!(leftovers(dir.path()), [""; 0]);
}

#[test]
fn an_unfinished_disk_leaves_nothing() {
    let (dir, _raw) = sparse_disk();
    for format in WRITTEN {
        let path = dir.path().join(format!("out.{format}"));
        let writer = create(&path, format, DISK_BYTES, &CreateOptions::default()).unwrap();
        writer.write_at(0, &[1; 4096]).unwrap();
        assert_eq!(leftovers(dir.path()).len(), 1, "{format}");
        drop(writer);
        assert!(!path.exists());
        assert_eq!(leftovers(dir.path()), [""; 0]);
    }
}

#[test]
fn nothing_is_overwritten() {
    let (dir, raw) = sparse_disk();
    let before = fs::read(&raw).unwrap();
    let options = CreateOptions::default();
    for format in WRITTEN {
        let result = create(&raw, format, DISK_BYTES, &options);
        assert!(matches!(result, Err(DiskError::Exists { .. })));
    }
    // Somebody else's file that appears while ours is written stays.
    let path = dir.path().join("late.raw");
    let writer = create(&path, Format::Raw, DISK_BYTES, &options).unwrap();
    fs::write(&path, b"theirs").unwrap();
    assert!(matches!(writer.finish(), Err(DiskError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    assert_eq!(leftovers(dir.path()), [""; 0]);
    assert!(fs::read(&raw).unwrap() == before);
}

#[test]
fn writing_past_the_end_is_an_error() {
    let (dir, _raw) = sparse_disk();
    for format in [Format::Raw, Format::Vhd, Format::Qcow2] {
        let path = dir.path().join(format!("out.{format}"));
        let size = DISK_BYTES + 512;
        let writer = create(&path, format, size, &CreateOptions::default()).unwrap();
        let result = writer.write_at(size - 512, &[1; 1024]);
        assert!(
            matches!(result, Err(DiskError::OutOfRange { .. })),
            "{format}"
        );
        let result = writer.write_zeroes(u64::MAX, 2);
        assert!(
            matches!(result, Err(DiskError::OutOfRange { .. })),
            "{format}"
        );
    }
}

#[test]
fn a_vhd_is_as_azure_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    for (size, expected) in [
        (1, AZURE_MIN_BYTES),
        (AZURE_MIN_BYTES + 1, AZURE_MIN_BYTES + MIB),
        (DISK_BYTES, DISK_BYTES),
        (DISK_BYTES + 512, DISK_BYTES + MIB),
    ] {
        let path = dir.path().join(format!("{size}.vhd"));
        let options = CreateOptions {
            vhd_unique_id: *b"0123456789abcdef",
            vhd_timestamp: 7,
            ..CreateOptions::default()
        };
        let writer = create(&path, Format::Vhd, size, &options).unwrap();
        writer.write_at(size - 1, &[9]).unwrap();
        writer.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, expected + 512);
        let footer = VhdFooter::decode(&bytes[expected as usize..]).unwrap();
        assert_eq!(footer.kind, VhdKind::Fixed);
        assert_eq!(footer.current_size_bytes, expected);
        assert_eq!(footer.unique_id, *b"0123456789abcdef");
        let info = qemu_img(&["info", "--output=json", "-f", "vpc", path.to_str().unwrap()]);
        assert!(
            info.contains(&format!("\"virtual-size\": {expected},")),
            "{info}"
        );
        assert_eq!(bytes[size as usize - 1], 9);
    }
}

#[test]
fn every_format_is_overwritten_in_place() {
    let (dir, raw) = sparse_disk();
    let options = OpenOptions::default();
    let mut expected = fs::read(&raw).unwrap();
    let hole = (5 * MIB + 8192, MIB as usize);
    expected[hole.0 as usize..][..hole.1].fill(0);
    expected[40 * MIB as usize..][..70_000 / 512 * 512].fill(3);
    let plain = dir.path().join("copy.raw");
    fs::copy(&raw, &plain).unwrap();
    let before = read_all(&*open(&plain).unwrap()).1;
    let images = IMAGES
        .iter()
        .filter(|(name, ..)| !name.starts_with("packed"))
        .map(|(name, _, options)| convert(&raw, name, options));
    for path in images.chain([plain.clone()]) {
        let name = path.display();
        let disk = open_in_place(&path, DISK_BYTES, &options).unwrap();
        assert!(!disk.starts_as_zeroes());
        // A map is remembered here, and must not survive the writes.
        let _ = disk.next_data(0).unwrap();
        disk.write_zeroes(hole.0, hole.1 as u64).unwrap();
        disk.write_at(40 * MIB, &vec![3; 70_000 / 512 * 512])
            .unwrap();
        assert!(
            read_all(&*disk as &dyn DiskReader).0 == expected,
            "{name} while open"
        );
        disk.finish().unwrap();
        assert!(read_all(&*open(&path).unwrap()).0 == expected, "{name}");
    }
    let (_, data) = read_all(&*open(&plain).unwrap());
    assert!(data < before, "zeroes were stored");
}

#[test]
fn in_place_sizes_must_fit() {
    let (_dir, raw) = sparse_disk();
    let options = OpenOptions::default();
    for (name, _, how) in IMAGES {
        let image = convert(&raw, name, how);
        let result = open_in_place(&image, DISK_BYTES + MIB, &options);
        assert!(matches!(result, Err(DiskError::Size { .. })), "{name}");
    }
    for size in [DISK_BYTES + MIB, DISK_BYTES - MIB] {
        let disk = open_in_place(&raw, size, &options).unwrap();
        assert_eq!(disk.size_bytes(), size);
        disk.finish().unwrap();
        assert_eq!(fs::metadata(&raw).unwrap().len(), size);
    }
}

#[test]
fn the_geometry_is_the_one_that_qemu_computes() {
    let dir = tempfile::tempdir().unwrap();
    for megabytes in [1_u64, 33, 40, 500, 511, 1024, 5000, 130_000, 1_000_000] {
        let path = dir.path().join(format!("{megabytes}.vhd"));
        qemu_img(&[
            "create",
            "-q",
            "-f",
            "vpc",
            path.to_str().unwrap(),
            &format!("{megabytes}M"),
        ]);
        let bytes = fs::read(&path).unwrap();
        let footer = VhdFooter::decode(&bytes[bytes.len() - 512..]).unwrap();
        let geometry = footer.geometry;
        let product = u64::from(geometry.cylinders)
            * u64::from(geometry.heads)
            * u64::from(geometry.sectors_per_track)
            * 512;
        assert_eq!(Geometry::of_size(product), geometry, "{megabytes} MB");
    }
}
