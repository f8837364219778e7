//! What is wrong with a guest, one at a time, that can be mended.

use crate::{
    judge::tests::guests::{Guest, ROOT, debian, rocky, suse},
    paper::volume,
    storage::Content,
};

/// Name, guest, fault, codes that have to be gone, what is still found.
pub type Case = (
    &'static str,
    fn() -> Guest,
    fn(&mut Guest),
    &'static [&'static str],
    &'static [&'static str],
);

pub fn all() -> Vec<Case> {
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
                    .extend(more.map(|(place, content, uuid)| volume(place, content, Some(uuid))));
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
