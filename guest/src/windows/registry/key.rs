//! Keys: the way down, their subkeys and values.

use super::value::Value;
use super::{Hive, NOWHERE, bytes, u16_at, u32_at};
use crate::GuestError;

/// Of one key. `Services` has about 700 subkeys, `Classes\CLSID` some ten thousand, which nobody asks for.
const SUBKEY_LIMIT: usize = 65_536;
/// 255 characters, which is Windows' own limit.
const NAME_LIMIT: usize = 510;
/// Of one key.
const VALUE_LIMIT: u32 = 65_536;

/// A key node (`nk`).
#[derive(Clone, Copy)]
pub struct Key<'h> {
    hive: &'h Hive,
    offset: u32,
    node: &'h [u8],
}

impl<'h> Key<'h> {
    pub(super) fn at(hive: &'h Hive, offset: u32) -> Result<Key<'h>, GuestError> {
        let node = hive.record(offset, *b"nk")?;
        let key = Key { hive, offset, node };
        // So that no field below can lie behind the end.
        if node.len() < 76 || node.len() < 76 + key.name_length() {
            return Err(hive.damaged("a key is shorter than its name", offset));
        }
        if key.name_length() > NAME_LIMIT {
            return Err(hive.damaged("a key's name is too long", offset));
        }
        Ok(key)
    }

    pub fn name(&self) -> String {
        let (bytes, is_narrow) = self.stored_name();
        bytes::name(bytes, is_narrow)
    }

    fn stored_name(&self) -> (&'h [u8], bool) {
        let bytes = &self.node[76..76 + self.name_length()];
        (bytes, self.u16(2) & 0x20 != 0)
    }

    /// `None` when there is no such key. Components are separated by `\`.
    pub fn descend(self, path: &str) -> Result<Option<Key<'h>>, GuestError> {
        let mut key = self;
        for name in path.split('\\') {
            match key.subkey(name)? {
                Some(next) => key = next,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    pub fn subkey(&self, name: &str) -> Result<Option<Key<'h>>, GuestError> {
        let mut found = None;
        self.visit_subkeys(|key| {
            let (bytes, is_narrow) = key.stored_name();
            if bytes::is_name(bytes, is_narrow, name) {
                found = Some(key);
            }
            found.is_none()
        })?;
        Ok(found)
    }

    pub fn subkeys(&self) -> Result<Vec<Key<'h>>, GuestError> {
        let mut keys = Vec::new();
        self.visit_subkeys(|key| {
            keys.push(key);
            true
        })?;
        Ok(keys)
    }

    /// The names' hashes are not used: they would have to be believed, and the lists that we ask are short.
    fn visit_subkeys(&self, mut visit: impl FnMut(Key<'h>) -> bool) -> Result<(), GuestError> {
        let (count, list) = (self.u32(20), self.u32(28));
        if count == 0 || list == NOWHERE {
            return Ok(());
        }
        let mut left = SUBKEY_LIMIT;
        let cell = self.hive.cell(list)?;
        if !cell.starts_with(b"ri") {
            self.visit_leaf(list, cell, &mut left, &mut visit)?;
            return Ok(());
        }
        for entry in entries(cell, 4) {
            let leaf = self.hive.cell(entry)?;
            if !self.visit_leaf(entry, leaf, &mut left, &mut visit)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether to go on.
    fn visit_leaf(
        &self,
        at: u32,
        cell: &'h [u8],
        left: &mut usize,
        visit: &mut impl FnMut(Key<'h>) -> bool,
    ) -> Result<bool, GuestError> {
        let step = match cell.get(..2) {
            Some(b"li") => 4,
            Some(b"lf" | b"lh") => 8,
            _ => return Err(self.hive.damaged("a list of subkeys is none", at)),
        };
        if *left == 0 {
            return Err(self.hive.damaged("a key has too many subkeys", self.offset));
        }
        // An empty leaf counts too: there may be 65,535 of them.
        *left -= 1;
        for entry in entries(cell, step) {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| self.hive.damaged("a key has too many subkeys", self.offset))?;
            if !visit(Key::at(self.hive, entry)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The default value has the name ``.
    pub fn value(&self, name: &str) -> Result<Option<Value<'h>>, GuestError> {
        let (count, list) = (self.u32(36), self.u32(40));
        if count == 0 || list == NOWHERE {
            return Ok(None);
        }
        if count > VALUE_LIMIT {
            return Err(self.hive.damaged("a key has too many values", self.offset));
        }
        let cell = self.hive.cell(list)?;
        for index in 0..count as usize {
            let entry = u32_at(cell, index * 4)
                .ok_or_else(|| self.hive.damaged("a list of values is too short", list))?;
            let value = Value::at(self.hive, entry)?;
            if value.is_named(name) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn name_length(&self) -> usize {
        usize::from(self.u16(72))
    }

    fn u16(&self, at: usize) -> u16 {
        u16_at(self.node, at).unwrap_or_default()
    }

    fn u32(&self, at: usize) -> u32 {
        u32_at(self.node, at).unwrap_or_default()
    }
}

/// The offsets in a list of subkeys, as many as it says and has.
fn entries(cell: &[u8], step: usize) -> impl Iterator<Item = u32> {
    let count = usize::from(u16_at(cell, 2).unwrap_or_default());
    (0..count).map_while(move |index| u32_at(cell, 4 + index * step))
}
