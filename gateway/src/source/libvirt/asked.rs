//! What only `check` asks of a domain: its guest's file systems, the versions of its images.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Domain, LibvirtError};

impl Domain {
    /// The file systems of the guest that lie on no disk of the domain, as its agent tells.
    pub async fn beside_libvirt(&self) -> Result<Vec<String>, LibvirtError> {
        let said = self.virsh("guestinfo", &["--filesystem"]).await?;
        Ok(beside(&said))
    }

    /// Where the host has no `qemu-img`, or the image is no file, it is not known.
    pub async fn is_version_2(&self, image: &str) -> bool {
        if !image.starts_with('/') {
            return false;
        }
        let arguments = ["info", "-U", "--output=json", "--", image];
        let said = self.host.run("qemu-img", &arguments).await;
        let said = said.ok().and_then(|said| serde_json::from_str(&said).ok());
        said.is_some_and(|info: Value| info["format-specific"]["data"]["compat"] == "0.10")
    }
}

/// Lines such as `fs.0.mountpoint : /` and `fs.0.disk.0.alias : vda`. Of a disk that is none of the domain's libvirt
/// tells no alias.
fn beside(said: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| line.split_once(':'));
    let all: BTreeMap<&str, &str> = lines
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let number = |key: &str| -> usize { all.get(key).and_then(|n| n.parse().ok()).unwrap_or(0) };
    // As many as were told, whatever their count claims.
    let count = |key: &str| number(key).min(all.len());
    let mut found = Vec::new();
    for fs in 0..count("fs.count") {
        let unknown = |disk| !all.contains_key(&*format!("fs.{fs}.disk.{disk}.alias"));
        if (0..count(&format!("fs.{fs}.disk.count"))).any(unknown) {
            let mounted = all.get(&*format!("fs.{fs}.mountpoint"));
            found.push(mounted.map_or_else(|| format!("file system {fs}"), |at| (*at).to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_on_no_disk_of_the_domain_is_told() {
        let said = "fs.count            : 3\nfs.0.mountpoint     : /\nfs.0.fstype         : ext4\n\
                    fs.0.disk.count     : 1\nfs.0.disk.0.alias   : vda\nfs.0.disk.0.device  : /dev/vda1\n\
                    fs.1.mountpoint     : /srv/on:iscsi\nfs.1.disk.count     : 1\n\
                    fs.1.disk.0.serial  : 6001405\nfs.1.disk.0.device  : /dev/sda\n\
                    fs.2.mountpoint     : /boot/efi\nfs.2.disk.count     : 0\n";
        assert_eq!(beside(said), ["/srv/on:iscsi"]);
        for odd in ["", "fs.count: x", "fs.count: 99999999999", "no words"] {
            assert_eq!(beside(odd), Vec::<String>::new(), "{odd}");
        }
    }
}
