//! Metadata objects read by ranges: the root first, parts on demand.

use super::ranges::{MAX_GAP_BYTES, MAX_RANGE_BYTES, Together, coalesce, get_exact};
use crate::StoreError;
use crate::objects::Objects;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::ops::Range;
use vault_format::FormatError;
use vault_format::metadata_object::{HEADER_BYTES, ObjectKind, Root, TAIL_BYTES, Tail, Trust};

/// Objects up to this size are read whole, and kept: their parts cost no further request.
const WHOLE_BYTES: u64 = 256 * 1024;
/// Read from the end of a larger one first: a segment of 512 packs has a root of 30 KB.
const TAIL_GUESS_BYTES: u64 = 64 * 1024;
/// A sealed part's largest size: 16 MiB plain, and what sealing adds.
const MAX_SEALED_PART_BYTES: u32 = (16 << 20) + 64;
/// A sealed root's largest size.
const MAX_SEALED_ROOT_BYTES: u32 = (256 << 20) + 64;
/// Requests for one object at the same time.
pub(super) const REQUESTS: usize = 8;

/// An object whose root is opened; its owner holds the root.
#[derive(Debug)]
pub(super) struct RemoteObject {
    pub name: String,
    whole: Option<Bytes>,
}

impl RemoteObject {
    /// Opens the root of `name`, which is `size` bytes long.
    pub async fn open(
        objects: &dyn Objects,
        trust: &Trust,
        kind: ObjectKind,
        name: &str,
        size: u64,
    ) -> Result<(RemoteObject, Root), StoreError> {
        let wrong = StoreError::format(name);
        if size <= WHOLE_BYTES {
            let bytes = objects.get(name).await?;
            let root = Root::open_whole(trust, kind, name, &bytes).map_err(wrong)?;
            return Ok((
                RemoteObject {
                    name: name.to_owned(),
                    whole: Some(bytes),
                },
                root,
            ));
        }
        let begin = size - TAIL_GUESS_BYTES;
        let (header, end) = futures::try_join!(
            get_exact(objects, name, 0..HEADER_BYTES as u64),
            get_exact(objects, name, begin..size)
        )?;
        let tail = parse_tail(&end, size).map_err(StoreError::format(name))?;
        let sealed_root = match tail.root_offset.checked_sub(begin) {
            Some(at) => end.slice(at as usize..end.len() - TAIL_BYTES),
            None => {
                let first = get_exact(objects, name, tail.root_offset..begin).await?;
                Bytes::from([&first[..], &end[..end.len() - TAIL_BYTES]].concat())
            }
        };
        let root = Root::open(trust, kind, name, &header, &sealed_root, &tail).map_err(wrong)?;
        Ok((
            RemoteObject {
                name: name.to_owned(),
                whole: None,
            },
            root,
        ))
    }

    /// Sealed parts, by ascending number, neighbours read together.
    pub async fn parts(
        &self,
        objects: &dyn Objects,
        root: &Root,
        numbers: &[usize],
    ) -> Result<Vec<(usize, Bytes)>, StoreError> {
        let ranges = part_ranges(root, numbers).map_err(StoreError::format(&self.name))?;
        let slice = |bytes: &Bytes, start: u64, range: &Range<u64>| {
            let range = (range.start - start) as usize..(range.end - start) as usize;
            (range.end <= bytes.len()).then(|| bytes.slice(range))
        };
        let short =
            || FormatError::Damaged("the part table does not go with the object's length".into());
        let mut out = Vec::with_capacity(numbers.len());
        if let Some(whole) = &self.whole {
            for (number, range) in numbers.iter().zip(&ranges) {
                let part = slice(whole, 0, range)
                    .ok_or_else(short)
                    .map_err(StoreError::format(&self.name))?;
                out.push((*number, part));
            }
            return Ok(out);
        }
        let groups = coalesce(&ranges, MAX_GAP_BYTES, MAX_RANGE_BYTES);
        let fetch = |group: Together| async move {
            let bytes = get_exact(objects, &self.name, group.bytes.clone()).await?;
            Ok::<_, StoreError>((group, bytes))
        };
        let fetched: Vec<_> = stream::iter(groups)
            .map(fetch)
            .buffered(REQUESTS)
            .try_collect()
            .await?;
        for (group, bytes) in fetched {
            for i in group.items {
                let part = slice(&bytes, group.bytes.start, &ranges[i]);
                out.push((
                    numbers[i],
                    part.ok_or_else(short)
                        .map_err(StoreError::format(&self.name))?,
                ));
            }
        }
        Ok(out)
    }
}

fn parse_tail(end: &[u8], size: u64) -> Result<Tail, FormatError> {
    let tail = Tail::parse(&end[end.len() - TAIL_BYTES..], size)?;
    if tail.root_bytes > MAX_SEALED_ROOT_BYTES {
        let (found, limit) = (tail.root_bytes.into(), MAX_SEALED_ROOT_BYTES.into());
        return Err(FormatError::Limit {
            what: "a root's length",
            found,
            limit,
        });
    }
    Ok(tail)
}

fn part_ranges(root: &Root, numbers: &[usize]) -> Result<Vec<Range<u64>>, FormatError> {
    let range = |number: &usize| {
        let row = root
            .parts
            .get(*number)
            .ok_or_else(|| FormatError::Damaged(format!("no part {number}")))?;
        if row.sealed_bytes > MAX_SEALED_PART_BYTES {
            let (found, limit) = (row.sealed_bytes.into(), MAX_SEALED_PART_BYTES.into());
            return Err(FormatError::Limit {
                what: "a part's length",
                found,
                limit,
            });
        }
        Ok(row.offset..row.offset + u64::from(row.sealed_bytes))
    };
    numbers.iter().map(range).collect()
}
