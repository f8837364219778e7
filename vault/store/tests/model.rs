//! A model: random writes, growing, syncs, lost states, rebuilds, damage and restores, against plain byte vectors.

mod site;

use site::*;
use vault_store::read::PointSelector;

struct Model {
    site: Site,
    dice: Dice,
    disks: Vec<Vec<u8>>,
    /// What each point of each VM must hold.
    points: Vec<Vec<Vec<u8>>>,
}

impl Model {
    async fn new(seed: u64) -> Self {
        let disks = vec![disk(9, seed), disk(5, seed + 1)];
        Model {
            site: Site::new().await,
            dice: Dice(seed),
            disks,
            points: vec![Vec::new(); 2],
        }
    }

    async fn step(&mut self) {
        let vm = self.dice.roll(2);
        match self.dice.roll(12) {
            0..=4 => self.write(vm),
            5 => self.zero(vm),
            6 => self.copy_chunk(vm),
            7 => self.resize(vm),
            8 if self.dice.roll(3) == 0 => drop(std::fs::remove_dir_all(self.site.state_folder())),
            9 if self.dice.roll(3) == 0 => {
                let mut gateway = self.site.gateway();
                gateway.rebuild(&|_| {}).await.unwrap();
            }
            10 if !self.points[vm].is_empty() => self.check(vm).await,
            _ => self.sync(vm).await,
        }
    }

    fn write(&mut self, vm: usize) {
        for _ in 0..self.dice.roll(6) + 1 {
            let length = self.dice.roll(9000) + 1;
            let at = self
                .dice
                .roll(self.disks[vm].len() - length.min(self.disks[vm].len() - 1));
            let end = (at + length).min(self.disks[vm].len());
            self.dice.fill(&mut self.disks[vm][at..end]);
        }
    }

    fn zero(&mut self, vm: usize) {
        let at = self.dice.roll(self.disks[vm].len());
        let end = (at + self.dice.roll(2 * CHUNK)).min(self.disks[vm].len());
        self.disks[vm][at..end].fill(0);
    }

    /// From one VM to the other: the vault has it already.
    fn copy_chunk(&mut self, vm: usize) {
        let chunks = self.disks[0].len().min(self.disks[1].len()) / CHUNK;
        let (from, to) = (
            self.dice.roll(chunks) * CHUNK,
            self.dice.roll(chunks) * CHUNK,
        );
        let chunk = self.disks[1 - vm][from..from + CHUNK].to_vec();
        self.disks[vm][to..to + CHUNK].copy_from_slice(&chunk);
    }

    fn resize(&mut self, vm: usize) {
        let length = (self.dice.roll(10) + 2) * CHUNK + self.dice.roll(3) * 512;
        self.disks[vm].resize(length, 0);
    }

    async fn sync(&mut self, vm: usize) {
        let report = self
            .site
            .sync(["one", "two"][vm], &self.disks[vm])
            .await
            .unwrap();
        self.points[vm].push(self.disks[vm].clone());
        assert_eq!(report.point.unwrap().sequence, self.points[vm].len() as u64);
    }

    async fn check(&mut self, vm: usize) {
        let sequence = self.dice.roll(self.points[vm].len());
        let selector = PointSelector::Sequence(sequence as u64 + 1);
        let restored = self
            .site
            .restore(["one", "two"][vm], selector)
            .await
            .unwrap();
        assert!(
            restored == self.points[vm][sequence],
            "VM {vm}, point {}",
            sequence + 1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_point_is_what_the_disk_was() {
    for seed in 0..6 {
        let mut model = Model::new(seed).await;
        for _ in 0..60 {
            model.step().await;
        }
        for vm in 0..2 {
            for _ in 0..4.min(model.points[vm].len()) {
                model.check(vm).await;
            }
        }
    }
}
