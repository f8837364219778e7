//! The one shape of manifests, segments and layers (section 7): sealed parts, a sealed root that holds their hashes, a
//! signature over the root, a checksum over all. A part can be fetched and proved alone.

use crate::ids::{Tag, VaultId, WriterId};
use crate::keys::{Certificate, MetadataKey, MetadataKeys, SigningKey, VerifyingKey};
use crate::names::{self, Name};
use crate::reader::Reader;
use crate::seal::{Coder, SEAL_BYTES, Sealer, decode};
use crate::{FORMAT, FormatError};

pub const HEADER_BYTES: usize = 128;
pub const TAIL_BYTES: usize = 108;
const PART_HEADER_BYTES: usize = 8;
const ROW_BYTES: usize = 72;
const ROOT_PART: u32 = u32::MAX;
const MAX_PART_BYTES: u64 = 16 << 20;
const MAX_ROOT_BYTES: u64 = 256 << 20;
const MAGIC: &[u8; 8] = b"SPSTMETA";

/// What a metadata object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    Manifest = 1,
    Segment = 2,
    Layer = 3,
}

/// Who writes: what each object of a writer carries and is signed with.
#[derive(Debug)]
pub struct Writer {
    pub vault: VaultId,
    pub id: WriterId,
    pub key: SigningKey,
    pub certificate: Certificate,
}

/// What a reader holds to check and open metadata.
#[derive(Clone, Debug)]
pub struct Trust {
    pub vault: VaultId,
    pub control: VerifyingKey,
    pub keys: MetadataKeys,
}

/// One part before sealing.
#[derive(Debug)]
pub struct PlainPart {
    pub first_key: [u8; 32],
    pub entries: u32,
    pub plain: Vec<u8>,
}

/// How an object gets its name.
#[derive(Debug)]
pub enum Naming {
    /// A manifest: by its point.
    Whole(String),
    /// A segment or layer: this prefix, and the tag of its root.
    Tagged(String),
}

/// Seals, signs and frames an object. `json` goes into the root without `parts`, which is added.
pub fn encode(
    writer: &Writer,
    key: &MetadataKey,
    kind: ObjectKind,
    naming: Naming,
    parts: &[PlainPart],
    mut json: serde_json::Map<String, serde_json::Value>,
    binary: &[u8],
) -> (String, Vec<u8>) {
    let bound = match &naming {
        Naming::Whole(name) | Naming::Tagged(name) => name.clone(),
    };
    let sealing = Sealing {
        sealer: Sealer::new(&key.secret),
        vault: &writer.vault,
        kind,
        writer: &writer.id,
        bound: &bound,
    };
    let mut out = header(writer, key.number, kind);
    let mut table = Vec::with_capacity(parts.len() * ROW_BYTES);
    let mut coder = Coder::new(3);
    for (number, part) in parts.iter().enumerate() {
        let begin = out.len();
        sealing.seal(number as u32, &part.plain, &mut coder, &mut out);
        table.extend_from_slice(&part.first_key);
        table.extend_from_slice(&((out.len() - begin) as u32).to_le_bytes());
        table.extend_from_slice(&part.entries.to_le_bytes());
        table.extend_from_slice(blake3::hash(&out[begin..]).as_bytes());
    }
    json.insert("parts".into(), parts.len().into());
    let json = serde_json::Value::Object(json).to_string();
    let root = [
        &(json.len() as u32).to_le_bytes(),
        json.as_bytes(),
        &table,
        binary,
    ]
    .concat();
    let name = match naming {
        Naming::Whole(name) => name,
        Naming::Tagged(prefix) => format!("{prefix}{}", key.tag(&root)),
    };
    let offset = out.len();
    sealing.seal(ROOT_PART, &root, &mut coder, &mut out);
    let length = (out.len() - offset) as u32;
    let message = signed_message(&writer.vault, &name, &out[..HEADER_BYTES], &out[offset..]);
    out.extend_from_slice(&(offset as u64).to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&writer.key.sign(&message));
    let checksum = blake3::hash(&out);
    out.extend_from_slice(checksum.as_bytes());
    (name, out)
}

fn header(writer: &Writer, key_number: u32, kind: ObjectKind) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[kind as u8, 0]);
    out.extend_from_slice(&key_number.to_le_bytes());
    out.extend_from_slice(&writer.id.0);
    out.extend_from_slice(&writer.certificate.public_key.0);
    out.extend_from_slice(&writer.certificate.signature);
    out
}

fn signed_message(vault: &VaultId, name: &str, header: &[u8], root: &[u8]) -> Vec<u8> {
    let hash = blake3::Hasher::new().update(header).update(root).finalize();
    let length = (name.len() as u16).to_le_bytes();
    [
        b"sparesite/1 metadata\0".as_slice(),
        &vault.0,
        &length,
        name.as_bytes(),
        hash.as_bytes(),
    ]
    .concat()
}

/// What binds a sealed part to its place; pack trailers use it too.
pub(crate) struct Sealing<'a, K> {
    pub sealer: Sealer,
    pub vault: &'a VaultId,
    pub kind: K,
    pub writer: &'a WriterId,
    pub bound: &'a str,
}

impl From<ObjectKind> for u8 {
    fn from(kind: ObjectKind) -> u8 {
        kind as u8
    }
}

impl<K: Into<u8> + Copy> Sealing<'_, K> {
    pub(crate) fn seal(&self, part: u32, plain: &[u8], coder: &mut Coder, out: &mut Vec<u8>) {
        let (codec, coded) = coder.code(plain);
        let length = plain.len() as u32;
        out.extend_from_slice(&[codec, 0, 0, 0]);
        out.extend_from_slice(&length.to_le_bytes());
        self.sealer
            .seal(&self.associated(part, codec, length), coded, out);
    }

    pub(crate) fn open(
        &self,
        part: u32,
        sealed: &[u8],
        limit: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, FormatError> {
        let mut r = Reader::new(sealed);
        let codec = r.u8(what)?;
        r.reserved(3)?;
        let plain = r.u32(what)?;
        if u64::from(plain) > limit {
            return Err(FormatError::Limit {
                what,
                found: plain.into(),
                limit,
            });
        }
        let mut sealed = r.take(r.left(), what)?.to_vec();
        let coded = self
            .sealer
            .open(&self.associated(part, codec, plain), &mut sealed, what)?;
        decode(codec, coded, plain as usize, what)
    }

    fn associated(&self, part: u32, codec: u8, plain: u32) -> Vec<u8> {
        let (part, plain) = (part.to_le_bytes(), plain.to_le_bytes());
        [
            &self.vault.0[..],
            &[self.kind.into()],
            &part,
            &[codec],
            &plain,
            &self.writer.0,
            self.bound.as_bytes(),
        ]
        .concat()
    }
}

/// Where the root is, from an object's last [`TAIL_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    pub root_offset: u64,
    pub root_bytes: u32,
    signature: [u8; 64],
}

impl Tail {
    /// `size` is that of the whole object.
    pub fn parse(tail: &[u8], size: u64) -> Result<Self, FormatError> {
        let mut r = Reader::new(tail);
        let root_offset = r.u64("an object's tail")?;
        let root_bytes = r.u32("an object's tail")?;
        let signature = r.array("an object's tail")?;
        r.take(32, "an object's tail")?;
        r.end("an object's tail")?;
        let end = root_offset.checked_add(u64::from(root_bytes) + TAIL_BYTES as u64);
        if root_offset < HEADER_BYTES as u64 || end != Some(size) {
            return Err(FormatError::damaged(
                "the tail does not go with the object's length",
            ));
        }
        Ok(Tail {
            root_offset,
            root_bytes,
            signature,
        })
    }
}

/// A row of the part table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRow {
    pub first_key: [u8; 32],
    pub offset: u64,
    pub sealed_bytes: u32,
    pub entries: u32,
    hash: [u8; 32],
}

/// An object's root, checked and opened.
#[derive(Debug)]
pub struct Root {
    pub kind: ObjectKind,
    pub writer: WriterId,
    pub parts: Vec<PartRow>,
    pub json: Vec<u8>,
    pub binary: Vec<u8>,
    key: MetadataKey,
    vault: VaultId,
    bound: String,
}

impl Root {
    /// Opens from the pieces that two ranged reads give. `name` is the object's whole name.
    pub fn open(
        trust: &Trust,
        kind: ObjectKind,
        name: &str,
        header: &[u8],
        sealed_root: &[u8],
        tail: &Tail,
    ) -> Result<Self, FormatError> {
        let mut r = Reader::new(header);
        r.magic(MAGIC, "a metadata object")?;
        let (format, found, _) = (r.u16("a header")?, r.u8("a header")?, r.reserved(1)?);
        if format != FORMAT {
            return Err(FormatError::unknown("format version", format));
        }
        if found != kind as u8 {
            return Err(FormatError::unknown(
                "object kind",
                format!("{found} in place of {}", kind as u8),
            ));
        }
        let key = trust.keys.number(r.u32("a header")?)?.clone();
        let writer = WriterId(r.array("a header")?);
        let public_key = VerifyingKey(r.array("a header")?);
        let certificate = Certificate {
            public_key,
            signature: r.array("a header")?,
        };
        r.end("a header")?;
        certificate.verify(&trust.control, &trust.vault, &writer)?;
        let message = signed_message(&trust.vault, name, header, sealed_root);
        public_key.verify(
            &message,
            &tail.signature,
            "the writer did not sign these bytes under this name",
        )?;
        let (bound, tag) = bound_name(kind, name, &writer)?;
        let sealing = Sealing {
            sealer: Sealer::new(&key.secret),
            vault: &trust.vault,
            kind,
            writer: &writer,
            bound: &bound,
        };
        let plain = sealing.open(ROOT_PART, sealed_root, MAX_ROOT_BYTES, "an object's root")?;
        if tag.is_some_and(|tag| tag != key.tag(&plain)) {
            return Err(FormatError::damaged(
                "its name is not the one that its content gives",
            ));
        }
        let (json, parts, binary) = parse_root(&plain)?;
        Ok(Root {
            kind,
            writer,
            parts,
            json,
            binary,
            key,
            vault: trust.vault,
            bound,
        })
    }

    /// Opens the root of a whole object, its checksum first.
    pub fn open_whole(
        trust: &Trust,
        kind: ObjectKind,
        name: &str,
        bytes: &[u8],
    ) -> Result<Self, FormatError> {
        check(bytes)?;
        let tail = Tail::parse(&bytes[bytes.len() - TAIL_BYTES..], bytes.len() as u64)?;
        let root = &bytes[tail.root_offset as usize..bytes.len() - TAIL_BYTES];
        Root::open(trust, kind, name, &bytes[..HEADER_BYTES], root, &tail)
    }

    /// The sealed bytes of part `number` in the whole object; empty, which no part is, where the object ends before.
    pub fn sealed_part<'b>(&self, whole: &'b [u8], number: usize) -> &'b [u8] {
        let range = self.parts.get(number).map(|row| {
            let begin = row.offset as usize;
            begin..begin.saturating_add(row.sealed_bytes as usize)
        });
        range.and_then(|range| whole.get(range)).unwrap_or_default()
    }

    /// Opens part `number`, from the bytes at its row's offset and length.
    pub fn open_part(&self, number: usize, sealed: &[u8]) -> Result<Vec<u8>, FormatError> {
        let row = self
            .parts
            .get(number)
            .ok_or_else(|| FormatError::damaged("no such part"))?;
        if blake3::hash(sealed) != row.hash {
            return Err(FormatError::Checksum);
        }
        let sealer = Sealer::new(&self.key.secret);
        let sealing = Sealing {
            sealer,
            vault: &self.vault,
            kind: self.kind,
            writer: &self.writer,
            bound: &self.bound,
        };
        sealing.open(number as u32, sealed, MAX_PART_BYTES, "an object's part")
    }
}

/// What sealing is bound to: a manifest's whole name; a segment's or layer's without its tag, which comes from the root.
/// A writer has only its own names.
fn bound_name(
    kind: ObjectKind,
    name: &str,
    writer: &WriterId,
) -> Result<(String, Option<Tag>), FormatError> {
    let (owner, tag) = match (kind, names::parse(name)) {
        (ObjectKind::Manifest, Some(Name::Point(..))) => return Ok((name.to_owned(), None)),
        (ObjectKind::Segment, Some(Name::Segment(span, tag))) => (span.writer, tag),
        (ObjectKind::Layer, Some(Name::Layer(owner, tag))) => (owner, tag),
        _ => return Err(FormatError::damaged("its name is not one of its kind")),
    };
    if owner != *writer {
        return Err(FormatError::Signature(
            "a writer wrote under another writer's name".into(),
        ));
    }
    Ok((name[..name.len() - 32].to_owned(), Some(tag)))
}

/// Checks an object's frame and checksum; needs no key.
pub fn check(bytes: &[u8]) -> Result<(), FormatError> {
    let needed = (HEADER_BYTES + PART_HEADER_BYTES + SEAL_BYTES + TAIL_BYTES) as u64;
    if (bytes.len() as u64) < needed {
        return Err(FormatError::Truncated {
            what: "a metadata object",
            needed,
            left: bytes.len() as u64,
        });
    }
    Reader::new(bytes).magic(MAGIC, "a metadata object")?;
    let (body, checksum) = bytes.split_at(bytes.len() - 32);
    if blake3::hash(body).as_bytes() != checksum {
        return Err(FormatError::Checksum);
    }
    Ok(())
}

type RootPieces = (Vec<u8>, Vec<PartRow>, Vec<u8>);

fn parse_root(plain: &[u8]) -> Result<RootPieces, FormatError> {
    #[derive(serde::Deserialize)]
    struct Parts {
        parts: u32,
    }
    let mut r = Reader::new(plain);
    let length = r.u32("a root")?;
    let json = r.take(length as usize, "a root's JSON")?;
    let parts: Parts = from_json(json, "a root")?;
    let mut rows = Vec::new();
    let mut offset = HEADER_BYTES as u64;
    for _ in 0..parts.parts {
        let first_key = r.array("a part table")?;
        let sealed_bytes = r.u32("a part table")?;
        rows.push(PartRow {
            first_key,
            offset,
            sealed_bytes,
            entries: r.u32("a part table")?,
            hash: r.array("a part table")?,
        });
        offset += u64::from(sealed_bytes);
    }
    if !rows.is_sorted_by_key(|row| row.first_key) {
        return Err(FormatError::damaged("a part table is not sorted"));
    }
    Ok((json.to_vec(), rows, r.take(r.left(), "a root")?.to_vec()))
}

/// JSON of the format; the error says where it is wrong.
pub(crate) fn from_json<'a, T: serde::Deserialize<'a>>(
    bytes: &'a [u8],
    what: &str,
) -> Result<T, FormatError> {
    serde_json::from_slice(bytes).map_err(|e| FormatError::damaged(format!("{what}: {e}")))
}
