use super::*;
use crate::extents::Extents;

fn disk(bytes: u64) -> (tempfile::TempDir, std::path::PathBuf, Sidecar) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image).unwrap().set_len(bytes).unwrap();
    let extents = |ranges: &[(u64, u64)]| {
        let mut all = Extents::default();
        ranges
            .iter()
            .for_each(|(offset, length)| all.push(*offset, *length));
        all
    };
    let sidecar = Sidecar {
        generation: 1,
        seed: 1,
        disk_bytes: bytes,
        real_bytes: 0,
        data_bytes: bytes / 2,
        table: extents(&[(bytes / 4, bytes / 16), (0, bytes / 32)]),
        data: extents(&[(0, bytes / 2)]),
    };
    (folder, image, sidecar)
}

/// The bound by the slowest road: compare whole images, compress what differs.
fn bound_by_comparing(before: &[u8], after: &[u8]) -> (u64, u64) {
    let mut bound = BlockBound::new().unwrap();
    let differing = before
        .chunks_exact(BLOCK)
        .zip(after.chunks_exact(BLOCK))
        .filter(|(before, after)| before != after);
    differing.fold((0, 0), |(blocks, bytes), (_, after)| {
        (blocks + 1, bytes + bound.bytes_of(after).unwrap())
    })
}

#[test]
fn the_printed_bound_is_what_comparing_the_disks_gives() {
    let (_folder, image, sidecar) = disk(256 << 20);
    for (number, pattern) in [
        Pattern::V1,
        Pattern::V2,
        Pattern::V3,
        Pattern::CycleUniform,
        Pattern::CycleZipf,
        Pattern::CycleZipf,
    ]
    .into_iter()
    .enumerate()
    {
        let before = std::fs::read(&image).unwrap();
        let changed = apply(&image, &sidecar, pattern, 4, number as u64).unwrap();
        let after = std::fs::read(&image).unwrap();
        let (blocks, bytes) = bound_by_comparing(&before, &after);
        assert!(blocks > 0);
        assert_eq!(
            (changed.changed_blocks, changed.bound_bytes),
            (blocks, bytes),
            "{pattern:?}"
        );
        let ratio = bytes as f64 / changed.changed_bytes as f64;
        assert!((0.62..0.66).contains(&ratio), "{ratio}");
    }
}

#[test]
fn the_same_change_twice_changes_nothing() {
    let (_folder, image, sidecar) = disk(256 << 20);
    let first = apply(&image, &sidecar, Pattern::V3, 4, 0).unwrap();
    let sum = blake3::hash(&std::fs::read(&image).unwrap());
    let second = apply(&image, &sidecar, Pattern::V3, 4, 0).unwrap();
    assert_eq!(first.changed_blocks, 2 * first.writes);
    assert_eq!(second.changed_blocks, 0);
    assert_eq!(sum, blake3::hash(&std::fs::read(&image).unwrap()));
    let other = apply(&image, &sidecar, Pattern::V3, 4, 1).unwrap();
    assert_eq!(other.changed_blocks, first.changed_blocks);
}

#[test]
fn counts_are_those_of_the_targets_on_the_full_disk() {
    let full = 8 << 30;
    let mut sidecar = disk(64 << 20).2;
    sidecar.disk_bytes = full;
    sidecar.data = Extents::default();
    sidecar.data.push(0, full / 2);
    sidecar.table = Extents::default();
    sidecar.table.push(1 << 30, 768 << 20);
    let plan = |pattern| plan_change(&sidecar, pattern, 11);
    let (v1, writes) = plan(Pattern::V1);
    assert_eq!(writes, 10_240);
    // Two writes may hit the same place: about a hundred of these do.
    assert!((20_100..20_480).contains(&v1.len()), "{}", v1.len());
    assert_eq!(plan(Pattern::V2).0.len(), 80 * 256);
    let (v3, writes) = plan(Pattern::V3);
    assert_eq!((v3.len(), writes), (20_480, 10_240));
    assert!(
        v3.keys()
            .all(|offset| (1 << 30..(1 << 30) + (768 << 20)).contains(offset))
    );
    assert_eq!(plan(Pattern::CycleUniform).1, 2000);
    let (zipf, writes) = plan(Pattern::CycleZipf);
    assert_eq!(writes, 2000);
    assert!((1500..3200).contains(&zipf.len()), "{}", zipf.len());
}
