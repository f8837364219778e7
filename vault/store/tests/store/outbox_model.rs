//! VMs that run and are captured, in whatever order, behind an uplink that is down, slow or dies.

use crate::site::*;
use crate::tracked::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use vault_format::ids::CaptureId;
use vault_store::gateway::{Gateway, GatewayOptions, Hold, PassEnd};
use vault_store::objects::faulty::{FaultPlan, Faulty};
use vault_store::objects::{Meter, Objects, in_memory};
use vault_store::read::{PointSelector, VerifyOptions, verify};

pub const NOW: i64 = 1_700_000_000;
pub const VMS: [&str; 2] = ["first", "second"];

/// VMs that run, a gateway that captures them, and what each capture saw.
pub struct Model {
    pub site: Site,
    pub dice: Dice,
    pub gateway: Option<Gateway>,
    pub disks: [TrackedDisk; 2],
    pub captured: HashMap<CaptureId, Vec<u8>>,
    /// Of each VM, those that wait, in order.
    pub waiting: [Vec<CaptureId>; 2],
    pub superseded: usize,
    pub compared: usize,
    pub lost: usize,
    pub deaths: usize,
    pub published: usize,
}

impl Model {
    pub async fn with_outbox(seed: u64, outbox_bytes: u64) -> Self {
        let mut model = Model::new(seed).await;
        drop(model.gateway.take());
        let options = GatewayOptions {
            outbox_bytes,
            ..small_packs()
        };
        let (objects, state) = (model.site.objects.clone(), model.site.state_folder());
        let gateway = Gateway::open(objects, model.site.key(), &state, options).unwrap();
        model.gateway = Some(gateway);
        model
    }

    /// All of a VM's disk, incompressible.
    pub fn fill_disk(&mut self, vm: usize) {
        let mut bytes = vec![0; self.disks[vm].bytes.len()];
        self.dice.fill(&mut bytes);
        self.disks[vm].write(0, &bytes);
    }

    pub fn used_bytes(&mut self) -> u64 {
        self.gateway().outbox_use().unwrap().used_bytes
    }

    pub async fn new(seed: u64) -> Self {
        let site = Site::new().await;
        let disks = [disk(20, seed), disk(12, seed + 1)].map(TrackedDisk::new);
        let mut model = Model {
            site,
            dice: Dice(seed),
            gateway: None,
            disks,
            captured: HashMap::new(),
            waiting: Default::default(),
            superseded: 0,
            compared: 0,
            lost: 0,
            deaths: 0,
            published: 0,
        };
        model.begin().await;
        model
    }

    pub fn gateway(&mut self) -> &mut Gateway {
        self.gateway.as_mut().unwrap()
    }

    /// A new process: the store is in reach, and what an earlier one left is settled.
    pub async fn begin(&mut self) {
        drop(self.gateway.take());
        let mut gateway = self.site.gateway();
        gateway.begin_cycle(&|_| {}).await.unwrap();
        for vm in VMS {
            let lost = gateway.prepare_vm(vm).await.unwrap();
            self.lost += lost.len();
        }
        self.gateway = Some(gateway);
        // A point may have been published, or lost, by the one that died.
        for (vm, name) in VMS.into_iter().enumerate() {
            let known = trusted(self.gateway.as_ref().unwrap(), name);
            self.waiting[vm].retain(|id| known.contains(id));
            let points = self.points_that_wait(vm);
            let published = self.waiting[vm].len() - points;
            self.waiting[vm].drain(..published);
        }
    }

    pub fn points_that_wait(&self, vm: usize) -> usize {
        let usage = self.gateway.as_ref().unwrap().outbox_use().unwrap();
        usage.vms.get(VMS[vm]).map_or(0, |vm| vm.points as usize)
    }

    /// A process that cannot reach the store.
    pub fn begin_offline(&mut self) {
        drop(self.gateway.take());
        let nowhere = in_memory(Meter::new());
        let gateway = self.site.gateway_at(&self.site.state_folder(), nowhere);
        self.gateway = Some(gateway);
    }

    pub fn checkpoint(&mut self, vm: usize) -> Checkpoint {
        let trusted = trusted(self.gateway(), VMS[vm]);
        self.disks[vm].checkpoint(&trusted)
    }

    pub async fn capture(&mut self, vm: usize, hold: Hold) {
        let checkpoint = self.checkpoint(vm);
        self.capture_checkpoint(vm, checkpoint, hold).await;
    }

    /// What is frozen is read by a pass, with others in between, and then it is made a point.
    pub async fn capture_by_a_pass(&mut self, vm: usize, hold: Hold) {
        let checkpoint = self.checkpoint(vm);
        self.pass(vm, &checkpoint, hold).await;
        if self.dice.roll(2) == 0 {
            self.disks[1 - vm].write_random(&mut self.dice, 5);
            self.capture(1 - vm, Hold::Checkpoint).await;
        }
        self.capture_checkpoint(vm, checkpoint.after_pass(), hold)
            .await;
    }

    pub async fn pass(&mut self, vm: usize, checkpoint: &Checkpoint, hold: Hold) {
        let until = std::time::Instant::now() + Duration::from_secs(9);
        let running = checkpoint.capture(VMS[vm], NOW);
        let pass = self.gateway().pass(running, (hold, until), &|_| {});
        assert_eq!(pass.await.unwrap().1, PassEnd::Whole);
    }

    pub async fn capture_checkpoint(&mut self, vm: usize, checkpoint: Checkpoint, hold: Hold) {
        let captured =
            self.gateway()
                .capture(checkpoint.capture(VMS[vm], NOW), hold, &|_| {}, crash);
        let report = captured.await.unwrap();
        assert!(report.findings.is_empty(), "{report:?}");
        self.compared += report.compared.len();
        if hold == Hold::Superseding {
            assert_eq!(report.superseded as usize, self.waiting[vm].len());
            self.superseded += self.waiting[vm].len();
            self.waiting[vm].clear();
        }
        self.captured
            .insert(checkpoint.id, checkpoint.frozen.bytes.clone());
        self.waiting[vm].push(checkpoint.id);
    }

    /// The process dies while it captures: the disk fails somewhere.
    pub async fn fail_to_capture(&mut self, vm: usize, hold: Hold) {
        let checkpoint = self.checkpoint(vm);
        let left = self.dice.roll(6) as u64;
        let mut vm = checkpoint.capture(VMS[vm], NOW);
        vm.disks[0].source = Some(Arc::new(Failing::new(checkpoint.frozen.clone(), left)));
        let ended = self.gateway().capture(vm, hold, &|_| {}, crash).await;
        if ended.is_ok() {
            // It needed fewer reads.
            let id = checkpoint.id;
            let vm = VMS.iter().position(|name| {
                trusted(self.gateway.as_ref().unwrap(), name).first() == Some(&id)
            });
            let vm = vm.unwrap();
            if hold == Hold::Superseding {
                self.waiting[vm].clear();
            }
            self.captured.insert(id, checkpoint.frozen.bytes.clone());
            self.waiting[vm].push(id);
        }
    }

    pub async fn send_all(&mut self) {
        let sent = self.gateway().uploader().send_all().await.unwrap();
        let waited: usize = self.waiting.iter().map(Vec::len).sum();
        assert_eq!(sent.points.len(), waited, "{sent:?}");
        self.published += waited;
        self.waiting = Default::default();
        assert_eq!(self.gateway().outbox_use().unwrap().used_bytes, 0);
    }

    /// The uplink dies after some operations.
    pub async fn send_and_die(&mut self) {
        drop(self.gateway.take());
        let (seed, at) = (self.dice.roll(1000) as u64, self.dice.roll(7) as u64);
        let plan = FaultPlan::seeded(seed).dies_at(at, seed.is_multiple_of(2));
        let faulty: Arc<dyn Objects> = Arc::new(Faulty::new(self.site.objects.clone(), plan));
        let gateway = self.site.gateway_at(&self.site.state_folder(), faulty);
        self.deaths += usize::from(gateway.uploader().send_all().await.is_err());
        self.gateway = Some(gateway);
    }

    pub async fn step(&mut self) {
        let vm = self.dice.roll(2);
        match self.dice.roll(17) {
            0..=3 => {
                let blocks = 1 + self.dice.roll(20);
                self.disks[vm].write_random(&mut self.dice, blocks);
                self.capture(vm, Hold::Checkpoint).await;
            }
            4 | 5 => {
                self.disks[vm].write_random(&mut self.dice, 6);
                // Also content that another VM has, or had.
                let from = self.dice.roll(12) * CHUNK;
                let chunk = self.disks[1 - vm].bytes[from..from + CHUNK].to_vec();
                let to = self.dice.roll(12) * CHUNK;
                self.disks[vm].write(to, &chunk);
            }
            6 | 7 => self.capture(vm, Hold::Superseding).await,
            8 => {
                let hold = [Hold::Checkpoint, Hold::Superseding][self.dice.roll(2)];
                self.fail_to_capture(vm, hold).await;
            }
            9 => self.begin_offline(),
            10 => {
                self.send_and_die().await;
                self.begin().await;
            }
            11 => self.disks[vm].forget_bitmaps(),
            12 => self.lose_a_pack().await,
            13 => {
                self.disks[vm].write_random(&mut self.dice, 9);
                let pass = self.checkpoint(vm);
                self.begin().await;
                self.pass(vm, &pass, Hold::Nothing).await;
            }
            14 => {
                self.disks[vm].write_random(&mut self.dice, 9);
                let hold = [Hold::Checkpoint, Hold::Superseding][self.dice.roll(2)];
                self.capture_by_a_pass(vm, hold).await;
            }
            _ => {
                self.begin().await;
                self.send_all().await;
            }
        }
    }

    /// A file of the outbox is gone, or is not what it was.
    pub async fn lose_a_pack(&mut self) {
        drop(self.gateway.take());
        let folder = self.site.state_folder().join("outbox");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect();
        files.sort();
        if !files.is_empty() {
            let file = &files[self.dice.roll(files.len())];
            std::fs::remove_file(file).unwrap();
        }
        self.begin().await;
    }

    /// Every point is what its disk was when it was captured, and a VM's points are in order.
    pub async fn check(&mut self) {
        self.begin().await;
        self.send_all().await;
        let list = self.site.vault().await.points().await.unwrap();
        assert_eq!(list.damaged, [], "nothing was promised that is not there");
        for point in &list.points {
            let facts = &point.manifest.facts;
            let what = format!("{}@{}", facts.vm, facts.point.sequence);
            let selector = PointSelector::Sequence(facts.point.sequence);
            let restored = self.site.restore(&facts.vm, selector).await;
            let restored = restored.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(restored == self.captured[&facts.capture], "{what}");
        }
        let vault = self.site.vault().await;
        let verified = verify(&vault, &VerifyOptions { read_data: true }, &|_| {});
        let verified = verified.await.unwrap();
        assert!(
            verified.damaged.is_empty() && verified.findings.is_empty(),
            "{verified:?}"
        );
    }
}
