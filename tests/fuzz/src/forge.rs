//! Makes what guards a decoder around arbitrary bytes: seals, tags, signatures, checksums, by `docs/vault-format.md`
//! and with the golden vault's keys. Not by the crate's own encoders, which write nothing wrong.

use serde_json::Value;
use vault_format::FORMAT;
use vault_format::metadata_object::{HEADER_BYTES, ObjectKind, TAIL_BYTES};
use vault_format::names::{Span, maps_of};
use vault_format::record::Kind;
use vault_format::seal::Sealer;
use vault_format::{ChunkId, PointId, names};

use crate::golden::golden;

/// A sealed part (section 7). `stated` is its plain length as it claims it.
pub fn part(
    kind: u8,
    number: u32,
    (codec, stated): (u8, u32),
    coded: &[u8],
    bound: &str,
) -> Vec<u8> {
    let key = &golden().key;
    let associated = [
        &key.trust.vault.0[..],
        &[kind],
        &number.to_le_bytes(),
        &[codec],
        &stated.to_le_bytes(),
        &key.writer.id.0,
        bound.as_bytes(),
    ]
    .concat();
    let mut out = vec![codec, 0, 0, 0];
    out.extend(stated.to_le_bytes());
    Sealer::new(&golden().metadata().secret).seal(&associated, coded, &mut out);
    out
}

/// The object whose root's plaintext is `root`, and its name. `parts` lie between header and root as they are.
pub fn object(kind: ObjectKind, root: &[u8], parts: &[u8]) -> (String, Vec<u8>) {
    let (name, bound) = match kind {
        ObjectKind::Manifest => (manifest_name(root), manifest_name(root)),
        ObjectKind::Segment => tagged(span().prefix(), root),
        ObjectKind::Layer => tagged(maps_of(&golden().key.writer.id), root),
    };
    let mut out = header(kind);
    out.extend(parts);
    let root_at = out.len();
    out.extend(part(
        kind as u8,
        u32::MAX,
        (0, root.len() as u32),
        root,
        &bound,
    ));
    let root_bytes = out.len() - root_at;
    out.extend((root_at as u64).to_le_bytes());
    out.extend((root_bytes as u32).to_le_bytes());
    out.extend([0; 96]);
    sign_object(&mut out, &name);
    (name, out)
}

fn tagged(prefix: String, root: &[u8]) -> (String, String) {
    (format!("{prefix}{}", golden().metadata().tag(root)), prefix)
}

/// The span of every forged segment.
pub fn span() -> Span {
    Span {
        writer: golden().key.writer.id,
        epoch: 2,
        first: 0,
        last: 1,
    }
}

fn header(kind: ObjectKind) -> Vec<u8> {
    let writer = &golden().key.writer;
    let mut out = b"SPSTMETA".to_vec();
    out.extend(FORMAT.to_le_bytes());
    out.extend([kind as u8, 0]);
    out.extend(golden().metadata().number.to_le_bytes());
    out.extend(writer.id.0);
    out.extend(writer.certificate.public_key.0);
    out.extend(writer.certificate.signature);
    out
}

/// Signs and checksums a whole object anew, if it is long enough to be one.
pub fn sign_object(object: &mut [u8], name: &str) {
    let Some(tail_at) = object
        .len()
        .checked_sub(TAIL_BYTES)
        .filter(|at| *at >= HEADER_BYTES)
    else {
        return;
    };
    let root_at = u64::from_le_bytes(std::array::from_fn(|i| object[tail_at + i]));
    let root_at = usize::try_from(root_at)
        .unwrap_or(usize::MAX)
        .clamp(HEADER_BYTES, tail_at);
    let hash = blake3::Hasher::new()
        .update(&object[..HEADER_BYTES])
        .update(&object[root_at..tail_at])
        .finalize();
    let writer = &golden().key.writer;
    let length = (name.len() as u16).to_le_bytes();
    let message = [
        b"sparesite/1 metadata\0",
        &writer.vault.0[..],
        &length,
        name.as_bytes(),
        hash.as_bytes(),
    ];
    object[tail_at + 12..tail_at + 76].copy_from_slice(&writer.key.sign(&message.concat()));
    let checksum = blake3::hash(&object[..tail_at + 76]);
    object[tail_at + 76..].copy_from_slice(checksum.as_bytes());
}

/// The name that a manifest's root gives itself, or some other.
fn manifest_name(root: &[u8]) -> String {
    let named = || {
        let length = u32::from_le_bytes(*root.first_chunk()?) as usize;
        let json: Value = serde_json::from_slice(root.get(4..4usize.checked_add(length)?)?).ok()?;
        let vm = vault_format::VmId::from_hex(json["vm_id"].as_str()?).ok()?;
        let (epoch, sequence) = (json["epoch"].as_u64()?, json["sequence"].as_u64()?);
        let name = names::point(&vm, PointId { epoch, sequence });
        names::parse(&name).map(|_| name)
    };
    let other = || {
        let vm = golden().key.id_key.vm_id("web-1");
        names::point(
            &vm,
            PointId {
                epoch: 2,
                sequence: 1,
            },
        )
    };
    named().unwrap_or_else(other)
}

/// A root's plaintext.
pub fn root(json: &Value, table: &[u8], binary: &[u8]) -> Vec<u8> {
    let json = json.to_string();
    [
        &(json.len() as u32).to_le_bytes(),
        json.as_bytes(),
        table,
        binary,
    ]
    .concat()
}

/// A row of a part table.
pub fn row(first_key: [u8; 32], sealed: &[u8], entries: u32) -> Vec<u8> {
    let (length, entries) = ((sealed.len() as u32).to_le_bytes(), entries.to_le_bytes());
    [
        &first_key[..],
        &length,
        &entries,
        blake3::hash(sealed).as_bytes(),
    ]
    .concat()
}

/// A whole record (section 6) whose coded payload is `coded`, under data key 0.
pub fn record(id: &ChunkId, kind: Kind, (codec, stated): (u8, u32), coded: &[u8]) -> Vec<u8> {
    let head = [u8::from(kind.parent().is_some()), codec, 1, 1, kind.depth()];
    let stated = stated.to_le_bytes();
    let parent = kind.parent().map_or([0; 32], |id| id.0);
    let vault = &golden().key.trust.vault.0;
    let associated = [&vault[..], &head, &stated, &id.0, &parent].concat();
    let mut out = head.to_vec();
    out.extend([0, 0, 0]);
    out.extend(stated);
    out.extend((coded.len() as u32).to_le_bytes());
    golden().data.seal(&associated, coded, &mut out);
    out
}

/// Puts the right checksum into a signed JSON object (section 3), if it has the fields.
pub fn mend_signed_json(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame: Value = serde_json::from_slice(bytes).ok()?;
    let signature = hex::decode(frame["signature"].as_str()?).ok()?;
    let certificate = frame["certificate"].as_str().unwrap_or_default();
    let (payload, signer) = (frame["payload"].as_str()?, frame["signer"].as_str()?);
    let parts = [
        payload.as_bytes(),
        b"\0",
        signer.as_bytes(),
        b"\0",
        certificate.as_bytes(),
        b"\0",
        &signature,
    ];
    frame["checksum"] = blake3::hash(&parts.concat()).to_hex().as_str().into();
    Some(frame.to_string().into_bytes())
}

/// Puts the right checksum into a recovery kit (section 4), if it has the fields.
pub fn mend_kit(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut kit: Value = serde_json::from_slice(bytes).ok()?;
    let costs = &kit["argon2id"];
    let number = |name: &str| costs[name].as_u64().map(|n| n.to_string());
    let parts = [
        kit["vault_url"].as_str()?.to_owned(),
        kit["vault_id"].as_str()?.to_owned(),
        number("memory_kib")?,
        number("iterations")?,
        number("parallelism")?,
        costs["salt"].as_str()?.to_owned(),
        kit["wrapped"].as_str()?.to_owned(),
    ];
    kit["checksum"] = blake3::hash(parts.join("\0").as_bytes())
        .to_hex()
        .as_str()
        .into();
    Some(kit.to_string().into_bytes())
}
