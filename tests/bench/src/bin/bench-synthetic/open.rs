//! Opening a recovery point and reading from it, as `sparesite-restore` does: the kit, the newest point, the whole map of
//! its disk, and chunks from all over it.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vault_format::ChunkId;
use vault_format::kit::Kit;
use vault_format::layer::Slot;
use vault_store::objects::{OpenOptions, open_vault_url};
use vault_store::read::{DiskImage, PointSelector, Vault};

use crate::shape::{content, is_readable};
use crate::site::{PASSPHRASE, Site};
use crate::vault::{DISK, VM};

/// Positions asked for at once.
const WINDOW: u64 = 1 << 16;
/// Chunks asked for at once: 32 MiB.
const CHUNKS_AT_ONCE: usize = 128;

pub fn open(site: &Site, ids: u64) -> Result<Value> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(read(site, ids))
}

async fn read(site: &Site, ids: u64) -> Result<Value> {
    let path = site.path("kit.json");
    let kit = fs::read(&path).with_context(|| format!("{}: run prepare first", path.display()))?;
    let kit = Kit::parse(&kit)?;
    let keys = kit.open(PASSPHRASE)?;
    let objects = open_vault_url(&site.vault_url(), OpenOptions::default()).await?;
    let vault = Vault::open(objects, &kit, keys).await?;
    let point = vault.find_point(VM, &PointSelector::Latest).await?;
    let mut image = DiskImage::open(&vault, &point, DISK).await?;
    let positions = image.size_bytes() / u64::from(image.chunk_bytes());
    let (mapped, mut readable) = go_through_map(&mut image, 0..positions).await?;
    ensure!(
        mapped == positions,
        "{mapped} of {positions} positions have a chunk"
    );
    // Shuffled: in no order that a disk, a pack or a segment (which is sorted by id) has.
    readable.sort_by_cached_key(|(id, _)| *blake3::hash(&id.0).as_bytes());
    readable.truncate(usize::try_from(ids)?);
    for group in readable.chunks(CHUNKS_AT_ONCE) {
        check_chunks(&mut image, group).await?;
    }
    Ok(json!({"positions": positions, "chunks_read": readable.len()}))
}

/// How many positions have a chunk, and those that can be read.
async fn go_through_map(
    image: &mut DiskImage,
    positions: Range<u64>,
) -> Result<(u64, Vec<(ChunkId, u64)>)> {
    let (mut mapped, mut readable) = (0, Vec::new());
    for first in positions.clone().step_by(WINDOW as usize) {
        let slots = image
            .slots(first..positions.end.min(first + WINDOW))
            .await?;
        for (position, slot) in (first..).zip(slots) {
            if let Slot::Chunk(id) = slot {
                mapped += 1;
                if is_readable(position) {
                    readable.push((id, position));
                }
            }
        }
    }
    Ok((mapped, readable))
}

async fn check_chunks(image: &mut DiskImage, group: &[(ChunkId, u64)]) -> Result<()> {
    let ids: Vec<ChunkId> = group.iter().map(|(id, _)| *id).collect();
    let chunks = image.chunks(&ids).await?;
    for (id, position) in group {
        let right = chunks
            .get(id)
            .and_then(|chunk| chunk.as_ref().ok())
            .is_some_and(|chunk| chunk[..] == content(*position)[..]);
        ensure!(
            right,
            "the chunk at position {position} is not what was stored"
        );
    }
    Ok(())
}
