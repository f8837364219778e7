//! A disk's map: its layers, overlaid newest first (section 9), parts decoded on demand.

use super::metadata::RemoteObject;
use crate::StoreError;
use crate::objects::Objects;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use vault_format::layer::{Layer, Run, Slot, position_key};
use vault_format::manifest::LayerRef;
use vault_format::metadata_object::{ObjectKind, Trust};
use vault_format::names::{self, Name};
use vault_format::{ChunkId, FormatError};

/// Parts read in one go: 4 MiB, 131,072 positions.
const PARTS_AT_ONCE: usize = 64;
/// Decoded parts kept per layer, of about 70 KB each; one has 2,048 positions. A disk that is booted from is read here
/// and there.
const PARTS_KEPT: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// A layer object, opened.
pub(super) struct RemoteLayer {
    object: RemoteObject,
    layer: Layer,
    parts: LruCache<usize, Arc<Vec<Run>>>,
}

enum MapLayer {
    Inline(Vec<Run>),
    Remote(Box<RemoteLayer>),
}

/// The layers of one disk.
pub(super) struct MapOverlay {
    objects: Arc<dyn Objects>,
    layers: Vec<MapLayer>,
}

impl RemoteLayer {
    pub async fn open(
        objects: &dyn Objects,
        trust: &Trust,
        name: &str,
        size: u64,
    ) -> Result<Self, StoreError> {
        let wrong = |what: &str| StoreError::Format {
            name: name.to_owned(),
            error: FormatError::Damaged(what.into()),
        };
        let Some(Name::Layer(writer, _)) = names::parse(name) else {
            return Err(wrong("this is no layer's name"));
        };
        let (object, root) =
            RemoteObject::open(objects, trust, ObjectKind::Layer, name, size).await?;
        if root.writer != writer {
            return Err(wrong(
                "another writer's layer lies under this writer's name",
            ));
        }
        let layer = Layer::from_root(root).map_err(StoreError::format(name))?;
        Ok(RemoteLayer {
            object,
            layer,
            parts: LruCache::new(PARTS_KEPT),
        })
    }

    pub fn part_count(&self) -> usize {
        self.layer.root.parts.len()
    }

    /// The chunk ids of some parts, in order.
    pub async fn ids(
        &mut self,
        objects: &dyn Objects,
        parts: Range<usize>,
    ) -> Result<Vec<ChunkId>, StoreError> {
        let numbers: Vec<usize> = parts.collect();
        let mut out = Vec::new();
        for runs in self.read(objects, &numbers).await? {
            for run in runs.iter() {
                if let Run::Chunks { ids, .. } = run {
                    out.extend_from_slice(ids);
                }
            }
        }
        Ok(out)
    }

    async fn read(
        &mut self,
        objects: &dyn Objects,
        numbers: &[usize],
    ) -> Result<Vec<Arc<Vec<Run>>>, StoreError> {
        let missing: Vec<usize> = numbers
            .iter()
            .copied()
            .filter(|n| !self.parts.contains(n))
            .collect();
        let fetched = self
            .object
            .parts(objects, &self.layer.root, &missing)
            .await?;
        let mut fetched = fetched.into_iter().peekable();
        let mut out = Vec::with_capacity(numbers.len());
        for number in numbers {
            let runs = match fetched.next_if(|(n, _)| n == number) {
                Some((n, sealed)) => Arc::new(
                    self.layer
                        .runs_of(n, &sealed)
                        .map_err(StoreError::format(&self.object.name))?,
                ),
                None => match self.parts.get(number) {
                    Some(runs) => runs.clone(),
                    None => continue,
                },
            };
            out.push(runs);
        }
        for (number, runs) in numbers.iter().zip(&out).rev().take(PARTS_KEPT.get()) {
            self.parts.put(*number, runs.clone());
        }
        Ok(out)
    }

    /// Numbers of the parts that may hold positions of `range`.
    fn parts_of(&self, range: &Range<u64>) -> Range<usize> {
        let rows = &self.layer.root.parts;
        let end = rows.partition_point(|row| row.first_key < position_key(range.end));
        let begin = rows[..end].partition_point(|row| row.first_key <= position_key(range.start));
        begin.saturating_sub(1)..end
    }

    async fn fill(&mut self, objects: &dyn Objects, filler: &mut Filler) -> Result<(), StoreError> {
        let numbers: Vec<usize> = self.parts_of(&filler.range()).collect();
        for group in numbers.chunks(PARTS_AT_ONCE) {
            for runs in self.read(objects, group).await? {
                filler.fill(&runs);
            }
        }
        Ok(())
    }
}

impl MapOverlay {
    /// `layers`: newest first.
    pub async fn open(
        objects: Arc<dyn Objects>,
        trust: &Trust,
        layers: &[LayerRef],
    ) -> Result<Self, StoreError> {
        let open = |layer: &LayerRef| {
            let (objects, layer) = (objects.clone(), layer.clone());
            async move {
                Ok::<_, StoreError>(match layer {
                    LayerRef::Inline(runs) => MapLayer::Inline(runs),
                    LayerRef::Object { name, size } => MapLayer::Remote(Box::new(
                        RemoteLayer::open(&*objects, trust, &name, size).await?,
                    )),
                })
            }
        };
        let layers = futures::future::try_join_all(layers.iter().map(open)).await?;
        Ok(MapOverlay { objects, layers })
    }

    /// What stands at these positions.
    pub async fn slots(&mut self, range: Range<u64>) -> Result<Vec<Slot>, StoreError> {
        let mut filler = Filler::new(range);
        for layer in &mut self.layers {
            if filler.undecided == 0 {
                break;
            }
            match layer {
                MapLayer::Inline(runs) => filler.fill(runs),
                MapLayer::Remote(layer) => layer.fill(&*self.objects, &mut filler).await?,
            }
        }
        Ok(filler
            .slots
            .into_iter()
            .map(|slot| slot.unwrap_or(Slot::Hole))
            .collect())
    }
}

/// Slots being filled, layer by layer: the first layer that holds a position decides.
struct Filler {
    first: u64,
    slots: Vec<Option<Slot>>,
    undecided: usize,
}

impl Filler {
    fn new(range: Range<u64>) -> Self {
        let count = range.end.saturating_sub(range.start) as usize;
        Filler {
            first: range.start,
            slots: vec![None; count],
            undecided: count,
        }
    }

    fn range(&self) -> Range<u64> {
        self.first..self.first + self.slots.len() as u64
    }

    /// `runs` are sorted by position.
    fn fill(&mut self, runs: &[Run]) {
        let range = self.range();
        let begin = runs.partition_point(|run| run.end() <= range.start);
        for run in runs[begin..]
            .iter()
            .take_while(|run| run.first() < range.end)
        {
            for position in run.first().max(range.start)..run.end().min(range.end) {
                let slot = &mut self.slots[(position - self.first) as usize];
                if slot.is_none() {
                    *slot = run.slot(position);
                    self.undecided -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use vault_format::layer::RunBuilder;

    fn slot(n: u8) -> Slot {
        if n < 80 {
            Slot::Hole
        } else {
            Slot::Chunk(ChunkId([n; 32]))
        }
    }

    proptest! {
        #[test]
        fn the_newest_layer_that_holds_a_position_decides(
            layers in proptest::collection::vec(proptest::collection::btree_map(0u64..60, any::<u8>(), 0..40), 0..5),
            start in 0u64..70, count in 0u64..70,
        ) {
            let mut filler = Filler::new(start..start + count);
            let mut expected: BTreeMap<u64, Slot> = BTreeMap::new();
            for layer in &layers {
                let mut runs = RunBuilder::default();
                for (position, n) in layer {
                    runs.push(*position, slot(*n));
                    expected.entry(*position).or_insert(slot(*n));
                }
                filler.fill(&runs.runs());
            }
            let inside = expected.keys().filter(|p| (start..start + count).contains(p)).count();
            prop_assert_eq!(filler.undecided, count as usize - inside);
            for (i, slot) in filler.slots.iter().enumerate() {
                prop_assert_eq!(*slot, expected.get(&(start + i as u64)).copied());
            }
        }
    }
}
