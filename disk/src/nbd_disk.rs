//! A disk behind an NBD server: another program's export, or the qemu-nbd that
//! this crate starts for image formats that it does not read itself.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::DiskError;
use crate::nbd::wire::{BASE_ALLOCATION, STATE_ZERO};
use crate::nbd::{ExportInfo, ExtentMap, NbdAddress, NbdError, NbdOptions, NbdPool};
use crate::qemu_nbd::QemuNbd;
use crate::reader::{DiskReader, check_range};
use crate::writer::WriteAt;

/// How much of the disk one map request asks for.
const MAP_BYTES: u64 = 1 << 30;

#[derive(Debug)]
pub struct NbdDisk {
    // Dropped before `server`: a server that we started ends by itself when its clients have gone.
    pool: NbdPool,
    name: String,
    map: Mutex<DataMap>,
    /// Of the last context and flags that [`NbdDisk::next_flagged`] was asked for.
    flagged: Mutex<(String, u32, DataMap)>,
    server: Option<QemuNbd>,
}

/// The last answered map: data ranges within `covered`, in order.
#[derive(Debug, Default)]
struct DataMap {
    covered: Range<u64>,
    data: Vec<Range<u64>>,
}

impl DataMap {
    /// A hole that does not promise zeroes may hold anything.
    fn from_extents(offset: u64, map: &ExtentMap) -> Self {
        Self::where_flags(offset, map, |flags| flags & STATE_ZERO == 0)
    }

    fn where_flags(offset: u64, map: &ExtentMap, wanted: impl Fn(u32) -> bool) -> Self {
        let mut data: Vec<Range<u64>> = Vec::new();
        let mut at = offset;
        for extent in &map.extents {
            let end = at + extent.length;
            if wanted(extent.flags) {
                match data.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => data.push(at..end),
                }
            }
            at = end;
        }
        Self {
            covered: offset..at,
            data,
        }
    }

    /// The data at or after `offset` in this map; `Err(end)` when there is none until `end`.
    fn next(&self, offset: u64) -> Result<Range<u64>, u64> {
        let first = self.data.partition_point(|range| range.end <= offset);
        self.data
            .get(first)
            .map(|range| range.start.max(offset)..range.end)
            .ok_or(self.covered.end)
    }
}

impl NbdDisk {
    /// An export of a server that runs already. `name` is what errors call it.
    pub fn connect(
        name: impl Into<String>,
        address: NbdAddress,
        options: NbdOptions,
        connections: usize,
    ) -> Result<Self, DiskError> {
        let name = name.into();
        match NbdPool::connect(address, options, connections) {
            Ok(pool) => Ok(Self::new(name, pool, None)),
            Err(source) => Err(DiskError::Nbd { disk: name, source }),
        }
    }

    pub(crate) fn new(name: String, pool: NbdPool, server: Option<QemuNbd>) -> Self {
        Self {
            pool,
            name,
            map: Mutex::default(),
            flagged: Mutex::default(),
            server,
        }
    }

    pub fn export(&self) -> &ExportInfo {
        self.pool.export()
    }

    /// The connections, for what the disk traits do not offer (other contexts, trim).
    pub fn pool(&self) -> &NbdPool {
        &self.pool
    }

    /// The extents of `length` bytes at `offset` in one context, such as
    /// `qemu:dirty-bitmap:NAME`: (range, flags), consecutive and complete.
    pub fn context_map(
        &self,
        context: &str,
        offset: u64,
        length: u64,
    ) -> Result<Vec<(Range<u64>, u32)>, DiskError> {
        check_range(|| self.name.clone(), offset, length, self.size_bytes())?;
        let (mut at, end) = (offset, offset + length);
        let mut out: Vec<(Range<u64>, u32)> = Vec::new();
        while at < end {
            for extent in self.status(context, at, end)?.extents {
                let to = (at + extent.length).min(end);
                match out.last_mut() {
                    Some((range, flags)) if *flags == extent.flags => range.end = to,
                    _ => out.push((at..to, extent.flags)),
                }
                at = to;
                if at == end {
                    break;
                }
            }
        }
        Ok(out)
    }

    /// The next range at or after `offset` whose flags in this context have one of `flags`; `None`
    /// when none follows. One answer's map is remembered, never the whole disk's; right for a
    /// context that does not change, such as a bitmap that does not record.
    pub fn next_flagged(
        &self,
        context: &str,
        flags: u32,
        offset: u64,
    ) -> Result<Option<Range<u64>>, DiskError> {
        let size = self.size_bytes();
        let mut at = offset;
        while at < size {
            let known = {
                let known = self.flagged.lock().unwrap_or_else(PoisonError::into_inner);
                let (of, with, map) = &*known;
                let known = of == context && *with == flags && map.covered.contains(&at);
                known.then(|| map.next(at))
            };
            match known {
                Some(Ok(range)) => return Ok(Some(range)),
                Some(Err(end)) => at = end,
                None => {
                    let map = self.status(context, at, size)?;
                    let map = DataMap::where_flags(at, &map, |found| found & flags != 0);
                    let mut known = self.flagged.lock().unwrap_or_else(PoisonError::into_inner);
                    *known = (context.to_owned(), flags, map);
                }
            }
        }
        Ok(None)
    }

    /// One answer for a range that starts at `at`; never empty.
    fn status(&self, context: &str, at: u64, end: u64) -> Result<ExtentMap, DiskError> {
        // Both ends on block boundaries, as the server demands.
        let block = u64::from(self.export().min_block_bytes);
        let start = at - at % block;
        let size = self.size_bytes();
        let stop = end.next_multiple_of(block).min(size);
        let wanted = (stop - start).min(MAP_BYTES);
        let maps = self
            .pool
            .with(true, |c| c.block_status(start, wanted))
            .map_err(|e| self.error(e))?;
        let mut map = maps
            .into_iter()
            .find(|map| map.context == context)
            .ok_or_else(|| {
                self.error(NbdError::Protocol(format!("no map of {context} was sent")))
            })?;
        let mut skip = at - start;
        while let Some(first) = map.extents.first_mut() {
            if first.length > skip {
                first.length -= skip;
                return Ok(map);
            }
            skip -= first.length;
            map.extents.remove(0);
        }
        Err(self.error(NbdError::Protocol("a map that ends too early".into())))
    }

    fn error(&self, source: NbdError) -> DiskError {
        // The server's own words say more than "connection closed".
        match (&source, &self.server) {
            (NbdError::Closed { .. } | NbdError::Connect { .. }, Some(server)) => server.failure(),
            _ => DiskError::Nbd {
                disk: self.name.clone(),
                source,
            },
        }
    }

    fn zero_data(&self, range: &Range<u64>) -> Result<(), DiskError> {
        let length = range.end - range.start;
        let result = self
            .pool
            .with(false, |c| c.write_zeroes(range.start, length, false));
        *self.data_map() = DataMap::default();
        match result {
            Err(NbdError::Unsupported(_)) => {
                let zeroes = vec![0; length.min(1 << 20) as usize];
                let mut at = range.start;
                while at < range.end {
                    let part = (range.end - at).min(zeroes.len() as u64) as usize;
                    self.write_at(at, &zeroes[..part])?;
                    at += part as u64;
                }
                Ok(())
            }
            other => other.map_err(|e| self.error(e)),
        }
    }

    /// Makes all writes durable, and ends a server of our own in order.
    pub(crate) fn close(self) -> Result<(), DiskError> {
        self.pool.flush().map_err(|e| self.error(e))?;
        let Self { pool, server, .. } = self;
        drop(pool);
        server.map_or(Ok(()), |server| server.wait_end())
    }

    fn data_map(&self) -> MutexGuard<'_, DataMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read that the server's block size does not allow as it stands: read around it.
    fn read_unaligned(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let block = u64::from(self.export().min_block_bytes);
        let start = offset - offset % block;
        let end = (offset + buf.len() as u64).next_multiple_of(block);
        if end > self.size_bytes() {
            return Err(self.error(NbdError::Protocol(
                "the export's size is not a multiple of its block size".into(),
            )));
        }
        let mut wide = vec![0; (end - start) as usize];
        self.pool
            .with(true, |c| c.read(start, &mut wide))
            .map_err(|e| self.error(e))?;
        let skip = (offset - start) as usize;
        buf.copy_from_slice(&wide[skip..skip + buf.len()]);
        Ok(())
    }
}

impl WriteAt for NbdDisk {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let length = data.len() as u64;
        check_range(|| self.name.clone(), offset, length, self.size_bytes())?;
        let result = self.pool.with(false, |c| c.write(offset, data));
        *self.data_map() = DataMap::default();
        result.map_err(|e| self.error(e))
    }

    /// Zeroes what does not read as zero already: some formats can only write zeroes out.
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        check_range(|| self.name.clone(), offset, length, self.size_bytes())?;
        let mut done = offset;
        let mapped = self.export().has_context(BASE_ALLOCATION);
        while done < offset + length {
            let mut data = done..offset + length;
            if mapped {
                let map = self.status(BASE_ALLOCATION, done, data.end)?;
                let known = DataMap::from_extents(done, &map);
                match known.next(done) {
                    Ok(range) if range.start < data.end => {
                        data = range.start..range.end.min(data.end);
                    }
                    Ok(_) => return Ok(()),
                    Err(end) => {
                        done = end;
                        continue;
                    }
                }
            }
            self.zero_data(&data)?;
            done = data.end;
        }
        Ok(())
    }
}

impl DiskReader for NbdDisk {
    fn size_bytes(&self) -> u64 {
        self.export().size_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let length = buf.len() as u64;
        check_range(|| self.name.clone(), offset, length, self.size_bytes())?;
        let block = u64::from(self.export().min_block_bytes);
        if !offset.is_multiple_of(block) || !length.is_multiple_of(block) {
            return self.read_unaligned(offset, buf);
        }
        self.pool
            .with(true, |c| c.read(offset, buf))
            .map_err(|e| self.error(e))
    }

    /// Maps are remembered for the range of one answer: correct for an export that
    /// nobody else writes to, which is what a source checkpoint is.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        let size = self.size_bytes();
        if !self.export().has_context(BASE_ALLOCATION) {
            return Ok((offset < size).then_some(offset..size));
        }
        let mut at = offset;
        while at < size {
            let mut map = self.data_map();
            if !map.covered.contains(&at) {
                drop(map);
                let fresh = DataMap::from_extents(at, &self.status(BASE_ALLOCATION, at, size)?);
                map = self.data_map();
                *map = fresh;
            }
            match map.next(at) {
                Ok(range) => return Ok(Some(range)),
                Err(end) => at = end,
            }
        }
        Ok(None)
    }
}
