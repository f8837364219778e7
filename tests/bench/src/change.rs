//! The change patterns: which blocks get which content (pure), and writing it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::bound::BlockBound;
use crate::database_page::{PAGE, fill_page};
use crate::disk::Sidecar;
use crate::seed::{Random, Zipf, derive};
use crate::{BLOCK, THREADS};

/// The patterns of the targets; counts are those of the 8 GiB disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pattern {
    /// 10,240 writes of 8 KiB anywhere in the data
    V1,
    /// 80 writes of 1 MiB in the data
    V2,
    /// 10,240 writes of 8 KiB inside the table, each elsewhere
    V3,
    /// 2,000 writes of 8 KiB in the table, each page as likely
    CycleUniform,
    /// 2,000 writes of 8 KiB in the table, few pages often (exponent 0.99)
    CycleZipf,
}

/// YCSB's; about half of the writes then go to a hundredth of the pages.
const ZIPF_EXPONENT: f64 = 0.99;
const MEBIBYTE: u64 = 1 << 20;

/// One half of page content number `content`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlockContent {
    content: u64,
    half: usize,
}

/// Block offset → what it will hold; the last of several writes wins.
type Plan = BTreeMap<u64, BlockContent>;

#[derive(Debug, PartialEq, Serialize)]
pub struct Changed {
    pub pattern: String,
    pub seed: u64,
    pub cycle: u64,
    pub writes: u64,
    pub changed_blocks: u64,
    pub changed_bytes: u64,
    /// Each changed block compressed alone, summed.
    pub bound_bytes: u64,
}

fn write_page(plan: &mut Plan, offsets: [u64; 2], content: u64) {
    for (half, offset) in offsets.into_iter().enumerate() {
        plan.insert(offset, BlockContent { content, half });
    }
}

/// Decides what to write; returns the number of writes too.
fn plan_change(sidecar: &Sidecar, pattern: Pattern, seed: u64) -> (Plan, u64) {
    let mut random = Random::new(seed);
    let mut plan = Plan::new();
    let writes = match pattern {
        Pattern::V1 => {
            let blocks = sidecar.data.block_offsets();
            let writes = sidecar.scaled(10_240);
            for number in 0..writes {
                let slot = random.below(blocks.len() as u64 / 2) as usize;
                let content = derive(seed, "content", number);
                write_page(&mut plan, [blocks[2 * slot], blocks[2 * slot + 1]], content);
            }
            writes
        }
        Pattern::V2 => plan_large_writes(sidecar, seed, &mut random, &mut plan),
        Pattern::V3 | Pattern::CycleUniform | Pattern::CycleZipf => {
            let blocks = sidecar.table.block_offsets();
            let pages = draw_pages(sidecar, pattern, blocks.len() as u64 / 2, &mut random);
            for (number, page) in pages.iter().enumerate() {
                let at = 2 * *page as usize;
                let content = derive(seed, "content", number as u64);
                write_page(&mut plan, [blocks[at], blocks[at + 1]], content);
            }
            pages.len() as u64
        }
    };
    (plan, writes)
}

fn plan_large_writes(sidecar: &Sidecar, seed: u64, random: &mut Random, plan: &mut Plan) -> u64 {
    let writes = sidecar.scaled(80);
    let blocks = sidecar.data.block_offsets();
    let mut taken = std::collections::BTreeSet::new();
    while (taken.len() as u64) < writes {
        let near = blocks[random.below(blocks.len() as u64) as usize];
        let start = near / MEBIBYTE * MEBIBYTE;
        if !taken.insert(start) {
            continue;
        }
        for (number, offset) in (start..start + MEBIBYTE).step_by(PAGE).enumerate() {
            let content = derive(seed, "content", start + number as u64);
            write_page(plan, [offset, offset + BLOCK as u64], content);
        }
    }
    writes
}

fn draw_pages(sidecar: &Sidecar, pattern: Pattern, pages: u64, random: &mut Random) -> Vec<u64> {
    match pattern {
        Pattern::CycleUniform => (0..sidecar.scaled(2000))
            .map(|_| random.below(pages))
            .collect(),
        Pattern::CycleZipf => {
            // Which page has which rank belongs to the disk, not to the cycle.
            let by_rank = shuffled(pages, derive(sidecar.seed, "ranks", 0));
            let zipf = Zipf::new(pages, ZIPF_EXPONENT);
            (0..sidecar.scaled(2000))
                .map(|_| by_rank[zipf.draw(random) as usize])
                .collect()
        }
        _ => {
            let mut order = shuffled(pages, random.number());
            order.truncate(sidecar.scaled(10_240) as usize);
            order
        }
    }
}

fn shuffled(n: u64, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let mut order: Vec<u64> = (0..n).collect();
    for at in (1..n as usize).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    order
}

/// Writes the pattern to the image. Blocks that already held the new content
/// (the same change applied twice) are not counted as changed.
pub fn apply(
    image: &Path,
    sidecar: &Sidecar,
    pattern: Pattern,
    seed: u64,
    cycle: u64,
) -> anyhow::Result<Changed> {
    use clap::ValueEnum;
    let name = pattern
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default();
    let (plan, writes) = plan_change(sidecar, pattern, derive(seed, &name, cycle));
    let blocks: Vec<(u64, BlockContent)> = plan.into_iter().collect();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(image)
        .with_context(|| format!("cannot open {} to change it", image.display()))?;
    ensure!(
        file.metadata()?.len() == sidecar.disk_bytes,
        "{} is not the disk of its sidecar",
        image.display()
    );
    let share = blocks.len().div_ceil(THREADS).max(1);
    let sums: Vec<anyhow::Result<(u64, u64)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = blocks
            .chunks(share)
            .map(|part| scope.spawn(|| write_blocks(&file, part)))
            .collect();
        workers
            .into_iter()
            .map(|w| {
                w.join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a writer panicked")))
            })
            .collect()
    });
    let (mut changed_blocks, mut bound_bytes) = (0, 0);
    for sum in sums {
        let (blocks, bytes) = sum?;
        changed_blocks += blocks;
        bound_bytes += bytes;
    }
    Ok(Changed {
        pattern: name,
        seed,
        cycle,
        writes,
        changed_blocks,
        changed_bytes: changed_blocks * BLOCK as u64,
        bound_bytes,
    })
}

fn write_blocks(file: &File, blocks: &[(u64, BlockContent)]) -> anyhow::Result<(u64, u64)> {
    let mut bound = BlockBound::new()?;
    let (mut page, mut page_content) = ([0; PAGE], None);
    let mut before = [0; BLOCK];
    let (mut changed, mut bytes) = (0, 0);
    for (offset, BlockContent { content, half }) in blocks {
        if page_content != Some(*content) {
            fill_page(*content, &mut page);
            page_content = Some(*content);
        }
        let block = &page[half * BLOCK..][..BLOCK];
        file.read_exact_at(&mut before, *offset)?;
        if before == *block {
            continue;
        }
        file.write_all_at(block, *offset)?;
        changed += 1;
        bytes += bound.bytes_of(block)?;
    }
    Ok((changed, bytes))
}

#[cfg(test)]
mod tests;
