//! Packs (section 6): one object of many records, named by the hash of its bytes.

use crate::entry::{Entry, decode_entries, encode_entries};
use crate::ids::{ChunkId, PackName, VaultId, WriterId};
use crate::keys::{MetadataKey, MetadataKeys, RecoveryKey, SEALED_KEY_BYTES, Secret};
use crate::metadata_object::Sealing;
use crate::reader::Reader;
use crate::record::{Kind, RECORD_OVERHEAD};
use crate::seal::{Coder, Sealer};
use crate::{FORMAT, FormatError};

const MAGIC: &[u8; 8] = b"SPSTPACK";
const END: &[u8; 8] = b"SPSTPEND";
const TRAILER_KIND: u8 = 4;
const MAX_KEYS: u16 = 16;
/// Bytes behind the trailer: its length, key number, writer, end mark.
pub const FOOTER_BYTES: usize = 32;
/// Bytes before the first record of a pack with one data key.
pub const ONE_KEY_HEADER_BYTES: usize = 16 + SEALED_KEY_BYTES;
/// The longest header.
pub const MAX_HEADER_BYTES: usize = 16 + MAX_KEYS as usize * SEALED_KEY_BYTES;
/// A pack's largest size.
pub const MAX_PACK_BYTES: u64 = 1 << 30;

/// What binds a data key to its vault.
pub fn data_key_info(vault: &VaultId) -> Vec<u8> {
    [b"sparesite/1 data key\0".as_slice(), &vault.0].concat()
}

/// A pack being filled, with one data key.
#[derive(Debug)]
pub struct PackBuilder {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A pack ready to be sent.
#[derive(Debug)]
pub struct FinishedPack {
    pub name: PackName,
    pub bytes: Vec<u8>,
    /// In order of offset; their pack number is 0.
    pub entries: Vec<Entry>,
}

impl PackBuilder {
    /// `sealed_key` is the data key, sealed to the recovery key with [`data_key_info`]. The pack is built in `buffer`,
    /// whose content goes.
    pub fn new(sealed_key: &[u8; SEALED_KEY_BYTES], buffer: Vec<u8>) -> Self {
        let mut bytes = buffer;
        bytes.clear();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&1u16.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(sealed_key);
        PackBuilder {
            bytes,
            entries: Vec::new(),
        }
    }

    /// Appends a whole sealed record.
    pub fn push(&mut self, id: ChunkId, kind: Kind, record: &[u8]) {
        let (offset, length) = (self.bytes.len() as u32, record.len() as u32);
        self.bytes.extend_from_slice(record);
        self.entries.push(Entry {
            id,
            kind,
            pack: 0,
            offset,
            length,
        });
    }

    /// Bytes so far, header included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Seals the trailer; the name is the hash of all bytes.
    pub fn finish(mut self, vault: &VaultId, writer: &WriterId, key: &MetadataKey) -> FinishedPack {
        let sealing = trailer_sealing(vault, writer, key);
        let begin = self.bytes.len();
        sealing.seal(
            0,
            &encode_entries(&self.entries),
            &mut Coder::new(1),
            &mut self.bytes,
        );
        let length = (self.bytes.len() - begin) as u32;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&key.number.to_le_bytes());
        self.bytes.extend_from_slice(&writer.0);
        self.bytes.extend_from_slice(END);
        let name = PackName(*blake3::hash(&self.bytes).as_bytes());
        FinishedPack {
            name,
            bytes: self.bytes,
            entries: self.entries,
        }
    }
}

fn trailer_sealing<'a>(
    vault: &'a VaultId,
    writer: &'a WriterId,
    key: &MetadataKey,
) -> Sealing<'a, u8> {
    Sealing {
        sealer: Sealer::new(&key.secret),
        vault,
        kind: TRAILER_KIND,
        writer,
        bound: crate::names::PACKS,
    }
}

/// The sealed data keys of a pack, from its first bytes ([`MAX_HEADER_BYTES`] always suffice).
pub fn sealed_keys(head: &[u8]) -> Result<Vec<[u8; SEALED_KEY_BYTES]>, FormatError> {
    let mut r = Reader::new(head);
    r.magic(MAGIC, "a pack")?;
    let (format, keys) = (r.u16("a pack's header")?, r.u16("a pack's header")?);
    if format != FORMAT {
        return Err(FormatError::unknown("format version", format));
    }
    r.reserved(4)?;
    if !(1..=MAX_KEYS).contains(&keys) {
        return Err(FormatError::Limit {
            what: "a pack's number of data keys",
            found: keys.into(),
            limit: MAX_KEYS.into(),
        });
    }
    (0..keys).map(|_| r.array("a pack's data keys")).collect()
}

/// The data keys of a pack, opened and made ready.
pub fn open_keys(
    head: &[u8],
    vault: &VaultId,
    recovery: &RecoveryKey,
) -> Result<Vec<Sealer>, FormatError> {
    let info = data_key_info(vault);
    let open = |sealed: [u8; SEALED_KEY_BYTES]| -> Result<Sealer, FormatError> {
        let key: Secret = recovery.open(&sealed, &info)?;
        Ok(Sealer::new(&key))
    };
    sealed_keys(head)?.into_iter().map(open).collect()
}

/// What a pack's last [`FOOTER_BYTES`] say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    pub trailer_bytes: u32,
    pub key_number: u32,
    pub writer: WriterId,
}

impl Footer {
    pub fn parse(footer: &[u8], pack_bytes: u64) -> Result<Self, FormatError> {
        let mut r = Reader::new(footer);
        let (trailer_bytes, key_number) = (r.u32("a pack's end")?, r.u32("a pack's end")?);
        let writer = WriterId(r.array("a pack's end")?);
        r.magic(END, "a whole pack")?;
        r.end("a pack")?;
        if u64::from(trailer_bytes) + FOOTER_BYTES as u64 + ONE_KEY_HEADER_BYTES as u64 > pack_bytes
        {
            return Err(FormatError::damaged(
                "a pack's trailer is longer than the pack",
            ));
        }
        Ok(Footer {
            trailer_bytes,
            key_number,
            writer,
        })
    }

    /// The pack's entries, from its sealed trailer, which ends [`FOOTER_BYTES`] before the pack does.
    pub fn open_trailer(
        &self,
        vault: &VaultId,
        keys: &MetadataKeys,
        trailer: &[u8],
    ) -> Result<Vec<Entry>, FormatError> {
        let sealing = trailer_sealing(vault, &self.writer, keys.number(self.key_number)?);
        decode_entries(&sealing.open(0, trailer, 256 << 20, "a pack's trailer")?, 1)
    }
}

/// Checks that `bytes` are the pack `name`; needs no key.
pub fn check(name: &PackName, bytes: &[u8]) -> Result<(), FormatError> {
    if blake3::hash(bytes).as_bytes() != &name.0 {
        return Err(FormatError::Checksum);
    }
    if bytes.len() < ONE_KEY_HEADER_BYTES + RECORD_OVERHEAD + FOOTER_BYTES {
        return Err(FormatError::damaged("too short for a pack"));
    }
    Ok(())
}
