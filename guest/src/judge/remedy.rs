//! Commands that mend a running guest, by its family of distributions.

use crate::{facts::Facts, linux::release::Family};

pub fn family(facts: &Facts) -> Family {
    facts.system().map(|linux| linux.family).unwrap_or_default()
}

/// The initial file system is made anew with these drivers.
pub fn early_drivers(facts: &Facts, drivers: &[&str]) -> String {
    let list = drivers.join(" ");
    let lines = drivers.join("\\n");
    match family(facts) {
        Family::Debian => {
            format!(
                "printf '{lines}\\n' >> /etc/initramfs-tools/modules && update-initramfs -u -k all"
            )
        }
        Family::RedHat | Family::Suse => format!(
            "echo 'add_drivers+=\" {list} \"' > /etc/dracut.conf.d/recovery-drivers.conf && \
             dracut --force --regenerate-all"
        ),
        Family::Arch => {
            format!("add {list} to MODULES=() in /etc/mkinitcpio.conf, then mkinitcpio -P")
        }
        Family::Alpine => format!(
            "name {list} in a file of /etc/mkinitfs/features.d and that file in features= of /etc/mkinitfs/mkinitfs.conf, \
             then mkinitfs"
        ),
        Family::Other => format!("make the initial file system anew with the drivers {list}"),
    }
}

/// The initial file system is made anew as it is.
pub fn new_initramfs(facts: &Facts) -> &'static str {
    match family(facts) {
        Family::Debian => "update-initramfs -c -k all && update-grub",
        Family::RedHat | Family::Suse => "dracut --force --regenerate-all",
        Family::Arch => "mkinitcpio -P",
        Family::Alpine => "mkinitfs",
        Family::Other => "make the initial file system of the default kernel anew",
    }
}

/// A kernel that has the drivers, which this one is built without.
pub fn other_kernel(facts: &Facts, drivers: &[&str]) -> String {
    let list = drivers.join(", ");
    match family(facts) {
        Family::Debian => format!(
            "install a kernel that has {list}: apt install linux-image-amd64 (Debian) or linux-image-generic and \
             linux-modules-extra-$(uname -r) (Ubuntu)"
        ),
        Family::RedHat => format!(
            "install the kernel's modules with {list}: dnf install kernel-modules kernel-modules-extra"
        ),
        Family::Suse => format!(
            "install a kernel that has {list}: zypper install kernel-default (not kernel-default-base)"
        ),
        _ => format!("install a kernel that has {list}"),
    }
}

/// The configuration of GRUB is made anew.
pub fn new_grub_config(facts: &Facts) -> &'static str {
    match family(facts) {
        Family::Debian => "update-grub",
        Family::RedHat | Family::Suse => "grub2-mkconfig -o /boot/grub2/grub.cfg",
        _ => "grub-mkconfig -o /boot/grub/grub.cfg",
    }
}

/// Words for the kernel's command line.
pub fn kernel_words(facts: &Facts, words: &str) -> String {
    match family(facts) {
        Family::RedHat => format!("grubby --update-kernel=ALL --args=\"{words}\""),
        _ => format!(
            "add {words} to GRUB_CMDLINE_LINUX in /etc/default/grub, then {}",
            new_grub_config(facts)
        ),
    }
}

/// GRUB's code for a BIOS is written anew.
pub fn bios_loader(facts: &Facts) -> String {
    let disk = "the disk that it boots from, such as /dev/sda";
    match family(facts) {
        Family::RedHat | Family::Suse => format!("grub2-install DISK, where DISK is {disk}"),
        Family::Debian => {
            format!("apt install grub-pc && grub-install DISK && update-grub, where DISK is {disk}")
        }
        _ => format!("grub-install DISK, where DISK is {disk}"),
    }
}

/// The loader at the path that firmware takes without a boot entry.
pub fn efi_fallback(facts: &Facts) -> String {
    let arm = facts.architecture() == Some("aarch64");
    let (shim, fallback) = match arm {
        true => ("shimaa64.efi", "BOOTAA64.EFI"),
        false => ("shimx64.efi", "BOOTX64.EFI"),
    };
    match family(facts) {
        Family::Debian => {
            let (package, target) = match arm {
                true => ("grub-efi-arm64", "arm64-efi"),
                false => ("grub-efi-amd64", "x86_64-efi"),
            };
            format!(
                "echo '{package} grub2/force_efi_extra_removable boolean true' | debconf-set-selections && \
                 grub-install --target={target} --efi-directory=/boot/efi --force-extra-removable"
            )
        }
        Family::RedHat => "dnf reinstall 'shim-*' 'grub2-efi-*'".into(),
        Family::Suse => "shim-install --removable".into(),
        _ => format!(
            "mkdir -p /boot/efi/EFI/BOOT && cp /boot/efi/EFI/*/{shim} /boot/efi/EFI/BOOT/{fallback}"
        ),
    }
}
