//! The damage matrix: {delete, truncate, flip, swap} × {every kind of object}. What `verify` says is restorable is what
//! restores, nothing is silently wrong, and the next sync heals what the site's disk still holds.

use crate::site::*;
use std::path::{Path, PathBuf};
use vault_store::gateway::PointReport;
use vault_store::read::{PointSelector, VerifyOptions, log_damage, verify};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Delete,
    Truncate,
    Flip,
    Swap,
}

const HARMS: [Harm; 4] = [Harm::Delete, Harm::Truncate, Harm::Flip, Harm::Swap];

/// A vault with one of everything: many packs, a segment, a layer object, three points.
struct Whole {
    site: Site,
    versions: Vec<Vec<u8>>,
}

impl Whole {
    async fn new() -> Self {
        let site = Site::new().await;
        let mut disk = vec![7; 2200 * CHUNK];
        Dice(1).fill(&mut disk[..300 * CHUNK]);
        let mut versions = Vec::new();
        for round in 0..3 {
            if round > 0 {
                Dice(50 + round).fill(&mut disk[round as usize * CHUNK..][..2 * BLOCK]);
            }
            site.sync("vm", &disk).await.unwrap();
            versions.push(disk.clone());
        }
        Whole { site, versions }
    }

    /// A copy to be harmed.
    fn copy(&self) -> Copy<'_> {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&self.site.folder, folder.path());
        Copy {
            whole: self,
            folder,
        }
    }

    fn objects(&self, below: &str) -> Vec<PathBuf> {
        let root = self.site.vault_folder();
        let mut found = Vec::new();
        let mut folders = vec![root.join(below)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push(path.strip_prefix(&root).unwrap().to_owned()),
                }
            }
        }
        found.sort();
        found
    }
}

struct Copy<'a> {
    whole: &'a Whole,
    folder: tempfile::TempDir,
}

impl Copy<'_> {
    fn path(&self, object: &Path) -> PathBuf {
        self.folder.path().join("vault").join(object)
    }

    /// `other` is of the same kind where there is one.
    fn harm(&self, harm: Harm, object: &Path, other: &Path) {
        let path = self.path(object);
        match harm {
            Harm::Delete => std::fs::remove_file(&path).unwrap(),
            Harm::Truncate => {
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            }
            Harm::Flip => {
                let mut bytes = std::fs::read(&path).unwrap();
                let at = bytes.len() / 3;
                bytes[at] ^= 4;
                std::fs::write(&path, bytes).unwrap();
            }
            Harm::Swap => {
                let (a, b) = (
                    std::fs::read(&path).unwrap(),
                    std::fs::read(self.path(other)).unwrap(),
                );
                std::fs::write(&path, b).unwrap();
                std::fs::write(self.path(other), a).unwrap();
            }
        }
    }

    async fn site(&self) -> Site {
        self.whole.site.at(self.folder.path()).await
    }

    /// Which points restore, right; a wrong one fails the test.
    async fn restorable(&self, what: &str) -> Vec<bool> {
        let site = self.site().await;
        let mut out = Vec::new();
        for (at, version) in self.whole.versions.iter().enumerate() {
            match site
                .restore("vm", PointSelector::Sequence(at as u64 + 1))
                .await
            {
                Ok(disk) => {
                    assert!(
                        disk == *version,
                        "{what}: point {} is silently wrong",
                        at + 1
                    );
                    out.push(true);
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    out.push(false);
                }
            }
        }
        out
    }

    /// What `verify --read-data` says of the three points; a point it does not list is lost.
    async fn verified(&self, what: &str) -> (Vec<bool>, usize) {
        let site = self.site().await;
        let mut vault = site.vault().await;
        let report = verify(&vault, &VerifyOptions { read_data: true }, &|_| {})
            .await
            .unwrap();
        for point in report.points.iter().filter(|point| !point.restorable) {
            println!("{what}: point {}: {:?}", point.point.sequence, point.why);
        }
        let of = |sequence: u64| {
            report
                .points
                .iter()
                .any(|p| p.point.sequence == sequence && p.restorable)
        };
        let verdicts = (1..=3).map(of).collect();
        log_damage(&mut vault, &report, jiff::Timestamp::now())
            .await
            .unwrap();
        (
            verdicts,
            report.damaged.len() + report.findings.len() + vault.findings.len(),
        )
    }

    async fn heals(&self, what: &str) {
        let site = self.site().await;
        let disk = &self.whole.versions[2];
        // A manifest that the store lost under the gateway's feet is a conflict first, then a new epoch.
        let report = match site.sync("vm", disk).await {
            Ok(report) => report,
            Err(_) => site
                .sync("vm", disk)
                .await
                .unwrap_or_else(|e| panic!("{what}: {e}")),
        };
        let sequence = report.point.unwrap().sequence;
        let restored = site.restore("vm", PointSelector::Sequence(sequence)).await;
        assert!(
            restored.unwrap_or_else(|e| panic!("{what}, healed: {e}")) == *disk,
            "{what}: healed wrongly"
        );
    }
}

/// Harms `object` in each way; `expected` says which of the three points survive each.
async fn matrix(whole: &Whole, object: &Path, other: &Path, expected: impl Fn(Harm) -> [bool; 3]) {
    for harm in HARMS {
        let what = format!("{harm:?} {}", object.display());
        let copy = whole.copy();
        copy.harm(harm, object, other);
        assert_eq!(
            copy.restorable(&what).await,
            expected(harm),
            "{what}: what restores"
        );
        let (verdicts, findings) = copy.verified(&what).await;
        assert_eq!(verdicts, expected(harm), "{what}: what verify says");
        assert!(findings > 0, "{what}: verify says nothing");
        copy.heals(&what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn harm_to_any_kind_of_object_loses_exactly_what_needs_it_and_heals() {
    let whole = Whole::new().await;
    let points = whole.objects("points");
    let (packs, layers, index) = (
        whole.objects("packs"),
        whole.objects("maps"),
        whole.objects("index"),
    );
    assert!(points.len() == 3 && packs.len() > 64 && !layers.is_empty() && !index.is_empty());

    // A manifest: its point alone. Swapped: both.
    let swapped = |harm| {
        if harm == Harm::Swap {
            [true, false, false]
        } else {
            [true, false, true]
        }
    };
    matrix(&whole, &points[1], &points[2], swapped).await;
    // The base layer: all points share it.
    matrix(&whole, &layers[0], &index[0], |_| [false; 3]).await;
    // A segment: manifests and the packs' own trailers still tell where everything is.
    let with_point = |harm| {
        if harm == Harm::Swap {
            [false, true, true]
        } else {
            [true; 3]
        }
    };
    matrix(&whole, &index[0], &points[0], with_point).await;
    // The log and the vault's configuration: certificates are in every object, and the kit has a copy.
    matrix(
        &whole,
        Path::new("control/log/0000000001"),
        Path::new("control/log/0000000002"),
        |_| [true; 3],
    )
    .await;
    matrix(
        &whole,
        Path::new("vault/0000000001.json"),
        Path::new("control/log/0000000001"),
        |_| [true; 3],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn harm_to_a_pack_loses_the_points_that_need_it_and_heals() {
    let whole = Whole::new().await;
    let packs = whole.objects("packs");
    // Those of the patches, and some of the others; their names are random, and so is their order.
    let small = |pack: &Path| {
        let path = whole.site.vault_folder().join(pack);
        std::fs::metadata(path).unwrap().len() < 50_000
    };
    let chosen = |(nth, pack): &(usize, &PathBuf)| nth % 29 == 0 || small(pack);
    for (nth, pack) in packs.iter().enumerate().filter(chosen) {
        for harm in HARMS {
            let what = format!("{harm:?} pack {nth}");
            let copy = whole.copy();
            copy.harm(harm, pack, &packs[(nth + 1) % packs.len()]);
            let restorable = copy.restorable(&what).await;
            let (verdicts, findings) = copy.verified(&what).await;
            assert!(findings > 0, "{what}");
            assert_eq!(verdicts, restorable, "{what}");
            copy.heals(&what).await;
        }
    }
}

fn remove_packs(site: &Site, names: &[String]) {
    assert!(!names.is_empty());
    for name in names {
        std::fs::remove_file(site.vault_folder().join(name)).unwrap();
    }
}

async fn pack_names(site: &Site) -> Vec<String> {
    let listed = site.objects.list("packs/").await.unwrap();
    listed.into_iter().map(|listed| listed.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_whose_base_is_lost_is_sent_again() {
    let site = Site::new().await;
    let mut disk = vec![0; 8 * CHUNK];
    Dice(1).fill(&mut disk);
    site.sync("vm", &disk).await.unwrap();
    let bases = pack_names(&site).await;
    Dice(2).fill(&mut disk[3 * CHUNK..3 * CHUNK + BLOCK]);
    assert_eq!(site.sync("vm", &disk).await.unwrap().chunks_patched, 1);
    remove_packs(&site, &bases);
    let mut vault = site.vault().await;
    let report = verify(&vault, &VerifyOptions::default(), &|_| {})
        .await
        .unwrap();
    let now = jiff::Timestamp::now();
    log_damage(&mut vault, &report, now).await.unwrap();
    let report = site.sync("vm", &disk).await.unwrap();
    assert_eq!((report.chunks_full, report.chunks_patched), (8, 0));
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rebuild_misses_is_sent_again() {
    let site = Site::new().await;
    let mut disk = vec![0; 8 * CHUNK];
    Dice(1).fill(&mut disk);
    site.sync("vm", &disk).await.unwrap();
    remove_packs(&site, &pack_names(&site).await[..1]);
    std::fs::remove_dir_all(site.state_folder()).unwrap();
    let report = site.sync("vm", &disk).await.unwrap();
    assert!((1..8).contains(&report.chunks_full), "{report:?}");
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}

/// A pack for each chunk, so that one can be lost.
async fn sync_in_lone_packs(site: &Site, vm: &str, disks: &[&[u8]]) -> PointReport {
    let mut gateway = site.lone_packs(site.objects.clone());
    let mut vm = capture(vm, disks[0]);
    for (number, disk) in disks.iter().enumerate().skip(1) {
        let mut more = capture("", disk).disks.remove(0);
        more.name = format!("disk{number}");
        vm.disks.push(more);
    }
    gateway.begin_cycle(&|_| {}).await.unwrap();
    gateway.sync_vm(vm, &|_| {}, crash).await.unwrap()
}

/// Loses the pack of the full record of `chunk`, and tells the gateways.
async fn lose(site: &Site, chunk: &[u8]) {
    let id = chunk_id(site, chunk);
    let packs = whole_packs(site).await;
    let holds = packs
        .into_iter()
        .filter(|(_, its)| its[0].id == id && its[0].kind.depth() == 0);
    let names: Vec<String> = holds.map(|(name, _)| name).collect();
    assert_eq!(names.len(), 1);
    remove_packs(site, &names);
    log_what_is_damaged(site).await;
}

fn random_chunk(seed: u64) -> Vec<u8> {
    let mut chunk = vec![0; CHUNK];
    Dice(seed).fill(&mut chunk);
    chunk
}

fn with_block(chunk: &[u8], block: usize, seed: u64) -> Vec<u8> {
    let mut changed = chunk.to_vec();
    Dice(seed).fill(&mut changed[block * BLOCK..(block + 1) * BLOCK]);
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_a_patch_over_a_lost_chunk_that_is_on_its_way_again() {
    let site = Site::new().await;
    let shared = random_chunk(1);
    sync_in_lone_packs(&site, "vm", &[&shared, &shared]).await;
    lose(&site, &shared).await;
    // The first disk sends it again, and the second one had it so far.
    let changed = with_block(&shared, 3, 2);
    let report = sync_in_lone_packs(&site, "vm", &[&shared, &changed]).await;
    assert_eq!((report.chunks_full, report.chunks_patched), (2, 0));
    // It has arrived now, and is as good as any other.
    let again = with_block(&shared, 4, 3);
    let report = sync_in_lone_packs(&site, "vm", &[&again, &changed]).await;
    assert_eq!((report.chunks_full, report.chunks_patched), (0, 1));
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_chunk_comes_back_full_so_that_what_was_built_on_it_comes_back_too() {
    let site = Site::new().await;
    let lost = random_chunk(1);
    let (over_it, beside) = (with_block(&lost, 1, 2), with_block(&lost, 2, 3));
    sync_in_lone_packs(&site, "vm", &[&lost]).await;
    let report = sync_in_lone_packs(&site, "vm", &[&over_it]).await;
    assert_eq!(report.chunks_patched, 1);
    // Full, since another VM had it first.
    let report = sync_in_lone_packs(&site, "other", &[&beside]).await;
    assert_eq!(report.chunks_full, 1);
    let report = sync_in_lone_packs(&site, "vm", &[&beside]).await;
    assert_eq!(report.chunks_known, 1);
    lose(&site, &lost).await;
    for sequence in [1, 2] {
        let selector = PointSelector::Sequence(sequence);
        site.restore("vm", selector).await.unwrap_err();
    }
    // A patch over what the disk held last would be small, but no patch stands on one of its own depth.
    let report = sync_in_lone_packs(&site, "vm", &[&lost]).await;
    assert_eq!((report.chunks_full, report.chunks_patched), (1, 0));
    for (sequence, version) in (1..).zip([&lost, &over_it, &beside, &lost]) {
        let restored = site.restore("vm", PointSelector::Sequence(sequence)).await;
        assert!(restored.unwrap() == *version, "point {sequence}");
    }
}
