//! What the tests of file systems and tables share: images made by real tools, and how they are opened.

#![allow(dead_code)]

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use guest_inspection::file_system::{self, FileSystem};
use guest_inspection::storage::{NamedDisk, Storage, Volume, divide};
use virtual_disk::{DiskError, DiskReader};

/// A disk in memory.
pub struct MemoryDisk(pub Vec<u8>);

impl DiskReader for MemoryDisk {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|start| self.0.get(start..start.checked_add(buf.len())?));
        match part {
            Some(part) => {
                buf.copy_from_slice(part);
                Ok(())
            }
            None => Err(DiskError::OutOfRange {
                disk: "memory".into(),
                offset,
                length: buf.len() as u64,
                size_bytes: self.size_bytes(),
            }),
        }
    }
    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, DiskError> {
        Ok((offset < self.size_bytes()).then_some(offset..self.size_bytes()))
    }
}

pub fn named(name: &str, bytes: Vec<u8>) -> NamedDisk {
    NamedDisk {
        name: name.into(),
        reader: Arc::new(MemoryDisk(bytes)),
    }
}

/// The volumes of one disk.
pub fn divided(bytes: Vec<u8>) -> Storage {
    divide(&[named("sda", bytes)])
}

/// The file system of a volume, which must have one.
pub fn opened(volume: &Volume) -> Box<dyn FileSystem> {
    file_system::open(volume)
        .unwrap_or_else(|error| panic!("{}: {error}", volume.place))
        .unwrap_or_else(|| panic!("{} has no file system", volume.place))
}

/// The file system of an image without a table.
pub fn whole(bytes: Vec<u8>) -> (Volume, Box<dyn FileSystem>) {
    let storage = divided(bytes);
    let volume = storage.volumes.first().expect("a volume").clone();
    let file_system = opened(&volume);
    (volume, file_system)
}

/// That pieces of every size give the same bytes as the whole, wherever they begin.
pub fn check_pieces(files: &dyn FileSystem, path: &str, expected: &[u8]) {
    let whole = expected.len();
    for length in [1, 13, 512, 4095, 70_000, whole + 9] {
        let mut piece = vec![0xee; length];
        let step = length.max(whole / 300) | 1;
        let ends = [whole.saturating_sub(length), whole.saturating_sub(1), whole];
        for from in (0..whole).step_by(step).chain(ends) {
            let count = files.read_at(path, from as u64, &mut piece).unwrap();
            assert_eq!(
                count,
                length.min(whole - from),
                "{path}: {length} at {from}"
            );
            assert!(
                piece[..count] == expected[from..from + count],
                "{path}: {length} at {from}"
            );
        }
    }
    assert_eq!(files.read_at(path, u64::MAX, &mut [0; 9]).unwrap(), 0);
}

/// Whether a program is here; says so when not, and fails where all must be.
pub fn has(program: &str, package: &str) -> bool {
    let there = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    if !there {
        testkit::skip(package);
    }
    there
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    // Debian keeps these out of an ordinary user's path.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command.env("MTOOLS_SKIP_CHECK", "1");
    command
}

/// Runs a tool that must succeed, and gives back what it wrote.
pub fn run(program: &str, arguments: &[&dyn AsRef<OsStr>]) -> String {
    fed(program, arguments, "")
}

/// The same, with `input` on its standard input.
pub fn fed(program: &str, arguments: &[&dyn AsRef<OsStr>], input: &str) -> String {
    let mut child = command(program)
        .args(arguments.iter().map(|argument| argument.as_ref()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    // A tool that reads nothing may be gone.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("waited");
    assert!(
        output.status.success(),
        "{program} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An empty file of `size` bytes.
pub fn blank(path: &Path, size: u64) {
    std::fs::File::create(path)
        .and_then(|file| file.set_len(size))
        .expect("a file of that size");
}

/// What `blkid -p` prints of an image: lines `KEY=value`.
pub fn blkid(path: &Path) -> std::collections::BTreeMap<String, String> {
    run("blkid", &[&"-p", &"-o", &"export", &path])
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Bytes that are not the same in any two blocks.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length.div_ceil(8) as u64)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .take(length)
        .collect()
}

/// Names of a listing, in order.
pub fn names(file_system: &dyn FileSystem, path: &str) -> Vec<String> {
    let mut names: Vec<String> = file_system
        .list(path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort();
    names
}
