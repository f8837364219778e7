//! Guests on paper, in order and with one fault each.

mod guests;

use super::{Severity::*, Target::*, *};
use crate::{
    linux::initramfs::tests::{gzip, with_modules},
    paper::{TreeOnPaper, volume},
    storage::{BootCode, Content, TableKind},
};
use guests::{DRIVERS, Guest, ROOT, debian, elf, rocky, suse};

const TARGETS: [Target; 3] = [Aws, Azure, Qemu];
const INITRD: &str = "/boot/initrd.img-6.1.0-13-amd64";
const VERSION: &str = "6.1.0-13-amd64";

fn codes(guest: &Guest, target: Target) -> Vec<(&'static str, Severity)> {
    let judgement = judge(&guest.facts(), target);
    judgement
        .findings
        .iter()
        .map(|finding| (finding.code, finding.severity))
        .collect()
}

#[test]
fn guests_in_order_have_no_findings() {
    for (name, guest) in [("debian", debian()), ("rocky", rocky()), ("suse", suse())] {
        let facts = guest.facts();
        for target in TARGETS {
            let judgement = judge(&facts, target);
            assert_eq!(judgement.findings, [], "{name} on {target:?}: {facts:#?}");
            assert_eq!(
                judgement.verdict,
                Verdict::Boots,
                "{name}: {:?}",
                judgement.undecided
            );
        }
        assert!(serde_json::to_string(&facts).is_ok());
    }
}

#[test]
fn what_is_told_of_a_guest() {
    let facts = rocky().facts();
    let linux = facts.system().expect("a Linux");
    let entry = linux.boot.default_entry.as_ref().expect("an entry");
    assert_eq!(entry.volume, "vda:2");
    assert_eq!(
        entry.command_line,
        "root=/dev/mapper/rl-root ro rd.lvm.lv=rl/root console=ttyS0,115200"
    );
    assert_eq!(linux.architecture.as_deref(), Some("x86_64"));
    assert!(linux.drivers.of("nvme").early && linux.drivers.of("nvme").module);
    assert_eq!(linux.mounts.len(), 3);
    assert_eq!(
        linux.kernel.as_ref().and_then(|k| k.version.as_deref()),
        Some("5.14.0-427.el9.x86_64")
    );
}

/// What is wrong, how it becomes so, and the findings on EC2, Azure and QEMU: exactly these.
type Case = (
    &'static str,
    fn() -> Guest,
    fn(&mut Guest),
    [&'static [(&'static str, Severity)]; 3],
);

macro_rules! everywhere {
    ($($finding:expr),*) => {
        [&[$($finding),*], &[$($finding),*], &[$($finding),*]]
    };
}

const GRUB: &str = "/boot/grub/grub.cfg";

fn lacking(guest: &mut Guest, lacking: &[&str]) {
    let left: Vec<&str> = DRIVERS
        .into_iter()
        .filter(|name| !lacking.contains(name))
        .collect();
    guest.root(|root| root.file(INITRD, gzip(&with_modules(VERSION, &left, &["ext4"]))));
}

fn networked(guest: &mut Guest, path: &str, text: &str) {
    guest.root(|root| {
        root.without("/etc/systemd/network/all.network")
            .file(path, text)
    });
}

fn cases_of_booting() -> Vec<Case> {
    vec![
        (
            "nothing on the disk",
            debian,
            |guest| {
                guest.storage.disks[0].has_boot_code = false;
                guest.storage.disks[0].boot_code = BootCode::None;
                guest.storage.volumes.clear();
                guest.trees.clear();
            },
            everywhere![("no-boot-disk", Blocks)],
        ),
        (
            "no boot code",
            debian,
            |guest| {
                guest.storage.disks[0].has_boot_code = false;
                guest.storage.disks[0].boot_code = BootCode::None;
            },
            everywhere![("bios-loader-missing", Blocks)],
        ),
        (
            "no core of GRUB",
            debian,
            |guest| {
                guest.storage.disks[0].boot_code = BootCode::Grub {
                    core_sector: 1,
                    core_present: false,
                };
            },
            everywhere![("bios-loader-missing", Blocks)],
        ),
        (
            "GPT without a BIOS boot partition",
            debian,
            |guest| {
                guest.storage.disks[0].table = TableKind::Gpt;
            },
            everywhere![("bios-loader-missing", Hinders)],
        ),
        (
            "no ESP",
            suse,
            |guest| {
                guest.volume("vda:1").part_type = None;
            },
            everywhere![("esp-missing", Blocks)],
        ),
        (
            "an ESP that is not FAT",
            suse,
            |guest| {
                guest.volume("vda:1").content = Content::Unknown;
            },
            everywhere![("esp-missing", Blocks)],
        ),
        (
            "an empty ESP",
            suse,
            |guest| guest.tree("vda:1", |_| TreeOnPaper::default()),
            everywhere![("efi-loader-missing", Blocks)],
        ),
        (
            "no fallback loader",
            rocky,
            |guest| guest.tree("vda:1", |esp| esp.without("/EFI/BOOT")),
            everywhere![("efi-fallback-missing", Blocks)],
        ),
        (
            "no grub.cfg",
            debian,
            |guest| guest.root(|root| root.without(GRUB)),
            everywhere![("boot-config-missing", Blocks)],
        ),
        (
            "no entries",
            rocky,
            |guest| guest.tree("vda:2", |boot| boot.without("/loader")),
            everywhere![("boot-config-missing", Blocks)],
        ),
        (
            "no kernel",
            debian,
            |guest| guest.root(|root| root.without("/boot/vmlinuz-6.1.0-13-amd64")),
            everywhere![("kernel-missing", Blocks)],
        ),
        (
            "an empty kernel",
            debian,
            |guest| guest.root(|root| root.file("/boot/vmlinuz-6.1.0-13-amd64", "")),
            everywhere![("kernel-missing", Blocks)],
        ),
        (
            "no initramfs",
            debian,
            |guest| guest.root(|root| root.without(INITRD)),
            everywhere![("initramfs-missing", Blocks)],
        ),
        (
            "an empty initramfs",
            debian,
            |guest| guest.root(|root| root.file(INITRD, "")),
            everywhere![("initramfs-missing", Blocks)],
        ),
        (
            "an initramfs of zeros",
            debian,
            |guest| guest.root(|root| root.file(INITRD, [0; 4096])),
            everywhere![("initramfs-missing", Blocks)],
        ),
        (
            "a root of another disk",
            debian,
            |guest| {
                guest.edit(
                    GRUB,
                    &format!("root=UUID={ROOT}"),
                    "root=UUID=11111111-2222",
                )
            },
            everywhere![("root-not-found", Blocks)],
        ),
        (
            "root=/dev/sda1",
            debian,
            |guest| guest.edit(GRUB, &format!("root=UUID={ROOT}"), "root=/dev/sda1"),
            [
                &[("root-by-device-name", Blocks)],
                &[("root-by-device-name", Hinders)],
                &[("root-by-device-name", Blocks)],
            ],
        ),
        (
            "root=/dev/vda1",
            debian,
            |guest| guest.edit(GRUB, &format!("root=UUID={ROOT}"), "root=/dev/vda1"),
            [
                &[("root-by-device-name", Blocks)],
                &[("root-by-device-name", Blocks)],
                &[("root-by-device-name", Note)],
            ],
        ),
        (
            "an initramfs without nvme",
            debian,
            |guest| lacking(guest, &["nvme"]),
            [&[("initramfs-lacks-driver", Blocks)], &[], &[]],
        ),
        (
            "an initramfs without hv_storvsc",
            debian,
            |guest| lacking(guest, &["hv_storvsc"]),
            [&[], &[("initramfs-lacks-driver", Blocks)], &[]],
        ),
        (
            "an initramfs without virtio_blk",
            debian,
            |guest| lacking(guest, &["virtio_blk"]),
            [&[], &[], &[("initramfs-lacks-driver", Blocks)]],
        ),
        (
            "an initramfs without ahci, on SATA",
            debian,
            |guest| {
                guest.machine.disk_buses = vec!["sata".into()];
                lacking(guest, &["ahci"]);
            },
            [&[], &[], &[("initramfs-lacks-driver", Blocks)]],
        ),
        (
            "no network drivers",
            debian,
            |guest| {
                let left: Vec<&str> = DRIVERS
                    .into_iter()
                    .filter(|name| !["ena", "hv_netvsc", "virtio_net"].contains(name))
                    .collect();
                guest.root(|root| {
                    root.file(
                        "/usr/lib/modules/6.1.0-13-amd64/modules.dep",
                        left.join(".ko:\n"),
                    )
                    .file(INITRD, gzip(&with_modules(VERSION, &left, &["ext4"])))
                });
            },
            everywhere![("kernel-lacks-driver", Hinders)],
        ),
        (
            "no init",
            debian,
            |guest| guest.root(|root| root.without("/usr/lib/systemd/systemd")),
            everywhere![("init-missing", Blocks)],
        ),
        (
            "an empty passwd",
            debian,
            |guest| guest.root(|root| root.file("/etc/passwd", "")),
            everywhere![("login-broken", Hinders)],
        ),
        (
            "no shadow",
            debian,
            |guest| guest.root(|root| root.without("/etc/shadow")),
            everywhere![("login-broken", Hinders)],
        ),
    ]
}

fn cases_of_storage() -> Vec<Case> {
    vec![
        (
            "a broken GPT",
            debian,
            |guest| {
                let mut other = guest.storage.disks[0].clone();
                other.disk = "vdb".into();
                other.boot_code = BootCode::None;
                other.has_boot_code = false;
                other.table = TableKind::Gpt;
                other.faults = vec!["both headers fail their checksums".into()];
                guest.storage.disks.push(other);
            },
            everywhere![("partition-table-damaged", Blocks)],
        ),
        (
            "a GPT that was repaired",
            suse,
            |guest| {
                guest.storage.disks[0].faults = vec!["the backup was used".into()];
            },
            everywhere![("partition-table-repaired", Note)],
        ),
        (
            "fstab by name",
            debian,
            |guest| guest.edit("/etc/fstab", "\n", "\n/dev/sdb1 /data ext4 defaults 0 2\n"),
            [
                &[("fstab-device-name", Blocks)],
                &[("fstab-device-name", Hinders)],
                &[("fstab-device-name", Blocks)],
            ],
        ),
        (
            "fstab by name, nofail",
            debian,
            |guest| guest.edit("/etc/fstab", "\n", "\n/dev/sdb1 /data ext4 nofail 0 2\n"),
            everywhere![],
        ),
        (
            "the root by name in fstab",
            debian,
            |guest| guest.edit("/etc/fstab", &format!("UUID={ROOT}"), "/dev/vda1"),
            [
                &[("fstab-device-name", Hinders)],
                &[("fstab-device-name", Hinders)],
                &[("fstab-device-name", Note)],
            ],
        ),
        (
            "fstab names what is not there",
            debian,
            |guest| guest.edit("/etc/fstab", "\n", "\nUUID=9-9 /data ext4 defaults 0 2\n"),
            everywhere![("fstab-missing-device", Blocks)],
        ),
        (
            "swap that is not there",
            debian,
            |guest| guest.edit("/etc/fstab", "\n", "\nUUID=9-9 none swap sw 0 0\n"),
            everywhere![("fstab-missing-device", Hinders)],
        ),
        (
            "a full root",
            debian,
            |guest| {
                guest.root(|mut root| {
                    root.free_bytes = Some(1 << 20);
                    root
                })
            },
            everywhere![("file-system-full", Hinders)],
        ),
        (
            "errors in the superblock",
            debian,
            |guest| {
                guest.root(|mut root| {
                    root.state = vec![
                        "errors were noted in the superblock".into(),
                        "not unmounted cleanly".into(),
                    ];
                    root
                })
            },
            everywhere![("file-system-damaged", Hinders)],
        ),
        (
            "an excluded disk",
            debian,
            |guest| guest.machine.excluded_disks = vec!["vdb".into()],
            everywhere![("excluded-disk", Note)],
        ),
    ]
}

fn cases_of_reaching_it() -> Vec<Case> {
    vec![
        (
            "a fixed address",
            debian,
            |guest| {
                networked(
                    guest,
                    "/etc/systemd/network/a.network",
                    "[Match]\nName=e*\n[Network]\nAddress=10.0.0.2/24\n",
                )
            },
            [
                &[("network-static", Hinders)],
                &[("network-static", Hinders)],
                &[("network-static", Note)],
            ],
        ),
        (
            "a udev rule by address",
            debian,
            |guest| {
                guest.root(|root| {
                    root.file(
                        "/etc/udev/rules.d/70-persistent-net.rules",
                        "SUBSYSTEM==\"net\", ATTR{address}==\"52:54:00:00:00:01\", NAME=\"eth0\"\n",
                    )
                })
            },
            everywhere![("network-mac-bound", Hinders)],
        ),
        (
            "netplan by address",
            debian,
            |guest| {
                networked(
                    guest,
                    "/etc/netplan/01.yaml",
                    "network:\n  ethernets:\n    lan:\n      match: {macaddress: \"52:54:00:00:00:01\"}\n      dhcp4: true\n",
                )
            },
            everywhere![("network-mac-bound", Hinders)],
        ),
        (
            "netplan by cloud-init",
            debian,
            |guest| {
                networked(
                    guest,
                    "/etc/netplan/50-cloud-init.yaml",
                    "network:\n  ethernets:\n    lan:\n      match: {macaddress: \"52:54:00:00:00:01\"}\n      dhcp4: true\n",
                )
            },
            [
                &[("network-mac-bound", Note)],
                &[("network-mac-bound", Note)],
                &[("network-mac-bound", Hinders)],
            ],
        ),
        (
            "ens18 by name",
            debian,
            |guest| {
                networked(
                    guest,
                    "/etc/network/interfaces",
                    "auto ens18\niface ens18 inet dhcp\n",
                )
            },
            everywhere![("network-interface-name", Hinders)],
        ),
        (
            "ens5 by name",
            debian,
            |guest| {
                networked(
                    guest,
                    "/etc/network/interfaces",
                    "auto ens5\niface ens5 inet dhcp\n",
                )
            },
            [
                &[],
                &[("network-interface-name", Hinders)],
                &[("network-interface-name", Hinders)],
            ],
        ),
        (
            "eth0 by name",
            debian,
            |guest| {
                networked(
                    guest,
                    "/etc/network/interfaces",
                    "auto eth0\niface eth0 inet dhcp\n",
                )
            },
            [
                &[("network-interface-name", Hinders)],
                &[("network-interface-name", Note)],
                &[("network-interface-name", Hinders)],
            ],
        ),
        (
            "no network",
            debian,
            |guest| {
                guest.root(|root| {
                    root.without("/etc/systemd/network")
                        .without("/etc/cloud")
                        .without("/usr/bin/cloud-init")
                })
            },
            [
                &[("network-unknown", Note), ("cloud-init-missing", Note)],
                &[("network-unknown", Note), ("cloud-init-missing", Note)],
                &[("network-unknown", Note)],
            ],
        ),
        (
            "no cloud-init",
            debian,
            |guest| guest.root(|root| root.without("/etc/cloud").without("/usr/bin/cloud-init")),
            [
                &[("cloud-init-missing", Note)],
                &[("cloud-init-missing", Note)],
                &[],
            ],
        ),
        (
            "no serial console",
            debian,
            |guest| guest.edit(GRUB, " console=tty0 console=ttyS0,115200", ""),
            everywhere![("console-missing", Hinders)],
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
                })
            },
            everywhere![("no-serial-login", Note)],
        ),
        (
            "a 32-bit guest",
            debian,
            |guest| guest.root(|root| root.file("/usr/lib/systemd/systemd", elf(3))),
            [
                &[("architecture", Blocks)],
                &[("architecture", Blocks)],
                &[("architecture", Note)],
            ],
        ),
        (
            "a disk of 33 TiB",
            debian,
            |guest| {
                let mut disk = guest.storage.disks[0].clone();
                (disk.disk, disk.size_bytes, disk.has_boot_code) = ("vdb".into(), 33 << 40, false);
                guest.storage.disks.push(disk);
            },
            [&[], &[("disk-too-large", Blocks)], &[]],
        ),
        (
            "an OS disk of 5 TiB",
            suse,
            |guest| guest.storage.disks[0].size_bytes = 5 << 40,
            [&[], &[("os-disk-too-large", Blocks)], &[]],
        ),
        (
            "70 disks",
            debian,
            |guest| {
                let mut disk = guest.storage.disks[0].clone();
                disk.has_boot_code = false;
                disk.disk = "more".into();
                guest.storage.disks.extend(std::iter::repeat_n(disk, 69));
            },
            [
                &[("too-many-disks", Hinders)],
                &[("too-many-disks", Blocks)],
                &[],
            ],
        ),
        (
            "half a MiB",
            debian,
            |guest| guest.storage.disks[0].size_bytes += 1 << 19,
            [&[], &[("disk-size-not-whole-mib", Note)], &[]],
        ),
        (
            "a name with an umlaut",
            debian,
            |guest| guest.machine.name = "bücher".into(),
            [&[("vm-name", Note)], &[("vm-name", Note)], &[]],
        ),
    ]
}

#[test]
fn each_fault_has_its_code() {
    let all = [
        cases_of_booting(),
        cases_of_storage(),
        cases_of_reaching_it(),
    ]
    .concat();
    let mut failures = Vec::new();
    for (name, healthy, harm, expected) in all {
        let mut guest = healthy();
        harm(&mut guest);
        for (target, expected) in TARGETS.into_iter().zip(expected) {
            let found = codes(&guest, target);
            if found != expected {
                failures.push(format!("{name} on {target:?}: {found:?}, not {expected:?}"));
            }
            let blocks = expected.iter().any(|(_, severity)| *severity == Blocks);
            let verdict = judge(&guest.facts(), target).verdict;
            if (verdict == Verdict::DoesNotBoot) != blocks {
                failures.push(format!("{name} on {target:?}: {verdict:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_is_not_seen_is_not_judged() {
    let unknown = |guest: &Guest, code: Option<&str>| {
        for target in TARGETS {
            let judgement = judge(&guest.facts(), target);
            let codes: Vec<&str> = judgement
                .findings
                .iter()
                .map(|finding| finding.code)
                .collect();
            assert_eq!(judgement.verdict, Verdict::Unknown, "{judgement:#?}");
            assert!(code.is_none_or(|code| codes.contains(&code)), "{codes:?}");
        }
    };
    // The root encrypted, /boot readable: what is in /boot is judged.
    let mut guest = rocky();
    guest.trees.remove(0);
    guest.storage.volumes.truncate(2);
    guest
        .storage
        .volumes
        .push(volume("vda:3", Content::Luks, Some("1-2-3")));
    unknown(&guest, Some("encrypted-luks"));
    let facts = guest.facts();
    assert!(
        facts
            .system()
            .is_some_and(|linux| linux.kernel.is_some() && linux.drivers.of("nvme").early)
    );
    guest.tree("vda:2", |boot| {
        boot.without("/initramfs-5.14.0-427.el9.x86_64.img")
    });
    assert_eq!(judge(&guest.facts(), Aws).verdict, Verdict::DoesNotBoot);
    // btrfs.
    let mut guest = rocky();
    guest.trees.remove(0);
    guest.storage.volumes.truncate(2);
    guest
        .storage
        .volumes
        .push(volume("vda:3", Content::Btrfs, Some(ROOT)));
    guest.tree("vda:2", |boot| boot.file("/loader/entries/abc-5.14.0-427.el9.x86_64.conf", format!("title x\nlinux /vmlinuz-5.14.0-427.el9.x86_64\ninitrd /initramfs-5.14.0-427.el9.x86_64.img\noptions root=UUID={ROOT} console=ttyS0\n")));
    unknown(&guest, Some("unknown-file-system"));
    // BitLocker.
    let mut guest = debian();
    guest.trees.clear();
    guest.volume("vda:1").content = Content::BitLocker;
    unknown(&guest, Some("encrypted-bitlocker"));
    // A file whose blocks cannot be read is not a file that is missing.
    let mut guest = debian();
    guest.root(|root| root.unreadable(INITRD));
    unknown(&guest, None);
    // Compressed by what is not read here.
    let mut guest = debian();
    guest.root(|root| root.file(INITRD, "BZh91AY&SY"));
    unknown(&guest, None);
}

#[test]
fn the_system_that_the_loader_names_comes_first() {
    let mut guest = debian();
    // An older system beside it, on a volume before it.
    let old = TreeOnPaper::default()
        .file("/etc/os-release", "ID=debian\nVERSION_ID=\"10\"\n")
        .file("/etc/fstab", "UUID=0-1 / ext4 defaults 0 1\n")
        .file("/etc/passwd", "root");
    guest
        .storage
        .volumes
        .insert(0, volume("vda:9", Content::Ext, Some("0-1")));
    guest.trees.insert(0, ("vda:9", old));
    let facts = guest.facts();
    let roots: Vec<_> = facts
        .linux
        .iter()
        .map(|linux| linux.root.as_deref())
        .collect();
    assert_eq!(roots, [Some("vda:1"), Some("vda:9")]);
    for target in TARGETS {
        assert_eq!(codes(&guest, target), []);
    }
}

#[test]
fn a_root_that_another_systems_loader_starts() {
    let mut guest = debian();
    // The loader's configuration is on the old system, and starts the new one.
    let grub = format!(
        "menuentry a {{\n search --fs-uuid --set=root {ROOT}\n linux /boot/vmlinuz-{VERSION} root=UUID={ROOT} console=ttyS0\n initrd {INITRD}\n}}\n"
    );
    let old = TreeOnPaper::default()
        .file("/etc/os-release", "ID=debian\n")
        .file("/etc/fstab", "UUID=0-1 / ext4 defaults 0 1\n")
        .file("/boot/grub/grub.cfg", grub);
    guest.root(|root| root.without("/boot/grub"));
    guest
        .storage
        .volumes
        .insert(0, volume("vda:9", Content::Ext, Some("0-1")));
    guest.trees.push(("vda:9", old));
    let facts = guest.facts();
    assert_eq!(
        facts.system().and_then(|linux| linux.root.as_deref()),
        Some("vda:1")
    );
    assert_eq!(codes(&guest, Aws), []);
}
