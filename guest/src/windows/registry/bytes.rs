//! Numbers and names out of bytes that may end too early.

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// UTF-16; what is none becomes U+FFFD, an odd last byte is dropped.
pub fn utf16(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|c| u16::from_le_bytes([c[0], c[1]]));
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// The name of a key or value: one byte for each character (Latin-1) where its flag says so.
pub fn name(bytes: &[u8], is_narrow: bool) -> String {
    if is_narrow {
        bytes.iter().copied().map(char::from).collect()
    } else {
        utf16(bytes)
    }
}

/// Whether a stored name is the one that is looked for; without case. Lengths first: a list may have 65,536 names of
/// 32 KiB each.
pub fn is_name(bytes: &[u8], is_narrow: bool, wanted: &str) -> bool {
    let units = if is_narrow {
        bytes.len()
    } else {
        bytes.len() / 2
    };
    units == wanted.encode_utf16().count() && {
        let fold = |c: char| c.to_uppercase();
        let stored = name(bytes, is_narrow);
        stored
            .chars()
            .flat_map(fold)
            .eq(wanted.chars().flat_map(fold))
    }
}
