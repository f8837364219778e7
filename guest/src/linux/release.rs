//! Which distribution a guest is, and what processor its programs are for.

use serde::Serialize;

use super::tree::Tree;

/// What /etc/os-release says (os-release(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Release {
    pub id: String,
    pub id_like: Vec<String>,
    pub version: Option<String>,
    pub pretty_name: Option<String>,
}

/// Distributions that are mended by the same commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    Debian,
    RedHat,
    Suse,
    Arch,
    Alpine,
    #[default]
    Other,
}

impl Release {
    pub fn family(&self) -> Family {
        let names = std::iter::once(&self.id).chain(&self.id_like);
        let family = |name: &str| match name {
            "debian" | "ubuntu" => Some(Family::Debian),
            "rhel" | "fedora" | "centos" | "amzn" | "rocky" | "almalinux" | "ol" => {
                Some(Family::RedHat)
            }
            "suse" | "opensuse" | "sles" => Some(Family::Suse),
            "arch" => Some(Family::Arch),
            "alpine" => Some(Family::Alpine),
            name if name.starts_with("opensuse") || name.starts_with("sle") => Some(Family::Suse),
            _ => None,
        };
        names
            .filter_map(|name| family(name))
            .next()
            .unwrap_or_default()
    }
}

pub fn parse(text: &str) -> Release {
    let mut release = Release::default();
    for (key, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
        let value = value.trim().trim_matches(['"', '\'']).to_owned();
        match key {
            "ID" => release.id = value,
            "ID_LIKE" => {
                release.id_like = value.split_ascii_whitespace().map(str::to_owned).collect()
            }
            "VERSION_ID" => release.version = Some(value),
            "PRETTY_NAME" => release.pretty_name = Some(value),
            _ => {}
        }
    }
    release
}

pub fn of(tree: &Tree<'_>) -> Option<Release> {
    let text = tree
        .text("/etc/os-release")
        .or_else(|| tree.text("/usr/lib/os-release"))?;
    Some(parse(&text))
}

/// The processor of a program, by its ELF header: class at 4, byte order at 5, machine at 18 (System V ABI, chapter 4).
fn of_program(header: &[u8]) -> Option<&'static str> {
    if !header.starts_with(b"\x7fELF") {
        return None;
    }
    let machine = header.get(18..20)?;
    let machine = match header.get(5)? {
        2 => u16::from_be_bytes([machine[0], machine[1]]),
        _ => u16::from_le_bytes([machine[0], machine[1]]),
    };
    Some(match machine {
        3 => "i686",
        20 | 21 => "powerpc",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        258 => "loongarch",
        _ => "other",
    })
}

pub fn architecture(tree: &Tree<'_>) -> Option<String> {
    let programs = [
        "/sbin/init",
        "/lib/systemd/systemd",
        "/bin/sh",
        "/bin/bash",
        "/usr/bin/env",
    ];
    programs.iter().find_map(|path| {
        let spot = tree.spot(path)?;
        let mut header = [0; 64];
        let count = match spot.mount.files.read_at(&spot.inner, 0, &mut header) {
            Ok(count) => count,
            Err(failure) => {
                let volume = Some(spot.mount.volume);
                tree.unread.note(volume, format_args!("{path}: {failure}"));
                return None;
            }
        };
        of_program(header.get(..count)?).map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        let of = |text| parse(text).family();
        assert_eq!(of("ID=debian\nVERSION_ID=\"12\"\n"), Family::Debian);
        assert_eq!(
            of("ID=linuxmint\nID_LIKE=\"ubuntu debian\""),
            Family::Debian
        );
        assert_eq!(
            of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\""),
            Family::RedHat
        );
        assert_eq!(
            of("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\""),
            Family::Suse
        );
        assert_eq!(of("ID=nixos"), Family::Other);
        assert_eq!(
            parse("PRETTY_NAME='Debian 12'").pretty_name.as_deref(),
            Some("Debian 12")
        );
    }

    #[test]
    fn processors() {
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".to_vec();
        assert_eq!(of_program(&elf), Some("x86_64"));
        elf[18] = 183;
        assert_eq!(of_program(&elf), Some("aarch64"));
        assert_eq!(
            (of_program(b"#!/bin/sh"), of_program(b"\x7fELF")),
            (None, None)
        );
    }
}
