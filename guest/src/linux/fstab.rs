//! /etc/fstab: what is mounted at boot, and what boot waits for (fstab(5), systemd.mount(5)).

use serde::Serialize;

use super::device_name::{DeviceName, unescaped};

/// Entries that are read; no guest has so many.
const ENTRIES: usize = 2000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FstabEntry {
    pub device: DeviceName,
    pub point: String,
    pub kind: String,
    pub options: Vec<String>,
    /// The first two fields, letter by letter.
    #[serde(skip)]
    pub as_written: [String; 2],
}

impl FstabEntry {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }

    pub fn is_swap(&self) -> bool {
        self.kind == "swap"
    }

    /// Boot does not wait for it, or goes on without it.
    pub fn is_optional(&self) -> bool {
        [
            "nofail",
            "noauto",
            "x-systemd.automount",
            "comment=systemd.automount",
        ]
        .iter()
        .any(|option| self.has(option))
    }

    /// It is a file system on one of the guest's disks, or its swap.
    pub fn is_on_disk(&self) -> bool {
        let network = [
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "ceph",
            "glusterfs",
            "9p",
            "virtiofs",
            "fuse.sshfs",
        ];
        let elsewhere =
            network.contains(&self.kind.as_str()) || self.has("_netdev") || self.has("bind");
        !elsewhere && !matches!(&self.device, DeviceName::Other(name) if !name.starts_with("/dev/"))
    }

    /// The line, as far as it matters.
    pub fn words(&self) -> String {
        format!("{} {}", self.device, self.point)
    }
}

pub fn parse(text: &str) -> Vec<FstabEntry> {
    let lines = text.lines().map(str::trim);
    let entries = lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut parts = line.split_ascii_whitespace();
            let as_written = [parts.next()?.to_owned(), parts.next()?.to_owned()];
            let device = DeviceName::parse(&unescaped(&as_written[0]));
            let point = unescaped(&as_written[1]);
            let kind = parts.next()?.to_owned();
            let options = parts.next().unwrap_or("defaults").split(',');
            Some(FstabEntry {
                device,
                point,
                kind,
                options: options.map(str::to_owned).collect(),
                as_written,
            })
        });
    entries.take(ENTRIES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        let text = "# /etc/fstab\nUUID=1-2 / ext4 defaults,errors=remount-ro 0 1\n\
                    /dev/sdb1 /my\\040data xfs nofail 0 2\n tmpfs /tmp tmpfs\n\
                    srv:/x /x nfs defaults 0 0\n/dev/vg/swap none swap sw 0 0\nbroken\n";
        let entries = parse(text);
        assert_eq!(entries.len(), 5);
        assert_eq!(entries[0].device, DeviceName::Uuid("1-2".into()));
        assert!(!entries[0].is_optional() && entries[0].is_on_disk());
        assert_eq!(entries[1].point, "/my data");
        assert!(entries[1].is_optional());
        assert!(!entries[2].is_on_disk() && !entries[3].is_on_disk());
        assert!(entries[4].is_swap() && entries[4].is_on_disk());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed(text in "(?s).{0,200}") {
            let _ = parse(&text);
        }
    }
}
