//! What the steps of a run work with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Instant;

use console::{Progress, show};
use jiff::Timestamp;
use recovery_cloud::aws::{Aws, Mark, Tags};
use recovery_plan::run::{Run, RunKind, StepKind, StepState};
use recovery_plan::{Plan, PlannedVm};
use ring::digest::{SHA256, digest};
use tokio::sync::Mutex;
use vault_format::control_log::ControlLog;
use vault_store::read::{Point, PointList};

use super::CONVERSION;
use crate::access::OpenVault;
use crate::served::CacheArgs;

/// All resources of a run have this tag, with the run's id.
pub const RUN_TAG: &str = "sparesite-run";
/// `test` or `failover`: what sweeps tests may touch nothing else.
pub const KIND_TAG: &str = "sparesite-kind";
const PLAN_TAG: &str = "sparesite-plan";
pub const VM_TAG: &str = "sparesite-vm";
pub const DISK_TAG: &str = "sparesite-disk";

/// One run, and what it happens in.
pub struct World {
    pub open: OpenVault,
    pub aws: Aws,
    pub run: String,
    pub kind: RunKind,
    /// The name of a test that stands beside others of its plan.
    pub beside: Option<String>,
    pub plan: Plan,
    /// Of each VM.
    pub points: BTreeMap<String, Point>,
    /// Fences are appended to it.
    pub log: Mutex<ControlLog>,
    pub settings: Settings,
    /// Two disks of a VM may find at the same time that its overlays are not on this machine.
    converting: StdMutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Before it was taken from whoever had it.
    pub since: Instant,
    /// Disks that are sent, of each VM together.
    bars: StdMutex<BTreeMap<String, Progress>>,
    /// Of each VM's disks, bytes that were there when this process took the run.
    sent: BTreeMap<String, u64>,
}

/// What was asked for on the command line.
#[derive(Debug, Clone)]
pub struct Settings {
    /// When a test is torn down; none for what already has a deadline, or shall have none.
    pub deadline: Option<Timestamp>,
    /// When a test ends by itself, because the cloud tears it down.
    pub over: Option<Timestamp>,
    /// Whether probes are asked; otherwise a VM serves when it runs.
    pub probes: bool,
    pub cache: CacheArgs,
    /// The folder of reports; what is changed of guests lies there meanwhile.
    pub reports: PathBuf,
}

impl World {
    /// `run` is that of the record; its points are looked for among all of the vault's.
    pub fn new(open: OpenVault, aws: Aws, run: &Run, list: PointList, settings: Settings) -> World {
        let mut points = BTreeMap::new();
        for point in list.points {
            let facts = &point.manifest.facts;
            let wanted = run.points.get(&facts.vm);
            if wanted.is_some_and(|wanted| wanted.point == facts.point.to_string()) {
                points.insert(facts.vm.clone(), point);
            }
        }
        World {
            sent: sent(run, &points),
            log: Mutex::new(open.vault.log.clone()),
            open,
            aws,
            run: run.id.clone(),
            kind: run.kind,
            beside: run.beside.clone(),
            plan: run.plan.clone(),
            points,
            settings,
            converting: StdMutex::default(),
            since: Instant::now(),
            bars: StdMutex::default(),
        }
    }

    pub fn vm(&self, name: &str) -> Result<&PlannedVm, String> {
        let found = self.plan.vms.iter().find(|vm| vm.name == name);
        found.ok_or_else(|| format!("there is no VM {name:?} in the plan"))
    }

    pub fn point(&self, vm: &str) -> Result<&Point, String> {
        let found = self.points.get(vm);
        found.ok_or_else(|| {
            format!("the recovery point of VM {vm:?} is no longer in the vault, or is damaged: undo the run, and begin another")
        })
    }

    pub fn kind_word(&self) -> &'static str {
        kind_word(self.kind)
    }

    /// Of all that is made for a VM.
    pub fn tags(&self, vm: &PlannedVm) -> Tags {
        let name = match (self.kind, &self.beside) {
            (RunKind::Test, None) => format!("{} (test)", vm.name),
            (RunKind::Test, Some(beside)) => format!("{} (test {beside})", vm.name),
            (RunKind::Failover, _) => vm.name.clone(),
        };
        let own = [
            ("Name", name.as_str()),
            (RUN_TAG, self.run.as_str()),
            (KIND_TAG, self.kind_word()),
            (PLAN_TAG, self.plan.name.as_str()),
            (VM_TAG, vm.name.as_str()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let more = vm
            .tags
            .iter()
            .filter(|(name, _)| own.iter().all(|(own, _)| own != *name));
        let more: Tags = more
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        own.into_iter().chain(more).collect()
    }

    /// A name of one attempt at one step, the same whoever makes it: 32 hexadecimal digits.
    pub fn token(&self, parts: &[&str]) -> String {
        let mut text = self.run.clone();
        for part in parts {
            text.push('\n');
            text.push_str(part);
        }
        hex::encode(&digest(&SHA256, text.as_bytes()).as_ref()[..16])
    }

    /// To be held while a VM is converted.
    pub fn converting(&self, vm: &str) -> Arc<Mutex<()>> {
        let mut all = self
            .converting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.entry(vm.to_owned()).or_default().clone()
    }

    /// The bar of a VM whose disks are sent.
    pub fn bar(&self, vm: &str) -> Progress {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            // Excluded ones too: they are made, of zeroes.
            let total = self.points.get(vm).map(|point| {
                let sizes = point.manifest.disks.iter().map(|disk| disk.size_bytes);
                sizes.sum()
            });
            Progress::go_on(vm, total, self.sent.get(vm).copied().unwrap_or(0))
        };
        bars.entry(vm.to_owned()).or_insert_with(start).clone()
    }

    /// Its disks are all sent.
    pub fn end_bar(&self, vm: &str) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = bars.remove(vm) {
            bar.finish();
        }
    }

    /// `db@17`, for people.
    pub fn shown(&self, vm: &str) -> String {
        let point = self.points.get(vm);
        let shown = point.map(|point| crate::point_view::name(&point.manifest.facts));
        show::printable(&shown.unwrap_or_else(|| vm.to_owned())).into_owned()
    }
}

fn sent(run: &Run, points: &BTreeMap<String, Point>) -> BTreeMap<String, u64> {
    let mut sent = BTreeMap::new();
    for ((step, state), notes) in run.steps.iter().zip(&run.states).zip(&run.notes) {
        let StepKind::Snapshot { vm, disk } = &step.kind else {
            continue;
        };
        let disks = points
            .get(vm)
            .map_or(&[][..], |point| &point.manifest.disks);
        let size = disks.iter().find(|one| one.name == *disk);
        let size = size.map_or(0, |disk| disk.size_bytes);
        *sent.entry(vm.clone()).or_insert(0) += match (state, Mark::from_words(notes)) {
            (StepState::Done(_) | StepState::Skipped(_), _) => size,
            // Of a converted disk that another machine began nothing is gone on with.
            _ if notes.contains_key(CONVERSION) => 0,
            (_, mark) => mark.map_or(0, |mark| mark.of(size)),
        };
    }
    sent
}

pub fn kind_word(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Test => "test",
        RunKind::Failover => "failover",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::begin;
    use crate::point_view::tests::point;
    use recovery_plan::run::RunPoint;

    const PLAN: &str = r#"
name = "p"
cloud = "aws"
region = "eu-central-1"
[[subnet]]
name = "servers"
id = "subnet-1"
range = "10.20.0.0/24"
zone = "eu-central-1a"
[[group]]
name = "servers"
[[vm]]
name = "db"
group = "servers"
instance = ["t3.medium"]
subnet = ["servers"]
"#;
    const DISKS: [&str; 4] = ["a", "b", "c", "d"];
    const BLOCK: u64 = 512 << 10;

    fn begun(of: &Point) -> Run {
        let point = RunPoint {
            point: of.manifest.facts.point.to_string(),
            disks: DISKS.map(str::to_owned).into(),
        };
        let points = [("db".to_owned(), point)].into();
        begin::imagined(begin::event(RunKind::Failover, None, PLAN, points)).unwrap()
    }

    /// So many blocks of a disk are there. The state of its checksum has 104 bytes, and does not matter here.
    fn mark(next: u64) -> BTreeMap<String, String> {
        let words = [
            ("snapshot", "snap-1".to_owned()),
            ("next", next.to_string()),
            ("put", "0".into()),
            ("zeroes", "false".into()),
            ("aggregate", "0".repeat(208)),
        ];
        let words: BTreeMap<_, _> = words.map(|(name, word)| (name.to_owned(), word)).into();
        assert!(Mark::from_words(&words).is_some());
        words
    }

    #[test]
    fn what_was_sent_before_is_what_is_whole_and_what_marks_tell() {
        let mut point = point("db", 1, 7, &DISKS);
        // No multiple of a block.
        let size = 10 * BLOCK + 512;
        point
            .manifest
            .disks
            .iter_mut()
            .for_each(|disk| disk.size_bytes = size);
        let fresh = begun(&point);
        let points = BTreeMap::from([("db".to_owned(), point)]);
        let sent_of = |states: &[(usize, StepState, BTreeMap<String, String>)]| {
            let mut run = fresh.clone();
            for (disk, state, notes) in states {
                let kind = StepKind::Snapshot {
                    vm: "db".into(),
                    disk: DISKS[*disk].into(),
                };
                let at = run.steps.iter().position(|step| step.kind == kind).unwrap();
                run.states[at] = state.clone();
                run.notes[at] = notes.clone();
            }
            sent(&run, &points)["db"]
        };
        let done = || StepState::Done(BTreeMap::new());
        let failed = || StepState::Failed("it was cut off".into());
        assert_eq!(sent_of(&[]), 0);
        assert_eq!(
            sent_of(&[(0, done(), mark(3))]),
            size,
            "whole, whatever its mark"
        );
        assert_eq!(
            sent_of(&[(0, StepState::Skipped("by hand".into()), mark(3))]),
            size
        );
        assert_eq!(sent_of(&[(0, StepState::Intended, mark(3))]), 3 * BLOCK);
        assert_eq!(
            sent_of(&[(0, failed(), mark(11))]),
            size,
            "no further than its end"
        );
        let mut converted = mark(3);
        converted.insert(CONVERSION.into(), "c1".into());
        assert_eq!(sent_of(&[(0, failed(), converted.clone())]), 0);
        assert_eq!(sent_of(&[(0, done(), converted.clone())]), size);
        let all = [
            (0, done(), BTreeMap::new()),
            (1, failed(), mark(4)),
            (2, StepState::Intended, converted),
            (3, StepState::Intended, BTreeMap::new()),
        ];
        assert_eq!(sent_of(&all), size + 4 * BLOCK);
    }
}
