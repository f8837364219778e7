//! XFS as `mkfs.xfs` makes it, populated from a prototype file.

mod images;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use guest_inspection::GuestError;
use guest_inspection::file_system::FileKind;
use guest_inspection::storage::Content;
use images::{blank, blkid, check_pieces, has, names, pattern, run, whole};

/// The least that mkfs.xfs makes since 6.0.
const SIZE: u64 = 320 << 20;

fn make(folder: &Path, arguments: &[&str]) -> PathBuf {
    let small = folder.join("small");
    std::fs::write(&small, "guest\n").unwrap();
    let large = folder.join("large");
    std::fs::write(&large, pattern(3_000_000)).unwrap();
    let link = "/".to_owned() + &"x".repeat(900);
    let mut prototype = String::from("/\n0 0\nd--755 0 0\n");
    write!(
        prototype,
        "etc d--755 0 0\nhostname ---644 0 0 {small}\n$\nlarge ---600 0 0 {large}\nempty ---644 0 0 /dev/null\n\
         short-link l--777 0 0 etc/hostname\nlong-link l--777 0 0 {link}\npipe p--644 0 0\n",
        small = small.display(),
        large = large.display(),
    )
    .unwrap();
    // Folders of each form: a block, and several with their hashes apart.
    for (name, count) in [("block", 60), ("leaf", 400), ("node", 4000)] {
        writeln!(prototype, "{name} d--755 0 0").unwrap();
        for number in 0..count {
            writeln!(prototype, "file-{number:04} ---644 0 0 /dev/null").unwrap();
        }
        prototype.push_str("$\n");
    }
    prototype.push_str("$\n");
    let path = folder.join("prototype");
    std::fs::write(&path, prototype).unwrap();
    let image = folder.join("image");
    blank(&image, SIZE);
    let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-f", &"-L", &"system", &"-p"];
    all.push(&path);
    for argument in arguments {
        all.push(argument);
    }
    all.push(&image);
    run("mkfs.xfs", &all);
    image
}

#[test]
fn what_mkfs_makes_is_read() {
    if !has("mkfs.xfs", "xfsprogs") {
        return;
    }
    for arguments in [
        &["-m", "crc=1"][..],
        &[
            "-m",
            "crc=1,bigtime=1,inobtcount=1",
            "-i",
            "sparse=1,nrext64=1",
        ],
        &["-m", "crc=0", "-n", "ftype=0"],
        &["-m", "crc=0", "-n", "ftype=1,size=8192", "-b", "size=1024"],
        &["-m", "crc=1", "-n", "size=65536", "-i", "size=2048"],
        &["-m", "crc=1", "-b", "size=1024", "-i", "size=512"],
    ] {
        eprintln!("mkfs.xfs {arguments:?}");
        let folder = tempfile::tempdir().unwrap();
        let image = make(folder.path(), arguments);
        let bytes = with_target_header(std::fs::read(&image).unwrap());
        let (volume, xfs) = whole(bytes);
        assert_eq!(volume.content, Content::Xfs);
        assert_eq!(volume.uuid.as_ref(), blkid(&image).get("UUID"));
        assert_eq!(volume.label.as_deref(), Some("system"));

        assert_eq!(
            names(&*xfs, "/"),
            [
                "block",
                "empty",
                "etc",
                "large",
                "leaf",
                "long-link",
                "node",
                "pipe",
                "short-link"
            ]
        );
        assert_eq!(xfs.kind("/etc").unwrap(), Some(FileKind::Folder));
        assert_eq!(xfs.kind("/pipe").unwrap(), Some(FileKind::Other));
        assert_eq!(xfs.kind("/etc/hostname").unwrap(), Some(FileKind::File));
        assert_eq!(xfs.kind("/etc/none").unwrap(), None);
        assert_eq!(
            xfs.read("/etc/hostname", 100).unwrap().as_deref(),
            Some(&b"guest\n"[..])
        );
        assert_eq!(xfs.read("/empty", 0).unwrap().as_deref(), Some(&[][..]));
        assert!(xfs.read("/large", 1 << 30).unwrap().unwrap() == pattern(3_000_000));
        assert!(matches!(
            xfs.read("/large", 1 << 20),
            Err(GuestError::TooLarge { .. })
        ));
        assert_eq!(
            xfs.read_link("/short-link").unwrap().as_deref(),
            Some("etc/hostname")
        );
        let link = xfs.read_link("/long-link").unwrap().unwrap();
        assert_eq!(link, "/".to_owned() + &"x".repeat(900));
        for (name, count) in [("/block", 60), ("/leaf", 400), ("/node", 4000)] {
            let found = names(&*xfs, name);
            assert_eq!(found.len(), count, "{name}");
            assert_eq!(found[count - 1], format!("file-{:04}", count - 1));
        }
        assert_eq!(xfs.state(), Vec::<String>::new());
        let space = xfs.space().unwrap();
        assert!(space.total_bytes == SIZE && space.free_inodes.is_none());
        assert!((SIZE / 2..SIZE).contains(&space.free_bytes), "{space:?}");
    }
}

/// What mkfs.xfs 6.1 leaves out of a long link's block, and xfs_repair misses there: version 5's header.
fn with_target_header(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes[101] & 0xf == 4 {
        return bytes;
    }
    let Some(at) = (0..bytes.len())
        .step_by(1024)
        .find(|&at| bytes[at..].starts_with(b"/xxxxxxxx"))
    else {
        // In the inode.
        return bytes;
    };
    bytes.copy_within(at..at + 901, at + 56);
    bytes[at..at + 56].fill(0);
    bytes[at..at + 4].copy_from_slice(b"XSLM");
    bytes
}

#[test]
fn a_file_of_many_extents_is_read_by_its_tree() {
    if !has("xfs_io", "xfsprogs") || !has("xfs_db", "xfsprogs") {
        return;
    }
    // Without a mount, only the prototype's writer makes files; an inode's list is turned into a tree by hand.
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), &["-m", "crc=0", "-n", "ftype=0"]);
    let bytes = std::fs::read(&image).unwrap();
    let (_, xfs) = whole(bytes.clone());
    assert!(xfs.read("/large", 1 << 30).unwrap().unwrap() == pattern(3_000_000));
    let treed = with_tree(&image, bytes);
    let (_, xfs) = whole(treed);
    check_pieces(&*xfs, "/large", &pattern(3_000_000));
    assert!(xfs.read("/large", 1 << 30).unwrap().unwrap() == pattern(3_000_000));
}

/// Moves the extents of `/large` into a block of a B+tree, in the file system's last block, which is free.
fn with_tree(image: &Path, mut bytes: Vec<u8>) -> Vec<u8> {
    let number = |field: &str, commands: &[&str]| -> u64 {
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-r"];
        for command in commands {
            all.push(&"-c");
            all.push(command);
        }
        all.push(&image);
        let printed = run("xfs_db", &all);
        let value = printed
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{field} = ")))
            .unwrap_or_else(|| panic!("{field} in {printed}"));
        value.trim().parse().unwrap()
    };
    let blocks = number("dblocks", &["sb 0", "print dblocks"]);
    let group_blocks = number("agblocks", &["sb 0", "print agblocks"]);
    let group_log = number("agblklog", &["sb 0", "print agblklog"]);
    // The inode whose size is that of the file.
    let at = (0..bytes.len())
        .step_by(256)
        .find(|&at| {
            bytes[at..].starts_with(b"IN") && bytes[at + 56..at + 64] == 3_000_000u64.to_be_bytes()
        })
        .expect("the inode");
    let extents: Vec<u8> = bytes[at + 100..at + 256].to_vec();
    let count = u16::from_be_bytes([bytes[at + 78], bytes[at + 79]]);
    let block = blocks - 1;
    let physical = (block / group_blocks) << group_log | (block % group_blocks);
    let mut node = b"BMAP".to_vec();
    node.extend([0, 0]);
    node.extend(count.to_be_bytes());
    node.extend([0xff; 16]);
    node.extend(&extents[..usize::from(count) * 16]);
    let start = block as usize * 4096;
    bytes[start..start + node.len()].copy_from_slice(&node);
    bytes[at + 5] = 3;
    let fork = &mut bytes[at + 100..at + 256];
    fork.fill(0);
    fork[..4].copy_from_slice(&[0, 1, 0, 1]);
    let most = (156 - 4) / 16;
    fork[4 + most * 8..][..8].copy_from_slice(&physical.to_be_bytes());
    bytes
}

#[test]
fn a_log_with_changes_is_told() {
    if !has("mkfs.xfs", "xfsprogs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), &["-m", "crc=1"]);
    let mut bytes = std::fs::read(&image).unwrap();
    let (_, xfs) = whole(bytes.clone());
    assert_eq!(xfs.state(), Vec::<String>::new());
    // The log begins at the block that the superblock names; its first record is that of an unmount. With its flag gone, it
    // is a record of changes.
    let number = u64::from_be_bytes(bytes[48..56].try_into().unwrap());
    let group_blocks = u64::from(u32::from_be_bytes(bytes[84..88].try_into().unwrap()));
    let log = bytes[124];
    let block = (number >> log) * group_blocks + (number & ((1 << log) - 1));
    let record = block as usize * 4096;
    assert_eq!(bytes[record..record + 4], [0xfe, 0xed, 0xba, 0xbe]);
    bytes[record + 512 + 9] = 0;
    let (_, xfs) = whole(bytes.clone());
    assert!(
        xfs.state()[0].contains("its log holds changes"),
        "{:?}",
        xfs.state()
    );
    // A superblock that was changed is noticed.
    bytes[13] ^= 1;
    let storage = images::divided(bytes);
    assert!(guest_inspection::file_system::open(&storage.volumes[0]).is_err());
}
