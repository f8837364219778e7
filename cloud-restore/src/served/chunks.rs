//! Which chunks are at hand, and which are on their way: each is fetched once, however many ask for it, and what a run of
//! reads will want next is fetched before it is asked for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::{Semaphore, oneshot};
use virtual_disk::nbd::server::Piece;

use super::cache::{Cache, Found, Spill};
use super::read_ahead::ReadAhead;
use super::source::{Chunk, ChunkSource};

/// Chunks fetched in one go: their records lie side by side as a rule, so they are one request of some MB.
const TOGETHER: usize = 16;
/// Groups that are read ahead at the same time: with chunks of 256 KiB 32 MiB. Past that nothing is read ahead, so that
/// memory is bounded and what is asked for does not wait in a row.
const AHEAD: usize = 8;

/// Groups that are fetched for whoever waits, at the same time.
const ASKED: usize = 32;

type Coming = Shared<BoxFuture<'static, Result<Chunk, Arc<str>>>>;

pub struct Chunks {
    source: Arc<dyn ChunkSource>,
    state: Mutex<State>,
    ahead: Arc<Semaphore>,
    asked: Semaphore,
    pub fetched: AtomicU64,
    pub fetched_ahead: AtomicU64,
    told_of_cache: AtomicBool,
}

struct State {
    cache: Cache,
    /// A bit for each position that is known to be a hole.
    holes: Vec<u64>,
    coming: HashMap<u64, Coming>,
    runs: ReadAhead,
}

impl State {
    fn is_hole(&self, position: u64) -> bool {
        let word = self.holes[(position / 64) as usize];
        word & 1 << (position % 64) != 0
    }

    fn note_hole(&mut self, position: u64) {
        self.holes[(position / 64) as usize] |= 1 << (position % 64);
    }

    fn is_known(&self, position: u64) -> bool {
        self.is_hole(position) || self.coming.contains_key(&position) || self.cache.has(position)
    }
}

impl Chunks {
    pub fn new(source: Arc<dyn ChunkSource>, cache: Cache) -> Self {
        let count = source
            .size_bytes()
            .div_ceil(u64::from(source.chunk_bytes()));
        Chunks {
            state: Mutex::new(State {
                cache,
                holes: vec![0; count.div_ceil(64) as usize],
                coming: HashMap::new(),
                runs: ReadAhead::default(),
            }),
            source,
            ahead: Arc::new(Semaphore::new(AHEAD)),
            asked: Semaphore::new(ASKED),
            fetched: AtomicU64::new(0),
            fetched_ahead: AtomicU64::new(0),
            told_of_cache: AtomicBool::new(false),
        }
    }

    pub fn source(&self) -> &dyn ChunkSource {
        &*self.source
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chunk_bytes(&self) -> u64 {
        u64::from(self.source.chunk_bytes())
    }

    fn positions(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.chunk_bytes()..range.end.div_ceil(self.chunk_bytes())
    }

    /// The part of `range` that lies in the chunk at `position`, counted from the chunk's beginning.
    fn within(&self, position: u64, range: &Range<u64>) -> Range<u64> {
        let begin = position * self.chunk_bytes();
        let end = range.end.min(begin + self.chunk_bytes());
        range.start.max(begin) - begin..end - begin
    }

    /// What is at hand of a range, or `None` if part of it has to be waited for.
    pub fn at_hand(&self, range: &Range<u64>, into: &mut Vec<Piece>) -> Option<()> {
        for position in self.positions(range) {
            into.push(self.part(position, self.within(position, range))?);
        }
        Some(())
    }

    fn part(&self, position: u64, within: Range<u64>) -> Option<Piece> {
        let length = within.end - within.start;
        let found = {
            let mut state = self.state();
            if state.is_hole(position) {
                return Some(Piece::Zeroes(length as u32));
            }
            state.cache.find(position)?
        };
        match found {
            Found::Memory(chunk) => Some(Piece::Data(slice(&chunk, within))),
            Found::File(place) => match place.read(within.start, length as usize) {
                Ok(bytes) => Some(Piece::Data(bytes)),
                Err(error) => {
                    if self.state().cache.unreadable(position, &place) {
                        tracing::warn!(%error, position, "the cache returned a damaged chunk; it is fetched again");
                    }
                    None
                }
            },
        }
    }

    /// Reads a range, waiting for what is not at hand.
    pub async fn read(
        self: &Arc<Self>,
        range: Range<u64>,
        into: &mut Vec<Piece>,
    ) -> Result<(), Arc<str>> {
        let positions: Vec<u64> = self.positions(&range).collect();
        let coming = self.start(&positions);
        for position in positions {
            let within = self.within(position, &range);
            let piece = match coming.get(&position) {
                Some(coming) => piece_of(coming.clone().await?, within),
                None => match self.part(position, within.clone()) {
                    Some(piece) => piece,
                    // It was let go of since.
                    None => piece_of(self.wait_for(position).await?, within),
                },
            };
            into.push(piece);
        }
        Ok(())
    }

    async fn wait_for(self: &Arc<Self>, position: u64) -> Result<Chunk, Arc<str>> {
        loop {
            if let Some(coming) = self.start(&[position]).remove(&position) {
                return coming.await;
            }
            let whole = 0..self.chunk_bytes();
            match self.part(position, whole) {
                Some(Piece::Data(chunk)) => return Ok(Some(chunk)),
                Some(Piece::Zeroes(_)) => return Ok(None),
                None => {}
            }
        }
    }

    /// Sees to it that all of `positions` are at hand or on their way; returns those on their way.
    fn start(self: &Arc<Self>, positions: &[u64]) -> HashMap<u64, Coming> {
        let mut out = HashMap::new();
        let mut state = self.state();
        let mut missing = Vec::new();
        for position in positions {
            match state.coming.get(position) {
                Some(coming) => drop(out.insert(*position, coming.clone())),
                None if state.is_known(*position) => {}
                None => missing.push(*position),
            }
        }
        for group in missing.chunks(TOGETHER) {
            out.extend(self.fetch(&mut state, group.to_vec(), None));
        }
        out
    }

    /// Notes a read, and fetches what its run will want next.
    pub fn note(self: &Arc<Self>, range: Range<u64>) {
        let ahead = self.state().runs.read(range);
        if let Some(ahead) = ahead {
            self.prefetch(ahead);
        }
    }

    /// Begins to fetch a range, as far as there is room for it.
    pub fn prefetch(self: &Arc<Self>, range: Range<u64>) {
        let range = range.start..range.end.min(self.source.size_bytes());
        let mut state = self.state();
        let missing: Vec<u64> = self
            .positions(&range)
            .filter(|position| !state.is_known(*position))
            .collect();
        for group in missing.chunks(TOGETHER) {
            let Ok(permit) = self.ahead.clone().try_acquire_owned() else {
                return;
            };
            self.fetched_ahead.fetch_add(group.len() as u64, Relaxed);
            self.fetch(&mut state, group.to_vec(), Some(permit));
        }
    }

    /// Fetches a group in a task of its own: it comes to an end even if nobody waits any more.
    fn fetch(
        self: &Arc<Self>,
        state: &mut State,
        positions: Vec<u64>,
        permit: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Vec<(u64, Coming)> {
        let mut senders = Vec::with_capacity(positions.len());
        let mut coming = Vec::with_capacity(positions.len());
        for position in &positions {
            let (sender, receiver) = oneshot::channel();
            senders.push(sender);
            let ended = || Err(Arc::from("its task ended early"));
            let wait = receiver.map(move |got| got.unwrap_or_else(|_| ended()));
            let wait = wait.boxed().shared();
            state.coming.insert(*position, wait.clone());
            coming.push((*position, wait));
        }
        let chunks = self.clone();
        tokio::spawn(async move {
            let _clear = Clear(&chunks, &positions);
            // Never closed; what is read ahead has a place of its own.
            let _turn = match &permit {
                Some(_) => None,
                None => chunks.asked.acquire().await.ok(),
            };
            let fetched = chunks.source.fetch(&positions).await;
            chunks.keep(&positions, &fetched);
            for (sender, chunk) in senders.into_iter().zip(fetched) {
                let _ = sender.send(chunk.map_err(Arc::from));
            }
            drop(permit);
        });
        coming
    }

    fn keep(&self, positions: &[u64], fetched: &[Result<Chunk, String>]) {
        self.fetched.fetch_add(positions.len() as u64, Relaxed);
        let mut state = self.state();
        for (position, chunk) in positions.iter().zip(fetched) {
            match chunk {
                Ok(Some(chunk)) => state.cache.insert(*position, chunk.clone()),
                Ok(None) => state.note_hole(*position),
                Err(why) => tracing::error!(position, "a chunk cannot be had: {why}"),
            }
        }
        let spill = state.cache.spill();
        drop(state);
        if let Some(spill) = spill {
            tokio::task::block_in_place(|| self.spill(spill));
        }
    }

    fn spill(&self, spill: Spill) {
        let written = spill.write();
        if let Err(error) = &written
            && !self.told_of_cache.swap(true, Relaxed)
        {
            tracing::warn!(%error, "the cache file takes no more; what it cannot hold is fetched anew when it is wanted");
        }
        self.state().cache.spilled(spill, written.is_ok());
    }
}

/// Whatever way a fetch ends, nobody is told afterwards that it is under way.
struct Clear<'a>(&'a Chunks, &'a [u64]);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        for position in self.1 {
            state.coming.remove(position);
        }
    }
}

/// A small part is copied, so that it does not hold its chunk for as long as a client takes to read it.
fn slice(chunk: &Bytes, within: Range<u64>) -> Bytes {
    let part = within.start as usize..within.end as usize;
    match part.len() < chunk.len() / 4 {
        true => Bytes::copy_from_slice(&chunk[part]),
        false => chunk.slice(part),
    }
}

fn piece_of(chunk: Chunk, within: Range<u64>) -> Piece {
    match chunk {
        Some(chunk) => Piece::Data(slice(&chunk, within)),
        None => Piece::Zeroes((within.end - within.start) as u32),
    }
}
