//! Running VMs, each a real QEMU without a guest system, through the programs: whatever happens to the tracking of
//! changes, the next point is what QEMU has.

use std::fs;
use std::time::Duration;

use discover::discovered;
use journeys::*;
use serde_json::{Value, json};

#[path = "running/discover.rs"]
mod discover;
#[path = "running/group.rs"]
mod group;
#[path = "running/heals.rs"]
mod heals;
#[path = "running/hooked.rs"]
mod hooked;
#[path = "running/libvirt.rs"]
mod libvirt;
#[path = "running/outbox.rs"]
mod outbox;
#[path = "running/scratch.rs"]
mod scratch;
#[path = "running/stopped.rs"]
mod stopped;

/// A site with the VM `vm`.
struct Running {
    // Before the site: its files are in the site's folder.
    qemu: Qemu,
    site: Site,
}

impl Running {
    fn start() -> Self {
        Self::on(Site::new())
    }

    fn on(site: Site) -> Self {
        let qemu = Qemu::start(site.folder(), "vm");
        site.configure(&[("vm", &qemu.source())]);
        let running = Running { qemu, site };
        running.add("[scratch]\nfolder = \".\"\n");
        running
    }

    /// More configuration.
    fn add(&self, text: &str) {
        let file = self.site.path("gateway.toml");
        let folder = format!("folder = {:?}", self.site.folder());
        let text = text.replace("folder = \".\"", &folder);
        let all = fs::read_to_string(&file).expect("read") + text.as_str();
        fs::write(&file, all).expect("written");
    }

    /// To be captured every two seconds.
    fn often(&self) {
        let file = self.site.path("gateway.toml");
        let text = fs::read_to_string(&file).expect("read");
        fs::write(&file, text.replace("\"1h\"", "\"2s\"")).expect("written");
    }

    /// Somebody removes what is tracked.
    fn lose_bitmaps(&self) {
        for (node, name) in self.qemu.left().bitmaps {
            let theirs = json!({ "node": node, "name": name });
            self.qemu.run("block-dirty-bitmap-remove", theirs);
        }
    }

    /// What `run` says of the VM; null where it has only just begun.
    fn live(&self) -> Value {
        self.all_live()[0].clone()
    }

    fn all_live(&self) -> Value {
        // Not all of a CPU for asking.
        std::thread::sleep(Duration::from_millis(100));
        let run = self.site.gateway(&["status", "--json"]);
        match run.code {
            Some(1) => Value::Null,
            _ => run.json()["daemon"]["vms"].clone(),
        }
    }

    /// A point, not looked at: an unlocked kit takes a second and more.
    #[track_caller]
    fn sync(&self) -> Point {
        let mut sync = self.site.gateway_command(&["sync", "--json"]);
        let run = Run::of(sync.env("RUST_LOG", "info"));
        assert!(matches!(run.code, Some(0 | 3)), "{run}");
        let jobs = self.site.gateway(&["jobs", "vm", "--json"]).ok().json();
        let newest_first = jobs["jobs"].as_array().expect("jobs").iter();
        let mut captures = newest_first.filter(|job| job["kind"] == "capture");
        Point {
            report: run.json()["vms"][0].clone(),
            job: captures.next().expect("a capture").clone(),
            log: run.stderr,
        }
    }

    /// A point of these disks, each byte for byte what QEMU has.
    #[track_caller]
    fn point(&self, disks: &[&str]) -> Point {
        let point = self.sync();
        self.is_right(disks);
        point
    }

    /// The newest point has these disks, as QEMU has them.
    #[track_caller]
    fn is_right(&self, disks: &[&str]) {
        let back = self.site.path("back");
        let words = ["assemble", "vm", "--output", &self.site.shown("back")];
        let words = match disks {
            [_] => [&words[..], &["--format", "raw"]].concat(),
            _ => words.to_vec(),
        };
        self.site.restore(&words).ok();
        if let [disk] = disks {
            assert_same(&self.qemu.copy_disk(disk), &back);
            return fs::remove_file(back).expect("removed");
        }
        for disk in disks {
            assert_same(
                &self.qemu.copy_disk(disk),
                &back.join(format!("{disk}.raw")),
            );
        }
        let files = fs::read_dir(&back).expect("a folder");
        assert_eq!(files.count(), disks.len());
        fs::remove_dir_all(back).expect("removed");
    }

    /// Nothing of a capture is left in QEMU but the bitmaps of the newest point, and perhaps of the one before it, which was
    /// the newest until this one was published.
    #[track_caller]
    fn only_bitmaps_stay(&self) {
        let left = self.qemu.left();
        assert_eq!(left.nodes, Vec::<String>::new());
        assert!(!left.bitmaps.is_empty());
        for (node, _) in &left.bitmaps {
            let on_it = left.bitmaps.iter().filter(|(other, _)| other == node);
            assert!(on_it.count() <= 2, "{left:?}");
        }
    }
}

/// A sync's report of the VM, its job, and what it logged.
#[derive(Debug)]
struct Point {
    report: Value,
    job: Value,
    log: String,
}

const PASSES: &str = "passes over its running disks come first";

impl Point {
    #[track_caller]
    fn is_delta(&self) {
        self.is_delta_of(3 * MIB);
    }

    /// It read the chunks of what changed, and nothing was compared.
    #[track_caller]
    fn is_delta_of(&self, changed: u64) {
        assert!(!self.log.contains(PASSES), "{self:?}");
        assert_eq!(self.report["compared"], json!([]), "{self:?}");
        let read = self.report["read_bytes"].as_u64().expect("a number");
        assert!(read <= changed + 4 * MIB, "{self:?}");
    }

    /// All was compared, and why is told: while it goes on, in the report, and in the job log.
    #[track_caller]
    fn is_resync(&self, why: &str) {
        let compared = self.report["compared"].as_array().expect("reasons");
        let mut reasons = compared.iter().filter_map(Value::as_str);
        assert!(
            reasons.any(|reason| reason.contains(why)),
            "{why}: {self:?}"
        );
        assert!(self.report["passes"].as_u64() >= Some(1), "{self:?}");
        let told = self.job["why"].to_string();
        assert!(told.contains(why), "{why}: {self:?}");
        let mut lines = self.log.lines();
        let told = lines.any(|line| line.contains(PASSES) && line.contains(why));
        assert!(told, "{why}: {self:?}");
    }
}
