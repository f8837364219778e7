//! Files read in pieces: the same bytes as the whole has, and nothing of the disk but what they need.

mod images;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use guest_inspection::file_system::{self, FileSystem};
use guest_inspection::storage::{NamedDisk, divide};
use images::{MemoryDisk, blank, check_pieces, has, pattern, run};
use virtual_disk::{DiskError, DiskReader};

const MIB: u64 = 1 << 20;

/// Counts reads, and their bytes.
struct Counted {
    disk: MemoryDisk,
    reads: AtomicU64,
    bytes: Mutex<u64>,
}

impl DiskReader for Counted {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        *self.bytes.lock().unwrap() += buf.len() as u64;
        self.disk.read_at(offset, buf)
    }
    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, DiskError> {
        self.disk.next_data(offset)
    }
}

impl Counted {
    /// Reads and bytes since the last call.
    fn since(&self) -> (u64, u64) {
        let bytes = std::mem::take(&mut *self.bytes.lock().unwrap());
        (self.reads.swap(0, Ordering::Relaxed), bytes)
    }
}

fn counted(image: &Path) -> (Arc<Counted>, Box<dyn FileSystem>) {
    let disk = Arc::new(Counted {
        disk: MemoryDisk(std::fs::read(image).unwrap()),
        reads: AtomicU64::new(0),
        bytes: Mutex::new(0),
    });
    let named = NamedDisk {
        name: "sda".into(),
        reader: disk.clone(),
    };
    let files = file_system::open(&divide(&[named]).volumes[0]);
    (disk, files.unwrap().expect("a file system"))
}

/// A large file whose pieces lie together: its end costs what an end costs, and all of it in pieces what it has.
fn check_cost(image: &Path, path: &str, expected: &[u8]) {
    let (disk, files) = counted(image);
    let whole = expected.len() as u64;
    disk.since();
    let mut end = [0; 100];
    assert_eq!(files.read_at(path, whole - 100, &mut end).unwrap(), 100);
    assert!(end[..] == expected[expected.len() - 100..]);
    let (reads, bytes) = disk.since();
    assert!(
        reads <= 16 && bytes <= MIB,
        "the end: {reads} reads of {bytes} bytes"
    );
    let mut piece = [0; 10_000];
    for from in (0..whole).step_by(piece.len()) {
        files.read_at(path, from, &mut piece).unwrap();
    }
    let (reads, bytes) = disk.since();
    assert!(
        reads <= 20 + whole / MIB && bytes <= whole + 3 * MIB,
        "in pieces: {reads} reads of {bytes} bytes"
    );
    let (_, files) = counted(image);
    check_pieces(&*files, path, expected);
}

/// Every second block of it is a hole.
fn holes(path: &Path) -> Vec<u8> {
    let file = std::fs::File::create(path).unwrap();
    let mut bytes = Vec::new();
    for number in 0..900u64 {
        file.write_all_at(&[number as u8 | 1; 4096], number * 8192)
            .unwrap();
        bytes.resize(number as usize * 8192, 0);
        bytes.extend([number as u8 | 1; 4096]);
    }
    file.set_len(bytes.len() as u64 + 5_000_000).unwrap();
    bytes.resize(bytes.len() + 5_000_000, 0);
    bytes
}

#[test]
fn ext_by_extents_and_by_block_numbers() {
    if !has("mke2fs", "e2fsprogs") {
        return;
    }
    for options in [
        &["-b", "4096"][..],
        &["-b", "1024", "-O", "^extents,^64bit"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("boot")).unwrap();
        std::fs::write(root.join("boot/large"), pattern(20_000_000)).unwrap();
        let sparse = holes(&root.join("boot/sparse"));
        let image = folder.path().join("image");
        blank(&image, 64 * MIB);
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-F", &"-t", &"ext4", &"-d"];
        all.push(&root);
        all.extend(
            options
                .iter()
                .map(|option| option as &dyn AsRef<std::ffi::OsStr>),
        );
        all.push(&image);
        run("mke2fs", &all);
        check_cost(&image, "/boot/large", &pattern(20_000_000));
        let (_, files) = counted(&image);
        check_pieces(&*files, "/boot/sparse", &sparse);
    }
}

#[test]
fn fat_whole_and_in_fragments() {
    if !has("mformat", "mtools") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    blank(&image, 64 * MIB);
    run(
        "mformat",
        &[
            &"-i", &image, &"-T", &"131072", &"-h", &"64", &"-s", &"32", &"-F", &"-c", &"1", &"::",
        ],
    );
    let copy = |length: usize, name: &str| {
        let file = folder.path().join("file");
        std::fs::write(&file, pattern(length)).unwrap();
        run("mcopy", &[&"-i", &image, &file, &format!("::/{name}")]);
    };
    for number in 0..40 {
        copy(3000, &format!("small{number}"));
    }
    for number in (0..40).step_by(2) {
        run("mdel", &[&"-i", &image, &format!("::/small{number}")]);
    }
    copy(600_000, "pieces");
    copy(20_000_000, "large");
    check_cost(&image, "/LARGE", &pattern(20_000_000));
    let (_, files) = counted(&image);
    check_pieces(&*files, "/pieces", &pattern(600_000));
}

#[test]
fn ntfs_in_clusters_and_in_the_record() {
    if !has("mkntfs", "ntfs-3g") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    blank(&image, 64 * MIB);
    run("mkntfs", &[&"--force", &"--fast", &"--quiet", &image]);
    for (name, length) in [("large", 20_000_000), ("small", 300)] {
        let file = folder.path().join("file");
        std::fs::write(&file, pattern(length)).unwrap();
        run("ntfscp", &[&"-f", &image, &file, &name]);
    }
    check_cost(&image, "/Large", &pattern(20_000_000));
    let (_, files) = counted(&image);
    check_pieces(&*files, "/small", &pattern(300));
}

#[test]
fn xfs_by_its_extents() {
    if !has("mkfs.xfs", "xfsprogs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, pattern(20_000_000)).unwrap();
    let prototype = folder.path().join("prototype");
    std::fs::write(
        &prototype,
        format!(
            "/\n0 0\nd--755 0 0\nlarge ---600 0 0 {}\n$\n",
            file.display()
        ),
    )
    .unwrap();
    let image = folder.path().join("image");
    blank(&image, 320 * MIB);
    run("mkfs.xfs", &[&"-q", &"-f", &"-p", &prototype, &image]);
    check_cost(&image, "/large", &pattern(20_000_000));
}
