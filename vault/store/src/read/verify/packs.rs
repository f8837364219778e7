//! Packs: there, of the stated size, and with `read_data` every record opened.

use super::Verification;
use crate::StoreError;
use crate::objects::Objects;
use crate::read::engine::Engine;
use crate::read::ranges::get_exact;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use rayon::prelude::*;
use std::collections::HashMap;
use vault_format::entry::Entry;
use vault_format::pack::{FOOTER_BYTES, Footer, MAX_HEADER_BYTES, MAX_PACK_BYTES, check};
use vault_format::record::{Kind, open_record};
use vault_format::{FormatError, PackName, names};

const STEP_BYTES: u64 = 8 << 20;
/// Ranges of a pack read at the same time.
const STEPS_AT_ONCE: usize = 4;
/// Packs in memory at the same time: one checked, one on its way.
const PACKS_AT_ONCE: usize = 2;

/// What a pack's records came to.
enum Judged {
    Whole,
    /// These records, by offset; the others are whole.
    Records(Vec<(u32, String)>),
    /// What it holds is not known from it.
    Unknown(String),
}

impl Verification<'_> {
    pub(super) async fn check_packs(&mut self, engine: &Engine) -> Result<(), StoreError> {
        let listed: HashMap<PackName, u64> = self.listed_packs().into_iter().collect();
        let stated: Vec<(PackName, u64)> = engine
            .index
            .lock()
            .await
            .packs()
            .map(|p| (p.name, p.size))
            .collect();
        self.report.unreferenced_packs = (listed.len()
            - stated
                .iter()
                .filter(|(p, _)| listed.contains_key(p))
                .count()) as u64;
        for (name, size) in stated {
            let why = match listed.get(&name) {
                Some(found) if *found == size => continue,
                Some(found) => format!("it has {found} bytes, and {size} are stated"),
                None => "it is missing".to_owned(),
            };
            self.damage(&names::pack(&name), why.clone());
            match self.read_data && listed.contains_key(&name) {
                true => drop(self.doubtful.insert(name)),
                false => drop(engine.faults().packs.insert(name, why)),
            }
        }
        if self.read_data {
            self.read_packs(engine, listed).await
        } else {
            Ok(())
        }
    }

    async fn read_packs(
        &mut self,
        engine: &Engine,
        listed: HashMap<PackName, u64>,
    ) -> Result<(), StoreError> {
        let mut order: Vec<(PackName, u64)> = listed.into_iter().collect();
        order.sort_unstable();
        let objects = self.objects.clone();
        let read = |(name, size): (PackName, u64)| {
            let objects = &objects;
            async move {
                (
                    read_whole(&**objects, &names::pack(&name), size).await,
                    name,
                )
            }
        };
        let mut packs = stream::iter(order).map(read).buffered(PACKS_AT_ONCE);
        while let Some((bytes, name)) = packs.next().await {
            let object = names::pack(&name);
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(e) if e.is_damage() => {
                    self.damage(&object, e.to_string());
                    self.doubtful.insert(name);
                    continue;
                }
                Err(e) => return Err(e),
            };
            self.read(bytes.len() as u64);
            let (right, judged) = tokio::task::block_in_place(|| {
                (check(&name, &bytes), self.judge_pack(engine, &name, &bytes))
            });
            match judged {
                Judged::Whole => {}
                Judged::Records(bad) => {
                    for (offset, why) in bad {
                        self.damage(&object, format!("its record at offset {offset}: {why}"));
                        engine.faults().records.insert((name, offset), why);
                    }
                }
                Judged::Unknown(why) => {
                    self.damage(&object, why);
                    self.doubtful.insert(name);
                }
            }
            if let Err(e) = right {
                self.damage(
                    &object,
                    format!("its bytes are not those that its name is the hash of: {e}"),
                );
                // Its trailer may be another pack's, and speak for itself alone.
                self.doubtful.insert(name);
            }
        }
        Ok(())
    }

    /// Opens every record that the pack's own trailer lists. A full one must give its chunk id; a patch gives its only
    /// over its parent, and is built where a point needs it.
    fn judge_pack(&self, engine: &Engine, name: &PackName, bytes: &[u8]) -> Judged {
        let opened = self.trailer_of(bytes).and_then(|entries| {
            let head = &bytes[..bytes.len().min(MAX_HEADER_BYTES)];
            Ok((entries, engine.reader.open_keys(head, name)?))
        });
        let (entries, data_keys) = match opened {
            Ok(opened) => opened,
            Err(e) => return Judged::Unknown(e.to_string()),
        };
        let keys = &engine.keys;
        let open = |entry: &Entry| -> Result<(), FormatError> {
            let begin = entry.offset as usize;
            let record = begin
                .checked_add(entry.length as usize)
                .and_then(|end| bytes.get(begin..end));
            let behind = || FormatError::Damaged("it lies behind the pack's end".into());
            let mut record = record.ok_or_else(behind)?.to_vec();
            let sealer = |n: u8| data_keys.get(usize::from(n));
            let payload = open_record(
                &mut record,
                sealer,
                &keys.vault,
                &entry.id,
                entry.kind,
                keys.chunk_bytes,
            )?;
            let wrong = entry.kind == Kind::Full
                && (payload.len() != keys.chunk_bytes as usize
                    || keys.id_key.chunk_id(&payload) != entry.id);
            match wrong {
                true => Err(FormatError::Damaged(
                    "what it gives does not have the chunk id".into(),
                )),
                false => Ok(()),
            }
        };
        let bad: Vec<(u32, String)> = entries
            .par_iter()
            .filter_map(|e| open(e).err().map(|why| (e.offset, why.to_string())))
            .collect();
        if bad.is_empty() {
            Judged::Whole
        } else {
            Judged::Records(bad)
        }
    }

    fn trailer_of(&self, bytes: &[u8]) -> Result<Vec<Entry>, FormatError> {
        let short = || FormatError::Damaged("too short for a pack".into());
        let at = bytes.len().checked_sub(FOOTER_BYTES).ok_or_else(short)?;
        let footer = Footer::parse(&bytes[at..], bytes.len() as u64)?;
        let begin = at
            .checked_sub(footer.trailer_bytes as usize)
            .ok_or_else(short)?;
        footer.open_trailer(
            &self.vault.trust.vault,
            &self.vault.trust.keys,
            &bytes[begin..at],
        )
    }
}

async fn read_whole(objects: &dyn Objects, name: &str, size: u64) -> Result<Bytes, StoreError> {
    if size > MAX_PACK_BYTES {
        let error = FormatError::Limit {
            what: "a pack's size",
            found: size,
            limit: MAX_PACK_BYTES,
        };
        return Err(StoreError::Format {
            name: name.to_owned(),
            error,
        });
    }
    let steps =
        (0..size.div_ceil(STEP_BYTES)).map(|i| i * STEP_BYTES..size.min((i + 1) * STEP_BYTES));
    let mut parts = stream::iter(steps)
        .map(|range| get_exact(objects, name, range))
        .buffered(STEPS_AT_ONCE);
    let mut out = BytesMut::with_capacity(size as usize);
    while let Some(part) = parts.try_next().await? {
        out.extend_from_slice(&part);
    }
    Ok(out.freeze())
}
