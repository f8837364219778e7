//! File systems as a kernel leaves them: written to while mounted, and copied in the middle of it.

mod images;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use guest_inspection::file_system::{FileKind, FileSystem};
use images::{blank, check_pieces, has, pattern, run, whole};

/// A mounted image, unmounted when it goes out of scope.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// `None` where no image can be mounted.
    fn new(image: &Path, folder: &Path, program: &str, arguments: &[&str]) -> Option<Self> {
        let at = folder.join("mounted");
        std::fs::create_dir_all(&at).unwrap();
        let done = Command::new(program)
            .args(arguments)
            .arg(image)
            .arg(&at)
            .output()
            .is_ok_and(|output| output.status.success());
        if !done {
            testkit::skip(if program == "mount" { "loop" } else { "fuse" });
        }
        done.then_some(Self { at })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

/// What is made with a number, so that it can be told again.
fn content(number: usize) -> Vec<u8> {
    let bytes = pattern(1000 + number % 7 * 5000);
    bytes.iter().map(|byte| byte ^ number as u8).collect()
}

/// Makes, moves and removes files in many small transactions, so that a small journal goes round several times.
/// `look` is called now and then with what should be there.
fn work(
    root: &Path,
    may_remove_folders: bool,
    look: impl Fn(&BTreeMap<String, Vec<u8>>),
) -> BTreeMap<String, Vec<u8>> {
    let mut expected = BTreeMap::new();
    for number in 0..1500 {
        let folder = format!("folder-{}", number % 40);
        std::fs::create_dir_all(root.join(&folder)).unwrap();
        let path = format!("{folder}/file-{number}");
        let mut file = std::fs::File::create(root.join(&path)).unwrap();
        file.write_all(&content(number)).unwrap();
        if number % 5 == 0 {
            file.sync_all().unwrap();
        }
        expected.insert(path.clone(), content(number));
        if number % 3 == 0 && number > 100 {
            let gone = expected.keys().find(|gone| **gone != path).unwrap().clone();
            expected.remove(&gone);
            std::fs::remove_file(root.join(gone)).unwrap();
        }
        if number % 7 == 0 {
            let moved = format!("{folder}/moved-{number}");
            std::fs::rename(root.join(&path), root.join(&moved)).unwrap();
            let bytes = expected.remove(&path).unwrap();
            expected.insert(moved, bytes);
        }
        if may_remove_folders && number % 100 == 99 {
            // Whole folders go, and their blocks become something else: the journal must say that they were revoked.
            let folder = format!("folder-{}", number % 40);
            expected.retain(|path, _| {
                let stays = !path.starts_with(&format!("{folder}/"));
                if !stays {
                    std::fs::remove_file(root.join(path)).unwrap();
                }
                stays
            });
            std::fs::remove_dir(root.join(&folder)).unwrap();
        }
        if number % 150 == 149 {
            look(&expected);
        }
    }
    // One file in very many pieces.
    let pieces = std::fs::File::create(root.join("pieces")).unwrap();
    let mut bytes = Vec::new();
    for number in 0..800u64 {
        pieces
            .write_all_at(&[number as u8; 4096], number * 8192)
            .unwrap();
        bytes.resize(number as usize * 8192, 0);
        bytes.extend([number as u8; 4096]);
    }
    expected.insert("pieces".into(), bytes);
    std::os::unix::fs::symlink("folder-1", root.join("link")).unwrap();
    expected
}

fn check_files(file_system: &dyn FileSystem, expected: &BTreeMap<String, Vec<u8>>) {
    let mut found = Vec::new();
    for entry in file_system.list("/").unwrap() {
        if entry.kind == FileKind::Folder && entry.name != "lost+found" {
            for file in file_system.list(&format!("/{}", entry.name)).unwrap() {
                found.push(format!("{}/{}", entry.name, file.name));
            }
        } else if entry.kind == FileKind::File {
            found.push(entry.name);
        }
    }
    found.sort();
    assert_eq!(found, expected.keys().cloned().collect::<Vec<_>>());
    for (path, bytes) in expected {
        let read = file_system.read(&format!("/{path}"), 1 << 30).unwrap();
        assert!(read.as_ref() == Some(bytes), "{path}");
    }
    if let Some(bytes) = expected.get("pieces") {
        check_pieces(file_system, "/pieces", bytes);
    }
}

fn check(file_system: &dyn FileSystem, expected: &BTreeMap<String, Vec<u8>>) {
    check_files(file_system, expected);
    assert_eq!(
        file_system.read_link("/link").unwrap().as_deref(),
        Some("folder-1")
    );
}

#[test]
fn ext4_copied_while_it_is_mounted() {
    if !has("mke2fs", "e2fsprogs") {
        return;
    }
    for options in ["metadata_csum", "^metadata_csum,^64bit"] {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        blank(&image, 64 << 20);
        // A journal of 4 MiB goes round under this work.
        run(
            "mke2fs",
            &[
                &"-q", &"-F", &"-t", &"ext4", &"-b", &"4096", &"-J", &"size=4", &"-O", &options,
                &image,
            ],
        );
        let Some(mounted) = Mounted::new(&image, folder.path(), "mount", &["-o", "loop"]) else {
            return;
        };
        let copied = || {
            run("sync", &[&"-f", &mounted.at]);
            whole(std::fs::read(&image).unwrap()).1
        };
        let expected = work(&mounted.at, true, |expected| {
            let ext = copied();
            let state = ext.state().join("; ");
            assert!(state.contains("blocks of its journal"), "{state}");
            check_files(&*ext, expected);
        });
        let ext = copied();
        drop(mounted);
        check(&*ext, &expected);
        let (_, ext) = whole(std::fs::read(&image).unwrap());
        assert_eq!(ext.state(), Vec::<String>::new());
        check(&*ext, &expected);
    }
}

#[test]
fn xfs_after_work_and_unmount() {
    if !has("mkfs.xfs", "xfsprogs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    blank(&image, 320 << 20);
    run("mkfs.xfs", &[&"-q", &"-f", &image]);
    let Some(mounted) = Mounted::new(&image, folder.path(), "mount", &["-o", "loop"]) else {
        return;
    };
    let mut expected = work(&mounted.at, true, |_| {});
    let long = "x".repeat(900);
    std::os::unix::fs::symlink(&long, mounted.at.join("folder-2/long")).unwrap();
    expected.insert("folder-2/long".into(), Vec::new());
    run("sync", &[&"-f", &mounted.at]);
    let copy = std::fs::read(&image).unwrap();
    drop(mounted);
    // While it is mounted, its log says so.
    let (_, xfs) = whole(copy);
    assert!(
        xfs.state()[0].contains("its log holds changes"),
        "{:?}",
        xfs.state()
    );
    let (_, xfs) = whole(std::fs::read(&image).unwrap());
    assert_eq!(xfs.state(), Vec::<String>::new());
    assert_eq!(xfs.read_link("/folder-2/long").unwrap(), Some(long));
    expected.remove("folder-2/long");
    let listed: Vec<_> = xfs.list("/folder-2").unwrap();
    assert!(
        listed
            .iter()
            .any(|entry| entry.name == "long" && entry.kind == FileKind::Link)
    );
    check_pieces(&*xfs, "/pieces", &expected["pieces"]);
    for (path, bytes) in &expected {
        let read = xfs.read(&format!("/{path}"), 1 << 30).unwrap();
        assert!(read.as_ref() == Some(bytes), "{path}");
    }
}

#[test]
fn ntfs_with_folders() {
    if !has("mkntfs", "ntfs-3g") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    blank(&image, 128 << 20);
    run("mkntfs", &[&"--force", &"--fast", &"--quiet", &image]);
    let Some(mounted) = Mounted::new(&image, folder.path(), "ntfs-3g", &[]) else {
        return;
    };
    let config = mounted.at.join("Windows/System32/config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("SYSTEM"), pattern(500_000)).unwrap();
    // ntfs-3g finds a folder not empty for a while after its last file was removed.
    let expected = work(&mounted.at, false, |_| {});
    run("sync", &[]);
    drop(mounted);
    let (_, ntfs) = whole(std::fs::read(&image).unwrap());
    assert!(
        ntfs.read("/windows/SYSTEM32/Config/system", 1 << 20)
            .unwrap()
            .unwrap()
            == pattern(500_000)
    );
    check_pieces(&*ntfs, "/pieces", &expected["pieces"]);
    for (path, bytes) in &expected {
        let read = ntfs.read(&format!("/{path}"), 1 << 30).unwrap();
        assert!(read.as_ref() == Some(bytes), "{path}");
    }
    let folders = ntfs.list("/").unwrap();
    let count = folders
        .iter()
        .filter(|entry| entry.name.starts_with("folder-"))
        .count();
    // Folders that became empty are still there.
    assert_eq!(count, 40);
}
