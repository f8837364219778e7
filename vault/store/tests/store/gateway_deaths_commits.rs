//! The process dies before each commit of its state in turn, while packs are lost that had not arrived yet: whatever it has
//! published by then, and whatever the next one publishes, is what the disk was.

use crate::site::*;
use crate::tracked::*;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vault_format::ids::CaptureId;
use vault_format::names;
use vault_store::StoreError;
use vault_store::gateway::{Gateway, Hold, PassEnd};
use vault_store::objects::faulty::{FaultPlan, Faulty};
use vault_store::objects::{Meter, in_memory};
use vault_store::read::{PointSelector, VerifyOptions, verify};

const NOW: i64 = 1_700_000_000;
const VMS: [&str; 2] = ["first", "second"];

/// Two VMs that run, and what each capture of them saw.
#[derive(Clone)]
struct Guests {
    disks: [TrackedDisk; 2],
    captured: HashMap<CaptureId, Vec<u8>>,
}

impl Guests {
    fn new(first: Vec<u8>) -> Self {
        Guests {
            disks: [first, disk(12, 2)].map(TrackedDisk::new),
            captured: HashMap::new(),
        }
    }

    fn checkpoint(&mut self, gateway: &Gateway, vm: usize) -> Checkpoint {
        let checkpoint = checkpoint(gateway, VMS[vm], &mut self.disks[vm]);
        let bytes = checkpoint.frozen.bytes.clone();
        self.captured.insert(checkpoint.id, bytes);
        checkpoint
    }

    async fn capture(&mut self, gateway: &mut Gateway, vm: usize) -> Result<(), StoreError> {
        let checkpoint = self.checkpoint(gateway, vm);
        let capture = checkpoint.capture(VMS[vm], NOW);
        let captured = gateway.capture(capture, Hold::Checkpoint, &|_| {}, crash);
        captured.await.map(drop)
    }

    async fn pass(&mut self, gateway: &mut Gateway, vm: usize) {
        let checkpoint = self.checkpoint(gateway, vm);
        read_pass(gateway, vm, &checkpoint).await;
    }

    /// The pass that is to be gone on with, if one is: over the disk as it is now.
    async fn go_on(&mut self, gateway: &mut Gateway, vm: usize) {
        let draft = gateway.draft(VMS[vm]).unwrap();
        if let Some(id) = draft.and_then(|draft| draft.under_way) {
            let running = self.disks[vm].checkpoint(&[]);
            read_pass(gateway, vm, &Checkpoint { id, ..running }).await;
        }
    }

    /// The disk fails while it is read for the second batch.
    async fn fail_to_capture(&mut self, gateway: &mut Gateway, vm: usize, reads: u64) {
        let checkpoint = self.checkpoint(gateway, vm);
        let mut capture = checkpoint.capture(VMS[vm], NOW);
        capture.disks[0].source = Some(Arc::new(Failing::new(checkpoint.frozen.clone(), reads)));
        let captured = gateway.capture(capture, Hold::Checkpoint, &|_| {}, crash);
        captured.await.unwrap_err();
    }

    /// Random bytes in one block of each of these chunks.
    fn change(&mut self, vm: usize, block: usize, chunks: &[usize]) {
        for chunk in chunks {
            let mut bytes = [0; BLOCK];
            Dice((block * 1000 + chunk) as u64).fill(&mut bytes);
            self.disks[vm].write(chunk * CHUNK + block * BLOCK, &bytes);
        }
    }

    /// Every point is what its disk was, and nothing that a point needs is missing.
    async fn check(&self, site: &Site, what: &str) -> usize {
        let list = site.vault().await.points().await.unwrap();
        assert_eq!(list.damaged, [], "{what}");
        for point in &list.points {
            let facts = &point.manifest.facts;
            let selector = PointSelector::Sequence(facts.point.sequence);
            let restored = site.restore(&facts.vm, selector).await;
            let what = format!("{what}: {}@{}", facts.vm, facts.point.sequence);
            let restored = restored.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(restored == self.captured[&facts.capture], "{what}");
        }
        let vault = site.vault().await;
        let verified = verify(&vault, &VerifyOptions { read_data: true }, &|_| {});
        let verified = verified.await.unwrap();
        assert!(
            verified.damaged.is_empty() && verified.findings.is_empty(),
            "{what}: {verified:?}"
        );
        list.points.len()
    }
}

async fn read_pass(gateway: &mut Gateway, vm: usize, checkpoint: &Checkpoint) {
    let until = Instant::now() + Duration::from_secs(60);
    let pass = gateway.pass(
        checkpoint.capture(VMS[vm], NOW),
        (Hold::Nothing, until),
        &|_| {},
    );
    assert_eq!(pass.await.unwrap().1, PassEnd::Whole);
}

/// A process that cannot reach the store.
fn offline(site: &Site) -> Gateway {
    site.gateway_at(&site.state_folder(), in_memory(Meter::new()))
}

fn outbox(site: &Site) -> Vec<PathBuf> {
    let files = std::fs::read_dir(site.state_folder().join("outbox")).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

async fn settle(gateway: &mut Gateway) -> Result<usize, StoreError> {
    gateway.begin_cycle(&|_| {}).await?;
    let mut lost = 0;
    for vm in VMS {
        lost += gateway.prepare_vm(vm).await?.len();
    }
    Ok(lost)
}

/// A cycle of both VMs that dies after so many commits.
async fn dying_cycle(site: &Site, guests: &mut Guests, commits: u64) -> Result<(), StoreError> {
    let mut gateway = site.gateway();
    gateway.dies_after_commits(commits);
    settle(&mut gateway).await?;
    for vm in [0, 1] {
        guests.capture(&mut gateway, vm).await?;
    }
    gateway.uploader().send_all().await.map(drop)
}

/// In copies of `base`, whose outbox lacks each of `lost` in turn, a cycle dies before each of its commits; then others go on.
async fn dying(base: &Site, guests: &Guests, lost: &[PathBuf]) {
    assert!(!lost.is_empty());
    for pack in lost {
        let pack = pack.strip_prefix(&base.folder).unwrap();
        let mut commits = 0;
        loop {
            let (site, _folder) = base.copy().await;
            let mut guests = guests.clone();
            std::fs::remove_file(site.folder.join(pack)).unwrap();
            let died = dying_cycle(&site, &mut guests, commits).await.is_err();
            let what = format!("{} is lost, death before commit {commits}", pack.display());
            // The daemon sends before it asks about packs.
            drop(site.gateway().uploader().send_all().await);
            guests.check(&site, &what).await;
            guests.change(0, 13, &[3, 8]);
            let mut gateway = site.gateway();
            settle(&mut gateway).await.unwrap();
            for vm in [0, 1] {
                guests.go_on(&mut gateway, vm).await;
                guests.capture(&mut gateway, vm).await.unwrap();
            }
            gateway.uploader().send_all().await.unwrap();
            let points = guests.check(&site, &what).await;
            assert!(points >= 2, "{what}: {points} points");
            for (vm, disk) in VMS.iter().zip(&guests.disks) {
                let newest = site.restore(vm, PointSelector::Latest).await.unwrap();
                assert!(newest == disk.bytes, "{what}: the newest point of {vm}");
            }
            if !died {
                break;
            }
            commits += 1;
            assert!(commits < 200, "it has not so many commits");
        }
        assert!(commits > 8, "{commits} commits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_a_lost_pack_takes_with_it_go_together() {
    let (site, mut guests) = (Site::new().await, Guests::new(disk(20, 1)));
    let mut gateway = site.gateway();
    settle(&mut gateway).await.unwrap();
    for vm in [0, 1] {
        guests.capture(&mut gateway, vm).await.unwrap();
    }
    gateway.uploader().send_all().await.unwrap();
    drop(gateway);
    let mut gateway = offline(&site);
    let before = outbox(&site);
    assert!(before.is_empty());
    guests.change(0, 1, &[2, 5, 9]);
    guests.capture(&mut gateway, 0).await.unwrap();
    let second = outbox(&site);
    // The other VM gets content that only the waiting point brings.
    let chunk = guests.disks[0].bytes[5 * CHUNK..6 * CHUNK].to_vec();
    guests.disks[1].write(4 * CHUNK, &chunk);
    guests.change(1, 2, &[7]);
    guests.capture(&mut gateway, 1).await.unwrap();
    // Beside what the lost one changed, and over it.
    guests.change(0, 3, &[9, 11]);
    guests.capture(&mut gateway, 0).await.unwrap();
    guests.change(0, 4, &[2, 12]);
    guests.capture(&mut gateway, 0).await.unwrap();
    drop(gateway);
    dying(&site, &guests, &second).await;
}

/// A disk of whose chunks each is another one, and nearly empty.
fn sparse(chunks: usize) -> Vec<u8> {
    let mut disk = vec![0; chunks * CHUNK];
    for (position, chunk) in disk.chunks_exact_mut(CHUNK).enumerate() {
        Dice(position as u64).fill(&mut chunk[..40]);
    }
    disk
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_forgets_what_a_lost_pack_brought_and_reads_it_again() {
    let (site, mut guests) = (Site::new().await, Guests::new(sparse(264)));
    let mut gateway = site.gateway();
    settle(&mut gateway).await.unwrap();
    guests.capture(&mut gateway, 1).await.unwrap();
    gateway.uploader().send_all().await.unwrap();
    guests.pass(&mut gateway, 0).await;
    // Two batches of 128 chunks and more. What the first one brings waits in the outbox, over what only the pass saw.
    let changed: Vec<usize> = (0..264).step_by(2).collect();
    guests.change(0, 5, &changed);
    guests.fail_to_capture(&mut gateway, 0, 130).await;
    drop(gateway);
    dying(&site, &guests, &outbox(&site)[..2]).await;
}

/// What is read while a guest waits is on the disk only with its point: the machine may go down before.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_took_of_a_draft_is_read_again() {
    let (base, mut guests) = (Site::new().await, Guests::new(sparse(264)));
    let mut gateway = base.gateway();
    settle(&mut gateway).await.unwrap();
    guests.pass(&mut gateway, 0).await;
    let changed: Vec<usize> = (0..264).step_by(2).collect();
    // The second try's packs stand on those of the first.
    for block in [5, 6] {
        guests.change(0, block, &changed);
        guests.fail_to_capture(&mut gateway, 0, 130).await;
    }
    drop(gateway);
    let laid = outbox(&base);
    assert!(laid.len() > 3, "{laid:?}");
    for pack in &laid {
        let whole = std::fs::read(pack).unwrap();
        let (half, zeros) = (whole[..whole.len() / 2].to_vec(), vec![0; whole.len()]);
        for left in [Vec::new(), half, zeros] {
            let (site, _folder) = base.copy().await;
            let mut guests = guests.clone();
            let pack = site.folder.join(pack.strip_prefix(&base.folder).unwrap());
            std::fs::write(&pack, &left).unwrap();
            let what = format!("{}: {} bytes are left", pack.display(), left.len());
            let mut gateway = site.gateway();
            assert!(!pack.exists(), "{what}");
            assert_eq!(outbox(&site).len(), laid.len() - 1, "{what}");
            // The point stands on what is whole, whether or not anyone asked about the rest.
            guests.capture(&mut gateway, 0).await.unwrap();
            assert_eq!(settle(&mut gateway).await.unwrap(), 0, "{what}");
            let sent = gateway.uploader().send_all().await.unwrap();
            assert_eq!(sent.points.len(), 1, "{what}");
            assert_eq!(guests.check(&site, &what).await, 1, "{what}");
        }
    }
}

/// Uploads of what waits die at each operation in turn: what arrived is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_on_pack_by_pack_after_a_death() {
    let mut table = vec![0; 20 * CHUNK];
    Dice(80).fill(&mut table);
    let (base, mut guests) = (Site::new().await, Guests::new(table));
    let mut gateway = base.gateway();
    settle(&mut gateway).await.unwrap();
    guests.capture(&mut gateway, 0).await.unwrap();
    drop(gateway);
    let packs = async |site: &Site| site.objects.list(names::PACKS).await.unwrap().len() as u64;
    let (before, mut deaths, mut went_on) = (packs(&base).await, 0, 0);
    for (at, applied) in (0..).flat_map(|at| [(at, false), (at, true)]) {
        let (site, _folder) = base.copy().await;
        let plan = FaultPlan::seeded(1).dies_at(at, applied);
        let dying = Arc::new(Faulty::new(site.objects.clone(), plan));
        let gateway = site.gateway_at(&site.state_folder(), dying);
        let died = gateway.uploader().send_all().await.is_err();
        drop(gateway);
        let arrived = packs(&site).await - before;
        let sent = site.gateway().uploader().send_all().await.unwrap();
        let all = packs(&site).await - before;
        assert!(all > 4, "{all} packs");
        // Of one the answer was lost.
        let again = u64::from(applied);
        assert!(
            arrived + sent.packs <= all + again,
            "at {at}: {arrived} and {sent:?} of {all}"
        );
        if !died {
            break;
        }
        deaths += 1;
        went_on += u64::from(arrived > 0 && sent.packs > 0);
    }
    assert!(
        deaths > 10 && went_on > 5,
        "{deaths} deaths, {went_on} in the middle"
    );
}
