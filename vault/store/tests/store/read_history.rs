//! Vaults with a random history: many points, chains, several records of an id, entries in every place they may be. Each
//! point is compared with a model, whole and after damage, and over a store that returns wrong bytes.

use crate::read_fixture::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::HashMap;
use std::sync::Arc;
use vault_format::layer::{Run, RunBuilder, Slot};
use vault_format::manifest::{LayerRef, Unindexed};
use vault_format::names;
use vault_format::pack::FinishedPack;
use vault_store::StoreError;
use vault_store::objects::Objects;
use vault_store::objects::faulty::{Fault, FaultPlan, Faulty};
use vault_store::read::Vault;

const POSITIONS: usize = 12;

/// One change of a cycle: where, what, and how it is stored.
#[derive(Clone, Debug)]
struct Write {
    position: usize,
    /// 0: a hole; 1 to 9: new content; else blocks of the old content changed.
    what: u8,
    twice: bool,
}

#[derive(Clone, Debug)]
struct Cycle {
    writes: Vec<Write>,
    object_layer: bool,
    segment: bool,
}

fn cycles() -> impl Strategy<Value = Vec<Cycle>> {
    let write = (0..POSITIONS, 0u8..40, any::<bool>()).prop_map(|(position, what, twice)| Write {
        position,
        what,
        twice,
    });
    let writes = proptest::collection::vec(write, 1..6);
    let cycle =
        (writes, any::<bool>(), any::<bool>()).prop_map(|(writes, object_layer, segment)| Cycle {
            writes,
            object_layer,
            segment,
        });
    proptest::collection::vec(cycle, 1..8)
}

/// What a gateway would have in its state.
#[derive(Default)]
struct Model {
    disk: Vec<Option<Vec<u8>>>,
    depths: HashMap<Vec<u8>, u8>,
    layers: Vec<LayerRef>,
    unindexed: Vec<(String, FinishedPack)>,
    ordinal: u64,
    points: Vec<Vec<u8>>,
}

impl Model {
    async fn run(&mut self, fixture: &Fixture, sequence: u64, cycle: &Cycle) {
        let mut pack = fixture.pack();
        // A pack of its own each time, even if all its chunks are holes.
        fixture.add_full(&mut pack, &chunk(1000 + sequence));
        let mut runs: std::collections::BTreeMap<u64, Slot> = Default::default();
        for (n, write) in cycle.writes.iter().enumerate() {
            let old = self.disk[write.position].clone();
            let seed = sequence * 100 + n as u64;
            let new = match (write.what, &old) {
                (0, _) => None,
                (10.., Some(old)) => Some(changed(
                    old,
                    &[usize::from(write.what) % 16, 15],
                    seed as u8 | 1,
                )),
                _ => Some(chunk(seed)),
            };
            if let Some(new) = &new {
                let depth = old.as_ref().and_then(|old| self.depths.get(old)).copied();
                match (old, depth) {
                    (Some(old), Some(depth)) if write.what >= 10 && old != *new => {
                        fixture.add_patch(&mut pack, &old, depth + 1, new);
                        self.depths.insert(new.clone(), depth + 1);
                    }
                    _ => {
                        fixture.add_full(&mut pack, new);
                        self.depths.insert(new.clone(), 0);
                    }
                }
                if write.twice {
                    fixture.add_full(&mut pack, new);
                }
            }
            let slot = new
                .as_ref()
                .map_or(Slot::Hole, |new| Slot::Chunk(fixture.id(new)));
            runs.insert(write.position as u64, slot);
            self.disk[write.position] = new;
        }
        let mut builder = RunBuilder::default();
        runs.into_iter()
            .for_each(|(position, slot)| builder.push(position, slot));
        let runs: Vec<Run> = builder.runs();
        let layer = if cycle.object_layer {
            fixture.put_layer(&runs).await
        } else {
            LayerRef::Inline(runs)
        };
        self.layers.insert(0, layer);
        let pack = fixture.put_pack(pack).await;
        let manifest = with_packs(fixture.manifest("web", sequence), &[&pack]);
        let mut manifest = with_disk(
            manifest,
            "sda",
            (POSITIONS * CHUNK) as u64 - 100,
            self.layers.clone(),
        );
        for (object, pack) in &self.unindexed {
            manifest.facts.unindexed.push(Unindexed {
                object: object.clone(),
                packs: vec![pack.name],
            });
        }
        let object = fixture.publish(&manifest).await;
        self.unindexed.push((object, pack));
        if cycle.segment {
            let packs: Vec<&FinishedPack> = self.unindexed.iter().map(|(_, p)| p).collect();
            fixture.put_segment(self.ordinal, &packs).await;
            self.ordinal += packs.len() as u64;
            self.unindexed.clear();
        }
        let zero = vec![0; CHUNK];
        let mut bytes = self
            .disk
            .iter()
            .flat_map(|c| c.as_ref().unwrap_or(&zero).clone())
            .collect::<Vec<u8>>();
        bytes.truncate(POSITIONS * CHUNK - 100);
        self.points.push(bytes);
    }
}

async fn history(cycles: &[Cycle]) -> (Fixture, Vec<Vec<u8>>) {
    let fixture = Fixture::new().await;
    let mut model = Model {
        disk: vec![None; POSITIONS],
        ..Model::default()
    };
    for (n, cycle) in cycles.iter().enumerate() {
        model.run(&fixture, n as u64 + 1, cycle).await;
    }
    (fixture, model.points)
}

/// Assembles all points; those that come back must be right. Returns how many did.
async fn compare(vault: &Vault, right: &[Vec<u8>]) -> Result<usize, StoreError> {
    let list = vault.points_of("web").await?;
    let mut whole = 0;
    for point in &list.points {
        let sequence = point.manifest.facts.point.sequence as usize;
        if let Ok((bytes, _)) = assembled(vault, point, "sda").await {
            assert!(
                bytes == right[sequence - 1],
                "point {sequence} came back wrong"
            );
            whole += 1;
        }
    }
    Ok(whole)
}

fn sampled(cases: u32, mut test: impl FnMut(Vec<Cycle>)) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 100,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let test = std::cell::RefCell::new(&mut test);
    let outcome = runner.run(&cycles(), |cycles| {
        (test.borrow_mut())(cycles);
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
}

#[test]
fn every_point_of_any_history_comes_back() {
    let runtime = runtime();
    sampled(40, |cycles| {
        runtime.block_on(async {
            let (fixture, right) = history(&cycles).await;
            assert_eq!(
                compare(&fixture.vault().await, &right).await.unwrap(),
                right.len()
            );
            // Without any index as well: from manifests and trailers.
            for segment in fixture.objects.list(names::INDEX).await.unwrap() {
                fixture.objects.delete(&segment.name);
            }
            assert_eq!(
                compare(&fixture.vault().await, &right).await.unwrap(),
                right.len()
            );
        });
    });
}

#[test]
fn damage_anywhere_gives_the_right_bytes_or_an_error() {
    let runtime = runtime();
    let mut at = 1usize;
    sampled(12, |cycles| {
        runtime.block_on(async {
            let (fixture, right) = history(&cycles).await;
            for object in fixture.objects.list("").await.unwrap() {
                fixture.objects.restore_all();
                at = at.wrapping_mul(6364136223846793005).wrapping_add(1);
                let place = at % object.size as usize;
                match at % 5 {
                    0 => fixture.objects.delete(&object.name),
                    1 => {
                        let bytes = fixture.bytes(&object.name).await;
                        fixture.objects.put(&object.name, bytes[..place].to_vec());
                    }
                    _ => fixture.flip(&object.name, place).await,
                }
                if let Ok(vault) = fixture.open().await {
                    compare(&vault, &right).await.unwrap();
                }
            }
        });
    });
}

#[test]
fn a_store_that_returns_wrong_bytes_gives_the_right_disk_or_an_error() {
    let runtime = runtime();
    let (mut seed, mut whole) = (0, 0);
    sampled(15, |cycles| {
        runtime.block_on(async {
            let (fixture, right) = history(&cycles).await;
            seed += 1;
            let plan = FaultPlan::seeded(seed)
                .with(Fault::FlippedBit, 20)
                .with(Fault::ShortBody, 10)
                .with(Fault::Truncated, 10)
                .with(Fault::Swapped, 10);
            let faulty: Arc<dyn Objects> = Arc::new(Faulty::new(fixture.objects.clone(), plan));
            if let Ok(vault) = Vault::open(faulty, &fixture.kit, kit_keys()).await {
                whole += compare(&vault, &right).await.unwrap_or(0);
            }
        });
    });
    assert!(whole > 0, "some points come through");
}
