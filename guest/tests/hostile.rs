//! Images of each kind with bytes changed at random: whatever they hold, what reads them ends, and does not panic.

mod images;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use guest_inspection::file_system::{self, FileKind, FileSystem};
use guest_inspection::storage::{NamedDisk, divide};
use images::{MemoryDisk, blank, fed, has, named, run};
use proptest::prelude::*;
use virtual_disk::{DiskError, DiskReader};

/// What no reading of so small an image takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An image, and where the bytes lie that steer its reader: the rest is content and free space.
struct Image {
    bytes: Vec<u8>,
    /// Bytes that are not zero.
    written: Vec<usize>,
    /// What lies behind the bytes is zero.
    size: u64,
}

/// The least that mkfs.xfs makes since 6.0.
const XFS_SIZE: u64 = 320 << 20;

impl Image {
    fn new(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let written = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
        let size = bytes.len() as u64;
        Self {
            bytes,
            written,
            size,
        }
    }
}

fn small_root(folder: &Path) -> std::path::PathBuf {
    let root = folder.join("root");
    std::fs::create_dir_all(root.join("etc/default")).unwrap();
    for number in 0..40 {
        let name = format!("etc/default/name-{number}");
        std::fs::write(root.join(name), "x").unwrap();
    }
    std::fs::write(root.join("etc/fstab"), vec![b'#'; 20_000]).unwrap();
    std::os::unix::fs::symlink("etc", root.join("link")).unwrap();
    root
}

fn ext(folder: &Path, arguments: &[&str]) -> Image {
    let root = small_root(folder);
    let image = folder.join("image");
    blank(&image, 4 << 20);
    let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"-q", &"-F", &"-b", &"1024", &"-d"];
    all.push(&root);
    for argument in arguments {
        all.push(argument);
    }
    all.push(&image);
    run("mke2fs", &all);
    Image::new(&image)
}

fn ext4_with_journal(folder: &Path) -> Image {
    ext(folder, &["-t", "ext4", "-O", "^metadata_csum"]);
    let image = folder.join("image");
    let script = folder.join("script");
    let content = folder.join("content");
    std::fs::write(&content, [7u8; 2048]).unwrap();
    let commands = format!(
        "jo\njw -b 100,101 {content}\njw -r 100\njw -b 102,103 {content}\njc\n",
        content = content.display()
    );
    std::fs::write(&script, commands).unwrap();
    run("debugfs", &[&"-w", &"-f", &script, &image]);
    Image::new(&image)
}

fn xfs(folder: &Path) -> Image {
    let file = folder.join("file");
    std::fs::write(&file, vec![b'#'; 20_000]).unwrap();
    let mut prototype = format!(
        "/\n0 0\nd--755 0 0\nfstab ---644 0 0 {}\nlink l--777 0 0 etc\nmany d--755 0 0\n",
        file.display()
    );
    for number in 0..100 {
        prototype += &format!("name-{number} ---644 0 0 /dev/null\n");
    }
    prototype += "$\n$\n";
    let path = folder.join("prototype");
    std::fs::write(&path, prototype).unwrap();
    let image = folder.join("image");
    blank(&image, XFS_SIZE);
    // Version 4 has no sum over its superblock, so that changes there are met as well.
    run(
        "mkfs.xfs",
        &[&"-q", &"-f", &"-m", &"crc=0", &"-p", &path, &image],
    );
    // The log, which is most of what was written, lies in the middle and steers nothing: zeros stand for it.
    let mut bytes = std::fs::read(&image).unwrap();
    bytes.truncate(4 << 20);
    std::fs::write(&image, bytes).unwrap();
    let mut made = Image::new(&image);
    made.size = XFS_SIZE;
    made
}

fn fat(folder: &Path) -> Image {
    let image = folder.join("image");
    blank(&image, 2 << 20);
    run(
        "mformat",
        &[
            &"-i", &image, &"-T", &"4096", &"-h", &"64", &"-s", &"32", &"::",
        ],
    );
    let file = folder.join("file");
    std::fs::write(&file, vec![b'#'; 20_000]).unwrap();
    run("mmd", &[&"-i", &image, &"::/EFI"]);
    run(
        "mcopy",
        &[&"-i", &image, &file, &"::/EFI/a longer name.efi"],
    );
    Image::new(&image)
}

fn ntfs(folder: &Path) -> Image {
    let image = folder.join("image");
    blank(&image, 4 << 20);
    run("mkntfs", &[&"--force", &"--fast", &"--quiet", &image]);
    let file = folder.join("file");
    std::fs::write(&file, vec![b'#'; 20_000]).unwrap();
    for number in 0..30 {
        run(
            "ntfscp",
            &[&"-f", &image, &file, &format!("/name-{number}")],
        );
    }
    let mut made = Image::new(&image);
    // $UpCase is 128 KiB of numbers that nothing here reads.
    let bytes = std::mem::take(&mut made.bytes);
    made.written.retain(|at| {
        bytes[at & !511..][..4] == *b"FILE" || bytes[at & !4095..][..4] == *b"INDX" || *at < 512
    });
    made.bytes = bytes;
    made
}

fn tables(folder: &Path) -> Image {
    let image = folder.join("image");
    blank(&image, 4 << 20);
    fed(
        "sfdisk",
        &[&"--quiet", &image],
        "label: dos\nstart=64, size=100, type=83\nstart=200, size=7000, type=5\nstart=300, size=100\nstart=500, size=100\n",
    );
    Image::new(&image)
}

/// A disk with zeros behind what is in memory.
struct LongDisk(MemoryDisk, u64);

impl DiskReader for LongDisk {
    fn size_bytes(&self) -> u64 {
        self.1
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let there = self
            .0
            .size_bytes()
            .saturating_sub(offset)
            .min(buf.len() as u64);
        let (written, zeros) = buf.split_at_mut(there as usize);
        zeros.fill(0);
        if written.is_empty() {
            return Ok(());
        }
        self.0.read_at(offset, written)
    }
    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, DiskError> {
        self.0.next_data(offset)
    }
}

/// Reads whatever is to be found, without end conditions but those of the reader.
fn read_all(file_system: &dyn FileSystem) {
    let _ = file_system.space();
    let _ = file_system.state();
    let mut folders = vec![String::new()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in file_system.list(&format!("{folder}/")).unwrap_or_default() {
            seen += 1;
            if seen > 500 {
                return;
            }
            let path = format!("{folder}/{}", entry.name);
            let _ = file_system.kind(&path);
            let _ = file_system.size(&path);
            let _ = file_system.read(&path, 1 << 20);
            let _ = file_system.read_link(&path);
            if entry.kind == FileKind::Folder && path.len() < 200 {
                folders.push(path);
            }
        }
    }
}

/// Changes bytes, and reads. A panic within a reader is caught by the product and told as damage; here it is a failure.
fn survives(image: &Image, changes: &[(prop::sample::Index, u8)]) {
    let mut bytes = image.bytes.clone();
    for (index, value) in changes {
        bytes[image.written[index.index(image.written.len())]] = *value;
    }
    let start = Instant::now();
    let storage = divide(&[NamedDisk {
        name: "sda".into(),
        reader: Arc::new(LongDisk(MemoryDisk(bytes), image.size)),
    }]);
    for volume in &storage.volumes {
        match file_system::open(volume) {
            Ok(Some(file_system)) => {
                read_all(&*file_system);
                let notes = file_system.state().join("; ");
                assert!(!notes.contains("the reader gave up"), "{notes}");
            }
            Ok(None) => {}
            Err(error) => assert!(!error.to_string().contains("the reader gave up"), "{error}"),
        }
    }
    assert!(start.elapsed() < PATIENCE);
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            prop_oneof![Just(0u8), Just(0xff), Just(0x80), any::<u8>()],
        ),
        1..12,
    )
}

/// So many cases, or as many as PROPTEST_CASES says.
fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

/// One image for all cases of a test.
macro_rules! hostile {
    ($name:ident, $program:literal, $package:literal, $make:expr, $cases:literal) => {
        #[test]
        fn $name() {
            static IMAGE: OnceLock<Image> = OnceLock::new();
            if !has($program, $package) {
                return;
            }
            let image = IMAGE.get_or_init(|| {
                let folder = tempfile::tempdir().unwrap();
                let make: fn(&Path) -> Image = $make;
                make(folder.path())
            });
            proptest!(cases($cases), |(changes in changes())| {
                survives(image, &changes);
            });
        }
    };
}

hostile!(
    ext4_extents,
    "mke2fs",
    "e2fsprogs",
    |folder| ext(folder, &["-t", "ext4", "-O", "^metadata_csum"]),
    256
);
hostile!(
    ext2_numbers,
    "mke2fs",
    "e2fsprogs",
    |folder| ext(folder, &["-t", "ext2"]),
    256
);
hostile!(ext4_journal, "debugfs", "e2fsprogs", ext4_with_journal, 256);
hostile!(xfs_folders, "mkfs.xfs", "xfsprogs", xfs, 256);
hostile!(fat_chains, "mformat", "mtools", fat, 256);
hostile!(ntfs_records, "mkntfs", "ntfs-3g", ntfs, 256);
hostile!(partition_tables, "sfdisk", "fdisk", tables, 256);

proptest! {
    #[test]
    fn noise_is_no_disk(bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0usize..200_000) {
        let mut disk = vec![0u8; 300_000];
        disk[at..at + bytes.len()].copy_from_slice(&bytes);
        disk[..bytes.len()].copy_from_slice(&bytes);
        let storage = divide(&[named("a", disk.clone()), named("b", disk)]);
        for volume in &storage.volumes {
            let _ = file_system::open(volume);
        }
    }
}
