//! Numbers and texts out of untrusted bytes: every read is checked, and what lies outside is `None`.

/// Checked reads from a slice.
pub(crate) trait Bytes {
    /// `length` bytes at `at`.
    fn part(&self, at: usize, length: usize) -> Option<&[u8]>;

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.part(at, N)?.try_into().ok()
    }
    fn byte(&self, at: usize) -> Option<u8> {
        self.array::<1>(at).map(|[byte]| byte)
    }
    fn le16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }
    fn le32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }
    fn le64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
    fn be16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }
    fn be32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_be_bytes)
    }
    fn be64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_be_bytes)
    }
    /// Whether exactly `expected` stands at `at`.
    fn has(&self, at: usize, expected: &[u8]) -> bool {
        self.part(at, expected.len()) == Some(expected)
    }
}

impl Bytes for [u8] {
    fn part(&self, at: usize, length: usize) -> Option<&[u8]> {
        self.get(at..at.checked_add(length)?)
    }
}

/// A text that ends at the first NUL; spaces at its end are padding. `None` when nothing is left.
pub(crate) fn padded_text(bytes: &[u8]) -> Option<String> {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let text = text.trim_end_matches(' ');
    (!text.is_empty()).then(|| text.to_owned())
}

/// UTF-16 in little-endian order, up to the first NUL; unpaired surrogates become U+FFFD.
pub(crate) fn utf16_text(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|&unit| unit != 0);
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` of 16 bytes in the order they stand; `None` when all are zero.
pub(crate) fn dashed_uuid(bytes: &[u8]) -> Option<String> {
    use std::fmt::Write;
    if bytes.iter().all(|&byte| byte == 0) {
        return None;
    }
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

/// A GUID as GPT stores it: the first three groups are little-endian (UEFI 2.10, appendix A).
pub(crate) fn mixed_guid(bytes: [u8; 16]) -> Option<String> {
    let mut turned = bytes;
    turned[0..4].reverse();
    turned[4..6].reverse();
    turned[6..8].reverse();
    dashed_uuid(&turned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_none() {
        let bytes = [1u8, 2, 3, 4];
        assert_eq!(bytes.le32(0), Some(0x0403_0201));
        assert_eq!(bytes.be16(2), Some(0x0304));
        assert_eq!(bytes.le32(1), None);
        assert_eq!(bytes.part(usize::MAX, 2), None);
        assert!(bytes.has(1, &[2, 3]) && !bytes.has(3, &[4, 5]));
    }

    #[test]
    fn texts_and_guids_are_written_as_blkid_writes_them() {
        assert_eq!(padded_text(b"boot   \0x"), Some("boot".into()));
        assert_eq!(padded_text(b"   "), None);
        assert_eq!(utf16_text(b"E\0F\0I\0\0\0x\0"), "EFI");
        // The EFI System Partition's type, as it stands on disk.
        let esp = [
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e,
            0xc9, 0x3b,
        ];
        assert_eq!(
            mixed_guid(esp).as_deref(),
            Some("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
        );
        assert_eq!(dashed_uuid(&[0; 16]), None);
    }
}
