//! What all disks that are assembled side by side share, so that memory is bounded whatever their number.
//!
//! A disk has a plan (a window of 131,072 positions with its records: 60 MB when it is full, by the size of its parts) and
//! batches of up to 16 MiB of records that are fetched or written. The batches are counted over all disks: four, which is
//! what one disk alone uses, as one already keeps line and CPUs busy; more disks fill the gaps between its look-ups,
//! comparing and writing. What a look-up needs meanwhile (120 MB) exists once, as disks take turns at the index.

use crate::StoreError;
use std::fs;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Of all disks: one is written while three are fetched.
const BATCHES: usize = super::assemble::FETCHED_AHEAD + 2;

/// Each holds a few chunks, which may have 4 MiB. More threads than CPUs, since two at a time wait for the device.
const MOST_THREADS: usize = 16;

/// A plan, rounded up.
const DISK_BYTES: u64 = 64 << 20;
/// Disks that take turns at four batches: more of them wait, and do nothing sooner.
const MOST_DISKS: usize = 8;

#[derive(Debug)]
pub(super) struct Limits {
    pub workers: rayon::ThreadPool,
    pub batches: Arc<Semaphore>,
}

impl Limits {
    pub fn new() -> Result<Self, StoreError> {
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads((2 * rayon::current_num_threads()).min(MOST_THREADS))
            .build()
            .map_err(|e| StoreError::Other(format!("threads cannot be started: {e}")))?;
        Ok(Limits {
            workers,
            batches: Arc::new(Semaphore::new(BATCHES)),
        })
    }
}

/// How many disks this machine bears side by side: two for each CPU, half of the memory that is free, eight at most.
pub fn disks_at_once() -> usize {
    bearable(rayon::current_num_threads(), free_memory())
}

fn bearable(cpus: usize, free_bytes: Option<u64>) -> usize {
    let by_memory = free_bytes.map_or(MOST_DISKS, |bytes| (bytes / 2 / DISK_BYTES) as usize);
    (2 * cpus).min(by_memory).clamp(1, MOST_DISKS)
}

/// None where the system does not say. A container's limit counts as well.
fn free_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let available = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10;
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
    Some(limit.map_or(available, |limit| limit.min(available)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_disks_as_cpus_and_memory_bear() {
        for (cpus, free_mib, expected) in [
            (2, Some(16_384), 4),
            (16, Some(16_384), 8),
            (16, Some(500), 3),
            (1, Some(10), 1),
            (1, None, 2),
            (32, None, 8),
        ] {
            let found = bearable(cpus, free_mib.map(|mib: u64| mib << 20));
            assert_eq!(found, expected, "{cpus} CPUs, {free_mib:?} MiB");
        }
    }
}
