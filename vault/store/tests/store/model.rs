//! A model: random writes, growing, excluding, syncs, lost and old states, rebuilds, damage and restores, against plain
//! byte vectors.

use crate::site::*;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use tempfile::TempDir;
use vault_format::ChunkId;
use vault_format::entry::Entry;
use vault_format::manifest::LayerRef;
use vault_store::StoreError;
use vault_store::gateway::{Gateway, GatewayOptions, PointReport};
use vault_store::read::PointSelector;

const VMS: [&str; 2] = ["one", "two"];
const KINDS: [&str; 3] = ["packs", "maps", "index"];

/// What a point must hold.
struct Point {
    disk: Vec<u8>,
    excluded: bool,
    /// Layer objects that it names.
    layers: Vec<String>,
}

/// What came about in a run: one in which nothing was lost proves nothing of damage.
#[derive(Debug, Default)]
struct Seen {
    harmed: [usize; 3],
    lost: usize,
    healed: usize,
    excluded: usize,
    refused: usize,
    /// Syncs of a state that was set back and that had missed nothing of that VM.
    unnoticed: usize,
}

struct Model {
    site: Site,
    dice: Dice,
    options: GatewayOptions,
    /// Chunks in front of the first VM's disk that never change, all alike: with many of them its map is an object.
    front: usize,
    disks: Vec<Vec<u8>>,
    excluded: [bool; 2],
    points: Vec<Vec<Point>>,
    harmed: BTreeSet<String>,
    older_state: Option<TempDir>,
    is_set_back: bool,
    /// Harmed since its last sync.
    is_hurt: bool,
    seen: Seen,
}

impl Model {
    async fn new(seed: u64, front: usize) -> Self {
        // Packs of several chunks lose several at once; a pack for each chunk makes segments.
        let (pack_bytes, chunks) = match seed % 2 {
            0 => (small_packs().pack_bytes, [9, 5]),
            _ => (1, [80, 60]),
        };
        Model {
            site: Site::new().await,
            dice: Dice(seed),
            options: GatewayOptions {
                pack_bytes,
                ..small_packs()
            },
            front,
            disks: vec![disk(chunks[0], seed), disk(chunks[1], seed + 1)],
            excluded: [false; 2],
            points: vec![Vec::new(), Vec::new()],
            harmed: BTreeSet::new(),
            older_state: None,
            is_set_back: false,
            is_hurt: false,
            seen: Seen::default(),
        }
    }

    async fn step(&mut self) {
        let vm = self.dice.roll(2);
        match self.dice.roll(18) {
            0..=4 => self.write(vm),
            5 => self.zero(vm),
            6 => self.copy_chunk(vm),
            7 => self.resize(vm),
            8 if self.dice.roll(3) == 0 => self.lose_state(),
            9 if self.dice.roll(3) == 0 => self.rebuild().await,
            10 | 11 if !self.points[vm].is_empty() => {
                let point = self.dice.roll(self.points[vm].len());
                self.check(vm, point).await;
            }
            12 if self.dice.roll(2) == 0 => self.excluded[vm] = !self.excluded[vm],
            // One by one: what only a lost segment names cannot be missed.
            13 | 14 if !self.is_hurt => {
                let kind = self.dice.roll(3);
                self.harm(kind).await
            }
            15 if self.older_state.is_none() || self.dice.roll(2) == 0 => self.keep_state(),
            15 => self.set_state_back(),
            _ => self.sync(vm).await,
        }
    }

    fn write(&mut self, vm: usize) {
        for _ in 0..self.dice.roll(6) + 1 {
            let length = self.dice.roll(9000) + 1;
            let at = self
                .dice
                .roll(self.disks[vm].len() - length.min(self.disks[vm].len() - 1));
            let end = (at + length).min(self.disks[vm].len());
            self.dice.fill(&mut self.disks[vm][at..end]);
        }
    }

    fn zero(&mut self, vm: usize) {
        let at = self.dice.roll(self.disks[vm].len());
        let end = (at + self.dice.roll(2 * CHUNK)).min(self.disks[vm].len());
        self.disks[vm][at..end].fill(0);
    }

    /// From one VM to the other: the vault has it already.
    fn copy_chunk(&mut self, vm: usize) {
        let chunks = self.disks[0].len().min(self.disks[1].len()) / CHUNK;
        let (from, to) = (
            self.dice.roll(chunks) * CHUNK,
            self.dice.roll(chunks) * CHUNK,
        );
        let chunk = self.disks[1 - vm][from..from + CHUNK].to_vec();
        self.disks[vm][to..to + CHUNK].copy_from_slice(&chunk);
    }

    fn resize(&mut self, vm: usize) {
        let length = (self.dice.roll(10) + 2) * CHUNK + self.dice.roll(3) * 512;
        self.disks[vm].resize(length, 0);
    }

    fn lose_state(&mut self) {
        drop(std::fs::remove_dir_all(self.site.state_folder()));
        self.is_set_back = false;
    }

    async fn rebuild(&mut self) {
        self.site.gateway().rebuild(&|_| {}).await.unwrap();
        self.is_set_back = false;
    }

    fn keep_state(&mut self) {
        if self.site.state_folder().exists() {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(&self.site.state_folder(), copy.path());
            self.older_state = Some(copy);
        }
    }

    fn set_state_back(&mut self) {
        let copy = self.older_state.as_ref().unwrap();
        drop(std::fs::remove_dir_all(self.site.state_folder()));
        copy_folder(copy.path(), &self.site.state_folder());
        self.is_set_back = true;
    }

    /// Deletes or truncates an object that was whole so far, one of the older half of its kind: on those most is built. By
    /// age, since names are random.
    /// Of another kind than `first` where there is none of it.
    async fn harm(&mut self, first: usize) {
        let (nth, truncate) = (self.dice.roll(1000), self.dice.roll(2) == 0);
        for kind in (first..first + 3).map(|kind| kind % 3) {
            let mut whole: Vec<(std::time::SystemTime, String, PathBuf)> = Vec::new();
            for listed in self.site.objects.list(KINDS[kind]).await.unwrap() {
                let path = self.site.vault_folder().join(&listed.name);
                let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
                if !self.harmed.contains(&listed.name) {
                    whole.push((modified, listed.name, path));
                }
            }
            whole.sort();
            let Some((_, name, path)) = whole.get(nth % whole.len().div_ceil(2).max(1)) else {
                continue;
            };
            match truncate {
                true => {
                    let bytes = std::fs::read(path).unwrap();
                    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
                }
                false => std::fs::remove_file(path).unwrap(),
            }
            self.harmed.insert(name.clone());
            self.seen.harmed[kind] += 1;
            self.is_hurt = true;
            return log_what_is_damaged(&self.site).await;
        }
    }

    /// What `point` holds of `vm`.
    fn content(&self, vm: usize, disk: &[u8], excluded: bool) -> Vec<u8> {
        let front = [self.front * CHUNK, 0][vm];
        match excluded {
            true => vec![0; front + disk.len()],
            false => [&vec![7; front], disk].concat(),
        }
    }

    async fn try_sync(&self, vm: usize) -> Result<PointReport, StoreError> {
        let (objects, state) = (self.site.objects.clone(), self.site.state_folder());
        let mut gateway = Gateway::open(objects, self.site.key(), &state, self.options)?;
        let mut captured = capture(VMS[vm], &self.content(vm, &self.disks[vm], false));
        if self.excluded[vm] {
            captured.disks[0].source = None;
        }
        gateway.begin_cycle(&|_| {}).await?;
        gateway.sync_vm(captured, &|_| {}, crash).await
    }

    async fn sync(&mut self, vm: usize) {
        let mut synced = self.try_sync(vm).await;
        match &synced {
            // The first one forgets its state by itself, the second one waits for a person.
            Err(StoreError::Conflict { .. }) if self.is_set_back => {
                (self.is_set_back, self.seen.refused) = (false, self.seen.refused + 1);
                synced = self.try_sync(vm).await;
            }
            Err(StoreError::TakenOver { .. }) if self.is_set_back => {
                self.seen.refused += 1;
                self.rebuild().await;
                synced = self.try_sync(vm).await;
            }
            _ => self.seen.unnoticed += usize::from(self.is_set_back),
        }
        let report = synced.unwrap();
        let selector = PointSelector::Latest;
        let point = self.site.vault().await.find_point(VMS[vm], &selector).await;
        let layers = point.unwrap().manifest.disks.remove(0).layers.into_iter();
        let object = |layer| match layer {
            LayerRef::Object { name, .. } => Some(name),
            LayerRef::Inline(_) => None,
        };
        self.points[vm].push(Point {
            disk: self.disks[vm].clone(),
            excluded: self.excluded[vm],
            layers: layers.filter_map(object).collect(),
        });
        let newest = self.points[vm].len();
        assert_eq!(report.point.unwrap().sequence, newest as u64);
        self.seen.excluded += usize::from(self.excluded[vm]);
        self.seen.healed += usize::from(self.is_hurt);
        self.is_hurt = false;
        assert!(self.check(vm, newest - 1).await, "the newest point is lost");
    }

    /// What restores is right, and what is there restores. Returns whether it restored.
    async fn check(&mut self, vm: usize, number: usize) -> bool {
        let point = &self.points[vm][number];
        let content = self.content(vm, &point.disk, point.excluded);
        let what = format!("VM {}, point {}", VMS[vm], number + 1);
        let selector = PointSelector::Sequence(number as u64 + 1);
        match self.site.restore(VMS[vm], selector).await {
            Ok(restored) => {
                assert!(restored == content, "{what} is another disk");
                true
            }
            Err(error) => {
                let readable = readable(whole_packs(&self.site).await.into_values().flatten());
                let is_there = |chunk: &[u8]| {
                    let mut padded = chunk.to_vec();
                    padded.resize(CHUNK, 0);
                    chunk.iter().all(|byte| *byte == 0)
                        || readable.contains_key(&chunk_id(&self.site, &padded))
                };
                let mapped = point.layers.iter().all(|name| !self.harmed.contains(name));
                let needs = content[self.front.saturating_sub(1) * [CHUNK, 0][vm]..].chunks(CHUNK);
                assert!(
                    !mapped || !needs.into_iter().all(is_there),
                    "{what} needs nothing that is lost: {error}"
                );
                self.seen.lost += 1;
                false
            }
        }
    }
}

/// Every chunk that has a whole chain, with its smallest depth.
fn readable(entries: impl Iterator<Item = Entry>) -> HashMap<ChunkId, u8> {
    let mut entries: Vec<Entry> = entries.collect();
    entries.sort_by_key(|entry| entry.kind.depth());
    let mut readable: HashMap<ChunkId, u8> = HashMap::new();
    for entry in entries {
        let depth = entry.kind.depth();
        let parent = entry.kind.parent();
        if parent.is_none_or(|id| readable.get(&id).is_some_and(|parent| *parent < depth)) {
            readable.entry(entry.id).or_insert(depth);
        }
    }
    readable
}

async fn run(seed: u64, steps: usize) -> Seen {
    let mut model = Model::new(seed, 0).await;
    for _ in 0..steps {
        model.step().await;
    }
    for vm in 0..2 {
        let points = model.points[vm].len();
        for back in 1..=points.min(4) {
            model.check(vm, points - back).await;
        }
    }
    println!("seed {seed}: {:?}", model.seen);
    model.seen
}

fn sum(seen: &[Seen], of: impl Fn(&Seen) -> usize) -> usize {
    seen.iter().map(of).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_is_what_the_disk_was() {
    let mut seen = Vec::new();
    for seed in 0..4 {
        seen.push(run(seed, 80).await);
    }
    assert!(sum(&seen, |seen| seen.harmed[0]) > 5, "packs: {seen:?}");
    assert!(sum(&seen, |seen| seen.harmed[2]) > 0, "segments: {seen:?}");
    assert!(sum(&seen, |seen| seen.lost) > 0, "{seen:?}");
    assert!(sum(&seen, |seen| seen.healed) > 5, "{seen:?}");
    assert!(sum(&seen, |seen| seen.excluded) > 2, "{seen:?}");
    assert!(sum(&seen, |seen| seen.refused) > 0, "{seen:?}");
    assert!(sum(&seen, |seen| seen.unnoticed) > 0, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_is_what_the_disk_was_where_its_map_is_an_object() {
    let mut model = Model::new(8, 2050).await;
    model.sync(0).await;
    for _ in 0..2 {
        model.write(0);
        model.harm(1).await;
        model.sync(0).await;
        for _ in 0..3 {
            model.step().await;
        }
    }
    for point in 0..model.points[0].len() {
        model.check(0, point).await;
    }
    let seen = model.seen;
    assert!(seen.harmed[1] > 1 && seen.lost > 1, "{seen:?}");
}
