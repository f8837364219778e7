//! Guests on paper, in order and with one fault each.

macro_rules! everywhere {
    ($($finding:expr),*) => {
        [&[$($finding),*], &[$($finding),*], &[$($finding),*]]
    };
}

mod boot_cases;
pub mod guests;
mod reach_cases;

use super::{Severity::*, Target::*, *};
use crate::{
    linux::{
        initramfs::tests::{gzip, with_modules},
        tree::Note,
    },
    paper::{TreeOnPaper, volume},
    storage::{BootCode, Content, TableKind},
};
use guests::{Guest, ROOT, debian, rocky, suse};

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

#[test]
fn each_fault_has_its_code() {
    let all = [
        boot_cases::cases_of_booting(),
        reach_cases::cases_of_storage(),
        reach_cases::cases_of_reaching_it(),
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
fn a_file_that_is_not_there_is_told_from_an_empty_one() {
    for (file, code) in [
        ("/boot/vmlinuz-6.1.0-13-amd64", "kernel-missing"),
        (INITRD, "initramfs-missing"),
    ] {
        let told = |change: &dyn Fn(&mut Guest)| {
            let mut guest = debian();
            change(&mut guest);
            let mut found = judge(&guest.facts(), Qemu).findings.into_iter();
            let found = found.find(|finding| finding.code == code);
            found.expect("a finding").what
        };
        let absent = told(&|guest| guest.root(|root| root.without(file)));
        assert!(absent.contains("it is not there"), "{absent}");
        let empty = told(&|guest| guest.root(|root| root.file(file, "")));
        assert!(empty.contains("it is empty"), "{empty}");
    }
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
    // F2FS, say.
    guest.volume("vda:3").content = Content::Foreign;
    guest.volume("vda:3").uuid = None;
    unknown(&guest, None);
    // BitLocker.
    let mut guest = debian();
    guest.trees.clear();
    guest.volume("vda:1").content = Content::BitLocker;
    unknown(&guest, Some("encrypted-bitlocker"));
    // A file whose blocks cannot be read is not a file that is missing.
    let mut guest = debian();
    guest.root(|root| root.unreadable(INITRD));
    unknown(&guest, None);
    // /boot on what is not read.
    let mut guest = rocky();
    guest.volume("vda:2").content = Content::Btrfs;
    guest.trees.truncate(2);
    unknown(&guest, None);
    // A file system whose root is not found anywhere.
    let mut guest = debian();
    guest.trees.clear();
    unknown(&guest, None);
    // A kernel and its initial file system in one file.
    let mut guest = suse();
    guest.root(|root| root.without("/boot/grub2"));
    guest.tree("vda:1", |esp| esp.file("/EFI/Linux/linux.efi", "MZ"));
    unknown(&guest, None);
    // Compressed by what is not read here.
    let mut guest = debian();
    guest.root(|root| root.file(INITRD, "BZh91AY&SY"));
    unknown(&guest, None);
}

/// Without any signature: nothing hides there, so that GRUB has nothing to load.
#[test]
fn a_wiped_superblock_is_no_unknown_kind() {
    let mut guest = debian();
    guest.trees.clear();
    guest.volume("vda:1").content = Content::Unknown;
    for target in TARGETS {
        assert_eq!(codes(&guest, target), [("boot-config-missing", Blocks)]);
        assert_eq!(judge(&guest.facts(), target).verdict, Verdict::DoesNotBoot);
    }
    for other in [
        Content::Luks,
        Content::Btrfs,
        Content::Foreign,
        Content::Ext,
    ] {
        let mut guest = guest.clone();
        let volume = volume("vda:2", other, None);
        guest.storage.volumes.push(volume);
        assert_eq!(judge(&guest.facts(), Qemu).verdict, Verdict::Unknown);
    }
}

/// A data volume that cannot be read does not keep the guest from starting, unless fstab makes boot wait for it.
#[test]
fn only_what_is_needed_decides() {
    let mut guest = debian();
    let data = volume("vdb:1", Content::Xfs, Some("da7a"));
    guest.storage.volumes.push(data);
    let tree = TreeOnPaper::default()
        .unreadable("/etc/os-release")
        .unreadable("/etc/fstab");
    guest.trees.push(("vdb:1", tree));
    guest.storage.faults = vec!["volume group data lacks a physical volume".into()];
    let mut facts = guest.facts();
    facts.unread.push(Note {
        volume: Some("vdb:1".into()),
        what: "vdb:1: its superblock is damaged".into(),
    });
    for target in TARGETS {
        let judgement = judge(&facts, target);
        assert_eq!(judgement.verdict, Verdict::Boots, "{judgement:#?}");
        let codes = judgement.findings.iter().map(|finding| finding.code);
        assert!(codes.clone().count() >= 2 && codes.clone().all(|code| code == "volume-unread"));
    }
    guest.edit("/etc/fstab", "\n", "\nUUID=da7a /data xfs defaults 0 2\n");
    facts.linux = guest.facts().linux;
    assert_eq!(judge(&facts, Aws).verdict, Verdict::Unknown);
}

#[test]
fn systemd_boot_with_entries_on_a_partition_of_their_own() {
    let mut guest = rocky();
    guest.tree("vda:2", |boot| boot.without("/grub2"));
    guest.tree("vda:1", |esp| {
        esp.without("/EFI/rocky")
            .file("/EFI/systemd/systemd-bootx64.efi", "MZ")
            .file("/loader/loader.conf", "timeout 3\n")
    });
    let facts = guest.facts();
    let entry = facts
        .system()
        .and_then(|linux| linux.boot.default_entry.as_ref());
    let volume = entry.map(|entry| (entry.volume.as_str(), entry.loader));
    assert_eq!(
        volume,
        Some(("vda:2", crate::linux::boot::Loader::SystemdBoot))
    );
    for target in TARGETS {
        assert_eq!(codes(&guest, target), []);
    }
}

/// Whatever a guest's files hold: facts and findings come out.
#[test]
fn any_content_of_any_file_is_judged() {
    let files = [
        "/boot/grub/grub.cfg",
        "/boot/grub/grubenv",
        "/etc/fstab",
        "/etc/os-release",
        "/etc/netplan/a.yaml",
        "/etc/network/interfaces",
        "/boot/vmlinuz-6.1.0-13-amd64",
        INITRD,
        "/usr/lib/systemd/systemd",
        "/usr/lib/modules/6.1.0-13-amd64/modules.dep",
    ];
    let contents: [&[u8]; 7] = [
        b"",
        b"\0\xff\xfe\x80",
        b"menuentry a { linux $x$x root=UUID= ; } ; if",
        b"UUID= / - \\777\\0 UUID=/dev/",
        b"network: {ethernets: [",
        b"\x7fELF",
        b"070701zzzzzzzz",
    ];
    for file in files {
        for content in contents {
            let mut guest = debian();
            guest.root(|root| root.file(file, content));
            let facts = guest.facts();
            for target in TARGETS {
                let _ = judge(&facts, target);
            }
        }
    }
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
