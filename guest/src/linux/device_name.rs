//! How Linux names what it mounts: in `root=` and in fstab, by UUID or by a name that another machine gives otherwise.

use serde::Serialize;

use crate::storage::{Storage, Volume};

/// What is named, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "by", content = "name")]
pub enum DeviceName {
    Uuid(String),
    Label(String),
    PartUuid(String),
    PartLabel(String),
    /// Volume group and logical volume.
    Lvm(String, String),
    /// `/dev/mapper/…` that is no logical volume: encrypted, multipath.
    Mapper(String),
    /// What the kernel calls it on this machine: `sda1`, `vda`, `nvme0n1p2`.
    Kernel(String),
    /// By serial number or place on the bus: of this machine too.
    Hardware(String),
    Other(String),
}

impl DeviceName {
    pub fn parse(text: &str) -> Self {
        let text = text.trim().trim_matches('"');
        let tag = text.split_once('=').and_then(|(key, value)| {
            let value = value.trim_matches('"').to_owned();
            match key.to_ascii_uppercase().as_str() {
                "UUID" => Some(DeviceName::Uuid(value)),
                "LABEL" => Some(DeviceName::Label(value)),
                "PARTUUID" => Some(DeviceName::PartUuid(value)),
                "PARTLABEL" => Some(DeviceName::PartLabel(value)),
                _ => None,
            }
        });
        match (tag, text.strip_prefix("/dev/")) {
            (Some(tag), _) => tag,
            (None, Some(device)) => Self::device(device),
            (None, None) => DeviceName::Other(text.to_owned()),
        }
    }

    fn device(device: &str) -> Self {
        let owned = |text: &str| unescaped(text);
        if let Some((kind, name)) = device
            .strip_prefix("disk/by-")
            .and_then(|by| by.split_once('/'))
        {
            return match kind {
                "uuid" => DeviceName::Uuid(owned(name)),
                "label" => DeviceName::Label(owned(name)),
                "partuuid" => DeviceName::PartUuid(owned(name)),
                "partlabel" => DeviceName::PartLabel(owned(name)),
                "id" if name.starts_with("dm-name-") => Self::mapper(&name["dm-name-".len()..]),
                // Made from what is on the disk, so the same everywhere.
                "id" if ["dm-uuid-", "lvm-pv-uuid-", "md-uuid-"]
                    .iter()
                    .any(|p| name.starts_with(p)) =>
                {
                    DeviceName::Other(format!("/dev/{device}"))
                }
                _ => DeviceName::Hardware(format!("disk/by-{kind}/{name}")),
            };
        }
        if let Some(name) = device.strip_prefix("mapper/") {
            return Self::mapper(name);
        }
        let is = |prefix: &str, more: fn(char) -> bool| {
            let rest = device.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.starts_with(more))
        };
        let letter = |c: char| c.is_ascii_lowercase();
        let digit = |c: char| c.is_ascii_digit();
        let lettered = ["sd", "vd", "hd", "xvd"]
            .iter()
            .any(|prefix| is(prefix, letter));
        let numbered = ["nvme", "mmcblk"].iter().any(|prefix| is(prefix, digit));
        if lettered || numbered {
            return DeviceName::Kernel(device.to_owned());
        }
        let other = ["md", "block", "zvol", "cciss", "shm", "fd", "pts"];
        match device.split_once('/') {
            Some((group, volume)) if !other.contains(&group) && !volume.contains('/') => {
                DeviceName::Lvm(group.to_owned(), volume.to_owned())
            }
            _ => DeviceName::Other(format!("/dev/{device}")),
        }
    }

    /// device-mapper writes a hyphen in a name twice, and one hyphen between group and volume.
    fn mapper(name: &str) -> Self {
        let hyphens = name.replace("--", "\0");
        match hyphens.split_once('-') {
            Some((group, volume))
                if !group.is_empty() && !volume.contains('-') && !name.starts_with("luks-") =>
            {
                let single = |text: &str| text.replace('\0', "-");
                DeviceName::Lvm(single(group), single(volume))
            }
            _ => DeviceName::Mapper(name.to_owned()),
        }
    }

    /// The volume that it names. [`DeviceName::Kernel`] by number and letter, as far as the disks' order tells.
    pub fn find<'a>(&self, storage: &'a Storage) -> Option<&'a Volume> {
        let same = |own: &Option<String>, wanted: &str| {
            own.as_deref()
                .is_some_and(|own| own.eq_ignore_ascii_case(wanted))
        };
        let mut volumes = storage.volumes.iter();
        match self {
            DeviceName::Uuid(uuid) => volumes.find(|v| same(&v.uuid, uuid)),
            DeviceName::Label(label) => volumes.find(|v| v.label.as_deref() == Some(label)),
            DeviceName::PartUuid(uuid) => volumes.find(|v| same(&v.part_uuid, uuid)),
            DeviceName::PartLabel(label) => {
                volumes.find(|v| v.part_label.as_deref() == Some(label))
            }
            DeviceName::Lvm(group, name) => {
                volumes.find(|v| v.lvm.as_ref().is_some_and(|(g, n)| g == group && n == name))
            }
            DeviceName::Kernel(name) => {
                let (index, number) = kernel_position(name)?;
                let disk = &storage.disks.get(index)?.disk;
                volumes.find(|v| v.lvm.is_none() && v.number == number && &v.disk == disk)
            }
            _ => None,
        }
    }

    /// Whether [`Self::find`] can tell that there is no such volume.
    pub fn can_be_sought(&self) -> bool {
        !matches!(
            self,
            DeviceName::Mapper(_) | DeviceName::Other(_) | DeviceName::Hardware(_)
        )
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeviceName::Uuid(name) => write!(f, "UUID={name}"),
            DeviceName::Label(name) => write!(f, "LABEL={name}"),
            DeviceName::PartUuid(name) => write!(f, "PARTUUID={name}"),
            DeviceName::PartLabel(name) => write!(f, "PARTLABEL={name}"),
            DeviceName::Lvm(group, name) => write!(f, "/dev/{group}/{name}"),
            DeviceName::Mapper(name) => write!(f, "/dev/mapper/{name}"),
            DeviceName::Kernel(name) | DeviceName::Hardware(name) => write!(f, "/dev/{name}"),
            DeviceName::Other(name) => f.write_str(name),
        }
    }
}

/// `sdb3` is the second disk's partition 3, `nvme0n1p2` the first one's partition 2, `vda` a whole disk.
fn kernel_position(name: &str) -> Option<(usize, Option<u32>)> {
    let number = |text: &str| match text {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    if let Some(rest) = name.strip_prefix("nvme") {
        let (index, rest) = rest.split_once('n')?;
        let partition = rest.split_once('p').map_or("", |(_, partition)| partition);
        return Some((index.parse().ok()?, number(partition)?));
    }
    let rest = ["xvd", "sd", "vd", "hd"]
        .iter()
        .find_map(|p| name.strip_prefix(p))?;
    let letter = rest.bytes().next().filter(u8::is_ascii_lowercase)?;
    Some((usize::from(letter - b'a'), number(rest.get(1..)?)?))
}

/// `\x20` as udev writes it, and `\040` as fstab does.
pub fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'\\').then(|| {
            let (digits, radix) = match bytes.get(at + 1) {
                Some(b'x') => (text.get(at + 2..at + 4), 16),
                _ => (text.get(at + 1..at + 4), 8),
            };
            digits.and_then(|digits| u8::from_str_radix(digits, radix).ok())
        });
        match escape.flatten() {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{DeviceName::*, *};

    #[test]
    fn names_are_told_apart() {
        let s = str::to_owned;
        let cases = [
            ("UUID=ab-12", Uuid(s("ab-12"))),
            ("UUID=\"ab-12\"", Uuid(s("ab-12"))),
            ("LABEL=cloudimg-rootfs", Label(s("cloudimg-rootfs"))),
            ("/dev/disk/by-label/my\\x20data", Label(s("my data"))),
            ("PARTUUID=5a7e517e-01", PartUuid(s("5a7e517e-01"))),
            ("/dev/sda1", Kernel(s("sda1"))),
            ("/dev/nvme0n1p1", Kernel(s("nvme0n1p1"))),
            ("/dev/xvda", Kernel(s("xvda"))),
            ("/dev/mapper/vg0-root", Lvm(s("vg0"), s("root"))),
            (
                "/dev/mapper/my--vg-the--root",
                Lvm(s("my-vg"), s("the-root")),
            ),
            ("/dev/mapper/cryptroot", Mapper(s("cryptroot"))),
            ("/dev/mapper/luks-1-2-3", Mapper(s("luks-1-2-3"))),
            ("/dev/rhel/root", Lvm(s("rhel"), s("root"))),
            (
                "/dev/disk/by-id/scsi-0QEMU-1",
                Hardware(s("disk/by-id/scsi-0QEMU-1")),
            ),
            ("/dev/disk/by-path/pci-0", Hardware(s("disk/by-path/pci-0"))),
            ("/dev/md0", Other(s("/dev/md0"))),
            ("/dev/sr0", Other(s("/dev/sr0"))),
            ("tmpfs", Other(s("tmpfs"))),
            ("ZFS=rpool", Other(s("ZFS=rpool"))),
        ];
        for (text, name) in cases {
            assert_eq!(DeviceName::parse(text), name, "{text}");
        }
        assert_eq!(kernel_position("sdb3"), Some((1, Some(3))));
        assert_eq!(kernel_position("nvme1n1p2"), Some((1, Some(2))));
        assert_eq!(kernel_position("vda"), Some((0, None)));
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_parsed(text in ".{0,40}", device in "(UUID=|/dev/|/dev/mapper/|/dev/disk/by-)[-a-z0-9\\\\x/é]{0,20}") {
            for text in [text, device] {
                let name = DeviceName::parse(&text);
                let _ = (name.to_string(), name.find(&Storage::default()), unescaped(&text));
            }
        }
    }
}
