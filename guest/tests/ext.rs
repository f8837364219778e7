//! ext2, ext3 and ext4 as `mke2fs` makes them, and their journals as `debugfs` writes them.

mod images;

use std::path::Path;

use guest_inspection::GuestError;
use guest_inspection::file_system::FileKind;
use guest_inspection::storage::Content;
use images::{blank, blkid, has, names, opened, pattern, run, whole};

/// A root with small and large files, links of both kinds, and a folder of 600 names.
fn populate(root: &Path) {
    std::fs::create_dir_all(root.join("etc/many")).unwrap();
    std::fs::write(root.join("etc/hostname"), "guest\n").unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::fs::write(root.join("large"), pattern(3_000_000)).unwrap();
    std::os::unix::fs::symlink("etc/hostname", root.join("short-link")).unwrap();
    std::os::unix::fs::symlink("/".to_owned() + &"x".repeat(200), root.join("long-link")).unwrap();
    std::os::unix::fs::symlink("etc", root.join("folder-link")).unwrap();
    for number in 0..600 {
        std::fs::write(root.join(format!("etc/many/file-{number:04}")), [1]).unwrap();
    }
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", 1_000_000).unwrap();
}

fn make(folder: &Path, arguments: &[&str]) -> std::path::PathBuf {
    let root = folder.join("root");
    populate(&root);
    let image = folder.join("image");
    blank(&image, 64 << 20);
    let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-F", &"-L", &"system", &"-d"];
    all.push(&root);
    for argument in arguments {
        all.push(argument);
    }
    all.push(&image);
    run("mke2fs", &all);
    image
}

fn check(image: &Path) {
    let (volume, ext) = whole(std::fs::read(image).unwrap());
    assert_eq!(volume.content, Content::Ext);
    let known = blkid(image);
    assert_eq!(volume.uuid.as_ref(), known.get("UUID"));
    assert_eq!(volume.label.as_deref(), Some("system"));

    assert_eq!(ext.kind("/etc/hostname").unwrap(), Some(FileKind::File));
    assert_eq!(ext.kind("/etc").unwrap(), Some(FileKind::Folder));
    assert_eq!(ext.kind("/").unwrap(), Some(FileKind::Folder));
    assert_eq!(ext.kind("/none").unwrap(), None);
    assert_eq!(ext.kind("/etc/hostname/none").unwrap(), None);
    // Links are not followed, whether last or on the way.
    assert_eq!(ext.kind("/folder-link").unwrap(), Some(FileKind::Link));
    assert_eq!(ext.kind("/folder-link/hostname").unwrap(), None);
    assert_eq!(ext.read("/short-link", 100).unwrap(), None);
    assert_eq!(
        ext.read_link("/short-link").unwrap().as_deref(),
        Some("etc/hostname")
    );
    let long = ext.read_link("/long-link").unwrap().unwrap();
    assert_eq!(long, "/".to_owned() + &"x".repeat(200));
    assert_eq!(ext.read_link("/etc").unwrap(), None);

    assert_eq!(
        ext.read("/etc/hostname", 6).unwrap().as_deref(),
        Some(&b"guest\n"[..])
    );
    assert!(matches!(
        ext.read("/etc/hostname", 5),
        Err(GuestError::TooLarge {
            bytes: 6,
            limit: 5,
            ..
        })
    ));
    assert_eq!(ext.read("/empty", 0).unwrap().as_deref(), Some(&[][..]));
    assert_eq!(ext.size("/large").unwrap(), Some(3_000_000));
    assert_eq!(ext.size("/etc").unwrap(), None);
    assert!(ext.read("/large", 1 << 30).unwrap().unwrap() == pattern(3_000_000));
    let sparse = ext.read("/sparse", 1 << 30).unwrap().unwrap();
    assert_eq!(sparse.len(), 1_000_003);
    assert!(sparse[..1_000_000].iter().all(|&byte| byte == 0) && sparse.ends_with(b"end"));

    let many = names(&*ext, "/etc/many");
    assert_eq!(many.len(), 600);
    assert_eq!(many[599], "file-0599");
    assert_eq!(ext.list("/none").unwrap(), []);
    assert_eq!(ext.state(), Vec::<String>::new());
    let space = ext.space().unwrap();
    assert!(space.total_bytes <= 64 << 20 && space.free_bytes < space.total_bytes);
    assert!(space.free_bytes > 10 << 20, "{space:?}");
}

#[test]
fn what_mke2fs_makes_is_read() {
    if !has("mke2fs", "e2fsprogs") {
        return;
    }
    for arguments in [
        &["-t", "ext4"][..],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-O", "^metadata_csum,^64bit,^extents"],
        &["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"],
        &["-t", "ext4", "-O", "bigalloc", "-b", "1024"],
        &["-t", "ext4", "-O", "bigalloc", "-b", "4096", "-C", "8192"],
        &["-t", "ext3"],
        &["-t", "ext2", "-b", "4096"],
        &["-t", "ext2", "-O", "^filetype", "-I", "128"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        eprintln!("mke2fs {arguments:?}");
        check(&make(folder.path(), arguments));
    }
}

/// Numbers that `debugfs` prints for a path's blocks.
fn blocks(image: &Path, path: &str) -> Vec<u64> {
    run("debugfs", &[&"-R", &format!("blocks {path}"), &image])
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect()
}

fn write_journal(image: &Path, commands: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("commands");
    std::fs::write(&script, commands.join("\n") + "\n").unwrap();
    run("debugfs", &[&"-w", &"-f", &script, &image]);
}

#[test]
fn a_journal_is_read_as_the_next_mount_would() {
    if !has("debugfs", "e2fsprogs") {
        return;
    }
    for (arguments, opening) in [
        (&["-t", "ext4", "-b", "4096"][..], "jo -c -v 3"),
        (&["-t", "ext4", "-b", "4096", "-O", "^64bit"], "jo -c -v 2"),
        (
            &["-t", "ext4", "-b", "4096", "-O", "^metadata_csum,^64bit"],
            "jo",
        ),
        (&["-t", "ext3", "-b", "1024"], "jo"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), arguments);
        let block_bytes = if arguments.contains(&"1024") {
            1024
        } else {
            4096
        };
        let large = blocks(&image, "/large");
        // Newer contents of four blocks of a file: one plain, one that begins with the journal's own magic and is escaped
        // there, one revoked by a later transaction, and one revoked and then written again.
        let content = |name: &str, byte: u8, magic: bool| {
            let mut bytes = vec![byte; block_bytes];
            if magic {
                bytes[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
            }
            let path = folder.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            (path.display().to_string(), bytes)
        };
        let (_, first_bytes) = content("one", 0x11, false);
        let first = folder.path().join("first");
        std::fs::write(&first, first_bytes.repeat(3)).unwrap();
        let (escaped, escaped_bytes) = content("escaped", 0x22, true);
        let (again, again_bytes) = content("again", 0x33, false);
        write_journal(
            &image,
            &[
                opening.to_owned(),
                format!(
                    "jw -b {},{},{} {}",
                    large[2],
                    large[4],
                    large[5],
                    first.display()
                ),
                format!("jw -b {} {escaped}", large[3]),
                format!("jw -r {},{}", large[4], large[5]),
                format!("jw -b {} {again}", large[5]),
                "jc".to_owned(),
            ],
        );
        let (_, ext) = whole(std::fs::read(&image).unwrap());
        let found = ext.read("/large", 1 << 30).unwrap().unwrap();
        let mut expected = pattern(3_000_000);
        for (index, bytes) in [(2, &first_bytes), (3, &escaped_bytes), (5, &again_bytes)] {
            expected[index * block_bytes..(index + 1) * block_bytes].copy_from_slice(bytes);
        }
        for (index, (left, right)) in found
            .chunks(block_bytes)
            .zip(expected.chunks(block_bytes))
            .enumerate()
        {
            assert!(left == right, "{arguments:?}: block {index} of the file");
        }
        assert!(
            ext.state()[0].contains("3 blocks of its journal"),
            "{arguments:?}: {:?}",
            ext.state()
        );
        // And e2fsck, which writes what the journal holds, agrees.
        run("e2fsck", &[&"-E", &"journal_only", &"-y", &image]);
        let (_, mended) = whole(std::fs::read(&image).unwrap());
        assert_eq!(mended.state(), Vec::<String>::new());
        assert!(mended.read("/large", 1 << 30).unwrap().unwrap() == expected);
    }
}

#[test]
fn what_is_allocated_and_never_written_is_zero() {
    if !has("debugfs", "e2fsprogs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), &["-t", "ext4", "-b", "4096"]);
    // Blocks 2 and 3 of a file are allocated, and what lay there before must not show.
    run("debugfs", &[&"-w", &"-R", &"punch /large 2 3", &image]);
    run("debugfs", &[&"-w", &"-R", &"fallocate /large 2 3", &image]);
    let (_, ext) = whole(std::fs::read(&image).unwrap());
    let mut expected = pattern(3_000_000);
    expected[2 * 4096..4 * 4096].fill(0);
    assert!(ext.read("/large", 1 << 30).unwrap().unwrap() == expected);
}

#[test]
fn noted_errors_and_a_missing_unmount_are_told() {
    if !has("debugfs", "e2fsprogs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), &["-t", "ext2"]);
    run("debugfs", &[&"-w", &"-R", &"ssv state 2", &image]);
    let (volume, ext) = whole(std::fs::read(&image).unwrap());
    let state = ext.state().join("; ");
    assert!(
        state.contains("not unmounted cleanly") && state.contains("e2fsck"),
        "{state}"
    );
    // A feature of tomorrow is refused by name.
    run(
        "debugfs",
        &[&"-w", &"-R", &"ssv feature_incompat 0x80000002", &image],
    );
    let storage = images::divided(std::fs::read(&image).unwrap());
    let Err(error) = guest_inspection::file_system::open(&storage.volumes[0]) else {
        panic!("opened");
    };
    assert!(error.to_string().contains("0x80000000"), "{error}");
    opened(&volume);
}
