//! Which bitmap gives a disk's changes, and which bitmaps are of no more use. Pure.
//!
//! Every capture starts a bitmap of its own, and each goes on recording until it is removed: each
//! alone holds every change since its capture, and there is no chain to break.

use std::fmt;

use serde::Deserialize;
use vault_format::ids::{CaptureId, WriterId};

/// Everything that we leave in a QEMU has a name that begins so.
pub const PREFIX: &str = "sparesite-";
/// More would cost QEMU memory (32 MiB each per TiB of disk) and every write a little time.
pub const MOST_BITMAPS: usize = 4;

/// Tells what this gateway left in a QEMU from what another one did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    pub fn of(writer: &WriterId) -> Self {
        Mark(writer.to_string()[..8].to_owned())
    }

    /// What the names of all that is ours begin with.
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}-", self.0)
    }

    /// A node's name: QEMU allows 31 characters, 12 are left to `kind`.
    pub fn node(&self, kind: &str) -> String {
        format!("{}{kind}", self.prefix())
    }

    pub fn bitmap(&self, capture: &CaptureId) -> String {
        format!("{}{capture}", self.prefix())
    }

    pub fn owns(&self, name: &str) -> bool {
        name.starts_with(&self.prefix())
    }

    /// The capture that started the bitmap, if it is one of ours.
    pub fn capture(&self, bitmap: &str) -> Option<CaptureId> {
        CaptureId::from_hex(bitmap.strip_prefix(&self.prefix())?).ok()
    }
}

/// A bitmap as QEMU reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bitmap {
    #[serde(default)]
    pub name: String,
    pub recording: bool,
    pub busy: bool,
    pub persistent: bool,
    #[serde(default)]
    pub inconsistent: bool,
    pub granularity: u64,
    /// Bytes that are dirty.
    pub count: u64,
}

/// A capture that the vault's side still relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trusted {
    pub capture: CaptureId,
    /// The disk's size then.
    pub disk_bytes: u64,
}

/// The disk as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskNow<'a> {
    pub size_bytes: u64,
    /// QEMU's block driver of the node that has the bitmaps.
    pub driver: &'a str,
}

/// The changes since a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub since: CaptureId,
    pub bitmap: String,
    pub granularity: u64,
    pub dirty_bytes: u64,
}

/// Why a disk has to be compared as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoDelta {
    /// Nothing is queued or published that has this disk.
    NothingTrusted,
    NoBitmap {
        driver: String,
        writer_has_others: bool,
    },
    Inconsistent(String),
    Stopped(String),
    Busy(String),
    Resized {
        then: u64,
        now: u64,
    },
    /// All is to be compared.
    NotBelieved,
    /// Others write to the disk too.
    Shared,
    /// Between the decision and the instant.
    PutUnderSnapshot,
}

impl fmt::Display for NoDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoDelta::NotBelieved => f.write_str("it was asked for by --compare"),
            NoDelta::NothingTrusted => f.write_str("no recovery point has this disk yet"),
            NoDelta::NoBitmap {
                writer_has_others: true,
                ..
            } => f.write_str(
                "the disk has bitmaps of this gateway, but none of a capture that is queued or \
                 published: those captures failed, or the gateway's state or the disk was put \
                 back to an older copy",
            ),
            NoDelta::NoBitmap { driver, .. } if !keeps_bitmaps(driver) => write!(
                f,
                "the bitmap is gone: the VM was started anew, and its {driver} disk keeps no \
                 bitmap over a stop (or the disk was moved, or somebody removed the bitmap)"
            ),
            NoDelta::NoBitmap { .. } => f.write_str(
                "the bitmap is gone: QEMU did not end in order before it was first stored, the \
                 disk was moved, copied or put under a snapshot, or somebody removed the bitmap",
            ),
            NoDelta::Inconsistent(name) => write!(
                f,
                "bitmap {name} is inconsistent: QEMU did not close the image cleanly"
            ),
            NoDelta::Stopped(name) => {
                write!(f, "bitmap {name} does not record: somebody stopped it")
            }
            NoDelta::Busy(name) => write!(f, "bitmap {name} is held by somebody else in QEMU"),
            NoDelta::Resized { then, now } => {
                write!(f, "the disk was resized from {then} to {now} bytes")
            }
            NoDelta::Shared => f.write_str(
                "the disk is shared with other VMs (share-rw=on), and QEMU knows nothing of what they write",
            ),
            NoDelta::PutUnderSnapshot => f.write_str(
                "somebody put the disk under a snapshot while it was captured, and the bitmap stayed below it",
            ),
        }
    }
}

/// Whether images of this driver store bitmaps.
pub fn keeps_bitmaps(driver: &str) -> bool {
    driver == "qcow2"
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub delta: Result<Delta, NoDelta>,
    /// Bitmaps to remove.
    pub remove: Vec<String>,
}

/// `bitmaps` are those on this disk's own node, `trusted` is newest first.
///
/// An older trusted bitmap holds all that a newer one does and more, so it is used if the newer one is there and cannot
/// be: it costs reading, not correctness.
pub fn plan(mark: &Mark, disk: DiskNow<'_>, bitmaps: &[Bitmap], trusted: &[Trusted]) -> Position {
    let mut delta = Err(match trusted {
        [] => NoDelta::NothingTrusted,
        _ => NoDelta::NoBitmap {
            driver: disk.driver.to_owned(),
            writer_has_others: bitmaps.iter().any(|b| mark.capture(&b.name).is_some()),
        },
    });
    for candidate in trusted {
        let name = mark.bitmap(&candidate.capture);
        // If it is not there at all, the disk may have been put back to a copy from before it.
        let Some(bitmap) = bitmaps.iter().find(|bitmap| bitmap.name == name) else {
            break;
        };
        let judged = judge(disk, bitmap, candidate);
        let found = judged.is_ok();
        // Of several that fail, the newest one's reason says most.
        if found || matches!(delta, Err(NoDelta::NoBitmap { .. })) {
            delta = judged;
        }
        if found {
            break;
        }
    }
    let captures: Vec<CaptureId> = trusted.iter().map(|trusted| trusted.capture).collect();
    Position {
        delta,
        remove: surplus(mark, bitmaps, &captures),
    }
}

fn judge(disk: DiskNow<'_>, bitmap: &Bitmap, trusted: &Trusted) -> Result<Delta, NoDelta> {
    let name = bitmap.name.clone();
    if bitmap.inconsistent {
        return Err(NoDelta::Inconsistent(name));
    }
    if !bitmap.recording {
        return Err(NoDelta::Stopped(name));
    }
    if bitmap.busy {
        return Err(NoDelta::Busy(name));
    }
    if trusted.disk_bytes != disk.size_bytes {
        return Err(NoDelta::Resized {
            then: trusted.disk_bytes,
            now: disk.size_bytes,
        });
    }
    Ok(Delta {
        since: trusted.capture,
        bitmap: name,
        granularity: bitmap.granularity,
        dirty_bytes: bitmap.count,
    })
}

/// Our bitmaps that no capture of `keep` (newest first) started, that are damaged, or that are too
/// many: the newest ones stay, and the oldest, which is the one of the newest published point.
pub fn surplus(mark: &Mark, bitmaps: &[Bitmap], keep: &[CaptureId]) -> Vec<String> {
    let kept = within_most(keep);
    let useless = |bitmap: &&Bitmap| {
        let of_kept = mark
            .capture(&bitmap.name)
            .is_some_and(|c| kept.contains(&c));
        mark.owns(&bitmap.name) && !bitmap.busy && (bitmap.inconsistent || !of_kept)
    };
    let names = bitmaps.iter().filter(useless).map(|b| b.name.clone());
    names.collect()
}

fn within_most(keep: &[CaptureId]) -> Vec<CaptureId> {
    match keep {
        [newest @ .., oldest] if keep.len() > MOST_BITMAPS => {
            let mut kept = newest[..MOST_BITMAPS - 1].to_vec();
            kept.push(*oldest);
            kept
        }
        few => few.to_vec(),
    }
}

#[cfg(test)]
#[path = "tests/position.rs"]
mod tests;
