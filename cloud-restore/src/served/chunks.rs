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
use super::queue::{Queue, TOGETHER};
use super::read_ahead::ReadAhead;
use super::source::{Chunk, ChunkSource};

/// Groups that are fetched for whoever waits, at the same time. What is asked for meanwhile waits, and goes together: with
/// 8 (and 3 read ahead) the groups of a client that reads a whole disk were half as large, and it took a third longer.
const ASKED: usize = 4;
/// Single chunks that are fetched at the same time beside those, each where nothing else is read: a database that
/// recovers asks for many, and waits 50 ms for each.
const SCATTERED: usize = 24;
/// Groups that are read ahead at the same time beside those.
const AHEAD: usize = 2;
/// Who waits for a part of a run that is read ahead of so far at once (it has twice that behind it) will want the rest.
const LONG_RUN_BYTES: u64 = 4 << 20;

/// Of who waited for a fetch that nobody carries on: the program ends, or told of a fault of its own.
pub const ENDED_EARLY: &str = "its task ended early";

type Fetched = Result<Chunk, Arc<str>>;
type Coming = Shared<BoxFuture<'static, Fetched>>;
type Sender = oneshot::Sender<Fetched>;

pub struct Chunks {
    source: Arc<dyn ChunkSource>,
    state: Mutex<State>,
    asked: Semaphore,
    scattered: Semaphore,
    ahead: Semaphore,
    pub fetched: AtomicU64,
    pub fetched_ahead: AtomicU64,
    told_of_cache: AtomicBool,
}

/// Why something is fetched.
#[derive(Clone, Copy)]
enum Kind {
    Asked,
    Scattered,
    Ahead,
}

struct State {
    cache: Cache,
    /// A bit for each position that is known to be a hole.
    holes: Vec<u64>,
    coming: HashMap<u64, Coming>,
    /// Of what is coming, what nobody fetches yet.
    queue: Queue<Sender>,
    runs: ReadAhead,
}

impl State {
    /// Says that a chunk is on its way, and who will tell when it is there.
    fn expect(&mut self, position: u64) -> (Sender, Coming) {
        let (sender, receiver) = oneshot::channel();
        let ended = || Err(Arc::from(ENDED_EARLY));
        let coming = receiver.map(move |got| got.unwrap_or_else(|_| ended()));
        let coming = coming.boxed().shared();
        self.coming.insert(position, coming.clone());
        (sender, coming)
    }

    fn take(&mut self, kind: Kind) -> Vec<(u64, Sender)> {
        match kind {
            Kind::Asked => self.queue.take_asked(),
            Kind::Ahead => self.queue.take_ahead(),
            Kind::Scattered => match self.queue.first_asked() {
                Some(first) if !self.is_of_a_run(first) => self.queue.take_alone(first),
                _ => Vec::new(),
            },
        }
    }

    /// Whether something is read beside it, so that waiting brings it company.
    fn is_of_a_run(&self, position: u64) -> bool {
        let before = position.checked_sub(1);
        before.is_some_and(|before| self.is_known(before)) || self.is_known(position + 1)
    }

    fn is_hole(&self, position: u64) -> bool {
        // One behind the disk's end may be asked about.
        let word = self.holes.get((position / 64) as usize);
        word.is_some_and(|word| word & 1 << (position % 64) != 0)
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
                queue: Queue::default(),
                runs: ReadAhead::default(),
            }),
            source,
            asked: Semaphore::new(ASKED),
            scattered: Semaphore::new(SCATTERED),
            ahead: Semaphore::new(AHEAD),
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
        let mut to_fetch = 0_usize;
        for position in positions {
            match state.coming.get(position).cloned() {
                Some(coming) => {
                    out.insert(*position, coming);
                    to_fetch += usize::from(state.queue.hurry(*position));
                }
                None if state.is_known(*position) => {}
                None => {
                    let (sender, coming) = state.expect(*position);
                    state.queue.ask(*position, sender);
                    out.insert(*position, coming);
                    to_fetch += 1;
                }
            }
        }
        for _ in 0..to_fetch.div_ceil(TOGETHER) {
            tokio::spawn(self.clone().fetch_waiting(Kind::Asked));
        }
        if to_fetch == 1 {
            tokio::spawn(self.clone().fetch_waiting(Kind::Scattered));
        }
        out
    }

    /// Until nothing of its kind waits any more: tasks of their own fetch, so that it comes to an end even if nobody waits.
    async fn fetch_waiting(self: Arc<Self>, kind: Kind) {
        // Never closed.
        let _turn = match kind {
            Kind::Asked => self.asked.acquire().await,
            Kind::Scattered => self.scattered.acquire().await,
            Kind::Ahead => self.ahead.acquire().await,
        };
        loop {
            let group = self.state().take(kind);
            if group.is_empty() {
                return;
            }
            // Apart: should it panic, the others that wait have this one still.
            let chunks = self.clone();
            let _ = tokio::spawn(async move { chunks.fetch(group).await }).await;
        }
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
        let long_run = range.end.saturating_sub(range.start) >= LONG_RUN_BYTES;
        let mut state = self.state();
        let mut count = 0_usize;
        for position in self.positions(&range) {
            if !state.queue.has_room() {
                break;
            }
            if !state.is_known(position) {
                let (sender, _) = state.expect(position);
                state.queue.read_ahead(position, long_run, sender);
                count += 1;
            }
        }
        self.fetched_ahead.fetch_add(count as u64, Relaxed);
        for _ in 0..count.div_ceil(TOGETHER) {
            tokio::spawn(self.clone().fetch_waiting(Kind::Ahead));
        }
    }

    /// Nobody reads this disk any more: what was to be read ahead is given up.
    pub fn end(&self) {
        let mut state = self.state();
        for position in state.queue.drop_ahead() {
            state.coming.remove(&position);
        }
    }

    async fn fetch(&self, group: Vec<(u64, Sender)>) {
        let (positions, senders): (Vec<u64>, Vec<Sender>) = group.into_iter().unzip();
        let under_way = Clear(self, &positions);
        let fetched = self.source.fetch(&positions).await;
        self.keep(&positions, &fetched);
        // Before anybody is told: who asks again for what failed must not be given the failure that was.
        drop(under_way);
        for (sender, chunk) in senders.into_iter().zip(fetched) {
            let _ = sender.send(chunk.map_err(Arc::from));
        }
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
