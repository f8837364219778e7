//! Faults of storage, of the network and the console, and what a target does not take.

use super::{
    Severity::*,
    boot_cases::GRUB,
    guests::{Guest, ROOT, debian, elf, suse},
    *,
};

fn networked(guest: &mut Guest, path: &str, text: &str) {
    guest.root(|root| {
        root.without("/etc/systemd/network/all.network")
            .file(path, text)
    });
}

pub fn cases_of_storage() -> Vec<Case> {
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
            "the first GPT lost, by BIOS",
            debian,
            |guest| {
                let disk = &mut guest.storage.disks[0];
                disk.table = TableKind::Gpt;
                disk.backup_gpt_read = true;
                disk.faults = vec!["the GPT at sector 1 is missing".into()];
                let mut core = volume("vda:9", Content::Unknown, None);
                core.part_type = Some("21686148-6449-6e6f-744e-656564454649".into());
                guest.storage.volumes.push(core);
            },
            everywhere![("partition-table-repaired", Blocks)],
        ),
        (
            "the first GPT lost, by UEFI",
            suse,
            |guest| {
                guest.storage.disks[0].backup_gpt_read = true;
                guest.storage.disks[0].faults = vec!["the GPT at sector 1 is missing".into()];
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

pub fn cases_of_reaching_it() -> Vec<Case> {
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
