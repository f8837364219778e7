//! Manifests (section 10): one recovery point each.

use crate::FormatError;
use crate::entry::{Entry, decode_sorted_entries, encode_entries};
use crate::ids::{CaptureId, ObjectHash, PackName, PointId, VmId, WriterId, object_hash};
use crate::keys::MetadataKey;
use crate::layer::{Run, decode_runs, encode_runs};
use crate::metadata_object::{Naming, ObjectKind, Root, Trust, Writer, encode, from_json};
use crate::names;
use crate::segment::ListedPack;
use serde::{Deserialize, Serialize};

/// What a recovery point's disks can be expected to hold; in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Read from a disk in use: a smear.
    None,
    /// As after power loss.
    Crash,
    /// File systems frozen.
    FileSystem,
    /// Applications quiesced.
    Application,
}

impl std::fmt::Display for Consistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Consistency::None => "none",
            Consistency::Crash => "crash",
            Consistency::FileSystem => "file-system",
            Consistency::Application => "application",
        })
    }
}

/// One layer of a disk, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerRef {
    /// A layer object of this size in bytes.
    Object { name: String, size: u64 },
    /// Runs in the manifest itself.
    Inline(Vec<Run>),
}

/// One disk of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub name: String,
    pub size_bytes: u64,
    /// Recreated empty.
    pub excluded: bool,
    /// Newest first.
    pub layers: Vec<LayerRef>,
}

/// Another object, by name and hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    pub object: String,
    pub hash: ObjectHash,
}

/// The newest point of a VM, as a gateway knew it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestPoint {
    pub vm_id: VmId,
    #[serde(flatten)]
    pub point: PointId,
    pub hash: ObjectHash,
}

/// Bytes that a point cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointBytes {
    /// Read from the source.
    pub read: u64,
    /// In changed blocks.
    pub changed: u64,
    /// Of records, sent for this point.
    pub sent: u64,
}

impl std::ops::AddAssign for PointBytes {
    fn add_assign(&mut self, more: Self) {
        self.read += more.read;
        self.changed += more.changed;
        self.sent += more.sent;
    }
}

/// Packs that no segment holds yet, and the manifest that has their entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unindexed {
    pub object: String,
    pub packs: Vec<PackName>,
}

/// What the JSON of a manifest says, apart from disks and entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub vm: String,
    pub vm_id: VmId,
    #[serde(flatten)]
    pub point: PointId,
    /// RFC 3339, the gateway's clock.
    pub captured_at: String,
    /// RFC 3339, the store's clock.
    pub store_time: Option<String>,
    pub consistency: Consistency,
    pub capture: CaptureId,
    pub previous: Option<ObjectRef>,
    pub newest: Vec<NewestPoint>,
    /// Last number of the control log that was heeded.
    pub log: u64,
    /// The log's entry of the fence under which it was captured: what the disks of a VM held that was failed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<u64>,
    pub expires_at: Option<String>,
    pub hold: bool,
    pub bytes: PointBytes,
    pub software: String,
    pub hardware: Option<serde_json::Value>,
    pub packs: Vec<ListedPack>,
    pub unindexed: Vec<Unindexed>,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub facts: Facts,
    pub disks: Vec<Disk>,
    /// Of `facts.packs`; the pack number counts in that list.
    pub entries: Vec<Entry>,
}

type Section = [u64; 2];

#[derive(Serialize, Deserialize)]
struct ManifestJson {
    #[serde(flatten)]
    facts: Facts,
    disks: Vec<DiskJson>,
    entries: Section,
}

#[derive(Serialize, Deserialize)]
struct DiskJson {
    name: String,
    size_bytes: u64,
    excluded: bool,
    layers: Vec<LayerJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum LayerJson {
    Object { object: String, size: u64 },
    Inline { inline: Section },
}

fn add_section(binary: &mut Vec<u8>, bytes: &[u8]) -> Section {
    binary.extend_from_slice(bytes);
    [(binary.len() - bytes.len()) as u64, bytes.len() as u64]
}

fn section(binary: &[u8], [offset, length]: Section) -> Result<&[u8], FormatError> {
    let end = offset
        .checked_add(length)
        .filter(|end| *end <= binary.len() as u64);
    let end =
        end.ok_or_else(|| FormatError::damaged("a section lies behind the manifest's end"))?;
    Ok(&binary[offset as usize..end as usize])
}

impl Manifest {
    /// Its object name.
    pub fn object_name(&self) -> String {
        names::point(&self.facts.vm_id, self.facts.point)
    }

    /// Seals and signs; the name is [`Manifest::object_name`].
    pub fn encode(&self, writer: &Writer, key: &MetadataKey) -> Vec<u8> {
        let mut binary = Vec::new();
        let mut entries = self.entries.clone();
        entries.sort_unstable_by_key(Entry::key);
        let entries = add_section(&mut binary, &encode_entries(&entries));
        let layer = |binary: &mut Vec<u8>, layer: &LayerRef| match layer {
            LayerRef::Object { name, size } => LayerJson::Object {
                object: name.clone(),
                size: *size,
            },
            LayerRef::Inline(runs) => LayerJson::Inline {
                inline: add_section(binary, &encode_runs(runs)),
            },
        };
        let disk = |disk: &Disk| DiskJson {
            name: disk.name.clone(),
            size_bytes: disk.size_bytes,
            excluded: disk.excluded,
            layers: disk.layers.iter().map(|l| layer(&mut binary, l)).collect(),
        };
        let disks = self.disks.iter().map(disk).collect();
        let json = ManifestJson {
            facts: self.facts.clone(),
            disks,
            entries,
        };
        let Ok(serde_json::Value::Object(json)) = serde_json::to_value(&json) else {
            unreachable!("a struct of strings and numbers is a JSON object")
        };
        let name = Naming::Whole(self.object_name());
        encode(writer, key, ObjectKind::Manifest, name, &[], json, &binary).1
    }

    /// Opens the manifest `name`; what it says of itself must go with its name. Returns its writer and hash as well.
    pub fn open(
        trust: &Trust,
        name: &str,
        bytes: &[u8],
    ) -> Result<(Self, WriterId, ObjectHash), FormatError> {
        let root = Root::open_whole(trust, ObjectKind::Manifest, name, bytes)?;
        let ManifestJson {
            facts,
            disks,
            entries,
        } = from_json(&root.json, "a manifest")?;
        if names::point(&facts.vm_id, facts.point) != name {
            return Err(FormatError::damaged(
                "a manifest speaks of another point than its name",
            ));
        }
        let entries =
            decode_sorted_entries(section(&root.binary, entries)?, facts.packs.len() as u32)?;
        let layer = |layer: LayerJson| -> Result<LayerRef, FormatError> {
            Ok(match layer {
                LayerJson::Object { object, size } => LayerRef::Object { name: object, size },
                LayerJson::Inline { inline } => {
                    LayerRef::Inline(decode_runs(section(&root.binary, inline)?)?)
                }
            })
        };
        let disk = |disk: DiskJson| -> Result<Disk, FormatError> {
            Ok(Disk {
                name: disk.name,
                size_bytes: disk.size_bytes,
                excluded: disk.excluded,
                layers: disk
                    .layers
                    .into_iter()
                    .map(layer)
                    .collect::<Result<_, _>>()?,
            })
        };
        let disks: Vec<Disk> = disks.into_iter().map(disk).collect::<Result<_, _>>()?;
        check_names(&facts.vm, &disks)?;
        Ok((
            Manifest {
                facts,
                disks,
                entries,
            },
            root.writer,
            object_hash(bytes),
        ))
    }
}

/// Names become file names at a restore, so they are checked again there, whoever signed them.
fn check_names(vm: &str, disks: &[Disk]) -> Result<(), FormatError> {
    match std::iter::once(vm)
        .chain(disks.iter().map(|d| d.name.as_str()))
        .find(|name| !is_name(name))
    {
        Some(name) => Err(FormatError::damaged(format!(
            "`{}` is no name of a VM or disk",
            name.escape_debug()
        ))),
        None => Ok(()),
    }
}

/// Whether `name` may name a VM or disk: 1 to 64 of `[A-Za-z0-9._-]`, not beginning with a dot or dash.
pub fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['.', '-'])
}
