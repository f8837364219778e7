//! Values: names, kinds, and data in the record itself, in a cell, or in pieces.

use std::borrow::Cow;

use super::{Hive, bytes, u16_at, u32_at};
use crate::GuestError;

/// What is read of one value. Of those that are asked for, only the pending renames come near.
const DATA_LIMIT: usize = 1 << 20;
/// What one piece of a big value holds.
const PIECE: usize = 16_344;

/// Of one string: what is asked for are names, versions, paths and a firewall rule.
const CHARACTER_LIMIT: usize = 4096;
/// Of one list: addresses of an adapter.
const STRING_LIMIT: usize = 256;

const STRING: u32 = 1;
const EXPANDABLE_STRING: u32 = 2;
const NUMBER: u32 = 4;
const STRINGS: u32 = 7;

/// A value record (`vk`).
pub struct Value<'h> {
    hive: &'h Hive,
    record: &'h [u8],
}

impl<'h> Value<'h> {
    pub(super) fn at(hive: &'h Hive, offset: u32) -> Result<Value<'h>, GuestError> {
        let record = hive.record(offset, *b"vk")?;
        let value = Value { hive, record };
        if record.len() < 20 || record.len() < 20 + value.name_length() {
            return Err(hive.damaged("a value is shorter than its name", offset));
        }
        Ok(value)
    }

    pub fn name(&self) -> String {
        let (bytes, is_narrow) = self.stored_name();
        bytes::name(bytes, is_narrow)
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        let (bytes, is_narrow) = self.stored_name();
        bytes::is_name(bytes, is_narrow, name)
    }

    fn stored_name(&self) -> (&'h [u8], bool) {
        let is_narrow = u16_at(self.record, 16).is_some_and(|flags| flags & 1 != 0);
        (&self.record[20..20 + self.name_length()], is_narrow)
    }

    pub fn size(&self) -> usize {
        (self.raw_size() & 0x7fff_ffff) as usize
    }

    pub fn data(&self) -> Result<Cow<'h, [u8]>, GuestError> {
        let (size, offset) = (self.size(), self.u32(8));
        if self.raw_size() & 0x8000_0000 != 0 {
            return self
                .record
                .get(8..12)
                .and_then(|field| field.get(..size))
                .map(Cow::Borrowed)
                .ok_or_else(|| {
                    self.hive
                        .damaged("a value of 4 bytes says it is longer", offset)
                });
        }
        if size == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if size > DATA_LIMIT {
            return Err(GuestError::TooLarge {
                what: format!("value {} of {}", self.name(), self.hive.name),
                bytes: size as u64,
                limit: DATA_LIMIT as u64,
            });
        }
        let cell = self.hive.cell(offset)?;
        if size > PIECE && cell.starts_with(b"db") && self.hive.has_big_data() {
            return self.pieces(cell, offset, size).map(Cow::Owned);
        }
        cell.get(..size)
            .map(Cow::Borrowed)
            .ok_or_else(|| self.hive.damaged("a value is longer than its cell", offset))
    }

    fn pieces(&self, cell: &[u8], offset: u32, size: usize) -> Result<Vec<u8>, GuestError> {
        let short = || self.hive.damaged("a value's pieces are too short", offset);
        let list = self.hive.cell(u32_at(cell, 4).ok_or_else(short)?)?;
        let count = usize::from(u16_at(cell, 2).ok_or_else(short)?);
        let mut data = Vec::with_capacity(size);
        for index in 0..count {
            let piece = self.hive.cell(u32_at(list, index * 4).ok_or_else(short)?)?;
            let wanted = (size - data.len()).min(PIECE);
            if wanted == 0 {
                break;
            }
            data.extend_from_slice(piece.get(..wanted).ok_or_else(short)?);
        }
        (data.len() == size).then_some(data).ok_or_else(short)
    }

    /// A string up to its NUL, or up to the limit; `None` when it is of another kind.
    pub fn text(&self) -> Result<Option<String>, GuestError> {
        if ![STRING, EXPANDABLE_STRING].contains(&self.kind()) {
            return Ok(None);
        }
        let text = bytes::utf16(&self.data()?);
        let text = text.chars().take_while(|c| *c != '\0');
        Ok(Some(text.take(CHARACTER_LIMIT).collect()))
    }

    /// A list of strings, or one string as a list; empty for other kinds. Empty strings are left out.
    pub fn texts(&self) -> Result<Vec<String>, GuestError> {
        if ![STRING, EXPANDABLE_STRING, STRINGS].contains(&self.kind()) {
            return Ok(Vec::new());
        }
        let text = bytes::utf16(&self.data()?);
        let texts = text.split('\0').filter(|text| !text.is_empty());
        Ok(texts.take(STRING_LIMIT).map(str::to_owned).collect())
    }

    /// A number of 32 bits; `None` when it is of another kind.
    pub fn number(&self) -> Result<Option<u32>, GuestError> {
        if self.kind() != NUMBER {
            return Ok(None);
        }
        Ok(u32_at(&self.data()?, 0))
    }

    fn kind(&self) -> u32 {
        self.u32(12)
    }

    fn raw_size(&self) -> u32 {
        self.u32(4)
    }

    fn name_length(&self) -> usize {
        usize::from(u16_at(self.record, 2).unwrap_or_default())
    }

    fn u32(&self, at: usize) -> u32 {
        u32_at(self.record, at).unwrap_or_default()
    }
}
