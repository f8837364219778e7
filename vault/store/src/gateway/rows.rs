//! What the rows of the state hold. The state is a cache: all of it can be rebuilt from the vault.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vault_format::control_log::ControlLog;
use vault_format::ids::{CaptureId, ObjectHash, PackName, PointId, VaultId, VmId, WriterId};
use vault_format::layer::{Run, decode_runs, encode_runs};
use vault_format::manifest::{Consistency, LayerRef, PointBytes};
use vault_format::record::{BlockMask, Kind};
use vault_format::{ChunkId, FormatError};

/// Version of the state's layout; another one is rebuilt.
pub(super) const LAYOUT: u32 = 3;

/// What the whole state says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub layout: u32,
    pub vault: VaultId,
    pub writer: WriterId,
    pub chunk_bytes: u32,
    /// 0: none taken yet; the state must be rebuilt before anything is published.
    pub epoch: u64,
    pub log: ControlLog,
    /// Damage entries of the log up to this number have been heeded.
    pub heeded: u64,
    /// The epoch entry that is about to be stored: if the log has it, it is ours.
    pub intent: Option<ObjectHash>,
    /// Another gateway's packs were being learnt: chains may be broken.
    pub unsure_chains: bool,
}

impl Header {
    /// The log's number up to which its damage was heeded.
    pub fn heeded_log(&self) -> u64 {
        let unheeded = self
            .log
            .damaged
            .values()
            .filter(|n| **n > self.heeded)
            .min();
        unheeded.map_or(self.log.number, |number| number - 1)
    }
}

/// Where a known chunk's record is, and on what it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChunkRow {
    pub pack: u64,
    pub length: u32,
    pub kind: Kind,
    /// Blocks that the patch brought; `None` where only the vault knows (after a rebuild).
    pub mask: Option<BlockMask>,
}

impl ChunkRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.pack.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.push(self.kind.depth());
        if let Some(parent) = self.kind.parent() {
            out.extend_from_slice(&parent.0);
        }
        out.extend_from_slice(self.mask.as_ref().map_or(&[], BlockMask::as_bytes));
        out
    }

    /// `None` for a row of another shape: then the chunk is as good as unknown.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let pack = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        let length = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
        let depth = *bytes.get(12)?;
        if depth == 0 {
            return Some(ChunkRow {
                pack,
                length,
                kind: Kind::Full,
                mask: None,
            });
        }
        let parent = ChunkId(bytes.get(13..45)?.try_into().ok()?);
        let mask = (bytes.len() > 45).then(|| BlockMask::from_bytes(&bytes[45..]));
        Some(ChunkRow {
            pack,
            length,
            kind: Kind::Patch { parent, depth },
            mask,
        })
    }
}

/// A pack of this gateway, or one that it found in the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PackRow {
    pub name: PackName,
    pub size: u64,
    /// False: it waits in the outbox, or is on its way, or nobody knows whether it arrived.
    pub arrived: bool,
    /// The manifest that has its entries.
    pub holder: Option<String>,
    /// Whether a segment has its entries.
    pub indexed: bool,
    /// It was found so in the vault: that segment is none of this state's, and is not merged or written again.
    pub adopted: bool,
    /// The capture that it was made for.
    pub capture: Option<u64>,
    /// Packs that had not arrived when it was noted, and that its patches stand on.
    pub after: Vec<u64>,
}

/// A segment that this gateway wrote in its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentRow {
    pub name: String,
    pub last: u64,
    pub merged: bool,
}

/// A disk of a VM, as of its last published point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DiskRow {
    pub name: String,
    /// Its number in the map.
    pub number: u32,
    pub size_bytes: u64,
    pub excluded: bool,
    /// Newest first.
    pub layers: Vec<LayerRow>,
    /// Positions with a chunk.
    pub mapped: u64,
    pub scrub: Scrub,
}

/// How far the slow reading of a tracked disk has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scrub {
    /// The position that is next.
    pub next: u64,
    /// Up to when its share was read, in seconds since 1970; 0 before the first time.
    pub at: i64,
    /// When this round through the disk began; 0 if nobody knows.
    #[serde(default)]
    pub began: i64,
    /// That it takes too long has been told.
    #[serde(default)]
    pub is_told: bool,
}

/// One layer of a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum LayerRow {
    Object {
        name: String,
        size: u64,
        positions: u64,
    },
    /// Encoded runs, as hex: small, and the row stays JSON.
    Inline { runs: String, positions: u64 },
}

impl LayerRow {
    pub fn inline(runs: &[Run]) -> Self {
        let hex = encode_runs(runs)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        LayerRow::Inline {
            runs: hex,
            positions: runs.iter().map(Run::count).sum(),
        }
    }

    pub fn runs(&self) -> Result<Vec<Run>, FormatError> {
        match self {
            LayerRow::Object { .. } => Ok(Vec::new()),
            LayerRow::Inline { runs, .. } => {
                let digit = |i: usize| u8::from_str_radix(runs.get(i..i + 2).unwrap_or("x"), 16);
                let bytes: Result<Vec<u8>, _> = (0..runs.len()).step_by(2).map(digit).collect();
                decode_runs(&bytes.map_err(|e| FormatError::Damaged(e.to_string()))?)
            }
        }
    }

    pub fn positions(&self) -> u64 {
        match self {
            LayerRow::Object { positions, .. } | LayerRow::Inline { positions, .. } => *positions,
        }
    }

    pub fn bytes(&self) -> u64 {
        match self {
            LayerRow::Object { size, .. } => *size,
            LayerRow::Inline { runs, .. } => runs.len() as u64 / 2,
        }
    }

    pub fn to_ref(&self) -> Result<LayerRef, FormatError> {
        match self {
            LayerRow::Object { name, size, .. } => Ok(LayerRef::Object {
                name: name.clone(),
                size: *size,
            }),
            LayerRow::Inline { .. } => Ok(LayerRef::Inline(self.runs()?)),
        }
    }
}

/// A VM's last published point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct VmRow {
    pub name: String,
    pub vm_id: VmId,
    pub point: PointId,
    pub hash: ObjectHash,
    pub object: String,
    pub captured_at: String,
    pub capture: CaptureId,
    pub consistency: String,
    /// The other writer whose point this is: the VM is taken over with the next one.
    #[serde(default)]
    pub taken_from: Option<WriterId>,
    pub disks: Vec<DiskRow>,
    #[serde(default)]
    pub fenced: FencedRow,
}

impl VmRow {
    /// What there is to say of its point, if it has one.
    pub fn as_ordinary(&self) -> Option<OrdinaryRow> {
        (!self.object.is_empty()).then(|| OrdinaryRow {
            point: self.point,
            captured_at: self.captured_at.clone(),
            consistency: self.consistency.clone(),
        })
    }
}

/// What a fence has made of a VM's points.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FencedRow {
    /// The last published point is diverged, by this fence.
    pub diverged: Option<u64>,
    /// The point that keeps what the disks held, and its fence.
    pub kept: Option<(u64, PointId)>,
    /// Where the last point is diverged: the newest that is not.
    pub ordinary: Option<OrdinaryRow>,
}

/// A published point that is not diverged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrdinaryRow {
    pub point: PointId,
    pub captured_at: String,
    pub consistency: String,
}

/// A manifest on its way: written before it is sent, so that a process that dies in between knows what it sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PendingRow {
    pub manifest: Vec<u8>,
    pub vm: VmRow,
    /// Packs whose entries it has.
    pub packs: Vec<u64>,
    /// The ordinal of the capture that it publishes.
    pub capture: u64,
}

/// A capture that is not published yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct QueueRow {
    pub vm: String,
    pub vm_id: VmId,
    /// The pass over the running disks that is complete: what the disks of a draft are known by.
    pub pass: Option<CaptureId>,
    /// The pass under way, the number of its disk, and the position up to which that is done.
    pub under_way: Option<(CaptureId, u32, u64)>,
    /// Without layers: those come about when it is published.
    pub disks: Vec<DiskRow>,
    /// Packs of other captures that had not arrived when it began to need them.
    pub needs: BTreeSet<u64>,
    /// 1 goes first.
    pub priority: u32,
    /// Of all that was read for it so far, by passes and by captures that failed too.
    #[serde(default)]
    pub cost: PointBytes,
    /// `None`: it is a draft, which is not complete.
    pub point: Option<PointFacts>,
}

/// What is known of a recovery point before it is published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PointFacts {
    pub capture: CaptureId,
    /// RFC 3339, the gateway's clock.
    pub captured_at: String,
    pub consistency: Consistency,
    pub software: String,
    pub hardware: Option<serde_json::Value>,
    pub bytes: PointBytes,
    /// Last number of the control log that was heeded.
    pub log: u64,
    /// The fence that it was captured for: what the disks of a VM held that was failed over.
    #[serde(default)]
    pub fence: Option<u64>,
}
