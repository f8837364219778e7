//! From which checkpoint each disk's changes come, and what libvirt is asked for. Pure.

use std::{fmt::Write, path::Path};

use vault_format::ids::CaptureId;

use super::xml::{Element, escaped};
use crate::source::qemu::position::{Mark, NoDelta, Trusted};

/// The bitmap's name in the export.
pub const BITMAP: &str = "delta";

/// A disk that is to be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDisk {
    /// libvirt's target: `vda`.
    pub id: String,
    pub format: String,
    pub size_bytes: u64,
}

impl WantedDisk {
    /// libvirt keeps checkpoints in qcow2 images only.
    pub fn is_tracked(&self) -> bool {
        self.format == "qcow2"
    }
}

/// A checkpoint as libvirt describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub capture: CaptureId,
    /// The disks that it tracks, and how many bytes of each changed since; libvirt says nothing of a bitmap that is lost
    /// or damaged.
    pub disks: Vec<(String, Option<u64>)>,
}

impl Checkpoint {
    /// From `checkpoint-dumpxml --size`.
    pub fn read(capture: CaptureId, xml: &str) -> Result<Self, String> {
        let read = Element::read(xml)?;
        let disks = read
            .child("disks")
            .into_iter()
            .flat_map(|disks| disks.all("disk"));
        let tracked = disks.filter(|disk| disk.attribute("checkpoint") == Some("bitmap"));
        let disks = tracked.filter_map(|disk| {
            let size = disk.attribute("size").and_then(|size| size.parse().ok());
            Some((disk.attribute("name")?.to_owned(), size))
        });
        Ok(Checkpoint {
            capture,
            disks: disks.collect(),
        })
    }

    /// Of all disks, as far as libvirt says it.
    pub fn changed_bytes(&self) -> u64 {
        self.disks.iter().filter_map(|(_, changed)| *changed).sum()
    }
}

/// Where a disk's changes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    pub capture: CaptureId,
    pub changed_bytes: u64,
}

/// For each disk, with the newest checkpoint that is both trusted and there; `trusted` is of each disk, newest first.
pub fn since(
    disks: &[WantedDisk],
    trusted: &dyn Fn(&str) -> Vec<Trusted>,
    checkpoint: Option<&Checkpoint>,
    has_others: bool,
) -> Vec<Result<Since, NoDelta>> {
    let of = |disk: &WantedDisk| {
        let trusted = trusted(&disk.id);
        if trusted.is_empty() {
            return Err(NoDelta::NothingTrusted);
        }
        let lost = || NoDelta::NoBitmap {
            driver: disk.format.clone(),
            writer_has_others: has_others,
        };
        let checkpoint = checkpoint.ok_or_else(lost)?;
        let tracked = checkpoint.disks.iter().find(|(id, _)| *id == disk.id);
        let then = trusted.iter().find(|t| t.capture == checkpoint.capture);
        match (tracked, then) {
            (Some(_), Some(then)) if then.disk_bytes != disk.size_bytes => Err(NoDelta::Resized {
                then: then.disk_bytes,
                now: disk.size_bytes,
            }),
            (Some((_, Some(changed))), Some(_)) => Ok(Since {
                capture: checkpoint.capture,
                changed_bytes: *changed,
            }),
            // libvirt says no size of a bitmap that is lost or damaged.
            (Some((_, None)), Some(_)) => {
                Err(NoDelta::Inconsistent(checkpoint.capture.to_string()))
            }
            _ => Err(lost()),
        }
    };
    disks.iter().map(of).collect()
}

/// Our checkpoints that no capture of `keep` made: oldest first, as libvirt lists them.
pub fn surplus(mark: &Mark, names: &[String], keep: &[CaptureId]) -> Vec<String> {
    let useless = |name: &&String| {
        mark.capture(name)
            .is_some_and(|capture| !keep.contains(&capture))
    };
    names.iter().filter(useless).cloned().collect()
}

/// What `virsh backup-begin` is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    pub backup: String,
    /// None where this job begins none, or no disk can have one.
    pub checkpoint: Option<String>,
}

/// `all` has every disk of the domain: libvirt takes those that are not named, too.
pub fn documents(
    mark: &Mark,
    capture: Option<&CaptureId>,
    all: &[String],
    disks: &[(WantedDisk, Option<CaptureId>)],
    (socket, scratch): (&Path, &dyn Fn(usize) -> String),
) -> Documents {
    let mut backup = String::from("<domainbackup mode='pull'>");
    if let Some(since) = disks.iter().find_map(|(_, since)| since.as_ref()) {
        let _ = write!(backup, "<incremental>{}</incremental>", mark.bitmap(since));
    }
    let socket = escaped(&socket.display().to_string());
    let _ = write!(
        backup,
        "<server transport='unix' socket='{socket}'/><disks>"
    );
    let mut tracked = String::new();
    for id in all {
        let name = escaped(id);
        let found = disks.iter().position(|(disk, _)| disk.id == *id);
        let Some((number, (disk, since))) = found.map(|number| (number, &disks[number])) else {
            let _ = write!(backup, "<disk name='{name}' backup='no'/>");
            let _ = write!(tracked, "<disk name='{name}' checkpoint='no'/>");
            continue;
        };
        let mode = match since {
            Some(since) => format!(
                "backupmode='incremental' incremental='{}' exportbitmap='{BITMAP}'",
                mark.bitmap(since)
            ),
            None => "backupmode='full'".to_owned(),
        };
        let scratch = escaped(&scratch(number));
        let _ = write!(
            backup,
            "<disk name='{name}' backup='yes' type='file' {mode} exportname='{name}'>\
             <driver type='qcow2'/><scratch file='{scratch}'/></disk>"
        );
        let kind = if disk.is_tracked() { "bitmap" } else { "no" };
        let _ = write!(tracked, "<disk name='{name}' checkpoint='{kind}'/>");
    }
    backup.push_str("</disks></domainbackup>");
    let any = disks.iter().any(|(disk, _)| disk.is_tracked());
    let checkpoint = capture.filter(|_| any).map(|capture| {
        let name = mark.bitmap(capture);
        format!("<domaincheckpoint><name>{name}</name><disks>{tracked}</disks></domaincheckpoint>")
    });
    Documents { backup, checkpoint }
}

#[cfg(test)]
mod tests {
    use vault_format::ids::WriterId;

    use super::*;

    fn disk(id: &str, format: &str) -> WantedDisk {
        WantedDisk {
            id: id.into(),
            format: format.into(),
            size_bytes: 100,
        }
    }

    const A: CaptureId = CaptureId([1; 16]);
    const B: CaptureId = CaptureId([2; 16]);

    #[test]
    fn changes_come_from_a_checkpoint_that_has_the_disk_at_its_size() {
        let disks = [
            disk("vda", "qcow2"),
            disk("vdb", "raw"),
            disk("vdc", "qcow2"),
        ];
        let checkpoint = Checkpoint {
            capture: B,
            disks: vec![("vda".into(), Some(7)), ("vdc".into(), None)],
        };
        let trusted = |id: &str| {
            let disk_bytes = if id == "vdc" { 50 } else { 100 };
            let of = |capture| Trusted {
                capture,
                disk_bytes,
            };
            vec![of(B), of(A)]
        };
        let found = since(&disks, &trusted, Some(&checkpoint), false);
        let good = Since {
            capture: B,
            changed_bytes: 7,
        };
        assert_eq!(found[0], Ok(good));
        assert!(matches!(found[1], Err(NoDelta::NoBitmap { .. })));
        assert_eq!(found[2], Err(NoDelta::Resized { then: 50, now: 100 }));
        let none = since(&disks[..1], &|_| Vec::new(), Some(&checkpoint), false);
        assert_eq!(none, [Err(NoDelta::NothingTrusted)]);
    }

    #[test]
    fn every_disk_is_named_and_only_qcow2_is_tracked() {
        let mark = Mark::of(&WriterId([0xab; 16]));
        let all = ["vda", "vdb", "sda"].map(str::to_owned);
        let disks = [(disk("vda", "qcow2"), Some(A)), (disk("vdb", "raw"), None)];
        let scratch = |number: usize| format!("/s'{number}");
        let made = documents(&mark, Some(&B), &all, &disks, (Path::new("/n&b"), &scratch));
        let backup = Element::read(&made.backup).expect("XML");
        let a = mark.bitmap(&A);
        assert_eq!(backup.at("incremental").map(Element::words), Some(&*a));
        assert_eq!(backup.of("server", "socket"), Some("/n&b"));
        let named: Vec<_> = backup
            .child("disks")
            .expect("disks")
            .children
            .iter()
            .map(|disk| {
                let at = |name| disk.attribute(name).unwrap_or("-");
                let scratch = disk.of("scratch", "file").unwrap_or("-");
                [
                    at("name"),
                    at("backup"),
                    at("backupmode"),
                    at("incremental"),
                    scratch,
                ]
                .map(str::to_owned)
            })
            .collect();
        assert_eq!(
            named,
            [
                ["vda", "yes", "incremental", &*a, "/s'0"],
                ["vdb", "yes", "full", "-", "/s'1"],
                ["sda", "no", "-", "-", "-"],
            ]
        );
        let read = Checkpoint::read(B, &made.checkpoint.expect("one")).expect("XML");
        assert_eq!(read.disks, [("vda".to_owned(), None)]);
        let made = documents(
            &mark,
            Some(&B),
            &all,
            &disks[1..],
            (Path::new("/n"), &scratch),
        );
        assert_eq!(made.checkpoint, None);
    }

    #[test]
    fn only_checkpoints_of_ours_go() {
        let mark = Mark::of(&WriterId([0xab; 16]));
        let other = Mark::of(&WriterId([0xcd; 16]));
        let names = [
            mark.bitmap(&A),
            mark.bitmap(&B),
            other.bitmap(&A),
            "daily".to_owned(),
        ];
        assert_eq!(surplus(&mark, &names, &[B]), [mark.bitmap(&A)]);
    }
}
