//! Guests on paper: as small as they can be, and in order.

use crate::{
    facts::{Facts, Machine},
    inspect::{Opened, of_file_systems},
    linux::{
        initramfs::tests::{gzip, with_modules},
        kernel::tests::image,
        tree::Unread,
    },
    paper::{TreeOnPaper, volume},
    storage::{BootCode, Content, DiskLayout, Storage, TableKind, Volume},
};

/// Drivers of every target.
pub const DRIVERS: [&str; 12] = [
    "nvme",
    "ena",
    "hv_vmbus",
    "hv_storvsc",
    "hv_netvsc",
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "sd_mod",
    "ahci",
    "ata_piix",
];
pub const ROOT: &str = "5a7e517e-0000-4000-8000-00000000d15c";
const BOOT: &str = "b007b007-0000-4000-8000-00000000d15c";
const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

/// A guest that can be broken before it is looked at.
#[derive(Clone)]
pub struct Guest {
    pub machine: Machine,
    pub storage: Storage,
    pub trees: Vec<(&'static str, TreeOnPaper)>,
}

impl Guest {
    pub fn facts(&self) -> Facts {
        let opened = self.trees.iter().map(|(place, tree)| Opened {
            place: (*place).to_owned(),
            files: Box::new(tree.clone()),
        });
        let opened: Vec<Opened> = opened.collect();
        of_file_systems(
            self.machine.clone(),
            self.storage.clone(),
            &opened,
            Unread::default(),
        )
    }

    pub fn tree(&mut self, place: &str, change: impl FnOnce(TreeOnPaper) -> TreeOnPaper) {
        let found = self.trees.iter_mut().find(|(own, _)| *own == place);
        let (_, tree) = found.expect("the guest has this volume");
        *tree = change(std::mem::take(tree));
    }

    pub fn root(&mut self, change: impl FnOnce(TreeOnPaper) -> TreeOnPaper) {
        let place = self.trees[0].0;
        self.tree(place, change);
    }

    pub fn volume(&mut self, place: &str) -> &mut Volume {
        let mut volumes = self.storage.volumes.iter_mut();
        volumes
            .find(|v| v.place == place)
            .expect("the guest has this volume")
    }

    /// Puts other text in the place of some of a file of the root.
    pub fn edit(&mut self, path: &'static str, old: &str, new: &str) {
        self.root(|tree| {
            let files: &dyn crate::file_system::FileSystem = &tree;
            let text = files
                .read(path, 1 << 20)
                .ok()
                .flatten()
                .expect("the guest has this file");
            let text = String::from_utf8(text).expect("text");
            assert!(text.contains(old), "{path} has no {old}");
            let text = text.replace(old, new);
            tree.file(path, text)
        });
    }
}

fn machine(firmware: &str) -> Machine {
    Machine {
        name: "db1".into(),
        firmware: Some(firmware.into()),
        architecture: Some("x86_64".into()),
        nics: 1,
        disk_buses: vec!["virtio".into()],
        nic_models: vec!["virtio".into()],
        ..Machine::default()
    }
}

fn layout(table: TableKind, boot_code: BootCode) -> DiskLayout {
    DiskLayout {
        disk: "vda".into(),
        size_bytes: 20 << 30,
        table,
        has_boot_code: boot_code != BootCode::None,
        boot_code,
        backup_gpt_read: false,
        faults: Vec::new(),
    }
}

pub fn elf(machine: u8) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(18, 0);
    header.extend([machine, 0]);
    header
}

/// What the distributions have in common.
fn system(version: &str) -> TreeOnPaper {
    let lists = |names: &[&str]| -> String {
        names
            .iter()
            .map(|name| format!("kernel/drivers/x/{name}.ko.xz:\n"))
            .collect()
    };
    TreeOnPaper::default()
        .file("/usr/lib/systemd/systemd", elf(62))
        .link("/sbin", "usr/sbin")
        .link("/lib", "usr/lib")
        .link("/usr/sbin/init", "../lib/systemd/systemd")
        .file("/usr/lib/systemd/system/serial-getty@.service", "[Unit]")
        .file(
            &format!("/usr/lib/modules/{version}/modules.dep"),
            lists(&DRIVERS),
        )
        .file(
            &format!("/usr/lib/modules/{version}/modules.builtin"),
            "kernel/fs/ext4.ko\n",
        )
        .file("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
        .file("/etc/shadow", "root:*:19000::::::\n")
        .file("/etc/cloud/cloud.cfg", "users: [default]\n")
        .file("/usr/bin/cloud-init", "#!")
}

/// Debian, one partition, BIOS, MBR.
pub fn debian() -> Guest {
    let version = "6.1.0-13-amd64";
    let grub = format!(
        "set default=\"0\"\nmenuentry 'Debian' --id debian {{\n  search --no-floppy --fs-uuid --set=root {ROOT}\n  linux \
         /boot/vmlinuz-{version} root=UUID={ROOT} ro console=tty0 console=ttyS0,115200\n  initrd \
         /boot/initrd.img-{version}\n}}\n"
    );
    let root = system(version)
        .file(
            "/etc/os-release",
            "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
        )
        .file(
            "/etc/fstab",
            format!("UUID={ROOT} / ext4 errors=remount-ro 0 1\n"),
        )
        .file("/boot/grub/grub.cfg", grub)
        .file("/boot/vmlinuz-6.1.0-13-amd64", image(version))
        .file(
            "/boot/initrd.img-6.1.0-13-amd64",
            gzip(&with_modules(version, &DRIVERS, &["ext4"])),
        )
        .file(
            "/etc/systemd/network/all.network",
            "[Match]\nName=e*\n[Network]\nDHCP=yes\n",
        );
    let core = BootCode::Grub {
        core_sector: 1,
        core_present: true,
    };
    let mut partition = volume("vda:1", Content::Ext, Some(ROOT));
    partition.part_type = Some("0x83".into());
    partition.part_uuid = Some("5a7e517e-01".into());
    partition.bootable = true;
    Guest {
        machine: machine("bios"),
        storage: Storage {
            disks: vec![layout(TableKind::Mbr, core)],
            volumes: vec![partition],
            faults: Vec::new(),
        },
        trees: vec![("vda:1", root)],
    }
}

/// Rocky Linux: UEFI, /boot on its own, root on LVM, entries by the Boot Loader Specification.
pub fn rocky() -> Guest {
    let version = "5.14.0-427.el9.x86_64";
    let root = system(version)
        .file("/etc/os-release", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n")
        .file(
            "/etc/fstab",
            format!("/dev/mapper/rl-root / xfs defaults 0 0\nUUID={BOOT} /boot xfs defaults 0 0\nUUID=AB12-CD34 /boot/efi vfat umask=0077 0 2\n"),
        )
        .file("/usr/sbin/NetworkManager", elf(62));
    let entry = format!(
        "title Rocky Linux\nversion {version}\nlinux /vmlinuz-{version}\ninitrd /initramfs-{version}.img $tuned_initrd\n\
         options root=/dev/mapper/rl-root ro rd.lvm.lv=rl/root console=ttyS0,115200 $tuned_params\n"
    );
    let boot = TreeOnPaper::default()
        .file(
            "/grub2/grub.cfg",
            "load_env\nset default=\"${saved_entry}\"\ninsmod blscfg\nblscfg\n",
        )
        .file(
            "/grub2/grubenv",
            format!("# GRUB Environment Block\nsaved_entry=abc-{version}\n####"),
        )
        .file(&format!("/loader/entries/abc-{version}.conf"), entry)
        .file(
            "/loader/entries/abc-0-rescue.conf",
            "title Rescue\nlinux /vmlinuz-0-rescue\ninitrd /initramfs-0-rescue.img\n",
        )
        .file(&format!("/vmlinuz-{version}"), image(version))
        .file(
            &format!("/initramfs-{version}.img"),
            zstd::encode_all(&with_modules(version, &DRIVERS, &["xfs"])[..], 1).expect("memory"),
        );
    let esp = TreeOnPaper::default()
        .file("/EFI/BOOT/BOOTX64.EFI", "MZ")
        .file("/EFI/rocky/shimx64.efi", "MZ")
        .file("/EFI/rocky/grub.cfg", format!("search --no-floppy --fs-uuid --set=dev {BOOT}\nset prefix=($dev)/grub2\nexport $prefix\nconfigfile $prefix/grub.cfg\n"))
        .caseless();
    let mut efi = volume("vda:1", Content::Fat, Some("AB12-CD34"));
    efi.part_type = Some(ESP.to_ascii_lowercase());
    let mut logical = volume("rl/root", Content::Xfs, Some(ROOT));
    logical.disk = "vda".into();
    logical.number = None;
    logical.lvm = Some(("rl".into(), "root".into()));
    Guest {
        machine: machine("uefi"),
        storage: Storage {
            disks: vec![layout(TableKind::Gpt, BootCode::None)],
            volumes: vec![
                efi,
                volume("vda:2", Content::Xfs, Some(BOOT)),
                volume("vda:3", Content::LvmPhysicalVolume, None),
                logical,
            ],
            faults: Vec::new(),
        },
        trees: vec![("rl/root", root), ("vda:1", esp), ("vda:2", boot)],
    }
}

/// SUSE: UEFI, GPT, ext4, wicked.
pub fn suse() -> Guest {
    let version = "6.4.0-150600.21-default";
    let mut guest = debian();
    let grub = format!(
        "set default=\"${{saved_entry}}\"\nmenuentry 'SLES' --class os {{\n  search --no-floppy --fs-uuid --set=root {ROOT}\n  \
         linux /boot/vmlinuz-{version} root=UUID={ROOT} console=ttyS0 net.ifnames=0\n  initrd /boot/initrd-{version}\n}}\n"
    );
    let root = system(version)
        .file(
            "/usr/lib/os-release",
            "ID=\"sles\"\nID_LIKE=\"suse\"\nVERSION_ID=\"15.6\"\n",
        )
        .link("/etc/os-release", "../usr/lib/os-release")
        .file(
            "/etc/fstab",
            format!("UUID={ROOT} / ext4 defaults 0 1\nUUID=AB12-CD34 /boot/efi vfat utf8 0 2\n"),
        )
        .file("/boot/grub2/grub.cfg", grub)
        .file("/boot/vmlinuz-6.4.0-150600.21-default", image(version))
        .file(
            "/boot/initrd-6.4.0-150600.21-default",
            with_modules(version, &DRIVERS, &["ext4"]),
        )
        .file(
            "/etc/sysconfig/network/ifcfg-eth0",
            "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n",
        );
    let mut efi = volume("vda:1", Content::Fat, Some("AB12-CD34"));
    efi.part_type = Some(ESP.to_ascii_lowercase());
    guest.machine = machine("uefi");
    guest.storage.disks = vec![layout(TableKind::Gpt, BootCode::None)];
    guest.storage.volumes = vec![efi, volume("vda:2", Content::Ext, Some(ROOT))];
    let esp = TreeOnPaper::default()
        .file("/EFI/BOOT/bootx64.efi", "MZ")
        .caseless();
    guest.trees = vec![("vda:2", root), ("vda:1", esp)];
    guest
}
