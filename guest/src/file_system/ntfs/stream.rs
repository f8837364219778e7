//! A value of an NTFS file: in its record, or in clusters that one or several records map.

use std::collections::BTreeSet;

use super::Ntfs;
use super::record::{self, Attribute, Value};
use super::runs::{self, Run};
use crate::GuestError;
use crate::storage::bytes::Bytes;

const FLAG_COMPRESSED: u16 = 0x00ff;
const FLAG_ENCRYPTED: u16 = 0x4000;
/// Windows makes attribute lists of at most 256 KiB.
const MAX_LIST_BYTES: u64 = 256 * 1024;

#[derive(Default)]
pub(super) struct Stream {
    pub size: u64,
    /// The value itself, where it lies in the record.
    pub resident: Option<Vec<u8>>,
    runs: Vec<Run>,
    /// What lies behind was never written, and reads as zero.
    initialized: u64,
    flags: u16,
}

/// A part of a stream as one record maps it.
struct Part {
    first_cluster: u64,
    runs: Vec<Run>,
    size: u64,
    initialized: u64,
    flags: u16,
}

impl Stream {
    /// `size` bytes from a cluster on.
    pub(super) fn at_cluster(cluster: u64, count: u64, size: u64) -> Self {
        Self {
            size,
            runs: vec![Run {
                logical: 0,
                physical: Some(cluster),
                count,
            }],
            initialized: size,
            ..Self::default()
        }
    }
}

impl Ntfs {
    /// The value of an attribute, by its kind and name (UTF-16), from all records of a file.
    pub(super) fn stream(
        &self,
        number: u64,
        kind: u32,
        name: &[u8],
    ) -> Result<Option<Stream>, GuestError> {
        let base = self.record(number)?;
        let mut found = self.parts(number, &base, kind, name)?;
        for other in self.other_records(number, &base, kind)? {
            let record = self.record(other)?;
            // A record that serves another says whom.
            if record.le64(32).unwrap_or(0) & 0xffff_ffff_ffff != number {
                return Err(self.damaged(number, format!("its record {other} is another file's")));
            }
            let more = self.parts(number, &record, kind, name)?;
            found.resident = found.resident.or(more.resident);
            found.parts.extend(more.parts);
        }
        self.join(number, found)
    }

    /// The same from the base record alone, for the file table before it is known where the rest of it lies.
    pub(super) fn own_stream(
        &self,
        number: u64,
        kind: u32,
        name: &[u8],
    ) -> Result<Stream, GuestError> {
        let base = self.record(number)?;
        let found = self.parts(number, &base, kind, name)?;
        self.join(number, found)?
            .ok_or_else(|| self.damaged(number, "an attribute that it must have is missing"))
    }

    fn parts(
        &self,
        number: u64,
        record: &[u8],
        kind: u32,
        name: &[u8],
    ) -> Result<Found, GuestError> {
        let mut found = Found::default();
        for attribute in record::attributes(record) {
            if attribute.kind != kind || attribute.name != name {
                continue;
            }
            match attribute.value {
                Value::Resident(bytes) => {
                    found.resident.get_or_insert_with(|| bytes.to_vec());
                }
                Value::Mapped(_) => found.parts.push(self.part(number, &attribute)?),
            }
        }
        Ok(found)
    }

    fn part(&self, number: u64, attribute: &Attribute<'_>) -> Result<Part, GuestError> {
        let bad = || self.damaged(number, "its map of clusters is damaged");
        let Value::Mapped(mapping) = &attribute.value else {
            return Err(bad());
        };
        let mut runs = Vec::new();
        runs::parse(mapping.pairs, mapping.first_cluster, &mut runs).ok_or_else(bad)?;
        let is_inside = runs.iter().all(|run| match run.physical {
            Some(start) => start
                .checked_add(run.count)
                .is_some_and(|end| end <= self.clusters),
            None => true,
        });
        if !is_inside {
            return Err(self.damaged(number, "its map leads behind the last cluster"));
        }
        Ok(Part {
            first_cluster: mapping.first_cluster,
            runs,
            size: mapping.size,
            initialized: mapping.initialized,
            flags: attribute.flags,
        })
    }

    /// Records beside the base that hold attributes of this kind.
    fn other_records(
        &self,
        number: u64,
        base: &[u8],
        kind: u32,
    ) -> Result<BTreeSet<u64>, GuestError> {
        let list = self.parts(number, base, record::ATTRIBUTE_LIST, b"")?;
        let Some(stream) = self.join(number, list)? else {
            return Ok(BTreeSet::new());
        };
        if stream.size > MAX_LIST_BYTES {
            return Err(self.damaged(number, "its list of attributes is too large"));
        }
        let list = self.stream_bytes(number, &stream, stream.size as usize)?;
        Ok(record::list_entries(&list)
            .into_iter()
            .filter(|(listed, other)| *listed == kind && *other != number)
            .map(|(_, other)| other)
            .collect())
    }

    fn join(&self, number: u64, mut found: Found) -> Result<Option<Stream>, GuestError> {
        if let Some(bytes) = found.resident {
            return Ok(Some(Stream {
                size: bytes.len() as u64,
                resident: Some(bytes),
                ..Stream::default()
            }));
        }
        found.parts.sort_by_key(|part| part.first_cluster);
        let Some(first) = found.parts.first() else {
            return Ok(None);
        };
        let mut stream = Stream {
            size: first.size,
            initialized: first.initialized,
            flags: first.flags,
            ..Stream::default()
        };
        let mut next = 0;
        for part in found.parts {
            if part.first_cluster != next {
                return Err(self.damaged(number, "a part of its map of clusters is missing"));
            }
            next = part.runs.last().map_or(next, |run| run.logical + run.count);
            stream.runs.extend(part.runs);
            if stream.runs.len() > runs::MAX_RUNS {
                return Err(self.damaged(number, "it has too many pieces"));
            }
        }
        Ok(Some(stream))
    }

    /// Fills `buf` from `offset` of a stream in clusters; `false` when that lies behind its end.
    pub(super) fn read_stream(
        &self,
        stream: &Stream,
        mut offset: u64,
        mut buf: &mut [u8],
    ) -> Result<bool, GuestError> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > stream.size) {
            return Ok(false);
        }
        while !buf.is_empty() {
            let cluster = offset / self.cluster_bytes;
            let after = stream.runs.partition_point(|run| run.logical <= cluster);
            let Some(run) = after
                .checked_sub(1)
                .and_then(|index| stream.runs.get(index))
                .filter(|run| cluster - run.logical < run.count)
            else {
                return Ok(false);
            };
            let within = offset - run.logical * self.cluster_bytes;
            let mut length =
                (run.count.saturating_mul(self.cluster_bytes) - within).min(buf.len() as u64);
            if offset < stream.initialized {
                length = length.min(stream.initialized - offset);
            }
            let (now, later) = buf.split_at_mut(length as usize);
            match run.physical {
                Some(start) if offset < stream.initialized => {
                    self.volume.read(start * self.cluster_bytes + within, now)?;
                }
                _ => now.fill(0),
            }
            buf = later;
            offset += length;
        }
        Ok(true)
    }

    /// The first `length` bytes of a stream, wherever it lies.
    pub(super) fn stream_bytes(
        &self,
        number: u64,
        stream: &Stream,
        length: usize,
    ) -> Result<Vec<u8>, GuestError> {
        let mut bytes = vec![0u8; length];
        self.stream_bytes_at(number, stream, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `buf` from `offset` of a stream, wherever it lies.
    pub(super) fn stream_bytes_at(
        &self,
        number: u64,
        stream: &Stream,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), GuestError> {
        let short = |why: &str| self.damaged(number, why);
        if let Some(bytes) = &stream.resident {
            let part = usize::try_from(offset)
                .ok()
                .and_then(|offset| bytes.part(offset, buf.len()))
                .ok_or_else(|| short("it is shorter than it says"))?;
            buf.copy_from_slice(part);
            return Ok(());
        }
        let refused = if stream.flags & FLAG_ENCRYPTED != 0 {
            Some("it is encrypted (EFS)")
        } else if stream.flags & FLAG_COMPRESSED != 0 {
            Some("it is compressed")
        } else {
            None
        };
        if let Some(why) = refused {
            return Err(GuestError::unsupported(self.what(number), why));
        }
        match self.read_stream(stream, offset, buf)? {
            true => Ok(()),
            false => Err(short("its map of clusters is shorter than it says")),
        }
    }
}

#[derive(Default)]
struct Found {
    resident: Option<Vec<u8>>,
    parts: Vec<Part>,
}
