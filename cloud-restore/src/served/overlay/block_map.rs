//! Which blocks of a disk were written, in memory: runs of pages that are alike, and pages of which each block is known.
//! A guest that trims a whole disk costs a few bytes, not four a block.

use std::collections::BTreeMap;
use std::ops::Range;

/// Blocks of one page of the map.
pub const PAGE: u64 = 1024;

/// A block as the map has it: how often it was written, and whether it is zero since. The count goes on over that, as it
/// is part of what seals the block. Of a zero block it may be too high, never too low: neighbours share one.
pub const BASE: u32 = 0;
pub const ZERO: u32 = 1 << 31;

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody wrote it.
    Base,
    Zero,
    Written,
}

impl Kind {
    pub fn of(state: u32) -> Self {
        match state {
            BASE => Kind::Base,
            state if state & ZERO != 0 => Kind::Zero,
            _ => Kind::Written,
        }
    }
}

/// Runs of pages by their first page. What is not in one, nobody wrote.
#[derive(Default)]
pub struct BlockMap(BTreeMap<u64, Run>);

enum Run {
    /// So many pages, all blocks in this state.
    Alike(u64, u32),
    /// One page.
    Each(Box<[u32; PAGE as usize]>),
}

impl Run {
    fn pages(&self) -> u64 {
        match self {
            Run::Alike(pages, _) => *pages,
            Run::Each(_) => 1,
        }
    }

    /// The state of a run that takes the place of this one and of one that is `with`, if there is one for both.
    fn joined(&self, with: u32) -> Option<u32> {
        match self {
            Run::Alike(_, state) if *state == with => Some(with),
            // Both are zero: the higher count.
            Run::Alike(_, state) if *state & with & ZERO != 0 => Some((*state).max(with)),
            _ => None,
        }
    }
}

impl BlockMap {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs, by which the memory goes that the map takes.
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, block: u64) -> u32 {
        match self.run_at(block / PAGE) {
            None => BASE,
            Some((_, Run::Alike(_, state))) => *state,
            Some((_, Run::Each(states))) => states[(block % PAGE) as usize],
        }
    }

    pub fn set(&mut self, blocks: Range<u64>, state: u32) {
        for part in divide(blocks) {
            match part {
                Part::Pages(pages) => self.put(pages, |_| state),
                Part::Within(page, blocks) => {
                    self.change(page, |states| states[blocks].fill(state))
                }
            }
        }
    }

    /// Blocks are zero from here on; how often they were written stays known.
    pub fn zero(&mut self, blocks: Range<u64>) {
        for part in divide(blocks) {
            match part {
                Part::Pages(pages) => self.put(pages, |count| count | ZERO),
                Part::Within(page, blocks) => self.zero_within(page, blocks),
            }
        }
    }

    fn zero_within(&mut self, page: u64, blocks: Range<usize>) {
        if let Some((_, Run::Alike(_, state))) = self.run_at(page)
            && Kind::of(*state) == Kind::Zero
        {
            return;
        }
        let mut all = false;
        self.change(page, |states| {
            states[blocks].iter_mut().for_each(|state| *state |= ZERO);
            all = states.iter().all(|state| state & ZERO != 0);
        });
        // Trims come in small pieces, too.
        if all {
            self.put(page..page + 1, |count| count | ZERO);
        }
    }

    /// What became of the blocks of a range, in order: neighbours differ.
    pub fn ranges(&self, blocks: Range<u64>) -> impl Iterator<Item = (Range<u64>, Kind)> {
        let mut at = blocks.start;
        std::iter::from_fn(move || {
            (at < blocks.end).then(|| {
                let first = at;
                let kind = Kind::of(self.get(first));
                at = self.kind_until(first, blocks.end, kind);
                (first..at, kind)
            })
        })
    }

    /// The end of the blocks from `first` on that are all of a kind, at most `end`: whole runs are passed over.
    pub fn kind_until(&self, first: u64, end: u64, kind: Kind) -> u64 {
        let mut block = first;
        while block < end {
            let page = block / PAGE;
            block = match self.run_at(page) {
                None if kind != Kind::Base => break,
                None => match self.0.range(page..).next() {
                    Some((next, _)) => next * PAGE,
                    None => end,
                },
                Some((_, Run::Alike(_, state))) if Kind::of(*state) != kind => break,
                Some((start, run @ Run::Alike(..))) => (start + run.pages()) * PAGE,
                Some((_, Run::Each(states))) => {
                    let mut rest = states[(block % PAGE) as usize..].iter();
                    match rest.position(|state| Kind::of(*state) != kind) {
                        Some(more) => {
                            block += more as u64;
                            break;
                        }
                        None => (page + 1) * PAGE,
                    }
                }
            };
        }
        block.min(end)
    }

    /// The run that has this page, and where it begins.
    fn run_at(&self, page: u64) -> Option<(u64, &Run)> {
        let (start, run) = self.0.range(..=page).next_back()?;
        (page < start + run.pages()).then_some((*start, run))
    }

    /// Lets a run end in front of `page`, if one goes over it.
    fn split(&mut self, page: u64) {
        let before = self.0.range_mut(..page).next_back();
        let Some((start, Run::Alike(pages, state))) = before else {
            return;
        };
        let (end, state) = (start + *pages, *state);
        if end > page {
            *pages = page - start;
            self.0.insert(page, Run::Alike(end - page, state));
        }
    }

    /// Changes blocks of one page.
    fn change(&mut self, page: u64, change: impl FnOnce(&mut [u32; PAGE as usize])) {
        if let Some(Run::Each(states)) = self.0.get_mut(&page) {
            return change(states);
        }
        self.split(page);
        self.split(page + 1);
        let mut states = Box::new([self.get(page * PAGE); PAGE as usize]);
        change(&mut states);
        self.0.insert(page, Run::Each(states));
    }

    /// Makes pages alike. `state` is told the highest count of a block in them.
    fn put(&mut self, pages: Range<u64>, state: impl FnOnce(u32) -> u32) {
        self.split(pages.start);
        self.split(pages.end);
        let replaced = self.0.extract_if(pages.clone(), |_, _| true);
        let highest = replaced.map(|(_, run)| match run {
            Run::Alike(_, state) => state & !ZERO,
            Run::Each(states) => states.iter().map(|s| s & !ZERO).max().unwrap_or(BASE),
        });
        let mut state = state(highest.max().unwrap_or(BASE));
        let (mut start, mut end) = (pages.start, pages.end);
        if let Some((before, run)) = self.0.range(..start).next_back()
            && before + run.pages() == start
            && let Some(joined) = run.joined(state)
        {
            (start, state) = (*before, joined);
        }
        if let Some(run) = self.0.get(&end)
            && let Some(joined) = run.joined(state)
        {
            let pages = run.pages();
            self.0.remove(&end);
            (end, state) = (end + pages, joined);
        }
        self.0.insert(start, Run::Alike(end - start, state));
    }
}

/// Part of a range of blocks: whole pages, or blocks within one.
enum Part {
    Pages(Range<u64>),
    Within(u64, Range<usize>),
}

fn divide(blocks: Range<u64>) -> Vec<Part> {
    let mut parts = Vec::with_capacity(3);
    let mut at = blocks.start;
    while at < blocks.end {
        let (page, within) = (at / PAGE, at % PAGE);
        if within == 0 && blocks.end - at >= PAGE {
            let pages = page..blocks.end / PAGE;
            at = pages.end * PAGE;
            parts.push(Part::Pages(pages));
        } else {
            let end = blocks.end.min((page + 1) * PAGE);
            parts.push(Part::Within(
                page,
                within as usize..(end - page * PAGE) as usize,
            ));
            at = end;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCKS: u64 = 6 * PAGE + 100;

    #[derive(Clone, Debug)]
    enum Step {
        Set(Range<u64>, u32),
        Zero(Range<u64>),
    }

    /// Ranges that begin and end anywhere, many of them at pages.
    fn range() -> impl Strategy<Value = Range<u64>> {
        let edge = || {
            prop_oneof![
                0..=BLOCKS,
                (0..=BLOCKS / PAGE).prop_map(|page| page * PAGE),
                (1..=BLOCKS / PAGE).prop_map(|page| page * PAGE - 1),
            ]
        };
        (edge(), edge()).prop_map(|(a, b)| a.min(b)..a.max(b))
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (range(), 1u32..5).prop_map(|(range, state)| Step::Set(range, state)),
            range().prop_map(Step::Zero),
        ]
    }

    proptest! {
        #[test]
        fn a_map_of_runs_is_one_of_blocks(steps in proptest::collection::vec(step(), 1..30)) {
            let mut map = BlockMap::default();
            let mut model = vec![BASE; BLOCKS as usize];
            for step in steps {
                match step {
                    Step::Set(range, state) => {
                        map.set(range.clone(), state);
                        model[range.start as usize..range.end as usize].fill(state);
                    }
                    Step::Zero(range) => {
                        map.zero(range.clone());
                        model[range.start as usize..range.end as usize].iter_mut().for_each(|s| *s |= ZERO);
                    }
                }
                for (block, state) in model.iter().enumerate() {
                    let found = map.get(block as u64);
                    prop_assert_eq!(Kind::of(found), Kind::of(*state), "block {}", block);
                    match Kind::of(found) {
                        // A count that came again would seal two blocks alike.
                        Kind::Zero => prop_assert!(found >= *state, "block {}", block),
                        _ => prop_assert_eq!(found, *state),
                    }
                }
                let ranges: Vec<_> = map.ranges(0..BLOCKS).collect();
                let told: Vec<Kind> = ranges.iter().flat_map(|(range, kind)| range.clone().map(|_| *kind)).collect();
                let true_kinds: Vec<Kind> = model.iter().map(|state| Kind::of(*state)).collect();
                prop_assert!(told == true_kinds, "the ranges are others");
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 != pair[1].1));
                prop_assert!(map.runs() as u64 <= BLOCKS / PAGE + 1);
            }
        }
    }

    #[test]
    fn a_trim_in_small_pieces_comes_to_one_run() {
        let mut map = BlockMap::default();
        map.set(5 * PAGE..5 * PAGE + 3, 7);
        for piece in 0..40 * PAGE / 100 {
            map.zero(piece * 100..(piece + 1) * 100);
        }
        map.zero(40 * PAGE - 100..40 * PAGE);
        assert_eq!(map.runs(), 1);
        assert_eq!(map.get(5 * PAGE), ZERO | 7);
        assert_eq!(map.kind_until(3, u64::MAX, Kind::Zero), 40 * PAGE);
    }
}
