//! Every format reads as qemu-img wrote it, holes are skipped, damage is an error.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use virtual_disk::{DiskError, Format, OpenOptions, References};

use crate::images::{
    DATA, DISK_BYTES, IMAGES, MIB, convert, open, qemu_img, read_all, sparse_disk,
};

#[test]
fn every_format_reads_what_was_written_and_skips_holes() {
    let (_dir, raw) = sparse_disk();
    let expected = fs::read(&raw).unwrap();
    let data: u64 = DATA.iter().map(|(_, length)| *length as u64).sum();
    let (bytes, read) = read_all(&*open(&raw).unwrap());
    assert!(bytes == expected);
    assert!(read < data + 64 * 1024, "{read} bytes read of {data}");
    for (name, _, options) in IMAGES {
        let image = convert(&raw, name, options);
        let disk = open(&image).unwrap();
        assert_eq!(disk.size_bytes(), DISK_BYTES, "{name}");
        let (bytes, read) = read_all(&*disk);
        assert!(bytes == expected, "{name} reads differently");
        // A VHDX's block is 8 MiB or more, the others' at most 2 MiB.
        assert!(
            name.contains("vhdx") || read <= data + 8 * MIB,
            "{name}: {read} bytes"
        );
    }
}

#[test]
fn several_threads_read_at_once() {
    let (_dir, raw) = sparse_disk();
    let expected = fs::read(&raw).unwrap();
    let image = convert(&raw, "a.qcow2", &["-O", "qcow2"]);
    let disk = open(&image).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (disk, expected) = (&disk, &expected);
            scope.spawn(move || {
                for step in 0..64 {
                    let at = ((step * 8 + thread) * 104_729 * 13) % (DISK_BYTES - 70_000);
                    let mut buf = vec![1; 70_000];
                    disk.read_at(at, &mut buf).unwrap();
                    assert!(buf == expected[at as usize..][..70_000], "at {at}");
                }
            });
        }
    });
}

#[test]
fn reading_past_the_end_is_an_error() {
    let (_dir, raw) = sparse_disk();
    let image = convert(&raw, "a.qcow2", &["-O", "qcow2"]);
    for path in [&raw, &image] {
        let disk = open(path).unwrap();
        let mut buf = [0; 1024];
        for at in [DISK_BYTES - 512, DISK_BYTES, u64::MAX] {
            let result = disk.read_at(at, &mut buf);
            assert!(
                matches!(result, Err(DiskError::OutOfRange { .. })),
                "{result:?}"
            );
        }
        assert_eq!(disk.next_data(DISK_BYTES).unwrap(), None);
        disk.read_at(DISK_BYTES, &mut []).unwrap();
    }
}

#[test]
fn a_file_that_shrinks_is_named() {
    let (_dir, raw) = sparse_disk();
    let disk = open(&raw).unwrap();
    File::options()
        .write(true)
        .open(&raw)
        .unwrap()
        .set_len(MIB)
        .unwrap();
    let mut buf = vec![0; 4096];
    disk.read_at(0, &mut buf).unwrap();
    let result = disk.read_at(MIB - 100, &mut buf);
    assert!(
        matches!(result, Err(DiskError::Shrunk { offset: MIB, .. })),
        "{result:?}"
    );
    assert!(matches!(
        disk.next_data(2 * MIB),
        Err(DiskError::Shrunk { .. })
    ));
}

fn refused(path: &Path, options: &OpenOptions) -> DiskError {
    match virtual_disk::open(path, options) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(e) => e,
    }
}

#[test]
fn an_image_in_a_plain_disk_is_not_believed() {
    let (dir, raw) = sparse_disk();
    let image = convert(&raw, "a.qcow2", &["-O", "qcow2"]);
    for name in ["b.raw", "b.img", "b", "b.disk"] {
        let plain = dir.path().join(name);
        fs::copy(&image, &plain).unwrap();
        let error = refused(&plain, &OpenOptions::default());
        assert!(
            matches!(error, DiskError::FormatNotInName { .. }),
            "{error}"
        );
        for (format, size) in [
            (Format::Raw, fs::metadata(&image).unwrap().len()),
            (Format::Qcow2, DISK_BYTES),
        ] {
            let options = OpenOptions {
                format: Some(format),
                ..OpenOptions::default()
            };
            assert_eq!(
                virtual_disk::open(&plain, &options).unwrap().size_bytes(),
                size
            );
        }
    }
    let wrong = dir.path().join("b.vmdk");
    fs::copy(&image, &wrong).unwrap();
    assert!(matches!(
        refused(&wrong, &OpenOptions::default()),
        DiskError::WrongFormat { .. }
    ));
}

#[test]
fn references_stay_in_the_directory() {
    let (dir, raw) = sparse_disk();
    let base = convert(&raw, "base.qcow2", &["-O", "qcow2"]);
    let overlay = dir.path().join("overlay.qcow2");
    let make = |backing: &str, path: &Path| {
        qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-u",
            "-b",
            backing,
            "-F",
            "qcow2",
            path.to_str().unwrap(),
            "64M",
        ]);
    };
    make("base.qcow2", &overlay);
    let expected = fs::read(&raw).unwrap();
    assert!(read_all(&*open(&overlay).unwrap()).0 == expected);
    let sub = dir.path().join("sub");
    fs::create_dir(&sub).unwrap();
    let outside = sub.join("overlay.qcow2");
    for reference in ["../base.qcow2", base.to_str().unwrap(), "link.qcow2"] {
        make(reference, &outside);
        let _ = std::os::unix::fs::symlink(&base, sub.join("link.qcow2"));
        let error = refused(&outside, &OpenOptions::default());
        assert!(matches!(error, DiskError::Reference { .. }), "{error}");
        let options = OpenOptions {
            references: References::Anywhere,
            ..OpenOptions::default()
        };
        assert!(read_all(&*virtual_disk::open(&outside, &options).unwrap()).0 == expected);
    }
    for reference in [
        "nbd://127.0.0.1:9/x",
        "json:{\"driver\":\"null-co\"}",
        "gone.qcow2",
        "/dev/null",
    ] {
        make(reference, &outside);
        let error = refused(&outside, &OpenOptions::default());
        assert!(matches!(error, DiskError::Reference { .. }), "{error}");
    }
    let loops = sub.join("loop.qcow2");
    make("loop.qcow2", &loops);
    assert!(matches!(
        refused(&loops, &OpenOptions::default()),
        DiskError::Damaged { .. }
    ));
}

#[test]
fn a_vmdk_extent_stays_in_the_directory() {
    let (dir, raw) = sparse_disk();
    let image = dir.path().join("a.vmdk");
    fs::create_dir(dir.path().join("sub")).unwrap();
    let text = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                RW 131072 FLAT \"NAME\" 0\n";
    fs::write(&image, text.replace("NAME", "disk.raw")).unwrap();
    assert!(read_all(&*open(&image).unwrap()).0 == fs::read(&raw).unwrap());
    let inner = dir.path().join("sub/a.vmdk");
    for name in ["../disk.raw", "/etc/passwd", "nbd:127.0.0.1:9"] {
        fs::write(&inner, text.replace("NAME", name)).unwrap();
        let error = refused(&inner, &OpenOptions::default());
        assert!(matches!(error, DiskError::Reference { .. }), "{error}");
    }
}

#[test]
fn a_differencing_vhd_is_refused() {
    let (_dir, raw) = sparse_disk();
    let image = convert(&raw, "a.vhd", &["-O", "vpc", "-o", "force_size"]);
    let file = File::options().read(true).write(true).open(&image).unwrap();
    let at = file.metadata().unwrap().len() - 512;
    let mut footer = [0; 512];
    file.read_exact_at(&mut footer, at).unwrap();
    footer[63] = 4;
    let sum = virtual_disk::format::vhd::checksum(&footer);
    footer[64..68].copy_from_slice(&sum.to_be_bytes());
    for at in [0, at] {
        file.write_all_at(&footer, at).unwrap();
    }
    assert!(matches!(
        refused(&image, &OpenOptions::default()),
        DiskError::Differencing { .. }
    ));
}

#[test]
fn a_differencing_vhdx_is_refused() {
    let (_dir, raw) = sparse_disk();
    let image = convert(&raw, "a.vhdx", &["-O", "vhdx"]);
    let file = File::options().write(true).open(&image).unwrap();
    let bytes = fs::read(&image).unwrap();
    // The file parameters of qemu's images: the first item of the metadata region, 64 KiB into it.
    let metadata = bytes.windows(8).position(|w| w == b"metadata").unwrap();
    let flags = metadata + 65536 + 4;
    assert_eq!(bytes[flags..flags + 4], [0, 0, 0, 0]);
    file.write_all_at(&[2], flags as u64).unwrap();
    assert!(matches!(
        refused(&image, &OpenOptions::default()),
        DiskError::Differencing { .. }
    ));
}

#[test]
fn cut_and_overwritten_images_are_errors() {
    let (dir, raw) = sparse_disk();
    for (name, format, options) in IMAGES {
        let image = convert(&raw, name, options);
        let whole = fs::read(&image).unwrap();
        let copy = dir.path().join(format!("damaged-{name}"));
        let options = OpenOptions {
            format: Some(format),
            ..OpenOptions::default()
        };
        let attempt = |bytes: &[u8]| {
            fs::write(&copy, bytes).unwrap();
            if let Ok(disk) = virtual_disk::open(&copy, &options) {
                let mut buf = vec![0; disk.size_bytes().min(DISK_BYTES) as usize];
                let _ = disk.read_at(0, &mut buf);
                let _ = disk.next_data(0);
            }
        };
        for part in [1, 100, 600, 70_000, whole.len() / 2, whole.len() - 1] {
            attempt(&whole[..part.min(whole.len())]);
        }
        // The tables behind the magic, overwritten.
        for at in [16, 512, 4096, 65536, 196_608, 1 << 20] {
            let mut bytes = whole.clone();
            let end = bytes.len().min(at + 1024);
            if at < end {
                bytes[at..end].fill(0xa5);
                attempt(&bytes);
            }
        }
        let header = OpenOptions::default();
        fs::write(&copy, &whole[..60.min(whole.len())]).unwrap();
        let error = refused(&copy, &header);
        assert!(!error.to_string().is_empty(), "{name}");
    }
}
