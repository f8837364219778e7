//! A cursor over hostile bytes: every take is bounded, and names what it was for.

use crate::FormatError;

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], FormatError> {
        if n > self.bytes.len() {
            return Err(FormatError::Truncated {
                what,
                needed: n as u64,
                left: self.bytes.len() as u64,
            });
        }
        let (head, tail) = self.bytes.split_at(n);
        self.bytes = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, FormatError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn magic(&mut self, magic: &[u8; 8], what: &'static str) -> Result<(), FormatError> {
        if self.bytes.len() < 8 || &self.bytes[..8] != magic {
            return Err(FormatError::Magic { what });
        }
        self.bytes = &self.bytes[8..];
        Ok(())
    }

    pub(crate) fn reserved(&mut self, n: usize) -> Result<(), FormatError> {
        if self.take(n, "reserved bytes")?.iter().any(|b| *b != 0) {
            return Err(FormatError::unknown("a reserved byte", "that is not zero"));
        }
        Ok(())
    }

    pub(crate) fn end(&self, what: &str) -> Result<(), FormatError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(FormatError::damaged(format!(
            "{} bytes too many behind {what}",
            self.bytes.len()
        )))
    }
}
