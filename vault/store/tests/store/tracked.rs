//! A disk whose hypervisor tracks changes: a bitmap for each capture, as the gateway's source would keep them.

use crate::site::{BLOCK, Dice, new_id};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vault_format::ids::CaptureId;
use vault_store::Extents;
use vault_store::error::DiskFailure;
use vault_store::gateway::{DiskCapture, Gateway, VmCapture};

/// The running VM's disk.
#[derive(Clone)]
pub struct TrackedDisk {
    pub bytes: Vec<u8>,
    bitmaps: HashMap<CaptureId, Vec<bool>>,
    /// Writes that no bitmap sees.
    pub is_lying: bool,
}

impl TrackedDisk {
    pub fn new(bytes: Vec<u8>) -> Self {
        TrackedDisk {
            bytes,
            bitmaps: HashMap::new(),
            is_lying: false,
        }
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        if self.is_lying || bytes.is_empty() {
            return;
        }
        for bitmap in self.bitmaps.values_mut() {
            bitmap[offset / BLOCK..(offset + bytes.len()).div_ceil(BLOCK)].fill(true);
        }
    }

    pub fn write_random(&mut self, dice: &mut Dice, blocks: usize) {
        for _ in 0..blocks {
            let block = dice.roll(self.bytes.len() / BLOCK);
            let mut data = [0; BLOCK];
            if dice.roll(8) > 0 {
                dice.fill(&mut data[..64]);
            }
            self.write(block * BLOCK, &data);
        }
    }

    pub fn forget_bitmaps(&mut self) {
        self.bitmaps.clear();
    }

    /// Freezes the disk. What it says of changes is since the newest capture that is trusted and that it has a bitmap of.
    pub fn checkpoint(&mut self, trusted: &[CaptureId]) -> Checkpoint {
        let since = trusted.iter().find(|id| self.bitmaps.contains_key(id));
        let since = since.copied();
        self.checkpoint_as(new_id(), since)
    }

    /// One of several disks of a VM.
    pub fn checkpoint_as(&mut self, id: CaptureId, since: Option<CaptureId>) -> Checkpoint {
        let dirty = since.map(|id| self.bitmaps[&id].clone());
        let blocks = self.bytes.len() / BLOCK;
        self.bitmaps.insert(id, vec![false; blocks]);
        Checkpoint {
            id,
            since,
            frozen: Arc::new(Frozen {
                bytes: self.bytes.clone(),
                dirty: dirty.unwrap_or_else(|| vec![true; blocks]),
                read_bytes: AtomicU64::new(0),
            }),
        }
    }
}

pub struct Checkpoint {
    pub id: CaptureId,
    pub since: Option<CaptureId>,
    pub frozen: Arc<Frozen>,
}

impl Checkpoint {
    /// The same, read by a pass before: nothing changed since.
    pub fn after_pass(&self) -> Checkpoint {
        let bytes = self.frozen.bytes.clone();
        Checkpoint {
            id: new_id(),
            since: Some(self.id),
            frozen: Arc::new(Frozen {
                dirty: vec![false; bytes.len() / BLOCK],
                bytes,
                read_bytes: AtomicU64::new(0),
            }),
        }
    }

    pub fn capture(&self, vm: &str, at: i64) -> VmCapture {
        VmCapture {
            name: vm.into(),
            id: self.id,
            disks: vec![DiskCapture {
                name: "disk".into(),
                source: Some(self.frozen.clone()),
                size_bytes: self.frozen.size_bytes(),
                since: self.since,
            }],
            captured_at: jiff::Timestamp::from_second(at).unwrap(),
            software: "test".into(),
            hardware: None,
            priority: 1,
        }
    }
}

pub fn trusted(gateway: &Gateway, vm: &str) -> Vec<CaptureId> {
    let known = gateway.captures(vm).unwrap().into_iter();
    known.map(|known| known.id).collect()
}

pub fn checkpoint(gateway: &Gateway, vm: &str, disk: &mut TrackedDisk) -> Checkpoint {
    disk.checkpoint(&trusted(gateway, vm))
}

pub struct Frozen {
    pub bytes: Vec<u8>,
    dirty: Vec<bool>,
    pub read_bytes: AtomicU64,
}

impl Frozen {
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    pub fn dirty_bytes(&self) -> u64 {
        (self.dirty.iter().filter(|dirty| **dirty).count() * BLOCK) as u64
    }
}

impl Extents for Frozen {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        let from = offset as usize;
        buf.copy_from_slice(&self.bytes[from..from + buf.len()]);
        self.read_bytes
            .fetch_add(buf.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Blocks of zeros are holes.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        let blocks = self.bytes.chunks(BLOCK).enumerate();
        let data = blocks.map(|(number, block)| (number, block.iter().any(|byte| *byte != 0)));
        Ok(run(data, offset, self.bytes.len()))
    }

    fn next_change(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        let dirty = self.dirty.iter().copied().enumerate();
        Ok(run(dirty, offset, self.bytes.len()))
    }
}

/// A disk that fails after some reads.
pub struct Failing {
    disk: Arc<Frozen>,
    left: AtomicU64,
}

impl Failing {
    pub fn new(disk: Arc<Frozen>, left: u64) -> Self {
        let left = left.into();
        Failing { disk, left }
    }
}

impl Extents for Failing {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        let less = |left: u64| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .map_err(|_| "the disk fails")?;
        self.disk.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.disk.next_data(offset)
    }

    fn next_change(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.disk.next_change(offset)
    }
}

/// A disk that takes its time for each read, whoever reads, and knows what it was asked for.
pub struct Slow {
    disk: Arc<Frozen>,
    each: Duration,
    reads: Mutex<Vec<u64>>,
}

impl Slow {
    pub fn new(disk: Arc<Frozen>, each: Duration) -> Self {
        Slow {
            disk,
            each,
            reads: Mutex::default(),
        }
    }

    /// The chunks of so many bytes that were read, in order.
    pub fn chunks(&self, chunk: usize) -> Vec<u64> {
        let reads = self.reads.lock().unwrap();
        let mut chunks: Vec<u64> = reads.iter().map(|offset| offset / chunk as u64).collect();
        chunks.sort_unstable();
        chunks.dedup();
        chunks
    }
}

impl Extents for Slow {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        let mut reads = self.reads.lock().unwrap();
        std::thread::sleep(self.each);
        reads.push(offset);
        self.disk.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.disk.next_data(offset)
    }

    fn next_change(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.disk.next_change(offset)
    }
}

fn run(
    blocks: impl Iterator<Item = (usize, bool)>,
    offset: u64,
    size: usize,
) -> Option<Range<u64>> {
    let mut rest = blocks
        .skip(offset as usize / BLOCK)
        .skip_while(|(_, is)| !is);
    let (first, _) = rest.next()?;
    let end = rest
        .find(|(_, is)| !is)
        .map_or(size, |(number, _)| number * BLOCK);
    let start = (first * BLOCK).max(offset as usize);
    Some(start as u64..end as u64)
}
