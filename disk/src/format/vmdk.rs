//! As much of VMDK as tells which other files an image refers to: its extents, and
//! its parent when it is a delta. Read as QEMU's block/vmdk.c reads it, so that no
//! reference that QEMU would follow is overlooked.

use super::le_u64;

/// QEMU reads no longer descriptor.
pub const MAX_DESCRIPTOR_BYTES: usize = 1 << 20;
/// Where QEMU looks for the descriptor inside of a sparse image, and how much it reads there.
const EMBEDDED_AT: usize = 0x200;
const EMBEDDED_BYTES: usize = 20 * 512;
/// Bytes of the file's beginning that [`parse`] wants for a sparse image.
pub const SPARSE_HEAD_BYTES: usize = EMBEDDED_AT + EMBEDDED_BYTES;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmdkExtent {
    pub name: String,
    /// Plain bytes, not a sparse file with its own header.
    pub flat: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmdkReferences {
    pub parent: Option<String>,
    /// Empty when the image is its own and only extent.
    pub extents: Vec<VmdkExtent>,
}

/// A text file that describes an image: its first line that is no comment decides,
/// after QEMU's way of recognising one.
pub fn is_descriptor(head: &[u8]) -> bool {
    const TITLE: &[u8] = b"# disk descriptorfile";
    if head
        .get(..TITLE.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(TITLE))
    {
        return true;
    }
    for line in head.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first() == Some(&b'#') || line.iter().all(|byte| *byte == b' ') {
            continue;
        }
        return [&b"version=1"[..], b"version=2", b"version=3"].contains(&line);
    }
    false
}

/// Parses the beginning of an image, or all of a descriptor file.
pub fn parse(bytes: &[u8]) -> Result<VmdkReferences, String> {
    if bytes.starts_with(b"COWD") {
        return Ok(VmdkReferences::default());
    }
    if bytes.starts_with(b"KDMV") {
        if le_u64(bytes, 12).ok_or("its header is cut short")? == 0 {
            // QEMU then takes any descriptor in it for the whole image.
            return Err("its header names no capacity".into());
        }
        let embedded = bytes
            .get(EMBEDDED_AT..)
            .map(|rest| rest.get(..EMBEDDED_BYTES).unwrap_or(rest))
            .unwrap_or_default();
        let parent = parent(&descriptor_text(embedded))?;
        return Ok(VmdkReferences {
            parent,
            extents: Vec::new(),
        });
    }
    let text = descriptor_text(bytes);
    let extents = extents(&text)?;
    if extents.is_empty() {
        return Err("its descriptor names no extents".into());
    }
    Ok(VmdkReferences {
        parent: parent(&text)?,
        extents,
    })
}

/// Checks the header of a sparse extent: it must lead nowhere else.
pub fn parse_extent(bytes: &[u8]) -> Result<(), String> {
    let head = bytes.get(..4).unwrap_or_default();
    match head {
        b"KDMV" => parse(bytes).map(|_| ()),
        b"COWD" => Ok(()),
        // seSparse
        _ if le_u64(bytes, 0) == Some(0xcafe_babe) => Ok(()),
        _ => Err("it is no sparse extent".into()),
    }
}

fn descriptor_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The value after `key=`, wherever it stands, as QEMU searches for it.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(key)?;
    rest.strip_prefix('=')?.lines().next().map(str::trim)
}

fn parent(text: &str) -> Result<Option<String>, String> {
    let hint = value(text, "parentFileNameHint").map(|hint| hint.trim_matches('"').to_owned());
    let parent_cid = value(text, "parentCID");
    let has_parent = parent_cid.is_some_and(|cid| !cid.eq_ignore_ascii_case("ffffffff"));
    match hint {
        Some(hint) if !hint.is_empty() => Ok(Some(hint)),
        _ if has_parent => Err("it is a delta and does not name its parent".into()),
        _ => Ok(None),
    }
}

fn extents(text: &str) -> Result<Vec<VmdkExtent>, String> {
    let mut out = Vec::new();
    for line in text.lines().map(str::trim_start) {
        let mut words = line.split_ascii_whitespace();
        let Some("RW" | "RDONLY" | "NOACCESS") = words.next() else {
            continue;
        };
        let kind = words.nth(1).unwrap_or_default();
        if kind == "ZERO" {
            continue;
        }
        let name = line
            .split_once('"')
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(name, _)| name)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| format!("it has an extent without a name: {line:.80}"))?;
        let flat = match kind {
            "FLAT" | "VMFS" => true,
            "SPARSE" | "VMFSSPARSE" | "SESPARSE" => false,
            _ => {
                return Err(format!(
                    "it has an extent of type {kind:?}, which cannot be read"
                ));
            }
        };
        out.push(VmdkExtent {
            name: name.to_owned(),
            flat,
        });
    }
    Ok(out)
}
