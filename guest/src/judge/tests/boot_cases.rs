//! Faults from the firmware to the first program.

use super::{
    Severity::*,
    guests::{DRIVERS, Guest, ROOT, debian, rocky, suse},
    *,
};

const INITRD: &str = "/boot/initrd.img-6.1.0-13-amd64";
pub const GRUB: &str = "/boot/grub/grub.cfg";

fn lacking(guest: &mut Guest, lacking: &[&str]) {
    let left: Vec<&str> = DRIVERS
        .into_iter()
        .filter(|name| !lacking.contains(name))
        .collect();
    guest.root(|root| root.file(INITRD, gzip(&with_modules(VERSION, &left, &["ext4"]))));
}

pub fn cases_of_booting() -> Vec<Case> {
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
                guest.storage.volumes.remove(0);
                guest.trees.truncate(1);
                guest.edit("/etc/fstab", "UUID=AB12-CD34 /boot/efi vfat utf8 0 2", "");
            },
            everywhere![("esp-missing", Blocks)],
        ),
        (
            "an ESP of another type",
            suse,
            |guest| {
                guest.volume("vda:1").part_type = None;
            },
            [
                &[("esp-type", Hinders)],
                &[("esp-type", Hinders)],
                &[("esp-type", Note)],
            ],
        ),
        (
            "a FAT of another type without a loader",
            suse,
            |guest| {
                guest.volume("vda:1").part_type = None;
                guest.tree("vda:1", |esp| esp.without("/EFI/BOOT"));
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
            "half a kernel",
            debian,
            |guest| {
                let mut half = crate::linux::kernel::tests::image(VERSION);
                half.truncate(half.len() / 2);
                guest.root(|root| root.file("/boot/vmlinuz-6.1.0-13-amd64", half));
            },
            everywhere![("kernel-missing", Blocks)],
        ),
        (
            "half an initramfs",
            debian,
            |guest| {
                let mut half = gzip(&with_modules(VERSION, &DRIVERS, &["ext4"]));
                half.truncate(half.len() / 2);
                guest.root(|root| root.file(INITRD, half));
            },
            everywhere![("initramfs-missing", Blocks)],
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
            "GRUB before 2, whose entry has no kernel",
            debian,
            |guest| {
                let text = format!(
                    "default=0\ntitle Old\n root (hd0,0)\n kernel /boot/none root=UUID={ROOT} console=ttyS0\n initrd {INITRD}\n"
                );
                guest.root(|root| root.without(GRUB).file("/boot/grub/menu.lst", text));
            },
            everywhere![("kernel-missing", Blocks)],
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
