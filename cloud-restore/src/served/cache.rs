//! Chunks that were fetched: the newest in memory, those before them sealed in a file, the oldest forgotten. Both are
//! bounded. What comes back from the file was checked when it was opened: damage there is a chunk that is fetched again.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;

use super::BLOCK_BYTES;
use super::sealed_blocks::SealedBlocks;

pub struct Cache {
    memory: LruCache<u64, Bytes>,
    most_in_memory: usize,
    /// On their way to the file.
    moving: HashMap<u64, Bytes>,
    file: FileTier,
}

/// Chunks in the file, by position.
struct FileTier {
    blocks: Arc<SealedBlocks>,
    blocks_each: u64,
    places: LruCache<u64, Place>,
    free: Vec<Place>,
    made: u32,
    most: u32,
}

/// A slot of the file, and how often it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    slot: u32,
    generation: u32,
}

/// Where a chunk is.
pub enum Found {
    Memory(Bytes),
    File(InFile),
}

/// A chunk in the file, to be read without holding the cache.
pub struct InFile {
    blocks: Arc<SealedBlocks>,
    first: u64,
    place: Place,
}

impl InFile {
    /// Bytes `start`… of the chunk. An error is a miss: the slot may have been taken since.
    pub fn read(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let first = start / BLOCK_BYTES;
        let end = (start + length as u64).div_ceil(BLOCK_BYTES);
        let mut bytes = vec![0; ((end - first) * BLOCK_BYTES) as usize];
        let generations = std::iter::repeat(self.place.generation);
        self.blocks
            .read(self.first + first, generations, &mut bytes)?;
        let skip = (start - first * BLOCK_BYTES) as usize;
        Ok(Bytes::from(bytes).slice(skip..skip + length))
    }
}

/// Chunks that must be written to the file before memory takes more.
pub struct Spill {
    blocks: Arc<SealedBlocks>,
    blocks_each: u64,
    chunks: Vec<(u64, Bytes, Place)>,
}

impl Spill {
    /// Writes them; to be called without holding the cache.
    pub fn write(&self) -> io::Result<()> {
        for (_, chunk, place) in &self.chunks {
            let first = u64::from(place.slot) * self.blocks_each;
            self.blocks.write(first, place.generation, chunk)?;
        }
        Ok(())
    }
}

impl Cache {
    /// Up to `most_in_memory` and `most_in_file` chunks of `chunk_bytes`; the file is made in `folder`.
    pub fn create(
        folder: &Path,
        chunk_bytes: u32,
        most_in_memory: usize,
        most_in_file: u32,
    ) -> io::Result<Self> {
        Ok(Cache {
            memory: LruCache::unbounded(),
            most_in_memory: most_in_memory.max(1),
            moving: HashMap::new(),
            file: FileTier {
                blocks: Arc::new(SealedBlocks::create(folder)?),
                blocks_each: u64::from(chunk_bytes) / BLOCK_BYTES,
                places: LruCache::unbounded(),
                free: Vec::new(),
                made: 0,
                most: most_in_file,
            },
        })
    }

    pub fn has(&self, position: u64) -> bool {
        self.memory.contains(&position)
            || self.moving.contains_key(&position)
            || self.file.places.contains(&position)
    }

    pub fn find(&mut self, position: u64) -> Option<Found> {
        if let Some(chunk) = self.memory.get(&position) {
            return Some(Found::Memory(chunk.clone()));
        }
        if let Some(chunk) = self.moving.get(&position) {
            return Some(Found::Memory(chunk.clone()));
        }
        let place = *self.file.places.get(&position)?;
        Some(Found::File(InFile {
            blocks: self.file.blocks.clone(),
            first: u64::from(place.slot) * self.file.blocks_each,
            place,
        }))
    }

    /// Takes a chunk in. What memory then has too much of is to be written, and [`Cache::spilled`] told.
    pub fn insert(&mut self, position: u64, chunk: Bytes) {
        self.file.forget(position);
        self.memory.put(position, chunk);
    }

    /// What memory has too much of.
    pub fn spill(&mut self) -> Option<Spill> {
        let mut chunks = Vec::new();
        while self.memory.len() > self.most_in_memory {
            let Some((position, chunk)) = self.memory.pop_lru() else {
                break;
            };
            // Without room in the file it is forgotten.
            if let Some(place) = self.file.take_place() {
                self.moving.insert(position, chunk.clone());
                chunks.push((position, chunk, place));
            }
        }
        (!chunks.is_empty()).then(|| Spill {
            blocks: self.file.blocks.clone(),
            blocks_each: self.file.blocks_each,
            chunks,
        })
    }

    /// What was spilled is in the file now; or is not, and the file takes no more than it has.
    pub fn spilled(&mut self, spill: Spill, written: bool) {
        for (position, _, place) in spill.chunks {
            self.moving.remove(&position);
            match written {
                true => self.file.put(position, place),
                false => self.file.most = self.file.places.len() as u32,
            }
        }
    }

    /// A chunk could not be read from the file. Whether that is the medium's fault: else it was overtaken.
    pub fn unreadable(&mut self, position: u64, found: &InFile) -> bool {
        let same = self.file.places.peek(&position) == Some(&found.place);
        if same {
            self.file.forget(position);
        }
        same
    }
}

impl FileTier {
    fn take_place(&mut self) -> Option<Place> {
        let free = self.free.pop();
        let mut place = match free {
            Some(place) => place,
            None if self.made < self.most => {
                self.made += 1;
                Place {
                    slot: self.made - 1,
                    generation: 0,
                }
            }
            None => self.places.pop_lru()?.1,
        };
        // A slot that was written four thousand million times is not used again.
        place.generation = place.generation.checked_add(1)?;
        Some(place)
    }

    fn put(&mut self, position: u64, place: Place) {
        if let Some(before) = self.places.put(position, place) {
            self.free.push(before);
        }
    }

    fn forget(&mut self, position: u64) {
        if let Some(place) = self.places.pop(&position) {
            self.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u32 = 65536;

    fn chunk(n: u64) -> Bytes {
        (0..CHUNK).map(|i| (u64::from(i / 9) + n) as u8).collect()
    }

    fn fill(cache: &mut Cache, positions: std::ops::Range<u64>) {
        for position in positions {
            cache.insert(position, chunk(position));
            if let Some(spill) = cache.spill() {
                spill.write().unwrap();
                cache.spilled(spill, true);
            }
        }
    }

    fn read(cache: &mut Cache, position: u64) -> Option<Bytes> {
        Some(match cache.find(position)? {
            Found::Memory(chunk) => chunk.slice(1000..9000),
            Found::File(place) => place.read(1000, 8000).unwrap(),
        })
    }

    #[test]
    fn the_newest_are_in_memory_those_before_in_the_file_the_oldest_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::create(folder.path(), CHUNK, 4, 10).unwrap();
        fill(&mut cache, 0..20);
        for position in 0..20 {
            let expected = (position >= 6).then(|| chunk(position).slice(1000..9000));
            assert_eq!(read(&mut cache, position), expected, "{position}");
            assert_eq!(cache.has(position), position >= 6);
        }
        assert!(matches!(cache.find(16), Some(Found::Memory(_))));
        assert!(matches!(cache.find(15), Some(Found::File(_))));
        fill(&mut cache, 0..3);
        assert_eq!(read(&mut cache, 1), Some(chunk(1).slice(1000..9000)));
        assert!(cache.file.made <= 10);
    }

    #[test]
    fn a_slot_that_was_taken_while_it_was_read_is_a_miss_and_no_wrong_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::create(folder.path(), CHUNK, 1, 2).unwrap();
        fill(&mut cache, 0..3);
        let Some(Found::File(old)) = cache.find(0) else {
            panic!("it is in the file");
        };
        fill(&mut cache, 3..9);
        assert!(old.read(0, 4096).is_err());
        assert!(!cache.unreadable(0, &old), "overtaken, not damaged");
    }

    #[test]
    fn a_file_that_takes_no_more_is_let_be() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::create(folder.path(), CHUNK, 1, 10).unwrap();
        fill(&mut cache, 0..3);
        cache.insert(3, chunk(3));
        let spill = cache.spill().unwrap();
        assert!(matches!(cache.find(2), Some(Found::Memory(_))), "moving");
        cache.spilled(spill, false);
        assert!(!cache.has(2) && cache.has(0) && cache.has(1) && cache.has(3));
        assert_eq!(cache.file.most, 2);
    }
}
