//! Guests on paper are broken, written into a folder, mended there by the script itself, read back, and judged again.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use super::*;
use crate::{
    judge::tests::guests::{Guest, ROOT, debian, rocky, suse},
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

/// Name, guest, fault, codes that have to be gone, what is still found.
type Case = (
    &'static str,
    fn() -> Guest,
    fn(&mut Guest),
    &'static [&'static str],
    &'static [&'static str],
);

fn cases() -> Vec<Case> {
    vec![
        (
            "swap and data by name",
            debian,
            |guest| {
                guest.edit("/etc/fstab", "errors=remount-ro 0 1\n", "defaults 0 1\n/dev/vda5 none swap sw 0 0\n/dev/vda6\t/data\txfs\tdefaults,noatime 0 2\n");
                let more = [
                    ("vda:5", Content::Swap, "50a9"),
                    ("vda:6", Content::Xfs, "da7a"),
                ];
                guest
                    .storage
                    .volumes
                    .extend(more.map(|(place, content, uuid)| {
                        crate::paper::volume(place, content, Some(uuid))
                    }));
            },
            &["fstab-device-name"],
            &[],
        ),
        (
            "a name that leads to another kind of volume",
            debian,
            |guest| {
                guest.edit("/etc/fstab", "0 1\n", "0 1\n/dev/sda5 /data ext4\n");
                guest.storage.volumes.push(crate::paper::volume(
                    "vda:5",
                    Content::Swap,
                    Some("50a9"),
                ));
            },
            &["fstab-device-name"],
            &[],
        ),
        (
            "a volume that is nowhere",
            debian,
            |guest| {
                guest.edit(
                    "/etc/fstab",
                    "0 1\n",
                    "0 1\nUUID=dead-beef /srv ext4 defaults 0 2\n",
                );
            },
            &["fstab-missing-device"],
            &[],
        ),
        (
            "the root by name",
            debian,
            |guest| {
                guest.edit(
                    "/boot/grub/grub.cfg",
                    &format!("root=UUID={ROOT}"),
                    "root=/dev/vda1",
                );
                guest.edit("/etc/fstab", &format!("UUID={ROOT}"), "/dev/vda1");
            },
            &["root-by-device-name", "fstab-device-name"],
            &[],
        ),
        (
            "Debian with a fixed address and a rule for the card",
            debian,
            |guest| {
                guest.root(|root| root.without("/etc/systemd/network").without("/etc/cloud").without("/usr/bin/cloud-init")
                .file("/etc/network/interfaces", "auto eth0\niface eth0 inet static\n  address 10.0.0.5/24\n")
                .file("/etc/udev/rules.d/70-persistent-net.rules", "SUBSYSTEM==\"net\", ATTR{address}==\"52:54:00:00:00:01\", NAME=\"eth0\"\n"));
            },
            &[
                "network-static",
                "network-mac-bound",
                "network-interface-name",
            ],
            &["cloud-init-missing"],
        ),
        (
            "netplan with a card's address",
            debian,
            |guest| {
                guest.root(|root| root.without("/etc/systemd/network").without("/etc/cloud").without("/usr/bin/cloud-init")
                .file("/etc/netplan/01.yaml", "network:\n  ethernets:\n    lan:\n      match: {macaddress: \"52:54:00:00:00:01\"}\n      addresses: [10.0.0.5/24]\n"));
            },
            &["network-mac-bound", "network-static"],
            &["cloud-init-missing"],
        ),
        (
            "networkd with a fixed address",
            debian,
            |guest| {
                guest.root(|root| {
                    root.without("/etc/cloud")
                        .without("/usr/bin/cloud-init")
                        .file(
                            "/etc/systemd/network/all.network",
                            "[Match]\nName=eth0\n[Network]\nAddress=10.0.0.5/24\n",
                        )
                });
            },
            &["network-static", "network-interface-name"],
            &["cloud-init-missing"],
        ),
        (
            "NetworkManager with a fixed address",
            rocky,
            |guest| {
                guest.root(|root| root.without("/etc/cloud").without("/usr/bin/cloud-init")
                .file("/etc/NetworkManager/system-connections/lan.nmconnection", "[connection]\ntype=ethernet\n[ethernet]\nmac-address=52:54:00:00:00:01\n[ipv4]\nmethod=manual\naddress1=10.0.0.5/24\n"));
            },
            &["network-static", "network-mac-bound"],
            &["cloud-init-missing"],
        ),
        (
            "RHEL's ifcfg with a fixed address",
            rocky,
            |guest| {
                guest.root(|root| root.without("/usr/sbin/NetworkManager").without("/etc/cloud").without("/usr/bin/cloud-init")
                .file("/etc/sysconfig/network-scripts/ifcfg-eno1", "DEVICE=eno1\nBOOTPROTO=none\nIPADDR=10.0.0.5\nPREFIX=24\nONBOOT=yes\nHWADDR=52:54:00:00:00:01\n"));
            },
            &["network-static", "network-mac-bound"],
            &["cloud-init-missing"],
        ),
        (
            "wicked with a fixed address",
            suse,
            |guest| {
                guest.root(|root| {
                    root.without("/etc/cloud")
                        .without("/usr/bin/cloud-init")
                        .file(
                            "/etc/sysconfig/network/ifcfg-eth0",
                            "BOOTPROTO='static'\nSTARTMODE='auto'\nIPADDR='10.0.0.5/24'\n",
                        )
                });
            },
            &["network-static"],
            &["cloud-init-missing"],
        ),
        (
            "GRUB without a serial console",
            debian,
            |guest| {
                guest.edit(
                    "/boot/grub/grub.cfg",
                    " console=tty0 console=ttyS0,115200",
                    "",
                );
            },
            &["console-missing"],
            &[],
        ),
        (
            "an entry file without a serial console",
            rocky,
            |guest| {
                let path = "/loader/entries/abc-5.14.0-427.el9.x86_64.conf";
                guest.tree("vda:2", |tree| tree.file(path, "title Rocky\nversion 5.14.0-427.el9.x86_64\nlinux /vmlinuz-5.14.0-427.el9.x86_64\ninitrd /initramfs-5.14.0-427.el9.x86_64.img\noptions root=/dev/mapper/rl-root ro rd.lvm.lv=rl/root quiet\n"));
            },
            &["console-missing"],
            &[],
        ),
        (
            "a masked login",
            debian,
            |guest| {
                guest.root(|root| {
                    root.link(
                        "/etc/systemd/system/serial-getty@ttyS0.service",
                        "/dev/null",
                    )
                });
            },
            &["no-serial-login"],
            &[],
        ),
        (
            "no fallback loader",
            rocky,
            |guest| {
                guest.tree("vda:1", |tree| tree.without("/EFI/BOOT"));
            },
            &["efi-fallback-missing"],
            &[],
        ),
    ]
}

#[test]
fn what_can_be_mended_is_no_longer_found() {
    for (name, healthy, harm, gone, kept) in cases() {
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
    for (name, healthy, harm, ..) in cases() {
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
        let root = folder.path().display();
        let text = text
            .replace("\"$path\"; done", &format!("\"{root}$path\"; done"))
            .replace("dirname \"$path\"", &format!("dirname \"{root}$path\""))
            .replace(
                "\"files$path\" \"$path\"",
                &format!("\"files$path\" \"{root}$path\""),
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
