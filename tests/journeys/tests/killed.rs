//! A sync may be killed at any moment: the next one goes on, and nothing is stored twice.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use journeys::*;

const DISK: u64 = 64 * MIB;

/// When a sync is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So many of its five packs are there.
    Packs(usize),
    /// Part of the time that a sync takes when nothing happens to it.
    Time(f64),
}

const MOMENTS: [Moment; 6] = [
    Moment::Time(0.1),
    Moment::Packs(1),
    Moment::Packs(2),
    Moment::Time(0.2),
    Moment::Packs(3),
    Moment::Time(0.15),
];

fn site_with_disk() -> Site {
    let site = Site::new();
    make_random(&site.path("vm.raw"), DISK, 5);
    site.configure_one();
    site
}

fn total(vault: &Path) -> u64 {
    packs(vault).iter().map(|(_, size)| size).sum()
}

/// How long it takes, how many bytes its packs have, how large the largest is.
fn undisturbed() -> (Duration, u64, u64) {
    let site = site_with_disk();
    let start = Instant::now();
    site.sync();
    let took = start.elapsed();
    let vault = site.path("vault");
    let largest = packs(&vault).iter().map(|(_, size)| *size).max();
    (took, total(&vault), largest.expect("packs"))
}

#[test]
fn a_sync_killed_at_six_moments_goes_on() {
    let (took, packs_bytes, largest) = undisturbed();
    let site = site_with_disk();
    let vault = site.path("vault");
    for moment in MOMENTS {
        let sync = Background::start(&mut site.gateway_command(&["sync", "--quiet"]));
        match moment {
            Moment::Packs(count) => {
                wait_until("packs arrive", || packs(&vault).len() >= count);
            }
            Moment::Time(part) => std::thread::sleep(took.mul_f64(part)),
        }
        assert!(sync.kill(), "{moment:?} of {took:?}: it was through");
    }
    assert!(packs(&vault).len() >= 3);
    // What a killed one left is no finding.
    site.sync();
    site.restore(&["verify", "--read-data"]).ok();
    site.assert_comes_back("vm", "vm.raw");
    let stored = total(&site.path("vault"));
    let limit = packs_bytes + packs_bytes / 20 + largest;
    assert!(
        stored <= limit,
        "{stored} bytes in packs, {packs_bytes} without a kill; limit {limit}"
    );
}

/// Killed while it sends, and its state lost as well: earlier points stay whole, later ones come.
#[test]
fn a_killed_sync_leaves_earlier_points_whole() {
    let site = Site::new();
    make_random(&site.path("vm.raw"), 16 * MIB, 6);
    site.configure_one();
    site.sync();
    fs::copy(site.path("vm.raw"), site.path("first.raw")).expect("copied");
    fill(&site.path("vm.raw"), 0, 12 * MIB, 7);
    let sync = Background::start(&mut site.gateway_command(&["sync", "--quiet"]));
    let before = packs(&site.path("vault")).len();
    wait_until("the sync sends", || {
        fs::read_dir(site.path("vault/packs"))
            .expect("packs")
            .count()
            > 0
            && (packs(&site.path("vault")).len() > before || temporary(&site) > 0)
    });
    sync.kill();
    fs::remove_dir_all(site.path("state")).expect("removed");
    site.assert_comes_back("vm@1", "first.raw");
    site.sync();
    site.assert_comes_back("vm", "vm.raw");
    site.restore(&["verify", "--read-data"]).ok();
}

/// Files under way in the vault's folder of packs.
fn temporary(site: &Site) -> usize {
    let folders = fs::read_dir(site.path("vault/packs"))
        .expect("packs")
        .flatten();
    let files =
        folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
    files.filter(|file| file.file_name().len() != 64).count()
}
