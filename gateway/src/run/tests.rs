//! The daemon over a site that is only claimed, in time that only seems to pass.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::Instant};
use vault_store::objects::Throttle;

use super::{clock::PausedClock, work::Published, *};
use crate::{
    config::Config,
    interrupt::Interrupt,
    jobs::{Job, JobKind, JobOutcome, newest},
};

mod fenced;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Captures and uploads by sleeping.
struct Claimed {
    clock: PausedClock,
    interrupt: Interrupt,
    site: Mutex<Site>,
}

#[derive(Default)]
struct Site {
    vms: Vec<Known>,
    /// VM and instant, in order.
    outbox: Vec<(usize, Timestamp)>,
    /// Captures of this VM fail, panic, end without a word, or ignore the interrupt.
    failing: Option<usize>,
    panicking: Option<usize>,
    wordless: Option<usize>,
    deaf: Option<usize>,
    upload_fails: bool,
    /// Uploads find nothing that they can send.
    fenced: bool,
    /// The vault answers captures.
    answers: bool,
    answered: Option<Timestamp>,
    /// The state's database is broken.
    broken: bool,
    /// Every call, with its VMs.
    captures: Vec<(Vec<usize>, bool)>,
    uploads: u32,
}

impl Claimed {
    fn site<T>(&self, f: impl FnOnce(&mut Site) -> T) -> T {
        f(&mut self.site.lock().expect("not poisoned"))
    }

    fn job(&self, kind: JobKind, vm: usize, start: Timestamp, outcome: JobOutcome) -> Job {
        Job::new(kind, Some(NAMES[vm]), start, self.clock.now(), outcome)
    }

    async fn sleep(&self, length: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(length) => true,
            () = self.interrupt.wait() => false,
        }
    }
}

impl Work for Claimed {
    async fn standing(&self) -> anyhow::Result<Standing> {
        anyhow::ensure!(!self.site(|site| site.broken), "the state is broken");
        Ok(self.site(|site| Standing {
            vms: site.vms.clone(),
            queued_bytes: site.outbox.len() as u64 * 1000,
        }))
    }

    async fn capture(&self, vms: Vec<usize>, first: bool) -> Vec<Job> {
        let start = self.clock.now();
        let is = |vm: Option<usize>| vm.is_some_and(|vm| vms.contains(&vm));
        let (deaf, panics) = self.site(|site| {
            site.captures.push((vms.clone(), first));
            (is(site.deaf), is(site.panicking))
        });
        assert!(!panics, "as asked");
        if deaf {
            tokio::time::sleep(100 * HOUR).await;
        }
        let outcome = match self.sleep(MINUTE).await {
            false => JobOutcome::Stopped,
            true if self.site(|site| is(site.failing)) => JobOutcome::Failed,
            true => JobOutcome::Done,
        };
        if self.site(|site| is(site.wordless)) {
            return Vec::new();
        }
        if outcome == JobOutcome::Done {
            let now = self.clock.now();
            self.site(|site| {
                if site.answers {
                    site.answered = Some(now);
                }
                for vm in &vms {
                    site.outbox.push((*vm, start));
                    site.vms[*vm].queued += 1;
                    site.vms[*vm].captured_at = Some(start);
                }
            });
        }
        vms.iter()
            .map(|vm| Job {
                why: vec!["as asked".into()],
                ..self.job(JobKind::Capture, *vm, start, outcome)
            })
            .collect()
    }

    async fn upload(&self) -> Vec<Job> {
        let start = self.clock.now();
        let (vm, captured_at) = self.site(|site| {
            site.uploads += 1;
            site.outbox[0]
        });
        if self.site(|site| site.fenced) {
            // Repeated at once, it would take no time and have no end.
            assert!(self.site(|site| site.uploads) < 1000);
            return Vec::new();
        }
        if !self.sleep(MINUTE).await {
            return vec![self.job(JobKind::Upload, vm, start, JobOutcome::Stopped)];
        }
        if self.site(|site| site.upload_fails) {
            return vec![self.job(JobKind::Upload, vm, start, JobOutcome::Failed)];
        }
        self.site(|site| {
            site.outbox.remove(0);
            let known = &mut site.vms[vm];
            known.queued -= 1;
            let sequence = known
                .published
                .as_ref()
                .map_or(1, |point| point.sequence + 1);
            known.published = Some(Published {
                sequence,
                id: format!("{sequence}"),
                captured_at,
                consistency: "crash".into(),
            });
        });
        vec![self.job(JobKind::Upload, vm, start, JobOutcome::Done)]
    }

    fn vault_answered(&self) -> Option<Timestamp> {
        self.site(|site| site.answered)
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

struct Run {
    work: Arc<Claimed>,
    clock: PausedClock,
    stop: watch::Sender<bool>,
    daemon: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn config(state: &Path, more: &str) -> Config {
    let vm = |name: &&str| {
        format!("[[vm]]\nname = \"{name}\"\npolicy = \"p\"\nsource.disks = [\"/{name}\"]\n")
    };
    let vms: String = NAMES.iter().map(vm).collect();
    let text = format!(
        "state = \"{}\"\ntimezone = \"UTC\"\n[vault]\nurl = \"s3://acme-dr\"\nkey = \"k\"\n[[policy]]\nname = \"p\"\n\
         rpo = \"1h\"\n{vms}{more}",
        state.display()
    );
    Config::parse(&text, Path::new("gateway.toml"), state).expect("good")
}

impl Run {
    fn begin(state: &Path, more: &str, setup: impl FnOnce(&mut Site)) -> Self {
        // A Friday, midnight.
        let start = "2026-11-20T00:00:00Z".parse().expect("a time");
        let clock = PausedClock {
            start,
            began: Instant::now(),
        };
        let (stop, came) = watch::channel(false);
        let interrupt = Interrupt::of(came);
        let mut site = Site {
            vms: vec![Known::default(); NAMES.len()],
            ..Site::default()
        };
        setup(&mut site);
        let work = Arc::new(Claimed {
            clock,
            interrupt: interrupt.clone(),
            site: Mutex::new(site),
        });
        let daemon = Daemon::new(
            Arc::new(config(state, more)),
            work.clone(),
            Arc::new(clock),
            Throttle::default(),
            Notifier::default(),
            interrupt,
        );
        let daemon = tokio::spawn(daemon.expect("begins").run());
        Run {
            work,
            clock,
            stop,
            daemon,
        }
    }

    /// How long it took to stop.
    async fn stop(self) -> Duration {
        let began = Instant::now();
        self.stop.send_replace(true);
        self.daemon.await.expect("no panic").expect("no failure");
        began.elapsed()
    }

    fn ages(&self) -> Vec<Duration> {
        let now = self.clock.now();
        self.work.site(|site| {
            let age = |vm: &Known| {
                let at = vm
                    .published
                    .as_ref()
                    .map_or(Timestamp::UNIX_EPOCH, |point| point.captured_at);
                Duration::try_from(now.duration_since(at)).unwrap_or_default()
            };
            site.vms.iter().map(age).collect()
        })
    }
}

fn live_status(state: &Path) -> Option<LiveStatus> {
    match presence(state) {
        Presence::Here(status) => status.map(|status| *status),
        Presence::Away(_) => None,
    }
}

fn count(state: &Path, kind: JobKind, outcome: JobOutcome) -> usize {
    let wanted = |job: &Job| job.kind == kind && job.outcome == outcome;
    newest(state, 10_000, wanted).expect("read").len()
}

#[tokio::test(start_paused = true)]
async fn every_vm_is_kept_at_its_target_and_every_job_is_logged() {
    let state = tempfile::tempdir().expect("a folder");
    let run = Run::begin(state.path(), "", |_| {});
    tokio::time::sleep(HOUR).await;
    for _ in 0..24 * 12 {
        tokio::time::sleep(5 * MINUTE).await;
        for age in run.ages() {
            assert!(age <= HOUR, "{age:?}");
        }
    }
    let captures = run.work.site(|site| site.captures.clone());
    assert_eq!(captures[0], (vec![0], true));
    // 25 hours of three VMs, a little more often than every hour.
    assert!((75..110).contains(&captures.len()), "{}", captures.len());
    assert!(run.stop().await < Duration::from_secs(1));
    let done = count(state.path(), JobKind::Capture, JobOutcome::Done);
    assert!(captures.len() - done <= 1, "{done}");
    assert!(count(state.path(), JobKind::Upload, JobOutcome::Done) >= done - 2);
}

#[tokio::test(start_paused = true)]
async fn one_vm_that_fails_however_it_may_stops_no_other_and_is_not_tried_all_the_time() {
    type Break = fn(&mut Site);
    let ways: [Break; 3] = [
        |site| site.failing = Some(1),
        |site| site.panicking = Some(1),
        |site| site.wordless = Some(1),
    ];
    for way in ways {
        let state = tempfile::tempdir().expect("a folder");
        let run = Run::begin(state.path(), "", way);
        tokio::time::sleep(12 * HOUR).await;
        let ages = run.ages();
        assert!(ages[0] <= HOUR && ages[2] <= HOUR, "{ages:?}");
        let tries = run
            .work
            .site(|site| site.captures.iter().filter(|(vms, _)| vms == &[1]).count());
        assert!((20..40).contains(&tries), "{tries}");
        let failed = count(state.path(), JobKind::Capture, JobOutcome::Failed);
        assert!(tries - failed <= 1, "{failed} of {tries}");
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn captures_go_on_while_the_uplink_is_down_and_a_restart_tries_what_failed_at_once() {
    let state = tempfile::tempdir().expect("a folder");
    let run = Run::begin(state.path(), "", |site| site.upload_fails = true);
    tokio::time::sleep(10 * HOUR).await;
    let (captures, uploads) = run.work.site(|site| (site.captures.len(), site.uploads));
    assert!((27..40).contains(&captures), "{captures}");
    // Each half hour after the first few: half of the target.
    assert!((20..28).contains(&uploads), "{uploads}");
    run.work.site(|site| site.upload_fails = false);
    tokio::time::sleep(3 * HOUR).await;
    assert!(
        run.ages().iter().all(|age| *age <= HOUR),
        "{:?}",
        run.ages()
    );
    run.work.site(|site| site.failing = Some(2));
    tokio::time::sleep(3 * HOUR).await;
    run.stop().await;
    let again = Run::begin(state.path(), "", |site| {
        site.failing = Some(2);
        // All but the one that fails are fresh.
        site.vms[0].captured_at = Some("2026-11-20T00:00:00Z".parse().expect("a time"));
        site.vms[1].captured_at = site.vms[0].captured_at;
    });
    tokio::time::sleep(MINUTE / 2).await;
    assert_eq!(
        again.work.site(|site| site.captures.clone()),
        [(vec![2], true)]
    );
    again.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_capture_that_the_vault_answered_ends_the_pause_of_uploads() {
    let state = tempfile::tempdir().expect("a folder");
    let run = Run::begin(state.path(), "", |site| site.upload_fails = true);
    tokio::time::sleep(10 * HOUR).await;
    let before = run.work.site(|site| {
        site.answers = true;
        (site.captures.len(), site.uploads)
    });
    tokio::time::sleep(10 * HOUR).await;
    let (captures, uploads) = run.work.site(|site| (site.captures.len(), site.uploads));
    let (captures, uploads) = (captures - before.0, uploads - before.1);
    // One after each capture, and none besides: it still fails.
    let uploads = uploads as usize;
    assert!(
        uploads + 2 >= captures && uploads <= captures + 25,
        "{uploads}, {captures}"
    );
    assert!(captures > 27, "{captures}");
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_asked_for_now_and_then_and_is_no_job() {
    let state = tempfile::tempdir().expect("a folder");
    let run = Run::begin(state.path(), "", |site| site.fenced = true);
    tokio::time::sleep(HOUR).await;
    let uploads = run.work.site(|site| site.uploads);
    assert!((100..140).contains(&uploads), "{uploads}");
    let jobs = newest(state.path(), 10_000, |job| job.kind == JobKind::Upload);
    assert_eq!(jobs.expect("read"), []);
    run.work.site(|site| site.fenced = false);
    tokio::time::sleep(10 * MINUTE).await;
    assert!(count(state.path(), JobKind::Upload, JobOutcome::Done) >= 3);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_broken_ends_the_daemon_with_a_failure() {
    let state = tempfile::tempdir().expect("a folder");
    let run = Run::begin(state.path(), "", |_| {});
    tokio::time::sleep(HOUR).await;
    run.work.site(|site| site.broken = true);
    let ended = tokio::time::timeout(2 * MINUTE, run.daemon).await;
    let error = ended.expect("ended").expect("no panic").expect_err("fails");
    assert_eq!(error.to_string(), "the state is broken");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_while_the_uplink_is_off() {
    let state = tempfile::tempdir().expect("a folder");
    let off = "[[uplink.window]]\nhours = \"00:00-06:00\"\ncap = \"off\"\n";
    let run = Run::begin(state.path(), off, |_| {});
    tokio::time::sleep(6 * HOUR - MINUTE).await;
    assert_eq!(run.work.site(|site| site.uploads), 0);
    assert!(run.work.site(|site| site.captures.len()) > 12);
    tokio::time::sleep(2 * HOUR).await;
    assert!(run.ages().iter().all(|age| *age <= HOUR));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_over_in_ten_seconds_also_where_a_job_does_not_hear() {
    let state = tempfile::tempdir().expect("a folder");
    let run = Run::begin(state.path(), "", |site| site.deaf = Some(0));
    tokio::time::sleep(MINUTE).await;
    assert!(run.work.site(|site| site.captures.len()) > 0);
    let took = run.stop().await;
    assert!(
        took > Duration::from_secs(5) && took < Duration::from_secs(10),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn others_see_what_it_knows() {
    let state = tempfile::tempdir().expect("a folder");
    let lock = RunLock::take(state.path()).expect("locked").expect("free");
    let run = Run::begin(state.path(), "[uplink]\ncap = \"8 Mbit/s\"\n", |site| {
        site.failing = Some(2)
    });
    tokio::time::sleep(90 * MINUTE).await;
    let status = live_status(state.path()).expect("it lives");
    assert_eq!(status.uplink, "8 Mbit/s");
    let vm = |place: usize| &status.vms[place];
    assert!(
        vm(0)
            .published
            .as_ref()
            .is_some_and(|point| point.sequence >= 1),
        "{status:?}"
    );
    assert_eq!(
        (vm(2).name.as_str(), vm(2).published.is_none()),
        ("c", true)
    );
    assert_eq!(vm(2).last_failure.as_deref(), Some("as asked"));
    let age = run.clock.now().duration_since(status.written_at);
    assert!(age <= SignedDuration::from_secs(30), "{age}");
    run.stop().await;
    drop(lock);
    assert_eq!(live_status(state.path()), None);
}

/// Real time: a program is run.
#[tokio::test]
async fn a_failing_vm_is_told_of() {
    let state = tempfile::tempdir().expect("a folder");
    let command = state.path().join("alert.sh");
    let script =
        "#!/bin/sh\necho \"$SPARESITE_VM $SPARESITE_ALERT $SPARESITE_ALERT_STATE\" >>\"$0.said\"\n";
    std::fs::write(&command, script).expect("written");
    std::fs::set_permissions(&command, PermissionsExt::from_mode(0o700)).expect("executable");
    // As an earlier daemon left it: b failed three times, and has never been synced for long.
    let mut log = crate::jobs::JobLog::open(state.path()).expect("opens");
    let at: Timestamp = "2026-11-19T23:59:59Z".parse().expect("a time");
    for _ in 0..3 {
        let job = Job::new(JobKind::Capture, Some("b"), at, at, JobOutcome::Failed);
        log.append(&job).expect("appended");
    }
    let alert = format!("[alert]\ncommand = \"{}\"\n", command.display());
    let run = Run::begin(state.path(), &alert, |_| {});
    let said = state.path().join("alert.sh.said");
    for _ in 0..300 {
        if said.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    run.stop().await;
    let said = std::fs::read_to_string(said).expect("said");
    assert_eq!(said, "b job-failing raised\n");
}
