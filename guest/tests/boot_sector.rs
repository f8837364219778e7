//! FAT as mtools make it, and NTFS as ntfs-3g's tools do.

mod images;

use std::path::Path;

use guest_inspection::GuestError;
use guest_inspection::file_system::FileKind;
use guest_inspection::storage::Content;
use images::{blank, blkid, has, names, pattern, run, whole};

#[test]
fn what_mtools_make_is_read() {
    if !has("mformat", "mtools") {
        return;
    }
    // Sectors, and what mformat is to make of them: FAT12, FAT16, FAT32, and FAT32 with sectors of 4 KiB.
    for (sectors, arguments) in [
        (4096u64, &[][..]),
        (131_072, &[]),
        (131_072, &["-F", "-c", "1"]),
    ] {
        eprintln!("mformat {sectors} {arguments:?}");
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        blank(&image, sectors * 512);
        let total = sectors.to_string();
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![
            &"-i",
            &image,
            &"-v",
            &"EFI",
            &"-N",
            &"1234abcd",
            &"-T",
            &total,
        ];
        all.extend([&"-h" as &dyn AsRef<std::ffi::OsStr>, &"64", &"-s", &"32"]);
        for argument in arguments {
            all.push(argument);
        }
        all.push(&"::");
        run("mformat", &all);
        run("mmd", &[&"-i", &image, &"::/EFI"]);
        run("mmd", &[&"-i", &image, &"::/EFI/debian"]);
        run("mmd", &[&"-i", &image, &"::/EFI/many"]);
        let large = folder.path().join("large");
        std::fs::write(&large, pattern(300_000)).unwrap();
        run(
            "mcopy",
            &[&"-i", &image, &large, &"::/EFI/debian/shimx64-signed.efi"],
        );
        let small = folder.path().join("small");
        std::fs::write(&small, "").unwrap();
        run(
            "mcopy",
            &[&"-i", &image, &small, &"::/EFI/debian/EMPTY.TXT"],
        );
        for number in 0..100 {
            let name = format!("::/EFI/many/a rather long name {number:03}.conf");
            run("mcopy", &[&"-i", &image, &small, &name]);
        }

        let (volume, fat) = whole(std::fs::read(&image).unwrap());
        assert_eq!(volume.content, Content::Fat);
        assert_eq!(volume.uuid.as_deref(), Some("1234-ABCD"));
        assert_eq!(volume.label.as_deref(), Some("EFI"));
        assert_eq!(volume.uuid.as_ref(), blkid(&image).get("UUID"));
        assert_eq!(names(&*fat, "/"), ["EFI"]);
        assert_eq!(fat.kind("/efi/DEBIAN").unwrap(), Some(FileKind::Folder));
        assert_eq!(
            names(&*fat, "/EFI/debian"),
            ["EMPTY.TXT", "shimx64-signed.efi"]
        );
        let shim = "/efi/debian/SHIMX64-SIGNED.EFI";
        assert_eq!(fat.size(shim).unwrap(), Some(300_000));
        assert!(fat.read(shim, 1 << 20).unwrap().unwrap() == pattern(300_000));
        assert!(matches!(
            fat.read(shim, 1000),
            Err(GuestError::TooLarge { .. })
        ));
        // By its short name too, which is not listed.
        assert_eq!(fat.size("/EFI/debian/SHIMX6~1.EFI").unwrap(), Some(300_000));
        assert_eq!(
            fat.read("/EFI/debian/empty.txt", 0).unwrap().as_deref(),
            Some(&[][..])
        );
        assert_eq!(fat.kind("/EFI/none").unwrap(), None);
        let many = names(&*fat, "/EFI/many");
        assert_eq!(many.len(), 100);
        assert_eq!(many[99], "a rather long name 099.conf");
        assert_eq!(fat.state(), Vec::<String>::new());
        let space = fat.space().unwrap();
        assert!(
            space.free_bytes < space.total_bytes && space.free_bytes > space.total_bytes / 2,
            "{space:?}"
        );
        let mut dirty = std::fs::read(&image).unwrap();
        let at = if arguments.is_empty() { 37 } else { 65 };
        dirty[at] |= 1;
        let (_, fat) = whole(dirty);
        assert_eq!(fat.state().len(), 1, "{:?}", fat.state());
    }
}

fn make_ntfs(folder: &Path, arguments: &[&str]) -> std::path::PathBuf {
    let image = folder.join("image");
    blank(&image, 32 << 20);
    let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> =
        vec![&"--force", &"--fast", &"--quiet", &"--label", &"System"];
    for argument in arguments {
        all.push(argument);
    }
    all.push(&image);
    run("mkntfs", &all);
    image
}

#[test]
fn what_ntfs_tools_make_is_read() {
    if !has("mkntfs", "ntfs-3g") {
        return;
    }
    for arguments in [
        &[][..],
        &["--cluster-size", "512"],
        &["--cluster-size", "65536"],
    ] {
        eprintln!("mkntfs {arguments:?}");
        let folder = tempfile::tempdir().unwrap();
        let image = make_ntfs(folder.path(), arguments);
        // ntfscp copies into folders that exist, and none of the tools makes one: the root is what there is.
        let large = folder.path().join("large");
        std::fs::write(&large, pattern(3_000_000)).unwrap();
        let small = folder.path().join("small");
        std::fs::write(&small, "regf").unwrap();
        run("ntfscp", &[&"-f", &image, &large, &"/A large file.bin"]);
        for number in 0..60 {
            let name = format!("/config-{number:02}");
            run("ntfscp", &[&"-f", &image, &small, &name]);
        }

        let (volume, ntfs) = whole(std::fs::read(&image).unwrap());
        assert_eq!(volume.content, Content::Ntfs);
        assert_eq!(volume.label.as_deref(), Some("System"));
        let known = blkid(&image);
        assert_eq!(volume.uuid.as_ref(), known.get("UUID"));
        let found = names(&*ntfs, "/");
        assert_eq!(found.len(), 61, "{found:?}");
        assert_eq!(found[0], "A large file.bin");
        assert!(ntfs.read("/a LARGE file.BIN", 1 << 30).unwrap().unwrap() == pattern(3_000_000));
        assert!(matches!(
            ntfs.read("/A large file.bin", 1 << 20),
            Err(GuestError::TooLarge { .. })
        ));
        assert_eq!(
            ntfs.read("/CONFIG-59", 100).unwrap().as_deref(),
            Some(&b"regf"[..])
        );
        assert_eq!(ntfs.size("/config-00").unwrap(), Some(4));
        assert_eq!(ntfs.kind("/config-99").unwrap(), None);
        assert_eq!(ntfs.kind("/").unwrap(), Some(FileKind::Folder));
        assert_eq!(ntfs.read_link("/config-00").unwrap(), None);
        assert_eq!(ntfs.state(), Vec::<String>::new());
        let space = ntfs.space().unwrap();
        assert!(
            space.free_bytes > 10 << 20 && space.free_bytes < space.total_bytes,
            "{space:?}"
        );
    }
}

#[test]
fn hibernation_is_told() {
    if !has("mkntfs", "ntfs-3g") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hiberfil");
    for (magic, is_hibernated) in [("hibr", true), ("wake", false), ("", false)] {
        let image = make_ntfs(folder.path(), &[]);
        std::fs::write(&file, magic.to_owned() + &"\0".repeat(10_000 * magic.len())).unwrap();
        run("ntfscp", &[&"-f", &image, &file, &"/hiberfil.sys"]);
        let (_, ntfs) = whole(std::fs::read(&image).unwrap());
        let state = ntfs.state();
        assert_eq!(
            state.iter().any(|note| note.contains("hibernated")),
            is_hibernated,
            "{magic}: {state:?}"
        );
    }
}
