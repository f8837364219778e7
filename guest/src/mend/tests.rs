//! Guests on paper are broken, written into a folder, mended there by the script itself, read back, and judged again.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

mod cases;

use super::*;
use crate::{
    judge::tests::guests::{Guest, debian, rocky, suse},
    paper::{Node, TreeOnPaper},
};

/// Where each of the guest's file systems is mounted.
fn points(guest: &Guest) -> Vec<(&'static str, String)> {
    let facts = guest.facts();
    let linux = facts.system().expect("a Linux");
    let point = |place: &str| {
        let mount = linux.mounts.iter().find(|mount| mount.volume == place);
        mount.map_or("/".to_owned(), |mount| mount.point.clone())
    };
    guest
        .trees
        .iter()
        .map(|(place, _)| (*place, point(place)))
        .collect()
}

fn write(guest: &Guest, folder: &Path) {
    for ((_, tree), (_, point)) in guest.trees.iter().zip(points(guest)) {
        for (path, node) in tree.nodes() {
            let at = folder.join(format!("{point}{path}").trim_start_matches('/'));
            fs::create_dir_all(at.parent().expect("a folder")).unwrap();
            match node {
                Node::File(bytes) => fs::write(at, bytes).unwrap(),
                Node::Link(to) => symlink(to, at).unwrap(),
                Node::Unreadable => {}
            }
        }
    }
}

/// What lies in the folder, each file with the file system whose mount point is nearest.
fn read_back(guest: &mut Guest, folder: &Path) {
    let points = points(guest);
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            match kind.is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    let mut trees = vec![TreeOnPaper::default(); points.len()];
    for at in found {
        let path = format!("/{}", at.strip_prefix(folder).unwrap().display());
        let within = |point: &str| point == "/" || path.starts_with(&format!("{point}/"));
        let mut owners: Vec<_> = (0..points.len())
            .filter(|own| within(&points[*own].1))
            .collect();
        owners.sort_by_key(|own| points[*own].1.len());
        let owner = *owners.last().expect("the root");
        let inner = path[points[owner].1.trim_end_matches('/').len()..].to_owned();
        let tree = std::mem::take(&mut trees[owner]);
        trees[owner] = match fs::read_link(&at) {
            Ok(to) => tree.link(&inner, to.to_str().unwrap()),
            Err(_) => tree.file(&inner, fs::read(&at).unwrap()),
        };
    }
    for (tree, own) in trees.into_iter().zip(&mut guest.trees) {
        let caseless = own.1.caseless;
        own.1 = if caseless { tree.caseless() } else { tree };
    }
}

fn codes(guest: &Guest) -> Vec<&'static str> {
    let findings = judge(&guest.facts(), Target::Aws).findings;
    findings.iter().map(|finding| finding.code).collect()
}

fn run(script: &str, folder: &Path) -> Outcome {
    let mut shell = Command::new("sh");
    let ran = shell
        .args(["-c", script])
        .env("R", folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let outcome = read(&said);
    let complaints = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && outcome.whole, "{said}{complaints}");
    outcome
}

#[test]
fn what_can_be_mended_is_no_longer_found() {
    for (name, healthy, harm, gone, kept) in cases::all() {
        let mut guest = healthy();
        harm(&mut guest);
        let before = codes(&guest);
        assert!(
            gone.iter().any(|code| before.contains(code)),
            "{name}: {before:?}"
        );
        let conversion = conversion(&guest.facts(), Target::Aws).expect(name);
        let folder = tempfile::tempdir().unwrap();
        write(&guest, folder.path());
        let outcome = run(&script(&conversion).expect(name), folder.path());
        assert!(
            conversion.decides
                || judge(&guest.facts(), Target::Aws).verdict == crate::judge::Verdict::Boots,
            "{name}"
        );
        assert_eq!(outcome.left, [], "{name}");
        assert!(!outcome.mended.is_empty(), "{name}");
        read_back(&mut guest, folder.path());
        assert_eq!(codes(&guest), kept, "{name}, by {:?}", outcome.mended);
        assert_eq!(
            judge(&guest.facts(), Target::Aws).verdict,
            crate::judge::Verdict::Boots,
            "{name}"
        );
    }
}

/// Done twice, it keeps what stood there at first; and the way home puts that back.
#[test]
fn what_was_changed_is_put_back() {
    for (name, healthy, harm, ..) in cases::all() {
        let mut guest = healthy();
        harm(&mut guest);
        let script = script(&conversion(&guest.facts(), Target::Aws).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        write(&guest, folder.path());
        let _ = run(&script, folder.path());
        run_again(&script, folder.path());
        let undo = folder.path().join("var/lib/sparesite/conversion/undo.sh");
        // Its paths begin at the guest's root, and this folder is not.
        let text = fs::read_to_string(&undo).unwrap();
        let text = text.replace(
            "\"$path\"",
            &format!("\"{}$path\"", folder.path().display()),
        );
        fs::write(&undo, text).unwrap();
        assert!(
            Command::new("sh").arg(&undo).status().unwrap().success(),
            "{name}"
        );
        fs::remove_dir_all(folder.path().join("var/lib/sparesite")).unwrap();
        let mut home = guest.clone();
        read_back(&mut home, folder.path());
        for ((place, own), (_, other)) in guest.trees.iter().zip(&home.trees) {
            let files = |tree: &TreeOnPaper| {
                tree.nodes()
                    .map(|(path, node)| (path.clone(), format!("{node:?}")))
                    .collect::<Vec<_>>()
            };
            assert_eq!(files(own), files(other), "{name}, {place}");
        }
    }
}

/// The wrong volume would be written to: where there is a doubt, it is told, and boot does not wait.
#[test]
fn a_name_that_may_mean_another_volume_is_not_guessed() {
    let line = |device: &str| format!("0 1\n{device} /data ext4 defaults 0 2\n");
    type Harm = Box<dyn Fn(&mut Guest)>;
    let with = |device: &'static str, more: fn(&mut Guest)| -> Harm {
        Box::new(move |guest| {
            guest.edit("/etc/fstab", "0 1\n", &line(device));
            let data = crate::paper::volume("vda:6", Content::Ext, Some("da7a"));
            guest.storage.volumes.push(data);
            more(guest);
        })
    };
    let cases = [
        (
            "another kind",
            with("/dev/vda6", |guest| {
                guest.volume("vda:6").content = Content::Swap
            }),
        ),
        (
            "a disk that is left out",
            with("/dev/vda6", |guest| {
                guest.machine.excluded_disks = vec!["vdb".into()]
            }),
        ),
        (
            "its path",
            with("/dev/disk/by-path/pci-0000:00:05.0-part6", |_| {}),
        ),
        (
            "that of another line",
            with("/dev/vda6", |guest| {
                guest.edit(
                    "/etc/fstab",
                    "/data ext4",
                    "/data ext4 defaults 0 2\nUUID=da7a /more ext4",
                );
            }),
        ),
        (
            "a copied disk",
            with("/dev/vda6", |guest| {
                guest.storage.volumes.push(crate::paper::volume(
                    "vdb:1",
                    Content::Ext,
                    Some("da7a"),
                ));
            }),
        ),
        (
            "two buses",
            with("/dev/sda6", |guest| {
                let mut disk = guest.storage.disks[0].clone();
                (disk.disk, disk.has_boot_code) = ("sda".into(), false);
                guest.storage.disks.push(disk);
                guest.machine.disk_buses = vec!["virtio".into(), "scsi".into()];
            }),
        ),
        ("the root", with("/dev/vda1", |_| {})),
    ];
    for (name, harm) in cases {
        let mut guest = debian();
        harm(&mut guest);
        let conversion = conversion(&guest.facts(), Target::Aws).expect(name);
        let guessed = |change: &Change| matches!(change, Change::FstabUuid { .. });
        assert!(
            !conversion.changes.iter().any(guessed),
            "{name}: {conversion:?}"
        );
        let folder = tempfile::tempdir().unwrap();
        write(&guest, folder.path());
        let outcome = run(&script(&conversion).expect(name), folder.path());
        assert!(
            outcome
                .left
                .iter()
                .any(|told| told.code == "fstab-device-name"),
            "{name}: {outcome:?}"
        );
        read_back(&mut guest, folder.path());
        let mut codes = codes(&guest);
        codes.retain(|code| *code != "excluded-disk");
        assert_eq!(codes, [""; 0], "{name}");
    }
}

#[test]
fn a_line_is_found_as_it_is_written() {
    let mut guest = debian();
    guest.edit(
        "/etc/fstab",
        "0 1\n",
        "0 1\nLABEL=gone\\040one /my\\040data ext4 defaults 0 2\n",
    );
    let conversion = conversion(&guest.facts(), Target::Aws).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(&guest, folder.path());
    let outcome = run(&script(&conversion).unwrap(), folder.path());
    assert_eq!((outcome.mended.len(), &outcome.left[..]), (1, &[][..]));
    read_back(&mut guest, folder.path());
    assert_eq!(codes(&guest), [""; 0]);
}

/// The second time may find nothing more to do.
fn run_again(script: &str, folder: &Path) {
    let ran = Command::new("sh")
        .args(["-c", script])
        .env("R", folder)
        .output()
        .unwrap();
    assert!(read(&String::from_utf8_lossy(&ran.stdout)).whole);
}

#[test]
fn guests_in_order_are_let_alone() {
    for guest in [debian(), rocky(), suse()] {
        assert_eq!(conversion(&guest.facts(), Target::Aws), None);
    }
}

#[test]
fn drivers_that_the_guest_has_are_brought() {
    let mut guest = debian();
    let path = "/boot/initrd.img-6.1.0-13-amd64";
    guest.root(|root| root.file(path, ""));
    let found = conversion(&guest.facts(), Target::Aws).unwrap();
    assert_eq!(
        found.changes,
        [Change::Initramfs {
            drivers: vec!["nvme", "ena"]
        }]
    );
    assert!(
        script(&found)
            .unwrap()
            .contains("\n'initramfs' 'nvme ena'\n")
    );
}

#[test]
fn nobody_guesses_for_a_family_that_is_not_known() {
    let of = |family| {
        script(&Conversion {
            family,
            changes: vec![Change::SerialConsole],
            decides: false,
        })
    };
    assert!(
        of(Family::Other).is_none() && of(Family::Alpine).is_none() && of(Family::Suse).is_some()
    );
}

/// Names of the guest's files are the guest's, and it may be hostile.
#[test]
fn a_name_is_a_word_and_no_command() {
    let folder = tempfile::tempdir().unwrap();
    let name = "/etc/x'; touch \"$R/escaped\"; echo '$(touch $R/too)`touch $R/three`";
    let changes = vec![Change::Network {
        managers: Vec::new(),
        files: vec![name.to_owned()],
    }];
    fs::create_dir_all(folder.path().join("etc")).unwrap();
    run(
        &script(&Conversion {
            family: Family::Debian,
            changes,
            decides: false,
        })
        .unwrap(),
        folder.path(),
    );
    for made in ["escaped", "too", "three"] {
        assert!(!folder.path().join(made).exists(), "{made}");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_it_says_is_read_in_bounds(said in "(mended|left|end|x)?[\t\n\\PC]{0,400}") {
        let outcome = read(&said);
        for told in outcome.mended.iter().chain(&outcome.left) {
            proptest::prop_assert!(told.words.chars().count() <= 300 && !told.words.contains('\n'));
        }
    }
}
