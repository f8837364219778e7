//! The header of a qcow2 image: what other files it refers to, and whether it can
//! be read at all. Source: QEMU's docs/interop/qcow2.txt.

use super::{be_u32, be_u64};

/// The header, its extensions and the backing file's name lie within the first
/// cluster, whose size is 64 KiB unless somebody chose otherwise (2 MiB at most).
pub const HEADER_BYTES: usize = 2 << 20;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Qcow2Header {
    pub size_bytes: u64,
    pub backing_file: Option<String>,
    /// The backing file's format by qemu's name, when the image says it.
    pub backing_format: Option<String>,
    pub data_file: Option<String>,
    pub encrypted: bool,
    /// QEMU found its tables inconsistent once.
    pub corrupt: bool,
}

fn text(bytes: &[u8], what: &str) -> Result<String, String> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(format!("the name of its {what} is not readable text")),
    }
}

/// Parses the beginning of an image (up to [`HEADER_BYTES`]).
pub fn parse(bytes: &[u8]) -> Result<Qcow2Header, String> {
    let short = || "its header is cut short".to_owned();
    let version = be_u32(bytes, 4).ok_or_else(short)?;
    if !bytes.starts_with(b"QFI\xfb") || !(2..=3).contains(&version) {
        return Err(format!("qcow version {version} is not supported"));
    }
    let backing_offset = be_u64(bytes, 8).ok_or_else(short)?;
    let backing_length = be_u32(bytes, 16).ok_or_else(short)? as usize;
    let mut header = Qcow2Header {
        size_bytes: be_u64(bytes, 24).ok_or_else(short)?,
        encrypted: be_u32(bytes, 32).ok_or_else(short)? != 0,
        ..Qcow2Header::default()
    };
    let mut extensions_at = 72;
    let mut features = 0;
    if version == 3 {
        features = be_u64(bytes, 72).ok_or_else(short)?;
        extensions_at = be_u32(bytes, 100).ok_or_else(short)? as usize;
    }
    header.corrupt = features & INCOMPATIBLE_CORRUPT != 0;
    if backing_offset != 0 {
        if backing_length > 1023 {
            return Err("the name of its backing file is longer than 1023 bytes".into());
        }
        let start = usize::try_from(backing_offset).map_err(|_| short())?;
        let end = start.checked_add(backing_length).ok_or_else(short)?;
        let name = bytes.get(start..end).ok_or_else(short)?;
        header.backing_file = Some(text(name, "backing file")?);
    }
    // The extensions end where the backing file's name begins, at the latest.
    let extensions_end = match usize::try_from(backing_offset) {
        Ok(offset) if offset != 0 => offset.min(bytes.len()),
        _ => bytes.len(),
    };
    extensions(bytes, extensions_at, extensions_end, &mut header)?;
    if features & INCOMPATIBLE_DATA_FILE == 0 {
        header.data_file = None;
    } else if header.data_file.is_none() {
        return Err("it keeps its data in another file, and does not name it".into());
    }
    Ok(header)
}

fn extensions(
    bytes: &[u8],
    mut at: usize,
    end: usize,
    header: &mut Qcow2Header,
) -> Result<(), String> {
    while at + 8 <= end {
        let (Some(kind), Some(length)) = (be_u32(bytes, at), be_u32(bytes, at + 4)) else {
            break;
        };
        if kind == EXTENSION_END {
            break;
        }
        let data = bytes
            .get(at + 8..)
            .and_then(|rest| rest.get(..length as usize))
            .ok_or("a header extension is cut short")?;
        match kind {
            EXTENSION_BACKING_FORMAT => {
                header.backing_format = Some(text(data, "backing format")?);
            }
            EXTENSION_DATA_FILE => header.data_file = Some(text(data, "data file")?),
            _ => {}
        }
        at += 8 + (length as usize).next_multiple_of(8);
    }
    Ok(())
}
